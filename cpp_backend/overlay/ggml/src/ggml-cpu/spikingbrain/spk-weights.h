#pragma once

// The weight types, one struct each. Interleaved: BLOCK bytes per 32 columns of 16 rows (spk-layout.h);
// on disk: DISK bytes per 32 columns of one row. GROUP columns share a scale. TILE_SCALES: their bytes per block of a tile.
// Stored are codes + OFFSET. steps(): f(i, step i) for the 8 steps of a block.

#include "spk-simd.h"

#define SPK_STEPS _Pragma("GCC unroll 8")

// int8 column of a block of 32 whose bytes are at p + 64*(i/4)
static void column_of_bytes(int32_t * code, const uint8_t * block, int i) {
    for (int r = 0; r < SPK_ROWS; ++r) {
        code[r] = (int8_t) block[i/4*64 + r*4 + i % 4];
    }
}

static void column_of_nibbles(int32_t * code, const uint8_t * block, int i) {
    const int shift = i/4 % 2*4;
    for (int r = 0; r < SPK_ROWS; ++r) {
        code[r] = block[i/8*64 + r*4 + i % 4] >> shift & 15;
    }
}

struct weights_i8 {
    static constexpr int  GROUP = 128, BLOCK = 512, DISK = 32, TILE_SCALES = 0, OFFSET = 0;
    static constexpr bool MINIMA = false;

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        SPK_STEPS for (int i = 0; i < 8; ++i) {
            f(i, w_signed(block + 64*i));
        }
    }
    SPK_INLINE spk_f tile_scales(const uint8_t *, const float * scales, int64_t, int64_t b) { return f_load(scales + b/4*SPK_ROWS); }
    SPK_INLINE void  column(int32_t * code, const uint8_t * block, int i) { column_of_bytes(code, block, i); }

    SPK_INLINE spk_p row_block(const uint8_t * q) { return p_signed(q); }
    SPK_INLINE int   code(const uint8_t * q, int i) { return (int8_t) q[i]; }
    SPK_INLINE float row_scale(const uint8_t *, const float * scales, int64_t g) { return scales[g]; }
};

// The types of ggml: on disk fp16 scale, minimum where there are, fifth bits, codes. MINIMA: a weight is scale*code + minimum with codes from 0 on; in sums
// it is that of the type without, whose codes are centred, and spk-minima.h adds (minimum + OFFSET*scale) times the sum of activations.
template <int BLOCK_, int CODES, int OFFSET_, bool MINIMA_ = false>
struct weights_blocks {
    static constexpr int  GROUP = 32, BLOCK = BLOCK_, OFFSET = OFFSET_, AT = MINIMA_ ? 4 : 2, DISK = AT + CODES, TILE_SCALES = AT*SPK_ROWS;
    static constexpr bool MINIMA = MINIMA_;

    SPK_INLINE spk_f tile_scales(const uint8_t * tile, const float *, int64_t n_block, int64_t b) {
        return f_load_half(tile + spk_scales_at(b, n_block, BLOCK, TILE_SCALES));
    }
    SPK_INLINE float row_scale(const uint8_t * q, const float *, int64_t) { return half_to_float(q); }
};

struct weights_q8_0 : weights_blocks<512, 32, 0> {
    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        weights_i8::steps(block, f);
    }
    SPK_INLINE void  column(int32_t * code, const uint8_t * block, int i) { column_of_bytes(code, block, i); }

    SPK_INLINE spk_p row_block(const uint8_t * q) { return p_signed(q + AT); }
    SPK_INLINE int   code(const uint8_t * q, int i) { return (int8_t) q[AT + i]; }
};

template <bool MINIMA>
struct weights_4bit : weights_blocks<256, 16, 8, MINIMA> {
    using weights_blocks<256, 16, 8, MINIMA>::AT;

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        SPK_STEPS for (int i = 0; i < 4; ++i) {
            spk_w lo, hi;
            w_nibbles(block + 64*i, lo, hi);
            f(2*i,     lo);
            f(2*i + 1, hi);
        }
    }
    SPK_INLINE void  column(int32_t * code, const uint8_t * block, int i) {
        column_of_nibbles(code, block, i);
        for (int r = 0; r < SPK_ROWS; ++r) {
            code[r] -= 8;
        }
    }

    SPK_INLINE spk_p row_block(const uint8_t * q) { return p_4bit(q + AT); }
    SPK_INLINE int   code(const uint8_t * q, int i) { return (q[AT + i % 16] >> i/16*4 & 15) - 8; }
};
typedef weights_4bit<false> weights_q4_0;
typedef weights_4bit<true>  weights_q4_1;

// codes stand for values of a table
struct weights_iq4_nl : weights_blocks<256, 16, 0> {
    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        weights_q4_0::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) { f(step, w_value(w)); });
    }
    SPK_INLINE void  column(int32_t * code, const uint8_t * block, int i) {
        column_of_nibbles(code, block, i);
        for (int r = 0; r < SPK_ROWS; ++r) {
            code[r] = SPK_VALUES[code[r]];
        }
    }

    SPK_INLINE spk_p row_block(const uint8_t * q) { return p_value(q + AT); }
    SPK_INLINE int   code(const uint8_t * q, int i) { return SPK_VALUES[q[AT + i % 16] >> i/16*4 & 15]; }
};

template <bool MINIMA>
struct weights_5bit : weights_blocks<320, 20, 16, MINIMA> {
    using weights_blocks<320, 20, 16, MINIMA>::AT;

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        SPK_STEPS for (int i = 0; i < 4; ++i) {
            spk_w lo, hi;
            w_nibbles(block + 64*i, lo, hi);
            f(2*i,     w_fifth_bit(lo, block + 256 + 16*i));
            f(2*i + 1, w_fifth_bit(hi, block + 256 + 16*i + 8));
        }
    }
    SPK_INLINE void  column(int32_t * code, const uint8_t * block, int i) {
        column_of_nibbles(code, block, i);
        for (int r = 0; r < SPK_ROWS; ++r) {
            const int bit = 4*r + i % 4;
            code[r] += (block[256 + i/4*8 + bit/8] >> bit % 8 & 1)*16 - 16;
        }
    }

    SPK_INLINE spk_p row_block(const uint8_t * q) { return p_5bit(q + AT + 4, q + AT); }
    SPK_INLINE int   code(const uint8_t * q, int i) { return (q[AT + 4 + i % 16] >> i/16*4 & 15) + (q[AT + i/8] >> i % 8 & 1)*16 - 16; }
};
typedef weights_5bit<false> weights_q5_0;
typedef weights_5bit<true>  weights_q5_1;

// of the blocks of a group
template <int N_BLOCK>
SPK_INLINE int32_t row_bias(const ggml_spk_row & row, int64_t b) {
    int32_t bias = row.bias[b];
    for (int j = 1; j < N_BLOCK; ++j) {
        bias += row.bias[b + j];
    }
    return bias;
}

// Asks for the weights that lie SPK_AHEAD bytes on, where NT tokens go over them together, and for those SPK_AHEAD_SECOND bytes on, to lie in the second cache.
template <int NT>
SPK_INLINE void prefetch_line(const uint8_t * p) {
    __builtin_prefetch(p + SPK_AHEAD<NT>);
    if (SPK_AHEAD_SECOND > 0) {
        __builtin_prefetch(p + SPK_AHEAD_SECOND, 0, 2);
    }
}

// from block b on, which lies at `block`
template <class W, int NT>
SPK_INLINE void prefetch_ahead(const uint8_t * block, int64_t b) {
    if (SPK_AHEAD<NT> == 0) {
        return;
    }
    SPK_UNROLL for (int i = 0; i < W::BLOCK; i += 64) {
        prefetch_line<NT>(block + i);
    }
    if (W::TILE_SCALES > 0 && b % 2) {
        prefetch_line<NT>(block + W::BLOCK);
    }
}
