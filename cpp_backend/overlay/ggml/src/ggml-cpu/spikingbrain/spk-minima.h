#pragma once

// What minima of weights add to a tile product (MINIMA in spk-weights.h): of each 32 columns, and of codes that are centred for the sums, scale and minimum
// make one number, which is multiplied with the sum of the activations. The same operations for one token as for many.
// Included inside the namespace of the instruction set.

#include "spk-weights.h"

// sums of activations of N blocks from b on, with the scale where they have one; n: columns
template <bool Q8, int N>
SPK_INLINE void sums_of_blocks(float * to, const ggml_spk_row & act, int64_t n, int64_t b) {
    for (int i = 0; i < N; ++i) {
        to[i] = Q8 ? act.scaled[b + i] : (float) act.sums[n/16 + b + i];
    }
}

// out [n_tok][SPK_ROWS] += of N blocks from b0 on
template <class W, bool Q8, int N>
SPK_INLINE void add_minima_of(int64_t n, const uint8_t * tile, const ggml_spk_row * act, int n_tok, int64_t b0, float * out) {
    alignas(64) float minima[N][SPK_ROWS];
    for (int i = 0; i < N; ++i) {
        const uint8_t * scales = tile + spk_scales_at(b0 + i, n/32, W::BLOCK, W::TILE_SCALES);
        f_store(minima[i], f_fma(f_load_half(scales), f_set(W::OFFSET), f_load_half(scales + 2*SPK_ROWS)));
    }
    for (int t = 0; t < n_tok; ++t) {
        float sums[N];
        sums_of_blocks<Q8, N>(sums, act[t], n, b0);
        spk_f y = f_load(out + t*SPK_ROWS);
        SPK_UNROLL for (int i = 0; i < N; ++i) {
            y = f_fma(f_load(minima[i]), f_set(sums[i]), y);
        }
        f_store(out + t*SPK_ROWS, y);
    }
}

template <class W, bool Q8>
static void add_minima(int64_t n, const uint8_t * tile, const ggml_spk_row * act, int n_tok, float * out) {
    int64_t b = 0;
    for (; b + 8 <= n/32; b += 8) {
        add_minima_of<W, Q8, 8>(n, tile, act, n_tok, b, out);
    }
    for (; b < n/32; ++b) {
        add_minima_of<W, Q8, 1>(n, tile, act, n_tok, b, out);
    }
}

// of a block of a row as it is on disk
template <class W>
SPK_INLINE float row_minimum(const uint8_t * q) { return half_to_float(q + 2) + W::OFFSET*half_to_float(q); }

template <class W, bool Q8>
SPK_INLINE float row_minima(int64_t n, const uint8_t * row, const ggml_spk_row & act) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n/32; ++b) {
        float s;
        sums_of_blocks<Q8, 1>(&s, act, n, b);
        sum += row_minimum<W>(row + b*W::DISK)*s;
    }
    return sum;
}
