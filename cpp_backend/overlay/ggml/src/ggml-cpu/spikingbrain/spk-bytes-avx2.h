#pragma once

// Tile products of many tokens of spike counts with weights that are signed bytes, or stand for such. AVX2 multiplies bytes only where one side has no sign,
// and adds pairs of products in 16 bits. Weights + 128 have none, but leave room for counts up to 64 only; moving signs instead takes an instruction
// for each token, on the ports that multiply. Counts are small: each 32 columns of four tokens take as many steps in 16 bits as their largest count leaves room
// for. The same integers either way; in float the operations of tile_sums, in the same order. Included inside the namespace of the instruction set.

#include "spk-unpacked-avx2.h"

// sum[t] += scale times (bytes + 128) times 32 columns of NT tokens, at s8[t] + at; STEPS of 4 columns fit in 16 bits
template <int NT, int STEPS>
SPK_INLINE void small_counts(spk_i * sum, const uint8_t (* codes)[64], const int8_t * const * s8, int64_t at, spk_s scale) {
    SPK_UNROLL for (int first = 0; first < 8; first += STEPS) {
        spk_h acc[NT];
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            acc[t] = h_start(0);
        }
        SPK_UNROLL for (int i = first; i < first + STEPS; ++i) {
            const spk_w x = w_load(codes[i]);
            SPK_UNROLL for (int t = 0; t < NT; ++t) {
                h_dot(acc[t], x, s8[t] + at + 4*i);
            }
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum[t] = h_scaled(acc[t], scale, sum[t]);
        }
    }
}

// any counts
template <int NT>
static __attribute__((noinline)) void large_counts(spk_i * sum, const uint8_t (* codes)[64], const ggml_spk_row * act, int64_t b, spk_s scale) {
    for (int t = 0; t < NT; ++t) {
        for (int i = 0; i < 8; ++i) {
            const spk_w x = w_load(codes[i]);
            spk_h acc = h_start(0);
            h_dot_signed(acc, w_flip(x), act[t].s8 + 32*b + 4*i);
            sum[t] = h_scaled(acc, scale, sum[t]);
        }
        const spk_i more = i_set(-16*act[t].bias[b]); // 128 times the counts
        const __m256i a = _mm256_srai_epi32(scale.a, 16), c = _mm256_srai_epi32(scale.b, 16); // both int16 of a row are its scale
        sum[t] = { _mm256_add_epi32(sum[t].a, _mm256_mullo_epi32(more.a, a)), _mm256_add_epi32(sum[t].b, _mm256_mullo_epi32(more.b, c)) };
    }
}

// sum[t] += scale times (bytes + 128) times block b of NT tokens, whose columns are at s8
template <int NT>
SPK_INLINE void bytes_block(spk_i * sum, const uint8_t (* codes)[64], const ggml_spk_row * act, const int8_t * const * s8, int64_t b, spk_s scale) {
    uint8_t most = act[0].most[b];
    SPK_UNROLL for (int t = 1; t < NT; ++t) {
        most = act[t].most[b] > most ? act[t].most[b] : most;
    }
    if (most <= 16) { // 4*2*255*16 fits in 16 bits
        small_counts<NT, 4>(sum, codes, s8, 32*b, scale);
    } else if (most <= 32) {
        small_counts<NT, 2>(sum, codes, s8, 32*b, scale);
    } else if (most <= 64) {
        small_counts<NT, 1>(sum, codes, s8, 32*b, scale);
    } else {
        large_counts<NT>(sum, codes, act, b, scale);
    }
}

// out [NT][SPK_ROWS] += blocks b0 .. b0 + n of NT tokens
template <class W, int NT>
static void bytes_tokens(const spk_unpacked & w, int64_t b0, int64_t n, const ggml_spk_row * act, float * out) {
    constexpr int N_BLOCK = W::GROUP/32;
    const spk_s one = { _mm256_set1_epi16(1), _mm256_set1_epi16(1) };
    const int8_t * s8[NT];
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        s8[t] = act[t].s8;
    }
    for (int64_t b = 0; b < n; b += N_BLOCK) {
        spk_i sum[NT];
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum[t] = i_set(16*row_bias<N_BLOCK>(act[t], b0 + b));
        }
        for (int64_t i = b; i < b + N_BLOCK; ++i) {
            bytes_block<NT>(sum, w.codes[i], act, s8, b0 + i, one);
        }
        const spk_f scale = f_load(w.scales[b]);
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            float * y = out + t*SPK_ROWS;
            f_store(y, f_fma(i_float(sum[t]), scale, f_load(y)));
        }
    }
}

// out [n_tok][SPK_ROWS]
template <class W>
static void bytes_sums(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, int n_tok, float * out) {
    memset(out, 0, n_tok*SPK_ROWS*sizeof(float));
    over_unpacked<W>(n, tile, scales, n_tok, store_unsigned, [&](auto count, const spk_unpacked & w, int64_t b0, int64_t n_block, int t) __attribute__((always_inline)) {
        bytes_tokens<W, count.N_TOK>(w, b0, n_block, act + t, out + t*SPK_ROWS);
    });
}
