#pragma once

// What the products of spk-k.h take from NEON. Included inside the namespace of the instruction set.

#include "spk-sums-neon.h"

typedef uint8_t k_bytes __attribute__((vector_size(16))); // one of each row

static const int K_NT = 2; // tokens whose sums stay in registers together
#ifdef SPK_DOTPROD
template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = COLUMNS/4; // steps whose sums fit in a spk_h
#else
template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = BITS == 8 ? 2 : COLUMNS/4;
#endif

// what a product reads of its tokens: rows
template <int NT>
struct k_source {
    const ggml_spk_row * act;

    SPK_MEMBER static k_source from(const ggml_spk_row * act, const spk_batch_block *) { return { act }; }
    SPK_MEMBER const int8_t * columns(int t, int64_t b, int step) const { return act[t].s8 + b*32 + step*4; }
    template <int N_BLOCK> SPK_MEMBER int32_t bias(int, int64_t) const { return 0; } // bytes are signed as they are
};

template <int J> SPK_INLINE spk_w w_two_bits(const uint8_t * p) {
    spk_w w;
    SPK_EACH {
        const k_bytes x = (k_bytes) vld1q_u8(p + 16*q) >> 2*J;
        w.v[q] = (int8x16_t) (J == 3 ? x : x & 3);
    }
    return w;
}
// the bits of `mask` in w become those of x, moved up
SPK_INLINE int8x16_t put_bits(int8x16_t w, k_bytes x, int up, uint8_t mask) {
    return (int8x16_t) vbslq_u8(vdupq_n_u8(mask), (uint8x16_t) (up < 0 ? x >> -up : x << up), (uint8x16_t) w);
}
template <int TO> SPK_INLINE spk_w w_bit_plane(spk_w w, const uint8_t * p, int from) { // bit `from` of each byte becomes bit TO
    SPK_EACH w.v[q] = put_bits(w.v[q], (k_bytes) vld1q_u8(p + 16*q), TO - from, 1 << TO);
    return w;
}
template <int J> SPK_INLINE spk_w w_upper_bits(spk_w w, const uint8_t * p) {
    SPK_EACH w.v[q] = put_bits(w.v[q], (k_bytes) vld1q_u8(p + 16*q), 4 - 2*J, 0x30);
    return w;
}

typedef spk_n spk_i; // 16 int32, one per row
SPK_INLINE spk_i i_set(int32_t x) { spk_i a; SPK_EACH a.v[q] = vdupq_n_s32(x); return a; }
SPK_INLINE spk_f i_float(spk_i a) { spk_f x; SPK_EACH x.v[q] = vcvtq_f32_s32(a.v[q]); return x; }
template <int N> SPK_INLINE spk_i i_less(spk_i a, spk_i b) { // a - N*b, N a power of two
    SPK_EACH a.v[q] = vsubq_s32(a.v[q], vshlq_n_s32(b.v[q], __builtin_ctz(N)));
    return a;
}

// sums of codes: with the dot product as they are, else of columns in 16 bits, 8*31*127, 4*63*127 or 2*127*127 fits
#ifdef SPK_DOTPROD
typedef spk_i spk_h;
SPK_INLINE spk_h h_start(int32_t) { return i_set(0); }
SPK_INLINE void  h_dot(spk_h & acc, spk_w w, const int8_t * s) {
    const int8x16_t x = bytes4(s);
    SPK_EACH acc.v[q] = dot128(acc.v[q], w.v[q], x);
}
SPK_INLINE spk_i h_sum(spk_h acc) { return acc; }
#else
struct spk_h { int16x8_t v[8]; }; // as spk_sums::small
SPK_INLINE spk_h h_start(int32_t) { spk_h a; SPK_UNROLL for (int i = 0; i < 8; ++i) a.v[i] = vdupq_n_s16(0); return a; }
SPK_INLINE void  h_dot(spk_h & acc, spk_w w, const int8_t * s) {
    const int8x16_t x = bytes4(s);
    SPK_EACH {
        acc.v[2*q]     = vmlal_s8     (acc.v[2*q],     vget_low_s8(w.v[q]), vget_low_s8(x));
        acc.v[2*q + 1] = vmlal_high_s8(acc.v[2*q + 1], w.v[q], x);
    }
}
SPK_INLINE spk_i h_sum(const spk_h & acc) {
    spk_i a;
    SPK_EACH a.v[q] = vpaddq_s32(vpaddlq_s16(acc.v[2*q]), vpaddlq_s16(acc.v[2*q + 1]));
    return a;
}
#endif

SPK_INLINE spk_h h_start_signed(int32_t) { return h_start(0); }
SPK_INLINE void  h_dot_signed(spk_h & acc, spk_w w, const int8_t * s) { h_dot(acc, w, s); }

// two whole numbers of each row: 16 of one, 16 of the other
struct spk_s { int16x8_t v[4]; };
SPK_INLINE void s_store(int16_t * p, k_bytes a, k_bytes b) {
    vst1q_s16(p,      vmovl_s8(vget_low_s8((int8x16_t) a)));
    vst1q_s16(p + 8,  vmovl_high_s8((int8x16_t) a));
    vst1q_s16(p + 16, vmovl_s8(vget_low_s8((int8x16_t) b)));
    vst1q_s16(p + 24, vmovl_high_s8((int8x16_t) b));
}
SPK_INLINE spk_s s_load(const int16_t * p) { spk_s s; SPK_EACH s.v[q] = vld1q_s16(p + 8*q); return s; }
template <int BITS> SPK_INLINE spk_s s_scale(const int16_t * p) { return s_load(p); }
SPK_INLINE void  s_store_floats(float * p, k_bytes a) {
    for (int r = 0; r < SPK_ROWS; ++r) {
        p[r] = a[r];
    }
}
SPK_INLINE int32x4_t s_first(spk_s s, int q) { return q % 2 ? vmovl_high_s16(s.v[q/2]) : vmovl_s16(vget_low_s16(s.v[q/2])); }
SPK_INLINE spk_i h_times(const spk_h & acc, spk_s s) {
    spk_i x = h_sum(acc);
    SPK_EACH x.v[q] = vmulq_s32(x.v[q], s_first(s, q));
    return x;
}
SPK_INLINE spk_i h_scaled(const spk_h & acc, spk_s s, spk_i sum) {
    const spk_i x = h_sum(acc);
    SPK_EACH sum.v[q] = vmlaq_s32(sum.v[q], x.v[q], s_first(s, q));
    return sum;
}
SPK_INLINE spk_i s_dot(spk_i sum, spk_s s, const int16_t * x) {
    SPK_UNROLL for (int i = 0; i < 2; ++i) {
        SPK_UNROLL for (int j = 0; j < 2; ++j) {
            sum.v[2*j]     = vmlal_n_s16     (sum.v[2*j],     vget_low_s16(s.v[2*i + j]), x[i]);
            sum.v[2*j + 1] = vmlal_high_n_s16(sum.v[2*j + 1], s.v[2*i + j], x[i]);
        }
    }
    return sum;
}
SPK_INLINE spk_i s_times(spk_s s, const int16_t * x) { return s_dot(i_set(0), s, x); }
