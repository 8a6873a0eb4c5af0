#pragma once

// Products of one token with K-quants, with SDOT: as spk-one-neon.h, a tile read from its first byte to its last, its codes multiplied as they leave the registers.
// Sums in integers run on over 256 columns, a part ends with the difference of its scale to the next (spk-k-mmla-neon.h). In float the operations of
// spk-k.h, in the same order. Included inside the namespace of the instruction set.

#include "spk-k-mmla-neon.h"
#include "spk-one-neon.h"

// f(i, step i) of 16 columns of a block
template <class W, int HALF, class F>
SPK_INLINE void k_half(const uint8_t * block, F && f) {
    if constexpr (W::BITS == 6) {
        const uint8_t * lower = block + 128*HALF, * upper = block + 256 + 64*HALF;
        uint8x16_t a[4], u[4];
        spk_w x, y;
        SPK_K_LOAD(a, lower, 16, 17, 18, 19);
        SPK_K_LOAD(u, upper, 20, 21, 22, 23);
        SPK_EACH x.v[q] = k_step1(a[q], u[q]);
        f(1, x);
        SPK_EACH y.v[q] = k_step0(a[q], k_even(u[q]));
        f(0, y);
        SPK_K_LOAD(a, lower, 16, 17, 18, 19);
        SPK_EACH x.v[q] = k_step3(a[q], u[q]);
        f(3, x);
        SPK_EACH y.v[q] = k_step2(a[q], k_even(u[q]));
        f(2, y);
    } else {
        W::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) {
            if (step/4 == HALF) {
                f(step % 4, w);
            }
        });
    }
}

// += rows times columns 4i .. of x
SPK_INLINE int32x4_t dot_columns(int32x4_t sum, int8x16_t w, int8x16_t x, int i) {
    return i == 0 ? vdotq_laneq_s32(sum, w, x, 0) : i == 1 ? vdotq_laneq_s32(sum, w, x, 1) : i == 2 ? vdotq_laneq_s32(sum, w, x, 2) : vdotq_laneq_s32(sum, w, x, 3);
}

// scales and minima of parts J and J + 1, J even, a byte of each row
template <class W, int J>
SPK_INLINE void k_two(k_bytes * scale, k_bytes * min, const uint8_t * super) {
    if constexpr (W::MINIMA && W::COLUMNS == 32) { // as k_first and k_second
        const uint8_t * at = super + 4*SPK_ROWS;
        const uint8x16_t a = vld1q_u8(at + SPK_ROWS*J), b = vld1q_u8(at + SPK_ROWS*(J + 1)), u = vld1q_u8(at + SPK_ROWS*(SPK_SUPER + J/2));
        min[0]   = (k_bytes) k_step1(a, u);
        min[1]   = (k_bytes) k_step3(b, u);
        scale[0] = (k_bytes) k_step0(a, k_even(u));
        scale[1] = (k_bytes) k_step2(b, k_even(u));
    } else {
        for (int i = 0; i < 2; ++i) {
            scale[i] = W::row_scales(super, J + i);
            if constexpr (W::MINIMA) {
                min[i] = W::row_mins(super, J + i);
            }
        }
    }
}

template <class W, bool Q8>
struct k_one {
    static constexpr bool HALVES = W::COLUMNS == 16, CENTRED = W::CENTRE != 0;
    static constexpr int  PARTS  = 32*SPK_SUPER/W::COLUMNS, IN_BLOCK = 32/W::COLUMNS;

    // of 256 columns
    const uint8_t * super, * codes; // codes: moves on where spk-one-neon.h reads them
    const int8_t  * x;
    const int16_t * sums;
    const float   * x_scales, * scaled;

    one_sums sum;
    k_bytes  scale[2]; // of two parts
    spk_i    all, low;
    spk_f    y, z;

    template <int HALF> SPK_MEMBER void dot(int b) {
        const int8x16_t x16 = vld1q_s8(x + 32*b + 16*HALF);
        if constexpr (W::BITS == 4 && !W::SIGNED) {
            one_half<weights_q4_0>(sum, codes, x16);
        } else {
            k_half<W, HALF>(super + W::SCALES + b*W::BLOCK, [&](int i, spk_w w) __attribute__((always_inline)) {
                SPK_EACH sum.v[q] = dot_columns(sum.v[q], w.v[q], x16, i);
            });
        }
    }

    // low += what the minima of part J, or the scales of centred codes, are multiplied with
    template <int J> SPK_MEMBER void add_low(k_bytes x) {
        const int16x8_t a = vmovl_s8(vget_low_s8((int8x16_t) x)), b = vmovl_high_s8((int8x16_t) x), s = vld1q_s16(sums + J/8*8);
        if (J % (Q8 ? IN_BLOCK : PARTS) == 0) {
            low = { vmull_laneq_s16(vget_low_s16(a), s, J % 8), vmull_high_laneq_s16(a, s, J % 8), vmull_laneq_s16(vget_low_s16(b), s, J % 8), vmull_high_laneq_s16(b, s, J % 8) };
        } else {
            low.v[0] = vmlal_laneq_s16     (low.v[0], vget_low_s16(a), s, J % 8);
            low.v[1] = vmlal_high_laneq_s16(low.v[1], a, s, J % 8);
            low.v[2] = vmlal_laneq_s16     (low.v[2], vget_low_s16(b), s, J % 8);
            low.v[3] = vmlal_high_laneq_s16(low.v[3], b, s, J % 8);
        }
    }
    template <int J> SPK_MEMBER void add_min(k_bytes x) {
        if constexpr (!Q8) {
            add_low<J>(x);
        } else if constexpr (HALVES) {
            add_low<J>(x);
            if constexpr (J % 2 == 1) {
                SPK_EACH z.v[q] = vfmaq_n_f32(z.v[q], vcvtq_f32_s32(low.v[q]), x_scales[J/2]);
            }
        } else {
            const int16x8_t a[2] = { vmovl_s8(vget_low_s8((int8x16_t) x)), vmovl_high_s8((int8x16_t) x) };
            SPK_EACH z.v[q] = vfmaq_n_f32(z.v[q], vcvtq_f32_s32(q % 2 ? vmovl_high_s16(a[q/2]) : vmovl_s16(vget_low_s16(a[q/2]))), scaled[J]);
        }
    }

    // two parts become the ones that follow
    template <int J> SPK_MEMBER void next_two() {
        k_bytes min[2];
        k_two<W, J>(scale, min, super);
        if constexpr (W::MINIMA) {
            add_min<J>(min[0]);
            add_min<J + 1>(min[1]);
        }
    }

    template <bool FIRST> SPK_MEMBER void add_scaled(int16x8_t a, int16x8_t b) {
        const int32x4_t by[4] = { vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b) };
        SPK_EACH all.v[q] = FIRST ? vmulq_s32(sum.v[q], by[q]) : vmlaq_s32(all.v[q], sum.v[q], by[q]);
    }

    template <int J> SPK_MEMBER void parts() {
        constexpr int  B = J/IN_BLOCK;
        constexpr bool FIRST = J % IN_BLOCK == 0, LAST = (J + 1) % IN_BLOCK == 0; // of a block
        constexpr bool ALONE = J + 1 == PARTS || (Q8 && LAST);                    // the next part's sums begin anew

        if (J == 0 || (Q8 && FIRST)) {
            SPK_EACH sum.v[q] = vdupq_n_s32(0);
        }
        if constexpr (!HALVES || FIRST) {
            dot<0>(B);
        }
        if constexpr (!HALVES || !FIRST) {
            dot<1>(B);
        }
        const int8x16_t own = (int8x16_t) scale[J % 2];
        if constexpr (CENTRED) {
            add_low<J>(scale[J % 2]);
        }
        if constexpr (J % 2 == 1 && J + 1 < PARTS) {
            next_two<J + 1>();
        }
        const int8x16_t next = (int8x16_t) scale[(J + 1) % 2];
        add_scaled<J == 0 || (Q8 && FIRST)>(ALONE ? vmovl_s8(vget_low_s8(own)) : vsubl_s8(vget_low_s8(own), vget_low_s8(next)),
                                            ALONE ? vmovl_high_s8(own) : vsubl_high_s8(own, next));
        if constexpr (Q8 && LAST) {
            if constexpr (CENTRED) {
                all = i_less<W::CENTRE>(all, low);
            }
            SPK_EACH y.v[q] = vfmaq_n_f32(y.v[q], vcvtq_f32_s32(all.v[q]), x_scales[B]);
        }
        if constexpr (J + 1 < PARTS) {
            parts<J + 1>();
        }
    }

    SPK_MEMBER void add(spk_f & total) {
        if (Q8) {
            y = z = f_zero();
        }
        codes = super + W::SCALES;
        next_two<0>();
        parts<0>();
        if constexpr (!Q8) {
            if constexpr (CENTRED) {
                all = i_less<W::CENTRE>(all, low);
            }
            y = i_float(all);
            if constexpr (W::MINIMA) {
                z = i_float(low);
            }
        }
        total = f_fma(y, f_load_half(super), total);
        if constexpr (W::MINIMA) {
            const spk_f dmin = f_load_half(super + 2*SPK_ROWS);
            SPK_EACH total.v[q] = vfmsq_f32(total.v[q], z.v[q], dmin.v[q]);
        }
    }
};

// out [SPK_ROWS]; not inlined: it saves fewer registers than what calls it
template <class W, bool Q8>
static __attribute__((noinline)) void k_one_sums(int64_t n, const uint8_t * tile, const ggml_spk_row & act, float * out) {
    spk_f total = f_zero();
    for (int64_t b0 = 0; b0 < n/32; b0 += SPK_SUPER, tile += W::SUPER) {
        k_one<W, Q8> one;
        one.super    = tile;
        one.x        = act.s8 + 32*b0;
        one.sums     = act.sums + (W::COLUMNS == 16 ? 2*b0 : n/16 + b0);
        one.x_scales = act.scales + b0;
        one.scaled   = act.scaled + b0;
        one.add(total);
    }
    f_store(out, total);
}
