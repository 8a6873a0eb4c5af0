#pragma once

// Products of whole batches with K-quants, with SMMLA or SDOT: as spk-mmla-neon.h, 256 columns of a tile unpacked once for all tokens of a call. Four rows meet
// eight tokens: eight sums in integers of the products, eight of them times the parts' scales. The first ones begin anew with 256 columns only: with C_j the sum of
// parts 0 .. j, the sum of scale_j*part_j is that of (scale_j - scale_(j + 1))*C_j, so that a part ends with one MLA per sum and none is set to zero. Centred codes
// are unpacked as signed ones. In float the operations of spk-k.h, in the same order. Included inside the namespace of the instruction set.

#include "spk-k.h"
#include "spk-mmla-neon.h"

// 64 bytes into registers a .. d; it moves on
#define SPK_K_LOAD(to, at, a, b, c, d)                                                                                                \
    do {                                                                                                                              \
        register uint8x16_t x0 asm("v" #a), x1 asm("v" #b), x2 asm("v" #c), x3 asm("v" #d);                                           \
        asm("ld1 {v" #a ".16b-v" #d ".16b}, [%[p]], #64"                                                                              \
            : "=w" (x0), "=w" (x1), "=w" (x2), "=w" (x3), [p] "+r" (at) : "m" (*(const char (*)[64]) (at)));                          \
        (to)[0] = x0, (to)[1] = x1, (to)[2] = x2, (to)[3] = x3;                                                                       \
    } while (0)

// codes of Q6_K: nibbles a, upper bits u in bits 2i: of step i; even: those of even steps alone
SPK_INLINE uint8x16_t k_even (uint8x16_t u)                  { return vandq_u8(u, vdupq_n_u8(0x33)); }
SPK_INLINE int8x16_t  k_step0(uint8x16_t a, uint8x16_t even) { return vreinterpretq_s8_u8(vsliq_n_u8(a, even, 4)); }
SPK_INLINE int8x16_t  k_step1(uint8x16_t a, uint8x16_t u)    { return vreinterpretq_s8_u8(vandq_u8(vsriq_n_u8(vshlq_n_u8(u, 2), a, 4), vdupq_n_u8(0x3f))); }
SPK_INLINE int8x16_t  k_step2(uint8x16_t a, uint8x16_t even) { return vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0x0f), a, even)); }
SPK_INLINE int8x16_t  k_step3(uint8x16_t a, uint8x16_t u)    { return vreinterpretq_s8_u8(vsriq_n_u8(vshrq_n_u8(u, 2), a, 4)); }

// unpack_codes leaves what exceeds OFFSET - 8
template <class W>
struct k_centred : W {
    static constexpr int OFFSET = W::CENTRE + 8;
};

template <>
SPK_MEMBER void unpack_codes<k_centred<weights_q6_K>>(spk_quad * quads, const uint8_t * block) {
    const uint8_t * upper = block + 256;
    int8_t * to[4] = { quads[0].s8[0], quads[1].s8[0], quads[2].s8[0], quads[3].s8[0] };
    SPK_UNROLL for (int half = 0; half < 2; ++half) {
        uint8x16_t a[4], b[4], u[4];
        SPK_K_LOAD(a, block, 0, 1, 2, 3);
        SPK_K_LOAD(b, block, 4, 5, 6, 7);
        SPK_K_LOAD(u, upper, 16, 17, 18, 19);
        SPK_EACH {
            const int8x16_t centre = vdupq_n_s8(weights_q6_K::CENTRE);
            const uint8x16_t even = k_even(u[q]);
            register int8x16_t w0 asm("v24"), w1 asm("v25"), w2 asm("v26"), w3 asm("v27"); // in the order in which they are stored
            w0 = vsubq_s8(k_step0(a[q], even), centre);
            w1 = vsubq_s8(MMLA ? k_step2(b[q], even) : k_step1(a[q], u[q]), centre);
            w2 = vsubq_s8(MMLA ? k_step1(a[q], u[q]) : k_step2(b[q], even), centre);
            w3 = vsubq_s8(k_step3(b[q], u[q]), centre);
            asm volatile(SPK_STORE_STEPS(to, 24, 25, 26, 27) : [to] "+r" (to[q]) : "w" (w0), "w" (w1), "w" (w2), "w" (w3) : "memory");
        }
    }
}

template <class W, bool Q8>
struct k_unpacked {
    static constexpr bool HALVES = W::COLUMNS == 16;
    static constexpr int  PARTS  = 32*SPK_SUPER/W::COLUMNS;

    alignas(64) spk_quad quads[SPK_SUPER][4];
    int32_t scale[PARTS][SPK_ROWS]; // less the next part's, with Q8 that of the same block
    int16_t min[4][PARTS][4];       // of four rows
    float   min_of_block[4][SPK_SUPER][4]; // instead, with Q8 where a block has one
    spk_f   d, dmin;

    SPK_MEMBER void unpack(const uint8_t * super) {
        d = f_load_half(super);
        for (int b = 0; b < SPK_SUPER; ++b) {
            const uint8_t * block = super + W::SCALES + b*W::BLOCK;
            SPK_UNROLL for (int i = 0; i < W::BLOCK + W::SCALES/SPK_SUPER; i += 64) {
                __builtin_prefetch(block + W::SUPER + i, 0, 2);
            }
            if constexpr (W::BITS == 4 && !W::SIGNED) {
                unpack_codes<weights_q4_0>(quads[b], block);
            } else {
                unpack_codes<k_centred<W>>(quads[b], block);
            }
        }
        unpack_scales(super);
        if constexpr (W::MINIMA) {
            dmin = f_scale(f_load_half(super + 2*SPK_ROWS), -1.0f);
            unpack_mins(super);
        }
    }

private:
    SPK_MEMBER void unpack_scales(const uint8_t * super) {
        int16x8_t next[2] = { vdupq_n_s16(0), vdupq_n_s16(0) };
        SPK_UNROLL16 for (int j = PARTS - 1; j >= 0; --j) {
            const int8x16_t x = (int8x16_t) W::row_scales(super, j);
            const int16x8_t own[2] = { vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x) };
            const bool alone = Q8 && (j + 1)*W::COLUMNS % 32 == 0;
            SPK_UNROLL for (int i = 0; i < 2; ++i) {
                const int16x8_t y = alone ? own[i] : vsubq_s16(own[i], next[i]);
                vst1q_s32(scale[j] + 8*i,     vmovl_s16(vget_low_s16(y)));
                vst1q_s32(scale[j] + 8*i + 4, vmovl_high_s16(y));
                next[i] = own[i];
            }
        }
    }
    SPK_MEMBER void unpack_mins(const uint8_t * super) {
        SPK_UNROLL16 for (int j = 0; j < PARTS; ++j) {
            const int8x16_t x = (int8x16_t) W::row_mins(super, j);
            const int16x8_t y[2] = { vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x) };
            SPK_EACH {
                const int16x4_t four = q % 2 ? vget_high_s16(y[q/2]) : vget_low_s16(y[q/2]);
                if (Q8 && !HALVES) {
                    vst1q_f32(min_of_block[q][j], vcvtq_f32_s32(vmovl_s16(four)));
                } else {
                    vst1_s16(min[q][j], four);
                }
            }
        }
    }
};

#ifdef SPK_I8MM
// two parts' scales: of rows 0 and 1, 0 and 1, of rows 2 and 3, 2 and 3; it moves on
#define SPK_K_LOAD_SCALES(scale)                                                                                                      \
    register int32x4_t s0 asm("v24"), s1 asm("v25"), t0 asm("v30"), t1 asm("v31");                                                    \
    asm("ld2r {v24.2d-v25.2d}, [%[at]], %[step]"                                                                                      \
        : "=w" (s0), "=w" (s1), [at] "+r" (scale) : [step] "r" (SPK_ROWS*sizeof(int32_t)), SPK_READS(scale));                         \
    if (HALVES) {                                                                                                                     \
        asm("ld2r {v30.2d-v31.2d}, [%[at]], %[step]"                                                                                  \
            : "=w" (t0), "=w" (t1), [at] "+r" (scale) : [step] "r" (SPK_ROWS*sizeof(int32_t)), SPK_READS(scale));                     \
    }

// of two tokens whose columns are at x, which moves on to the next two's
#define SPK_K_ADD_HALVES(sum0, sum1, total0, total1, x)                                                                               \
    asm("ld1 {v26.16b-v29.16b}, [%[at]], %[step]\n\t"                                                                                 \
        SPK_DOT_LOW("%[a]", "%[b]", "v26", "v27")                                                                                     \
        "mla %[A].4s, %[a].4s, v24.4s\n\t"                                                                                            \
        "mla %[B].4s, %[b].4s, v25.4s\n\t"                                                                                            \
        SPK_DOT_HIGH("%[a]", "%[b]", "v28", "v29")                                                                                    \
        "mla %[A].4s, %[a].4s, v30.4s\n\t"                                                                                            \
        "mla %[B].4s, %[b].4s, v31.4s\n\t"                                                                                            \
        : [a] "+w" (sum0), [b] "+w" (sum1), [A] "+w" (total0), [B] "+w" (total1), [at] "+r" (x)                                       \
        : [step] "r" (sizeof(spk_columns)/2), "w" (s0), "w" (s1), "w" (t0), "w" (t1), SPK_WEIGHTS, SPK_READS(x)                       \
        : "v26", "v27", "v28", "v29")
#else
#define SPK_K_LOAD_SCALES(scale)                                                                                                      \
    const int32x4_t s0 = vld1q_s32(scale), t0 = HALVES ? vld1q_s32(scale + SPK_ROWS) : s0;                                            \
    scale += (HALVES ? 2 : 1)*SPK_ROWS

// of four tokens, 16 columns whose weights are w, in registers A .. D
#define SPK_K_ADD_HALF(sum, total, scale, x, bytes, A, B, C, D, w0, w1, w2, w3)                                                       \
    asm("ld1 {v28.16b-v31.16b}, [%[at]], %[step]\n\t"                                                                                 \
        SPK_DOT("v" #A, 0) SPK_DOT("v" #B, 1) SPK_DOT("v" #C, 2) SPK_DOT("v" #D, 3)                                                   \
        : [a] "+w" ((sum)[0]), [b] "+w" ((sum)[1]), [c] "+w" ((sum)[2]), [d] "+w" ((sum)[3]), [at] "+r" (x)                           \
        : [step] "r" ((int64_t) (bytes)), "w" (w0), "w" (w1), "w" (w2), "w" (w3), SPK_READS(x) : "v28", "v29", "v30", "v31");         \
    SPK_EACH (total)[q] = vmlaq_s32((total)[q], (sum)[q], scale)
#define SPK_K_ADD_HALVES(sum, total, x)                                                                                               \
    SPK_K_ADD_HALF(sum, total, s0, x, 64, 16, 17, 18, 19, w0, w1, w2, w3);                                                            \
    SPK_K_ADD_HALF(sum, total, t0, x, sizeof(spk_columns) - 64, 20, 21, 22, 23, w4, w5, w6, w7)
#endif

// four rows times NT tokens over 256 columns; sums two by two, as spk-mmla-neon.h has them
template <class W, bool Q8, int NT>
struct k_product {
    static constexpr bool HALVES = W::COLUMNS == 16;

    const char     * x; // columns of the first tokens
    const float    * x_scales;
    const spk_quad * quad;
    const int32_t  * scale;

#ifdef SPK_I8MM
    // all 32 registers are in use, and the compiler moves sums to and fro where it may choose
    SPK_MEMBER void counts_by_halves(int32x4_t * total) {
        SPK_WEIGHT_REGISTERS;
        register int32x4_t a0 asm("v0"), a1 asm("v1"), a2 asm("v2"), a3 asm("v3"), a4 asm("v4"), a5 asm("v5"), a6 asm("v6"), a7 asm("v7");
        register int32x4_t b0 asm("v8"), b1 asm("v9"), b2 asm("v10"), b3 asm("v11"), b4 asm("v12"), b5 asm("v13"), b6 asm("v14"), b7 asm("v15");
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = vdupq_n_s32(0);
        _Pragma("GCC unroll 2") for (int b = 0; b < SPK_SUPER; ++b) {
            SPK_LOAD_WEIGHTS(quad);
            SPK_K_LOAD_SCALES(scale);
            SPK_K_ADD_HALVES(a0, a1, b0, b1, x);
            SPK_K_ADD_HALVES(a2, a3, b2, b3, x);
            if constexpr (NT > 4) {
                SPK_K_ADD_HALVES(a4, a5, b4, b5, x);
                SPK_K_ADD_HALVES(a6, a7, b6, b7, x);
            }
        }
        const int32x4_t all[8] = { b0, b1, b2, b3, b4, b5, b6, b7 };
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            total[t] = all[t];
        }
    }
#endif

    SPK_MEMBER void counts(int32x4_t * total) {
#ifdef SPK_I8MM
        if constexpr (HALVES) {
            return counts_by_halves(total);
        }
#endif
        SPK_WEIGHT_REGISTERS;
        int32x4_t sum[NT], all[NT];
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum[t] = all[t] = vdupq_n_s32(0);
        }
        _Pragma("GCC unroll 2") for (int b = 0; b < SPK_SUPER; ++b) {
            SPK_LOAD_WEIGHTS(quad);
            SPK_K_LOAD_SCALES(scale);
#ifdef SPK_I8MM
            SPK_UNROLL for (int p = 0; p < NT; p += 2) {
                SPK_ADD_PAIR(sum[p], sum[p + 1], x, sizeof(spk_columns)/2);
                all[p]     = vmlaq_s32(all[p],     sum[p],     s0);
                all[p + 1] = vmlaq_s32(all[p + 1], sum[p + 1], s1);
            }
#else
            SPK_UNROLL for (int t = 0; t < NT; t += 4) {
                if (HALVES) {
                    SPK_K_ADD_HALVES(sum + t, all + t, x);
                } else {
                    SPK_ADD_FOUR(sum[t], sum[t + 1], sum[t + 2], sum[t + 3], x, sizeof(spk_columns) - 64);
                    SPK_UNROLL for (int i = t; i < t + 4; ++i) {
                        all[i] = vmlaq_s32(all[i], sum[i], s0);
                    }
                }
            }
#endif
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            total[t] = all[t];
        }
    }

    // ordinary activations: a block ends in float
    SPK_MEMBER void floats(float32x4_t * total) {
        SPK_WEIGHT_REGISTERS;
        float32x4_t y[NT];
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            y[t] = vdupq_n_f32(0.0f);
        }
        for (int b = 0; b < SPK_SUPER; ++b) {
            SPK_LOAD_WEIGHTS(quad);
            SPK_K_LOAD_SCALES(scale);
#ifdef SPK_I8MM
            SPK_UNROLL for (int p = 0; p < NT; p += 2) {
                int32x4_t sum[2] = { vdupq_n_s32(0), vdupq_n_s32(0) }, all[2] = { sum[0], sum[0] };
                if (HALVES) {
                    SPK_K_ADD_HALVES(sum[0], sum[1], all[0], all[1], x);
                } else {
                    SPK_ADD_PAIR(sum[0], sum[1], x, sizeof(spk_columns)/2);
                    all[0] = vmulq_s32(sum[0], s0);
                    all[1] = vmulq_s32(sum[1], s1);
                }
                const float32x4_t of = vld1q_f32(x_scales + 2*p);
                y[p]     = vfmaq_f32(y[p],     vcvtq_f32_s32(all[0]), of);
                y[p + 1] = vfmaq_f32(y[p + 1], vcvtq_f32_s32(all[1]), of);
            }
#else
            SPK_UNROLL for (int t = 0; t < NT; t += 4) {
                int32x4_t sum[4], all[4];
                SPK_EACH sum[q] = all[q] = vdupq_n_s32(0);
                if (HALVES) {
                    SPK_K_ADD_HALVES(sum, all, x);
                } else {
                    SPK_ADD_FOUR(sum[0], sum[1], sum[2], sum[3], x, sizeof(spk_columns) - 64);
                    SPK_EACH all[q] = vmulq_s32(sum[q], s0);
                }
                const float32x4_t of[2] = { vld1q_f32(x_scales + 2*t), vld1q_f32(x_scales + 2*t + 4) };
                SPK_UNROLL for (int i = 0; i < 4; i += 2) {
                    y[t + i]     = vfmaq_laneq_f32(y[t + i],     vcvtq_f32_s32(all[i]),     of[i/2], 0);
                    y[t + i + 1] = vfmaq_laneq_f32(y[t + i + 1], vcvtq_f32_s32(all[i + 1]), of[i/2], 2);
                }
            }
#endif
            x_scales += 2*NT;
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            total[t] = y[t];
        }
    }
};

// sums of two tokens and four rows become those of a token each
SPK_INLINE void part_tokens(float32x4_t & a, float32x4_t & b) {
    if (MMLA) {
        const float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
        a = vreinterpretq_f32_f64(vzip1q_f64(x, y));
        b = vreinterpretq_f32_f64(vzip2q_f64(x, y));
    }
}

// sum of lanes I .. of sums times the minima of their parts, of four rows
SPK_INLINE int32x4_t k_low(const int16_t (* min)[4], int16x8_t sums) {
    const int16x8_t a = vld1q_s16(min[0]), b = vld1q_s16(min[2]), c = vld1q_s16(min[4]), d = vld1q_s16(min[6]);
    int32x4_t low = vmull_laneq_s16(vget_low_s16(a), sums, 0);
    low = vmlal_high_laneq_s16(low, a, sums, 1);
    low = vmlal_laneq_s16     (low, vget_low_s16(b), sums, 2);
    low = vmlal_high_laneq_s16(low, b, sums, 3);
    low = vmlal_laneq_s16     (low, vget_low_s16(c), sums, 4);
    low = vmlal_high_laneq_s16(low, c, sums, 5);
    low = vmlal_laneq_s16     (low, vget_low_s16(d), sums, 6);
    return vmlal_high_laneq_s16(low, d, sums, 7);
}

// what minima of rows 4q .. take away of 256 columns of a token
template <class W, bool Q8>
SPK_INLINE float32x4_t k_minima(const k_unpacked<W, Q8> & k, int q, const ggml_spk_row & act, int64_t n, int64_t b0) {
    constexpr bool HALVES = W::COLUMNS == 16;

    float32x4_t z = vdupq_n_f32(0.0f);
    if constexpr (Q8 && HALVES) {
        SPK_UNROLL for (int b = 0; b < SPK_SUPER; ++b) {
            const int16_t   * sums = act.sums + 2*(b0 + b);
            const int16x8_t   min  = vld1q_s16(k.min[q][2*b]);
            const int32x4_t   low  = vmlal_high_n_s16(vmull_n_s16(vget_low_s16(min), sums[0]), min, sums[1]);
            z = vfmaq_n_f32(z, vcvtq_f32_s32(low), act.scales[b0 + b]);
        }
    } else if constexpr (Q8) {
        const float * scaled = act.scaled + b0;
        SPK_UNROLL for (int b = 0; b < SPK_SUPER; ++b) {
            z = vfmaq_n_f32(z, vld1q_f32(k.min_of_block[q][b]), scaled[b]);
        }
    } else {
        const int16_t * sums = act.sums + (HALVES ? 2*b0 : n/16 + b0);
        int32x4_t low = k_low(k.min[q], vld1q_s16(sums));
        if (HALVES) {
            low = vaddq_s32(low, k_low(k.min[q] + 8, vld1q_s16(sums + 8)));
        }
        z = vcvtq_f32_s32(low);
    }
    return z;
}

// 256 columns of four tokens that are in no batch
struct k_four {
    spk_columns columns[SPK_SUPER];
    float       scales[SPK_SUPER][4][2];

    SPK_MEMBER void pack(const ggml_spk_row * act, int64_t b0) {
        for (int b = 0; b < SPK_SUPER; ++b) {
            pack_four(columns + b, act, b0 + b, false);
            if (act->encoding == GGML_SPK_Q8) {
                SPK_UNROLL for (int t = 0; t < 4; ++t) {
                    scales[b][t][0] = scales[b][t][1] = act[t].scales[b0 + b];
                }
            }
        }
    }
};

// out [NT][SPK_ROWS], columns 4q .. of it, += a product
template <class W, bool Q8, int NT>
SPK_INLINE void k_add(const k_unpacked<W, Q8> & k, int q, const void * columns, const float * scales, float * out) {
    k_product<W, Q8, NT> product = { (const char *) columns + (MMLA ? 32 : 64), scales, k.quads[0] + q, k.scale[0] + 4*q };
    float32x4_t y[NT];
    if constexpr (Q8) {
        product.floats(y);
    } else {
        int32x4_t total[NT];
        product.counts(total);
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            y[t] = vcvtq_f32_s32(total[t]);
        }
    }
    SPK_UNROLL for (int t = 0; t < NT; t += 2) {
        part_tokens(y[t], y[t + 1]);
    }
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        float * to = out + t*SPK_ROWS + 4*q;
        vst1q_f32(to, vfmaq_f32(vld1q_f32(to), y[t], k.d.v[q]));
    }
}

// out [n_tok][SPK_ROWS]; n_tok: batches, and four tokens or none
template <class W, bool Q8>
static void k_batches_product(int64_t n, const uint8_t * tile, const ggml_spk_row * act, const spk_batch * batch, int n_tok, float * out) {
    const int n_batch = n_tok/SPK_BATCH, rest = n_batch*SPK_BATCH;
    k_unpacked<W, Q8> k;
    k_four four;

    memset(out, 0, n_tok*SPK_ROWS*sizeof(float));
    for (int64_t b0 = 0; b0 < n/32; b0 += SPK_SUPER, tile += W::SUPER) {
        k.unpack(tile);
        if (rest < n_tok) {
            four.pack(act + rest, b0);
        }
        for (int q = 0; q < 4; ++q) {
            for (int i = 0; i < n_batch; ++i) {
                const spk_batch * from = batch + i*(n/32);
                k_add<W, Q8, SPK_BATCH>(k, q, (const char *) from + b0*sizeof(from->fours), (const float *) ((const char *) from + scales_from(n/32)) + b0*2*SPK_BATCH,
                                        out + i*SPK_BATCH*SPK_ROWS);
            }
            if (rest < n_tok) {
                k_add<W, Q8, 4>(k, q, four.columns, four.scales[0][0], out + rest*SPK_ROWS);
            }
        }
        for (int t = 0; W::MINIMA && t < n_tok; ++t) {
            float * to = out + t*SPK_ROWS;
            spk_f sum;
            SPK_EACH sum.v[q] = vfmaq_f32(vld1q_f32(to + 4*q), k_minima(k, q, act[t], n, b0), k.dmin.v[q]);
            f_store(to, sum);
        }
    }
}
