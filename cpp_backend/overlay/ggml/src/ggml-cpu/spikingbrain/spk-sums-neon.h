#pragma once

// The sums of a tile product on NEON (contract: spk-sums.h). Each group ends in the same float operations in the same
// order on all three, so that their results have the same bits. Included inside the namespace of the instruction set.

#include "spk-weights.h"

#if !defined(SPK_DOTPROD)

typedef spk_batch_block spk_batch;
static const int SPK_NT = 2, SPK_TOGETHER = SPK_BATCH; // tokens whose sums stay in registers together, that are given together

static void (* const pack_batch)(void *, ggml_type, int64_t, const ggml_spk_row *) = nullptr; // rows are read as they are

// Products of bytes are added in 16 bits while they cannot overflow: the 8 steps of a block where a weight is below 32
// (31*127*8 < 2^15), two of int8 weights (128*127*2 < 2^15).
// v[t][2q] holds pairs of columns of rows 4q and 4q + 1, v[t][2q + 1] of rows 4q + 2 and 4q + 3
template <class W, int NT, int PART>
struct spk_sums {
    static constexpr int  PARTS = 1;
    static constexpr bool SMALL = W::OFFSET > 0;

    spk_w     even; // the step before
    int16x8_t small[NT][8];
    int32x4_t v[NT][8];
    int32_t   first[NT];

    struct floats { spk_f v[NT]; };

    SPK_MEMBER static void zero(floats & sum) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum.v[t] = f_zero();
        }
    }
    SPK_MEMBER static const ggml_spk_row * operand(const ggml_spk_row * act, const spk_batch_block *) { return act; }

    template <int N_BLOCK> SPK_MEMBER void start(const ggml_spk_row * act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            first[t] = W::OFFSET/8*row_bias<N_BLOCK>(act[t], b);
            SPK_UNROLL for (int q = 0; q < 8; ++q) {
                v[t][q] = vdupq_n_s32(0);
            }
        }
    }
    SPK_MEMBER void dot(int step, spk_w w, const ggml_spk_row * act, int64_t b) {
        if (step % 2 == 0) {
            even = w;
            return;
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const int8_t * s8 = act[t].s8 + b*32 + step*4;
            const int8x16_t x = bytes4(s8 - 4), y = bytes4(s8);
            SPK_EACH {
                int16x8_t a, b;
                if (SMALL && step > 1) {
                    a = vmlal_s8     (small[t][2*q],     vget_low_s8(even.v[q]), vget_low_s8(x));
                    b = vmlal_high_s8(small[t][2*q + 1], even.v[q], x);
                } else {
                    a = vmull_s8     (vget_low_s8(even.v[q]), vget_low_s8(x));
                    b = vmull_high_s8(even.v[q], x);
                }
                small[t][2*q]     = vmlal_s8     (a, vget_low_s8(w.v[q]), vget_low_s8(y));
                small[t][2*q + 1] = vmlal_high_s8(b, w.v[q], y);
                if (!SMALL) {
                    v[t][2*q]     = vpadalq_s16(v[t][2*q],     small[t][2*q]);
                    v[t][2*q + 1] = vpadalq_s16(v[t][2*q + 1], small[t][2*q + 1]);
                }
            }
        }
    }
    template <bool Q8> SPK_MEMBER void add(floats & sum, spk_f scale, const ggml_spk_row * act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            spk_f x;
            SPK_EACH {
                if (SMALL) {
                    const int32x4_t a = vpaddq_s32(vpaddlq_s16(small[t][2*q]), vpaddlq_s16(small[t][2*q + 1]));
                    x.v[q] = vcvtq_f32_s32(vaddq_s32(a, vdupq_n_s32(first[t])));
                } else {
                    x.v[q] = vcvtq_f32_s32(vpaddq_s32(v[t][2*q], v[t][2*q + 1]));
                }
            }
            sum.v[t] = f_fma(x, Q8 ? f_scale(scale, act[t].scales[b]) : scale, sum.v[t]);
        }
    }
    SPK_MEMBER static void store(float * out, const floats & sum) {
        for (int t = 0; t < NT; ++t) {
            f_store(out + t*SPK_ROWS, sum.v[t]);
        }
    }
};

#else

static const int SPK_NT = 4, SPK_TOGETHER = SPK_MOST_TOKENS; // whole batches: spk-mmla-neon.h

// what the sums of NT tokens read of them
template <int NT>
struct spk_tokens {
    using source = const ggml_spk_row *;

    // x[t]: 16 columns of block b
    SPK_MEMBER static void columns(int8x16_t * x, source act, int64_t b, int half) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            x[t] = vld1q_s8(act[t].s8 + 32*b + 16*half);
        }
    }
    SPK_MEMBER static void biases(int32_t * bias, source act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            bias[t] = act[t].bias[b];
        }
    }
    SPK_MEMBER static void scales(float * scale, source act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            scale[t] = act[t].scales[b];
        }
    }
};

// four rows of a register and a token: acc[t*NQ + j], row 4*j on
template <int NT, int NQ>
struct spk_dots {
    using tokens = spk_tokens<NT>;
    using source = typename tokens::source;

    int8x16_t x[NT]; // 16 columns of each token

    SPK_MEMBER void start(int32x4_t * acc, const int32_t * bias) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                acc[t*NQ + j] = vdupq_n_s32(bias[t]);
            }
        }
    }
    SPK_MEMBER void load(source from, int64_t b, int half) {
        tokens::columns(x, from, b, half);
    }
    // columns 8*ODD .. 8*ODD + 7 of x
    template <int ODD> SPK_MEMBER void dot(int32x4_t * acc, const int8x16_t * lo, const int8x16_t * hi) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                acc[t*NQ + j] = vdotq_laneq_s32(acc[t*NQ + j], lo[j], x[t], 2*ODD);
            }
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                acc[t*NQ + j] = vdotq_laneq_s32(acc[t*NQ + j], hi[j], x[t], 2*ODD + 1);
            }
        }
    }
    // of_tokens: their scales, NULL for 1
    SPK_MEMBER void add(float32x4_t * sum, const int32x4_t * acc, const float32x4_t * scale, const float * of_tokens) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                const float32x4_t s = of_tokens ? vmulq_n_f32(scale[j], of_tokens[t]) : scale[j];
                sum[t*NQ + j] = vfmaq_f32(sum[t*NQ + j], vcvtq_f32_s32(acc[t*NQ + j]), s);
            }
        }
    }
    SPK_MEMBER static void store(float * out, const float32x4_t * sum) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                vst1q_f32(out + t*SPK_ROWS + 4*j, sum[t*NQ + j]);
            }
        }
    }
};

#ifdef SPK_I8MM
// columns 0 .. 7 of both, columns 8 .. 15 of both
SPK_INLINE void zip_pair(int8x16_t & x, int8x16_t & y) {
    const int64x2_t a = vreinterpretq_s64_s8(x), b = vreinterpretq_s64_s8(y);
    x = vreinterpretq_s8_s64(vzip1q_s64(a, b));
    y = vreinterpretq_s8_s64(vzip2q_s64(a, b));
}

// two rows and two tokens over 8 columns at once: acc[p*2*NQ + r] holds rows 2r and 2r + 1 of tokens 2p and 2p + 1,
// row by row. Two steps, zipped by 4 columns, are two rows of 8.
template <int NT, int NQ>
struct spk_mmlas {
    using tokens = spk_tokens<NT>;
    using source = typename tokens::source;

    int8x16_t x[NT]; // x[2p + i]: columns 8i .. 8i + 7 of tokens 2p and 2p + 1

    SPK_MEMBER void start(int32x4_t * acc, const int32_t * bias) {
        SPK_UNROLL for (int p = 0; p < NT/2; ++p) {
            const int32x4_t two = { bias[2*p], bias[2*p + 1], bias[2*p], bias[2*p + 1] };
            SPK_UNROLL for (int r = 0; r < 2*NQ; ++r) {
                acc[p*2*NQ + r] = two;
            }
        }
    }
    SPK_MEMBER void load(source from, int64_t b, int half) {
        tokens::columns(x, from, b, half);
        SPK_UNROLL for (int p = 0; p < NT/2; ++p) {
            zip_pair(x[2*p], x[2*p + 1]);
        }
    }
    template <int ODD> SPK_MEMBER void dot(int32x4_t * acc, const int8x16_t * lo, const int8x16_t * hi) {
        SPK_UNROLL for (int j = 0; j < NQ; ++j) {
            const int32x4_t a = vreinterpretq_s32_s8(lo[j]), b = vreinterpretq_s32_s8(hi[j]);
            const int8x16_t w[2] = { vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b)) };
            SPK_UNROLL for (int p = 0; p < NT/2; ++p) {
                int32x4_t * two = acc + p*2*NQ + 2*j;
                two[0] = vmmlaq_s32(two[0], w[0], x[2*p + ODD]);
                two[1] = vmmlaq_s32(two[1], w[1], x[2*p + ODD]);
            }
        }
    }
    SPK_MEMBER void add(float32x4_t * sum, const int32x4_t * acc, const float32x4_t * scale, const float * of_tokens) {
        SPK_UNROLL for (int p = 0; p < NT/2; ++p) {
            SPK_UNROLL for (int r = 0; r < 2*NQ; ++r) {
                const float32x4_t s = r % 2 ? vzip2q_f32(scale[r/2], scale[r/2]) : vzip1q_f32(scale[r/2], scale[r/2]);
                float32x4_t & to = sum[p*2*NQ + r];
                to = vfmaq_f32(to, vcvtq_f32_s32(acc[p*2*NQ + r]), of_tokens ? vmulq_f32(s, pair(of_tokens, p)) : s);
            }
        }
    }
    SPK_MEMBER static void store(float * out, const float32x4_t * sum) {
        SPK_UNROLL for (int p = 0; p < NT/2; ++p) {
            SPK_UNROLL for (int j = 0; j < NQ; ++j) {
                const float32x4_t a = sum[p*2*NQ + 2*j], b = sum[p*2*NQ + 2*j + 1];
                vst1q_f32(out + 2*p*SPK_ROWS + 4*j,       vuzp1q_f32(a, b));
                vst1q_f32(out + (2*p + 1)*SPK_ROWS + 4*j, vuzp2q_f32(a, b));
            }
        }
    }

private:
    SPK_MEMBER static float32x4_t pair(const float * of_tokens, int p) {
        return float32x4_t{ of_tokens[2*p], of_tokens[2*p + 1], of_tokens[2*p], of_tokens[2*p + 1] };
    }
};
static constexpr bool MMLA = true;
template <int NT, int NQ> using spk_products = std::conditional_t<NT == 4, spk_mmlas<NT, NQ>, spk_dots<NT, NQ>>;
#else
static constexpr bool MMLA = false;
template <int NT, int NQ> using spk_products = spk_dots<NT, NQ>;
#endif

// 4 tokens: 8 rows at a time, so that the sums in integers and in float take 16 registers, or with i8mm all 16, where zipped weights
// cost more than sums in memory
template <class W, int NT, int PART>
struct spk_sums {
    static constexpr int PARTS = NT == 4 && !MMLA ? 2 : 1, NQ = 4/PARTS, Q0 = PART*NQ;

    using products_t = spk_products<NT, NQ>;
    using tokens     = typename products_t::tokens;
    using source     = typename products_t::source;

    products_t products;
    spk_w      even; // the step before
    int32x4_t  acc[NT*NQ];

    struct floats { float32x4_t v[NT*NQ]; };

    SPK_MEMBER static source operand(const ggml_spk_row * act, const spk_batch_block *) { return act; }

    SPK_MEMBER static void zero(floats & sum) {
        SPK_UNROLL16 for (int i = 0; i < NT*NQ; ++i) {
            sum.v[i] = vdupq_n_f32(0.0f);
        }
    }
    template <int N_BLOCK> SPK_MEMBER void start(source from, int64_t b) {
        static_assert(W::OFFSET == 0 || N_BLOCK == 1, "only the first block's bias is read");
        int32_t bias[NT] = {};
        if (W::OFFSET > 0) {
            tokens::biases(bias, from, b);
        }
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            bias[t] *= W::OFFSET/8;
        }
        products.start(acc, bias);
    }
    SPK_MEMBER void dot(int step, spk_w w, source from, int64_t b) {
        switch (step % 4) {
            case 0: products.load(from, b, step/4); even = w;                  break;
            case 1: products.template dot<0>(acc, even.v + Q0, w.v + Q0);      break;
            case 2: even = w;                                                  break;
            case 3: products.template dot<1>(acc, even.v + Q0, w.v + Q0);      break;
        }
    }
    template <bool Q8> SPK_MEMBER void add(floats & sum, spk_f scale, source from, int64_t b) {
        float of_tokens[NT];
        if (Q8) {
            tokens::scales(of_tokens, from, b);
        }
        products.add(sum.v, acc, scale.v + Q0, Q8 ? of_tokens : nullptr);
        if (NT*NQ == 16) {
            asm("" : "+m"(sum)); // no registers are left for them: in memory once, not in the compiler's spill slots, too
        }
    }
    SPK_MEMBER static void store(float * out, const floats & sum) {
        products_t::store(out + 4*Q0, sum.v);
    }
};

#endif
