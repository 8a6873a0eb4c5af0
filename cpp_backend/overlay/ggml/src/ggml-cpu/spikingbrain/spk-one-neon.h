#pragma once

// Tile products of one token with SDOT: what decoding does. A tile is read from its first byte to its last, four registers by one
// instruction, in assembly: compilers load them one by one and calculate each address. 16 rows are four sums in integers, added to in
// turn, since not every processor adds to the same sum in each cycle; what is loaded is not used at once, for those that wait. In float the operations of spk-sums-neon.h, in the same order.
// Included inside the namespace of the instruction set.

#include "spk-mmla-neon.h"

// four sums += rows v`a` .. v`d` times columns i of x
#define SPK_DOT_ROWS(a, b, c, d, i)                                                                                                   \
        "sdot %[s0].4s, v" #a ".16b, %[x].4b[" #i "]\n\t"                                                                             \
        "sdot %[s1].4s, v" #b ".16b, %[x].4b[" #i "]\n\t"                                                                             \
        "sdot %[s2].4s, v" #c ".16b, %[x].4b[" #i "]\n\t"                                                                             \
        "sdot %[s3].4s, v" #d ".16b, %[x].4b[" #i "]\n\t"

// 64 bytes of the tile, which moves on
#define SPK_LOAD_ROWS(a, d) "ld1 {v" #a ".16b-v" #d ".16b}, [%[at]], #64\n\t"

// two steps in the nibbles of v`a` .. v`d`, columns i and j of x
#define SPK_DOT_NIBBLES(a, b, c, d, i, j)                                                                                             \
        "and  v24.16b, v" #a ".16b, %[low].16b\n\t"                                                                                  \
        "and  v25.16b, v" #b ".16b, %[low].16b\n\t"                                                                                  \
        "and  v26.16b, v" #c ".16b, %[low].16b\n\t"                                                                                  \
        "and  v27.16b, v" #d ".16b, %[low].16b\n\t"                                                                                  \
        "ushr v" #a ".16b, v" #a ".16b, #4\n\t"                                                                                      \
        "ushr v" #b ".16b, v" #b ".16b, #4\n\t"                                                                                      \
        "ushr v" #c ".16b, v" #c ".16b, #4\n\t"                                                                                      \
        "ushr v" #d ".16b, v" #d ".16b, #4\n\t"                                                                                      \
        SPK_DOT_ROWS(24, 25, 26, 27, i)                                                                                               \
        SPK_DOT_ROWS(a, b, c, d, j)

struct one_sums { int32x4_t v[4]; };

// sums += 16 columns, x, of the block at `at`, which moves on
template <class W>
SPK_INLINE void one_half(one_sums & s, const uint8_t * & at, int8x16_t x) {
    if constexpr (W::OFFSET > 0) {
        asm volatile(SPK_LOAD_ROWS(16, 19) SPK_LOAD_ROWS(20, 23) SPK_DOT_NIBBLES(16, 17, 18, 19, 0, 1) SPK_DOT_NIBBLES(20, 21, 22, 23, 2, 3)
            : [s0] "+w" (s.v[0]), [s1] "+w" (s.v[1]), [s2] "+w" (s.v[2]), [s3] "+w" (s.v[3]), [at] "+r" (at)
            : [x] "w" (x), [low] "w" (vdupq_n_u8(15)) : "memory", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27");
    } else {
        asm volatile(SPK_LOAD_ROWS(16, 19) SPK_LOAD_ROWS(20, 23) SPK_DOT_ROWS(16, 17, 18, 19, 0) SPK_LOAD_ROWS(16, 19) SPK_DOT_ROWS(20, 21, 22, 23, 1)
            SPK_LOAD_ROWS(20, 23) SPK_DOT_ROWS(16, 17, 18, 19, 2) SPK_DOT_ROWS(20, 21, 22, 23, 3)
            : [s0] "+w" (s.v[0]), [s1] "+w" (s.v[1]), [s2] "+w" (s.v[2]), [s3] "+w" (s.v[3]), [at] "+r" (at)
            : [x] "w" (x) : "memory", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23");
    }
}

template <class W>
struct one_token {
    static constexpr bool THERE = W::BLOCK == 512 || W::OFFSET == 8; // fifth bits and tables take other instructions

    const uint8_t * at;     // of the tile
    const float   * scales; // I8: of the tile's groups
    const int8_t  * x;
    const int32_t * bias;
    const float   * x_scales;

    SPK_MEMBER void block(one_sums & s) {
        register int8x16_t x0 asm("v28"), x1 asm("v29");
        asm volatile("ld1 {v28.16b-v29.16b}, [%[at]], #32" : "=w" (x0), "=w" (x1), [at] "+r" (x) : : "memory");
        one_half<W>(s, at, x0);
        one_half<W>(s, at, x1);
    }
    // where a group's sums begin
    SPK_MEMBER void start(one_sums & s) {
        int32x4_t first = vdupq_n_s32(0);
        if (W::OFFSET > 0) {
            asm volatile("ld1r {%[first].4s}, [%[at]], #4" : [first] "=w" (first), [at] "+r" (bias) : : "memory");
        }
        SPK_EACH s.v[q] = first;
    }
    template <bool Q8> SPK_MEMBER void add(spk_f & total, const one_sums & s, spk_f scale) {
        const spk_f by = Q8 ? f_scale(scale, *x_scales++) : scale;
        SPK_EACH total.v[q] = vfmaq_f32(total.v[q], vcvtq_f32_s32(s.v[q]), by.v[q]);
    }
    // N blocks, then the scales of them
    template <bool Q8, int N> SPK_MEMBER void blocks(spk_f & total) {
        one_sums s[N];
        SPK_UNROLL for (int i = 0; i < N; ++i) {
            start(s[i]);
            block(s[i]);
        }
        SPK_UNROLL for (int i = 0; i < N; ++i) {
            const float16x8_t a = vreinterpretq_f16_u8(vld1q_u8(at)), b = vreinterpretq_f16_u8(vld1q_u8(at + 16));
            add<Q8>(total, s[i], { { vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b) } });
            at += W::TILE_SCALES;
        }
    }
    // of I8: four blocks have one scale
    template <bool Q8> SPK_MEMBER void group(spk_f & total) {
        const spk_f scale = f_load(scales);
        scales += SPK_ROWS;
        one_sums s;
        for (int j = 0; j < 4; ++j) {
            if (Q8 || j == 0) {
                start(s);
            }
            block(s);
            if (Q8 || j == 3) {
                add<Q8>(total, s, scale);
            }
        }
    }
};

// 16 rows times one token, as tile_sums
template <class W, bool Q8>
static void one_token_sums(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row & act, float * out) {
    one_token<W> token = { tile, scales, act.s8, act.bias, act.scales };
    spk_f total = f_zero();
    if constexpr (W::TILE_SCALES == 0) {
        for (int64_t b = 0; b < n/32; b += 4) {
            token.template group<Q8>(total);
        }
    } else {
        for (int64_t i = n/64; i > 0; --i) {
            token.template blocks<Q8, 2>(total);
        }
        if (n/32 % 2) {
            token.template blocks<Q8, 1>(total);
        }
    }
    f_store(out, total);
}
