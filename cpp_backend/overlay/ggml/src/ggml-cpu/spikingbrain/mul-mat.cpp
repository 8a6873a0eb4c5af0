#include "mul-mat-tile.h"
#include "spk-buffer.h"
#include "spk-chunks.h"
#include "spk-runs.h"
#include "ggml-backend-impl.h"
#include "vec.h"

#include <algorithm>
#include <cstring>

// Threads take chunks of tiles (16 rows each; spk-runs.h) of a part of the tokens from a shared counter (spk-chunks.h), without a barrier before
// the work of one token. A chunk goes through its tokens, isa.n_tok at a time, while its weights stay in the second-level cache. Its results lie
// side by side in a buffer until what follows the product is done to them.
// Rows as they are on disk are interleaved on the way when there are enough tokens to pay for it.

namespace {

constexpr int64_t MIN_TO_PACK = 8;        // tokens
constexpr int64_t PART        = 64;       // tokens, where chunks of all would be few or small

// sizes of the operands, and of the work
struct mul_mat_sizes {
    ggml_type type;
    int64_t   n, m, n_tok;
    int64_t   n_tiles, n_groups;
    size_t    row_size, tile_size, act_size;
    bool      interleaved; // in memory already
    bool      pack;        // to be interleaved on the way
    int64_t   n_batches;   // of tokens that are packed side by side
    bool      has_rest;
    int64_t   most;        // tiles of a chunk
    int64_t   part;        // tokens
    int       width;       // tokens side by side in what the rest is multiplied with

    explicit mul_mat_sizes(const ggml_tensor * dst) {
        const ggml_tensor * w   = dst->src[0];
        const ggml_tensor * act = dst->src[1];

        type  = w->type;
        n     = w->ne[0];
        m     = w->ne[1];
        n_tok = act->ne[1];

        n_tiles   = (m + SPK_ROWS - 1)/SPK_ROWS;
        n_groups  = n/128;
        row_size  = ggml_row_size(type, n);
        tile_size = SPK_ROWS*row_size;
        act_size  = act->nb[1];

        interleaved = w->buffer && w->buffer->buft == spk_buffer_type();
        pack        = !interleaved && n_tok >= MIN_TO_PACK;
        n_batches   = (interleaved || pack) && spk_get_isa().pack_batch ? n_tok/SPK_BATCH : 0;
        has_rest    = dst->src[3] && ggml_nelements(dst->src[3]) > 0;

        part  = std::max<int64_t>(1, pack ? n_tok : std::min(n_tok, PART)); // no tokens: none is asked for its logits
        most  = spk_most_tiles(tile_size, n_tiles, n_tok);
        width = n_tok == 1 ? 1 : SPK_BATCH;
    }

    int64_t n_parts() const { return (n_tok + part - 1)/part; }

    // per thread: interleaved tiles of a chunk, their scales (I8), results of isa.n_tok tokens
    size_t pack_size()   const { return pack ? GGML_PAD(most*tile_size, 64) : 0; }
    size_t scales_size() const { return type == GGML_TYPE_I8 ? most*n_groups*SPK_ROWS*sizeof(float) : 0; }
    size_t results_at()  const { return GGML_PAD(pack_size() + scales_size(), 64); }
    size_t thread_size() const { return GGML_PAD(results_at() + std::min<int64_t>(spk_get_isa().n_tok, n_tok)*most*SPK_ROWS*sizeof(float), 64) + 64; }

    // batches of tokens, [n_batches][n/32]: shared, or, where a barrier would cost more, per thread for one
    size_t batch_size()   const { return n/32*spk_get_isa().batch_block; }
    size_t batches_size() const { return n_batches*batch_size(); }
    bool   own_batch()    const { return n_batches == 1; }

    // the activations of all tokens, [batch][n][width], for the weights' rest: shared, or per thread for one token
    size_t spread_size() const { return has_rest ? (n_tok + width - 1)/width*n*width*sizeof(int32_t) : 0; }
    bool   own_spread()  const { return n_tok == 1; }

    // of n_threads: where the batches, the spread activations and the end lie
    size_t batches_at(int n_threads) const { return n_threads*thread_size(); }
    size_t spread_at (int n_threads) const { return batches_at(n_threads) + (own_batch()  ? n_threads : 1)*batches_size(); }
    size_t end_at    (int n_threads) const { return spread_at (n_threads) + (own_spread() ? n_threads : 1)*spread_size(); }
};

struct mul_mat {
    const mul_mat_sizes sizes;
    const spk_product product;
    const uint8_t * w;
    const char    * act;
    uint8_t       * spread;
    uint8_t       * batches;
    const float   * bias;     // of rows, may be NULL
    const float   * residual; // as y, may be NULL
    bool            relu;
    const float   * gate;     // as y, may be NULL
    float         * y;
    uint8_t       * buf;    // this thread's

    const spk_isa & isa    = product.isa;
    const float   * scales = product.scales;

    int n_rows(int64_t tile) const {
        return (int) std::min<int64_t>(SPK_ROWS, sizes.m - tile*SPK_ROWS);
    }

    void * batch(int64_t i) const {
        return batches + i*sizes.batch_size();
    }

    void get_tokens(ggml_spk_row * tokens, int64_t t0, int n_tok) const {
        for (int t = 0; t < n_tok; ++t) {
            tokens[t] = ggml_spk_row_get(act + (t0 + t)*sizes.act_size, sizes.n);
        }
    }

    void pack_batch(int64_t i) const {
        ggml_spk_row tokens[SPK_BATCH];
        get_tokens(tokens, i*SPK_BATCH, SPK_BATCH);
        isa.pack_batch(batch(i), sizes.type, sizes.n, tokens);
    }

    uint8_t * spread_of(int64_t t0) const { return spread + t0/sizes.width*product.spread_size(); }

    void spread_tokens(int64_t t0) const {
        ggml_spk_row tokens[SPK_BATCH];
        const int n_tok = (int) std::min<int64_t>(sizes.width, sizes.n_tok - t0);
        get_tokens(tokens, t0, n_tok);
        product.spread(spread_of(t0), tokens, n_tok);
    }

    // what follows the product: n rows from r0 on of a token's results become those of y. A loop each: in one for all of them the compiler
    // loads through a mask what is not there, and on a Zen 4 each such load at an address that does not exist takes 100 cycles
    void finish(float * result, int64_t r0, int64_t n, int64_t t) const {
        const int64_t at = t*sizes.m + r0;
        for (int64_t r = 0; bias && r < n; ++r) {
            result[r] += bias[r0 + r];
        }
        for (int64_t r = 0; relu && r < n; ++r) {
            result[r] = result[r] > 0.0f ? result[r] : 0.0f;
        }
        for (int64_t r = 0; residual && r < n; ++r) {
            y[at + r] = result[r] + residual[at + r];
        }
        if (gate) {
            ggml_vec_swiglu_f32(n, y + at, gate + at, residual ? y + at : result);
        } else if (!residual) {
            memcpy(y + at, result, n*sizeof(float));
        }
    }

    // asks for the scales of a chunk that this thread will likely take next, where all of them are read before its first weights
    void prefetch_scales(int64_t tile0, int64_t n_tiles) const {
        const int64_t first = tile0*SPK_ROWS, last = std::min((tile0 + n_tiles)*SPK_ROWS, sizes.m);
        for (int64_t i = first*sizes.n_groups; scales && !product.interleaved_scales && i < last*sizes.n_groups; i += 64/sizeof(float)) {
            __builtin_prefetch(scales + i, 0, 2);
        }
    }

    // tiles tile0 .. tile1 times tokens first .. last
    void run_chunk(int64_t tile0, int64_t tile1, int64_t first, int64_t last) const {
        uint8_t * packed        = buf;
        float   * packed_scales = (float *) (buf + sizes.pack_size());
        float   * results       = (float *) (buf + sizes.results_at());
        const int64_t stride    = (tile1 - tile0)*SPK_ROWS;
        const bool by_tile      = sizes.interleaved || sizes.pack;
        const float * ready     = scales && by_tile == product.interleaved_scales ? scales + tile0*SPK_ROWS*sizes.n_groups : packed_scales;

        for (int64_t i = tile0; i < tile1; ++i) {
            if (sizes.pack) {
                spk_pack_tile(sizes.type, packed + (i - tile0)*sizes.tile_size, w + i*sizes.tile_size, sizes.n, n_rows(i));
            }
            if (scales && by_tile != product.interleaved_scales) {
                (by_tile ? spk_pack_scales : spk_unpack_scales)(packed_scales + (i - tile0)*sizes.n_groups*SPK_ROWS, scales + i*SPK_ROWS*sizes.n_groups, sizes.n_groups, n_rows(i));
            }
        }

        for (int64_t t0 = first; t0 < last; t0 += isa.n_tok) {
            const int n_tok = (int) std::min<int64_t>(isa.n_tok, last - t0);
            ggml_spk_row tokens[SPK_MOST_TOKENS];
            get_tokens(tokens, t0, n_tok);
            const void * packed_tokens = t0/SPK_BATCH < sizes.n_batches ? batch(t0/SPK_BATCH) : nullptr;
            for (int64_t i = tile0; i < tile1; ++i) {
                const uint8_t * tile = sizes.pack ? packed + (i - tile0)*sizes.tile_size : w + i*sizes.tile_size;
                const float   * tile_scales = ready + (i - tile0)*sizes.n_groups*SPK_ROWS;
                product.run_tile(tile, tile_scales, by_tile, i*SPK_ROWS, n_rows(i), tokens, n_tok, packed_tokens, spread_of(t0), results + (i - tile0)*SPK_ROWS, stride);
            }
            for (int t = 0; t < n_tok; ++t) {
                finish(results + t*stride, tile0*SPK_ROWS, std::min(tile1*SPK_ROWS, sizes.m) - tile0*SPK_ROWS, t0 + t);
            }
        }
    }
};

} // namespace

size_t spk_mul_mat_work_size(const ggml_tensor * dst, int n_tasks) {
    const mul_mat_sizes sizes(dst);
    return 64 + sizes.end_at(n_tasks);
}

void spk_mul_mat(const ggml_compute_params * params, ggml_tensor * dst) {
    const mul_mat_sizes sizes(dst);
    const int ith = params->ith, nth = params->nth;
    uint8_t * work = (uint8_t *) GGML_PAD((uintptr_t) params->wdata, 64);

    const mul_mat mm = {
        sizes, spk_product::of(dst, sizes.width), (const uint8_t *) dst->src[0]->data, (const char *) dst->src[1]->data,
        work + sizes.spread_at(nth) + (sizes.own_spread() ? ith*sizes.spread_size() : 0),
        work + sizes.batches_at(nth) + (sizes.own_batch() ? ith*sizes.batches_size() : 0),
        dst->src[5] ? (const float *) dst->src[5]->data : nullptr, dst->src[6] ? (const float *) dst->src[6]->data : nullptr,
        ggml_get_op_params_i32(dst, GGML_SPK_MUL_MAT_RELU) != 0, dst->src[7] ? (const float *) dst->src[7]->data : nullptr,
        (float *) dst->data, work + ith*sizes.thread_size(),
    };

    for (int64_t i = sizes.own_batch() ? 0 : ith; i < sizes.n_batches; i += nth) {
        mm.pack_batch(i);
    }
    for (int64_t t0 = sizes.own_spread() ? 0 : ith*sizes.width; sizes.has_rest && t0 < sizes.n_tok; t0 += nth*sizes.width) {
        mm.spread_tokens(t0);
    }
    if (sizes.n_batches > 1 || (sizes.has_rest && !sizes.own_spread())) {
        ggml_barrier(params->threadpool);
    }

    const int64_t n_parts = sizes.n_parts();
    spk_runs chunk(sizes.n_tiles, nth, SPK_LEAST_SIZE/sizes.tile_size, sizes.most, n_parts);
    const int64_t n_items = chunk.count()*n_parts;
    const spk_chunks items(params, n_items);
    for (int64_t i = items.take(); i < n_items; i = items.take()) {
        chunk.go_to(i/n_parts);
        const int64_t token = i % n_parts*sizes.part, end = chunk.end(), size = end - chunk.begin;
        mm.prefetch_scales(chunk.begin + nth*size, size);
        mm.run_chunk(chunk.begin, end, token, std::min(token + sizes.part, sizes.n_tok));
    }
}
