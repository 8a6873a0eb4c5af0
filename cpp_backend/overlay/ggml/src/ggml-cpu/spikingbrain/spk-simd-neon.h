#pragma once

// AArch64 NEON, with the dot product (SPK_DOTPROD) and the integer matrix product (SPK_I8MM) where the namespace allows
// them: 16 rows are four registers. The sums of a tile product are in spk-sums-neon.h.
// Included inside the namespace of its instruction set.

#include "spk-swa-bytes.h"

#include <arm_neon.h>

static const int SPK_REG = 4; // floats of a register
template <int NT> constexpr int SPK_AHEAD = 4096;
static constexpr int SPK_AHEAD_SECOND = 0;

struct spk_w { int8x16_t   v[4]; }; // a step: 16 rows x 4 columns, one byte each
struct spk_f { float32x4_t v[4]; }; // 16 floats, one per row
struct spk_d { float64x2_t v[8]; };

#define SPK_EACH _Pragma("GCC unroll 4") for (int q = 0; q < 4; ++q)

SPK_INLINE spk_w w_signed(const uint8_t * p) { spk_w w; SPK_EACH w.v[q] = vld1q_s8((const int8_t *) p + 16*q); return w; }
SPK_INLINE void  w_nibbles(const uint8_t * p, spk_w & lo, spk_w & hi) {
    SPK_EACH {
        const uint8x16_t x = vld1q_u8(p + 16*q);
        lo.v[q] = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15)));
        hi.v[q] = vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
    }
}
SPK_INLINE spk_w w_fifth_bit(spk_w w, const uint8_t * p) {
    const uint8x16_t pick = vcombine_u8(vcreate_u8(0x8040201008040201), vcreate_u8(0x8040201008040201));
    SPK_EACH {
        const uint8x16_t bits = vcombine_u8(vdup_n_u8(p[2*q]), vdup_n_u8(p[2*q + 1]));
        w.v[q] = vorrq_s8(w.v[q], vreinterpretq_s8_u8(vandq_u8(vtstq_u8(bits, pick), vdupq_n_u8(16))));
    }
    return w;
}
SPK_INLINE spk_w w_value(spk_w w) { // codes become what they stand for (SPK_VALUES)
    SPK_EACH w.v[q] = vqtbl1q_s8(vld1q_s8(SPK_VALUES), vreinterpretq_u8_s8(w.v[q]));
    return w;
}
SPK_INLINE int8x16_t bytes4(const int8_t * s) {
    int32_t s4;
    memcpy(&s4, s, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(s4));
}

#ifdef SPK_DOTPROD
SPK_INLINE int32x4_t dot128(int32x4_t acc, int8x16_t w, int8x16_t s) { return vdotq_s32(acc, w, s); }
#else
SPK_INLINE int32x4_t dot128(int32x4_t acc, int8x16_t w, int8x16_t s) {
    return vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(s)), w, s));
}
#endif

SPK_INLINE spk_f f_zero()                { spk_f x; SPK_EACH x.v[q] = vdupq_n_f32(0.0f); return x; }
SPK_INLINE spk_f f_set(float a)          { spk_f x; SPK_EACH x.v[q] = vdupq_n_f32(a); return x; }
SPK_INLINE spk_f f_load(const float * p) { spk_f x; SPK_EACH x.v[q] = vld1q_f32(p + 4*q); return x; }
SPK_INLINE spk_f f_load_half(const uint8_t * p) {
    spk_f x;
    SPK_EACH x.v[q] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8*q)));
    return x;
}
SPK_INLINE void  f_store(float * p, spk_f a)      { SPK_EACH vst1q_f32(p + 4*q, a.v[q]); }
SPK_INLINE spk_f f_scale(spk_f a, float b)        { SPK_EACH a.v[q] = vmulq_n_f32(a.v[q], b); return a; }
SPK_INLINE spk_f f_fma(spk_f a, spk_f b, spk_f c) { SPK_EACH c.v[q] = vfmaq_f32(c.v[q], a.v[q], b.v[q]); return c; }

// encoding
struct spk_n { int32x4_t v[4]; }; // 16 counts

SPK_INLINE spk_d d_zero() { spk_d d; SPK_UNROLL for (int j = 0; j < 8; ++j) d.v[j] = vdupq_n_f64(0.0); return d; }
SPK_INLINE void  d_add(spk_d & d, spk_f x) {
    SPK_EACH {
        d.v[2*q]     = vaddq_f64(d.v[2*q],     vcvt_f64_f32(vget_low_f32(x.v[q])));
        d.v[2*q + 1] = vaddq_f64(d.v[2*q + 1], vcvt_high_f64_f32(x.v[q]));
    }
}
SPK_INLINE void  d_store(double * p, spk_d d)  { SPK_UNROLL for (int j = 0; j < 8; ++j) vst1q_f64(p + 2*j, d.v[j]); }
SPK_INLINE spk_f f_mul(spk_f a, spk_f b)       { SPK_EACH a.v[q] = vmulq_f32(a.v[q], b.v[q]); return a; }
SPK_INLINE spk_f f_abs(spk_f a)                { SPK_EACH a.v[q] = vabsq_f32(a.v[q]); return a; }
SPK_INLINE spk_f f_max(spk_f a, spk_f b)       { SPK_EACH a.v[q] = vmaxq_f32(a.v[q], b.v[q]); return a; }
SPK_INLINE float f_top(spk_f a) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}
SPK_INLINE spk_n f_quotient(spk_f a, float b) {
    spk_n s;
    SPK_EACH s.v[q] = vcvtnq_s32_f32(vdivq_f32(a.v[q], vdupq_n_f32(b)));
    return s;
}
SPK_INLINE spk_n   i_clamp(spk_n a) { SPK_EACH a.v[q] = vmaxq_s32(vminq_s32(a.v[q], vdupq_n_s32(127)), vdupq_n_s32(-127)); return a; }
SPK_INLINE bool    i_differ(spk_n a, spk_n b) {
    int32x4_t x = vdupq_n_s32(0);
    SPK_EACH x = vorrq_s32(x, veorq_s32(a.v[q], b.v[q]));
    return vmaxvq_u32(vreinterpretq_u32_s32(x)) != 0;
}
SPK_INLINE int32_t i_sum(spk_n a, spk_n b) {
    int32x4_t x = vdupq_n_s32(0);
    SPK_EACH x = vaddq_s32(x, vaddq_s32(a.v[q], b.v[q]));
    return vaddvq_s32(x);
}
SPK_INLINE void i_store(int32_t * p, spk_n a) { SPK_EACH vst1q_s32(p + 4*q, a.v[q]); }
SPK_INLINE void i_store_s8(int8_t * p, spk_n a) {
    const int16x8_t lo = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
    const int16x8_t hi = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}

// rows as they are on disk: 32 columns of one row, 4 int32 sums
struct spk_p  { int8x16_t a, b; };
struct spk_l  { int32x4_t v; };
struct spk_lf { float32x4_t v; };

SPK_INLINE spk_p p_signed(const void * p) { return { vld1q_s8((const int8_t *) p), vld1q_s8((const int8_t *) p + 16) }; }
SPK_INLINE spk_p p_nibbles(const uint8_t * qs) {
    const uint8x16_t x = vld1q_u8(qs);
    return { vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(x, 4)) };
}
SPK_INLINE spk_p p_4bit(const uint8_t * qs) {
    const spk_p w = p_nibbles(qs);
    return { vsubq_s8(w.a, vdupq_n_s8(8)), vsubq_s8(w.b, vdupq_n_s8(8)) };
}
SPK_INLINE int8x16_t p_bit(int8x16_t w, const uint8_t * qh) {
    const uint8x16_t pick = vcombine_u8(vcreate_u8(0x8040201008040201), vcreate_u8(0x8040201008040201));
    const uint8x16_t set  = vtstq_u8(vcombine_u8(vdup_n_u8(qh[0]), vdup_n_u8(qh[1])), pick);
    return vorrq_s8(w, vreinterpretq_s8_u8(vbicq_u8(vdupq_n_u8(0xf0), set)));
}
SPK_INLINE spk_p p_5bit(const uint8_t * qs, const uint8_t * qh) {
    const spk_p w = p_nibbles(qs);
    return { p_bit(w.a, qh), p_bit(w.b, qh + 2) };
}
SPK_INLINE spk_p p_value(const uint8_t * qs) {
    const spk_p w = p_nibbles(qs);
    return { vqtbl1q_s8(vld1q_s8(SPK_VALUES), vreinterpretq_u8_s8(w.a)), vqtbl1q_s8(vld1q_s8(SPK_VALUES), vreinterpretq_u8_s8(w.b)) };
}
SPK_INLINE float half_to_float(const uint8_t * p) {
    __fp16 h;
    memcpy(&h, p, 2);
    return h;
}
SPK_INLINE spk_l  l_zero()  { return { vdupq_n_s32(0) }; }
SPK_INLINE void   l_dot(spk_l & acc, spk_p w, const int8_t * s) {
    acc.v = dot128(dot128(acc.v, w.a, vld1q_s8(s)), w.b, vld1q_s8(s + 16));
}
SPK_INLINE spk_lf lf_zero() { return { vdupq_n_f32(0.0f) }; }
SPK_INLINE void   lf_add(spk_lf & acc, spk_l a, float scale) { acc.v = vfmaq_n_f32(acc.v, vcvtq_f32_s32(a.v), scale); }
SPK_INLINE float  lf_sum(spk_lf a) { return vaddvq_f32(a.v); }

// window attention (spk-swa.h, spk-swa-int.h)
static const int  SWA_BITS = 8;
static const bool SWA_FLIP = false;
static const int  SWA_LOADED = 4; // keys that are turned together
SPK_INLINE void   a_store_keys(char * p, const char * rows, int64_t stride) { a_store_words<SWA_FLIP>(p, a_four(rows, stride)); }

SPK_INLINE float32x4_t r_half(const ggml_fp16_t * p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

struct swa_acc   { int32x4_t v[4]; }; // 16 keys, or columns
struct swa_keys  { int8x16_t v[8]; }; // 16 keys x 8 columns
struct swa_codes { int8x16_t v[4]; }; // 16 columns x 4 keys

SPK_INLINE swa_acc  a_set(int32_t x) { swa_acc a; SPK_EACH a.v[q] = vdupq_n_s32(x); return a; }
SPK_INLINE swa_keys a_keys(const uint8_t * p) {
    swa_keys k;
    SPK_EACH k.v[q]     = vld1q_s8((const int8_t *) p + 16*q);
    SPK_EACH k.v[q + 4] = vld1q_s8((const int8_t *) p + 16*q + 64);
    return k;
}
SPK_INLINE void     a_store(float * p, const swa_acc & a) { SPK_EACH vst1q_f32(p + 4*q, vcvtq_f32_s32(a.v[q])); }

#ifdef SPK_DOTPROD
#define SWA_PIECES  3
#define SWA_MOST    8355000.0f // digits of -128 .. 127, the highest not negative
#define SWA_COLUMNS 1          // 16s of columns whose sums stay in registers together

SPK_INLINE void      a_dot(swa_acc & a, const swa_keys & k, const int8_t * s) {
    const int8x8_t x = vld1_s8(s);
    SPK_EACH a.v[q] = vdotq_lane_s32(a.v[q], k.v[q],     x, 0);
    SPK_EACH a.v[q] = vdotq_lane_s32(a.v[q], k.v[q + 4], x, 1);
}
SPK_INLINE swa_codes a_codes(const char * p) { swa_codes v; SPK_EACH v.v[q] = vld1q_s8((const int8_t *) p + 16*q); return v; }
typedef int8x16_t swa_piece; // all of them
SPK_INLINE swa_piece a_piece(const char * p, int) { return vld1q_s8((const int8_t *) p); }
SPK_INLINE swa_acc   a_dot_piece(swa_acc a, const swa_codes & v, swa_piece x, int i) {
    SPK_EACH a.v[q] = i == 0 ? vdotq_laneq_s32(a.v[q], v.v[q], x, 0) : i == 1 ? vdotq_laneq_s32(a.v[q], v.v[q], x, 1) : vdotq_laneq_s32(a.v[q], v.v[q], x, 2);
    return a;
}
// a[0] + 2^8 a[1] + 2^16 a[2], times a step
SPK_INLINE void      a_store_sum(float * p, const swa_acc * a, float step) {
    SPK_EACH {
        const float32x4_t low = vcvtq_f32_s32(vaddq_s32(a[0].v[q], vshlq_n_s32(a[1].v[q], 8)));
        vst1q_f32(p + 4*q, vmulq_n_f32(vfmaq_n_f32(low, vcvtq_f32_s32(a[2].v[q]), 65536.0f), step));
    }
}
// 16 floats become whole numbers, the lowest digits of 4 of them side by side, then their next
SPK_INLINE void      a_split(float * p) {
    const uint8x16_t order = vcombine_u8(vcreate_u8(0x0d0905010c080400), vcreate_u8(0x0f0b07030e0a0602));
    const int32x4_t carry = vdupq_n_s32(0x8080);
    SPK_EACH {
        const int32x4_t x = veorq_s32(vaddq_s32(vcvtnq_s32_f32(vld1q_f32(p + 4*q)), carry), carry);
        vst1q_u8((uint8_t *) (p + 4*q), vqtbl1q_u8(vreinterpretq_u8_s32(x), order));
    }
}
#else
#define SWA_PIECES 0
SPK_INLINE int32x4_t fours(int8x16_t w, int8x16_t s) { // four by four, as dot128 here does not
    return vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(s))), vpaddlq_s16(vmull_high_s8(w, s)));
}
SPK_INLINE void     a_dot(swa_acc & a, const swa_keys & k, const int8_t * s) {
    SPK_EACH a.v[q] = vaddq_s32(a.v[q], vaddq_s32(fours(k.v[q], bytes4(s)), fours(k.v[q + 4], bytes4(s + 4))));
}
#endif

#define SWA_DIRECT 1024 // so many rows multiply with keys where they lie (swa_scores_direct): all
#define SWA_KEYS   4
typedef int8x16_t swa_slice; // 16 bytes of a row
typedef int32x4_t swa_lanes; // its partial sums

SPK_INLINE swa_lanes a_no_lanes()                                         { return vdupq_n_s32(0); }
SPK_INLINE swa_slice a_query(const int8_t * q)                            { return vld1q_s8(q); }
SPK_INLINE swa_slice a_key(const char * p, int64_t stride, int a, int64_t c) { return vld1q_s8((const int8_t *) p + a*stride + c); }
SPK_INLINE swa_lanes a_dot_lanes(swa_lanes acc, swa_slice k, swa_slice q) { return dot128(acc, k, q); }
SPK_INLINE void      a_store_lanes(float * p, const swa_lanes * a, int32_t) {
    vst1q_f32(p, vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3]))));
}
