#pragma once

// Tile products of many tokens with weights of 4 and 5 bits, of bytes with AVX-VNNI: unpacked once for all tokens of a call, 256 columns at a time, which
// stay in the first cache. In float the operations of tile_sums, in the same order. Unpacked for every four tokens, as in tile_sums, 4 bits take an eighth
// of the vector instructions, 5 bits more. Included inside the namespace of the instruction set.

#include "spk-sums.h"

static const int64_t SPK_UNPACKED_BLOCKS = 8; // of 32 columns

#ifdef SPK_VNNI
template <class W> constexpr bool SPK_UNPACKS = true;
#else
template <class W> constexpr bool SPK_UNPACKS = W::OFFSET > 0;
#endif
// tokens from which on this is faster: while weights are unpacked the memory is waited for, and with fewer tokens that is a larger part
template <class W> constexpr int SPK_UNPACK_FROM = W::OFFSET == 8 ? 32 : SPK_BATCH;

struct spk_unpacked {
    alignas(64) uint8_t codes[SPK_UNPACKED_BLOCKS][8][64]; // [block][step]: 4 columns of 16 rows
    alignas(64) float   scales[SPK_UNPACKED_BLOCKS][SPK_ROWS];
};

// out [NT][SPK_ROWS] += blocks b0 .. b0 + n of NT tokens
template <class W, int NT, bool Q8>
static void unpacked_tokens(const spk_unpacked & w, int64_t b0, int64_t n, const ggml_spk_row * act, float * out) {
    const int8_t * s8[NT];
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        s8[t] = act[t].s8 + 32*b0;
    }
    constexpr int N_BLOCK = Q8 ? 1 : W::GROUP/32;
    constexpr int STEPS   = SPK_CHAIN<W::OFFSET == 8 ? 4 : 5, 32>; // whose sums fit in a spk_h
    for (int64_t b = 0; b < n; b += N_BLOCK) {
        spk_i sum[NT];
        for (int j = 0; j < N_BLOCK; ++j) {
            SPK_UNROLL for (int first = 0; first < 8; first += STEPS) {
                spk_h acc[NT];
                SPK_UNROLL for (int t = 0; t < NT; ++t) {
                    acc[t] = h_start(0);
                }
                SPK_UNROLL for (int i = 0; i < STEPS; ++i) {
                    const spk_w x = w_load(w.codes[b + j][first + i]);
                    SPK_UNROLL for (int t = 0; t < NT; ++t) {
                        h_dot(acc[t], x, s8[t] + 32*(b + j) + 4*(first + i));
                    }
                }
                SPK_UNROLL for (int t = 0; t < NT; ++t) {
                    sum[t] = j == 0 && first == 0 ? h_sum(acc[t], row_bias<N_BLOCK>(act[t], b0 + b)*((W::OFFSET ? W::OFFSET : 128)/8)) : h_add(acc[t], sum[t]);
                }
            }
        }
        const spk_f scale = f_load(w.scales[b]);
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            float * y = out + t*SPK_ROWS;
            f_store(y, f_fma(i_float(sum[t]), Q8 ? f_scale(scale, act[t].scales[b0 + b]) : scale, f_load(y)));
        }
    }
}

template <int N> struct spk_count { static constexpr int N_TOK = N; };

// a tile, unpacked by put(codes, step), times n_tok tokens by tokens(spk_count of them, w, b0, n, the first)
template <class W, class Put, class Tokens>
SPK_INLINE void over_unpacked(int64_t n, const uint8_t * tile, const float * scales, int n_tok, Put && put, Tokens && tokens) {
    spk_unpacked w;
    for (int64_t b0 = 0; b0 < n/32; b0 += SPK_UNPACKED_BLOCKS) {
        const int64_t n_block = n/32 - b0 < SPK_UNPACKED_BLOCKS ? n/32 - b0 : SPK_UNPACKED_BLOCKS;
        for (int64_t b = 0; b < n_block; ++b) {
            const uint8_t * block = tile + spk_block_at(b0 + b, W::BLOCK, W::TILE_SCALES);
            prefetch_ahead<W, SPK_BATCH>(block, b);
            W::steps(block, [&](int step, spk_w x) __attribute__((always_inline)) { put(w.codes[b][step], x); });
            f_store(w.scales[b], W::tile_scales(tile, scales, n/32, b0 + b));
        }
        int t = 0;
        for (; t + SPK_NT <= n_tok; t += SPK_NT) {
            tokens(spk_count<SPK_NT>(), w, b0, n_block, t);
        }
        for (; t < n_tok; ++t) {
            tokens(spk_count<1>(), w, b0, n_block, t);
        }
    }
}

// out [n_tok][SPK_ROWS]
template <class W, bool Q8>
static void unpacked_sums(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, int n_tok, float * out) {
    memset(out, 0, n_tok*SPK_ROWS*sizeof(float));
    over_unpacked<W>(n, tile, scales, n_tok, w_store, [&](auto count, const spk_unpacked & w, int64_t b0, int64_t n_block, int t) __attribute__((always_inline)) {
        unpacked_tokens<W, count.N_TOK, Q8>(w, b0, n_block, act + t, out + t*SPK_ROWS);
    });
}
