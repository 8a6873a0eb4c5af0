#pragma once

// What a product with one matrix (mul-mat.cpp) and one with chosen experts (mul-mat-id.cpp) share: a tile times the tokens that a kernel
// is given together, with what outliers among counts and INT8 codes add.

#include "spk-isa.h"
#include "spk-buffer.h"
#include "spk-layout.h"
#include "ggml-backend-impl.h"

#include <algorithm>
#include <cstring>

// Bytes of weights of a run that a thread takes (spk-runs.h). The tokens go over them together, out of the second cache; one token leaves nothing
// there, and what it asked for beyond the end of a run is lost.
constexpr int64_t SPK_LEAST_SIZE = 32*1024, SPK_MOST_SIZE = 256*1024, SPK_MOST_OF_ONE = 1024*1024;

inline int64_t spk_most_tiles(int64_t tile_size, int64_t n_tiles, int64_t n_tok) {
    return std::max<int64_t>(1, std::min((n_tok == 1 ? SPK_MOST_OF_ONE : SPK_MOST_SIZE)/tile_size, n_tiles));
}

struct spk_product {
    const spk_isa & isa;
    ggml_type       type;
    int64_t         n;
    int             width;      // tokens side by side in what the rest is multiplied with: 1 or SPK_BATCH
    const float   * scales;     // I8, [rows][n/128], else NULL
    bool            interleaved_scales; // in memory already: [rows/16][n/128][16]
    const int32_t * rest_index; // of INT8 codes, in order; NULL: there are none
    const int16_t * rest_value;
    int64_t         n_rest;

    // of GGML_OP_SPK_MUL_MAT or GGML_OP_SPK_MUL_MAT_ID
    static spk_product of(const ggml_tensor * dst, int width) {
        const ggml_tensor * w = dst->src[0], * scales = dst->src[2], * index = dst->src[3], * value = dst->src[4];
        const bool rest = index && ggml_nelements(index) > 0;
        return { spk_get_isa(), w->type, w->ne[0], width, scales ? (const float *) scales->data : nullptr, scales && scales->buffer && scales->buffer->buft == spk_buffer_type(),
            rest ? (const int32_t *) index->data : nullptr, rest ? (const int16_t *) value->data : nullptr, rest ? ggml_nelements(index) : 0 };
    }

    // the activations of up to `width` tokens, [n][width]: counts, or values with GGML_SPK_Q8; zeros for missing tokens
    size_t spread_size() const { return n*width*sizeof(int32_t); }

    void spread(void * dst, const ggml_spk_row * tokens, int n_tok) const {
        int32_t * counts = (int32_t *) dst;
        float   * values = (float *) dst;
        if (n_tok < width) {
            memset(dst, 0, spread_size());
        }
        for (int t = 0; t < n_tok; ++t) {
            const ggml_spk_row & row = tokens[t];
            if (row.encoding == GGML_SPK_Q8) {
                for (int64_t i = 0; i < n; ++i) {
                    values[i*width + t] = row.scales[i/32]*row.s8[i];
                }
                continue;
            }
            for (int64_t i = 0; i < n; ++i) {
                counts[i*width + t] = row.s8[i];
            }
            for (int o = 0; o < row.n_outliers; ++o) {
                counts[row.outliers[o].index*width + t] += row.outliers[o].excess;
            }
        }
    }

    // out[t*stride + r]: the tile whose first row is `row` of the matrix times n_tok tokens; tile_scales, batch: as mul_tile and mul_rows
    // take them. x: where there is a rest, what `spread` made of the tokens, `width` by `width`
    void run_tile(const uint8_t * tile, const float * tile_scales, bool by_tile, int64_t row, int n_rows,
                  const ggml_spk_row * tokens, int n_tok, const void * batch, const void * x, float * out, int64_t stride) const {
        const bool outliers = std::any_of(tokens, tokens + n_tok, [](const ggml_spk_row & t) { return t.n_outliers > 0; });

        double corr[SPK_MOST_TOKENS*SPK_ROWS];
        if (outliers || rest_index) {
            memset(corr, 0, n_tok*SPK_ROWS*sizeof(double));
        }
        for (int t = 0; outliers && t < n_tok; ++t) {
            if (tokens[t].n_outliers > 0) {
                (by_tile ? isa.tile_outliers : isa.rows_outliers)(type, n, tile, tile_scales, n_rows, &tokens[t], corr + t*SPK_ROWS);
            }
        }
        for (int t = 0; rest_index && t < n_tok; t += width) {
            add_rest(row, n_rows, (const char *) x + t/width*spread_size(), (ggml_spk_encoding) tokens[0].encoding, std::min(width, n_tok - t), corr + t*SPK_ROWS);
        }
        const double * added = outliers || rest_index ? corr : nullptr;
        if (by_tile) {
            isa.mul_tile(type, n, tile, tile_scales, tokens, batch, n_tok, added, out, stride, n_rows);
        } else {
            isa.mul_rows(type, n, tile, tile_scales, tokens, n_tok, added, out, stride, n_rows);
        }
    }

private:
    // corr[t][r] of a tile: what codes beyond int8 add
    void add_rest(int64_t row, int n_rows, const void * x, ggml_spk_encoding encoding, int n_tok, double * corr) const {
        const int32_t * index = std::lower_bound(rest_index, rest_index + n_rest, row*n, [](int32_t a, int64_t b) { return a < b; });
        for (int r = 0; r < n_rows; ++r) {
            const int64_t first = (row + r)*n;
            const int32_t * end = index;
            while (end < rest_index + n_rest && *end >= first && *end < first + n) { // never outside, even if a file is not sorted
                ++end;
            }
            double sum[SPK_BATCH] = {};
            const int64_t in_tile = interleaved_scales ? (row + r) % SPK_ROWS : 0;
            const float * own = interleaved_scales ? scales + (row + r - in_tile)*(n/128) + in_tile : scales + first/128;
            isa.add_rest(index, rest_value + (index - rest_index), end - index, first, own, interleaved_scales ? SPK_ROWS : 1, x, encoding, width, sum);
            for (int t = 0; t < n_tok; ++t) {
                corr[t*SPK_ROWS + r] += sum[t];
            }
            index = end;
        }
    }
};
