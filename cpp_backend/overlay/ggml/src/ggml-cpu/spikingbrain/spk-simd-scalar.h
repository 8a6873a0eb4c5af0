#pragma once

// Any CPU: plain loops, the form that the others are checked against. Included inside its namespace.

#include "spk-swa-bytes.h"

#ifdef __AVX__
static const int SPK_REG = 8; // floats of a register
#else
static const int SPK_REG = 4;
#endif
static const int SPK_NT = 1; // tokens whose sums are kept together
template <int NT> constexpr int SPK_AHEAD = 4096;
static constexpr int SPK_AHEAD_SECOND = 0;

struct spk_w { int8_t  v[64]; }; // a step: 16 rows x 4 columns
struct spk_i { int32_t v[16]; }; // one per row
struct spk_f { float   v[16]; };
struct spk_d { double  v[16]; };

#define SPK_EACH for (int r = 0; r < 16; ++r)

SPK_INLINE spk_w w_signed(const uint8_t * p) {
    spk_w w;
    memcpy(w.v, p, 64);
    return w;
}
SPK_INLINE void w_nibbles(const uint8_t * p, spk_w & lo, spk_w & hi) {
    for (int j = 0; j < 64; ++j) {
        lo.v[j] = p[j] & 15;
        hi.v[j] = p[j] >> 4;
    }
}
SPK_INLINE spk_w w_fifth_bit(spk_w w, const uint8_t * p) {
    for (int j = 0; j < 64; ++j) {
        w.v[j] += (p[j/8] >> j % 8 & 1)*16;
    }
    return w;
}

SPK_INLINE spk_w w_value(spk_w w) { // codes become what they stand for (SPK_VALUES)
    for (int j = 0; j < 64; ++j) {
        w.v[j] = SPK_VALUES[w.v[j]];
    }
    return w;
}

SPK_INLINE spk_i i_set(int32_t x) { spk_i a; SPK_EACH a.v[r] = x; return a; }
SPK_INLINE spk_i i_start_4bit  (int32_t bias) { return i_set(bias); }
SPK_INLINE spk_i i_start_5bit  (int32_t bias) { return i_set(2*bias); }
SPK_INLINE spk_i i_start_signed(int32_t)      { return i_set(0); }
SPK_INLINE void  i_dot(spk_i & acc, const spk_w & w, const int8_t * s) {
    SPK_EACH acc.v[r] += w.v[4*r]*s[0] + w.v[4*r + 1]*s[1] + w.v[4*r + 2]*s[2] + w.v[4*r + 3]*s[3];
}
SPK_INLINE void  i_dot_signed(spk_i & acc, const spk_w & w, const int8_t * s) { i_dot(acc, w, s); }
typedef spk_i spk_h; // sums of nibbles over a block
SPK_INLINE spk_h h_start(int32_t bias)                         { return i_start_4bit(bias); }
SPK_INLINE spk_h h_start_signed(int32_t)                       { return i_set(0); }
SPK_INLINE void  h_dot(spk_h & acc, const spk_w & w, const int8_t * s)        { i_dot(acc, w, s); }
SPK_INLINE void  h_dot_signed(spk_h & acc, const spk_w & w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE spk_i h_sum(spk_h acc, int32_t)                     { return acc; }

// K-quants (spk-k.h)
struct spk_s { int16_t v[32]; }; // two whole numbers of each row
template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = COLUMNS/4; // steps whose sums fit in a spk_h
template <int J> SPK_INLINE spk_w w_two_bits(const uint8_t * p) {
    spk_w w;
    for (int j = 0; j < 64; ++j) {
        w.v[j] = p[j] >> 2*J & 3;
    }
    return w;
}
template <int TO> SPK_INLINE spk_w w_bit_plane(spk_w w, const uint8_t * p, int from) { // bit `from` of each byte becomes bit TO
    for (int j = 0; j < 64; ++j) {
        w.v[j] += (p[j] >> from & 1) << TO;
    }
    return w;
}
template <int J> SPK_INLINE spk_w w_upper_bits(spk_w w, const uint8_t * p) {
    for (int j = 0; j < 64; ++j) {
        w.v[j] += (p[j] >> 2*J & 3) << 4;
    }
    return w;
}
template <class B> SPK_INLINE void s_store(int16_t * p, B a, B b) { SPK_EACH p[2*r] = (int8_t) a[r], p[2*r + 1] = (int8_t) b[r]; } // of each row one of a, one of b
SPK_INLINE spk_s s_load(const int16_t * p) { spk_s s; memcpy(s.v, p, 64); return s; }
template <int BITS> SPK_INLINE spk_s s_scale(const int16_t * p) { return s_load(p); }
template <class B> SPK_INLINE void s_store_floats(float * p, B a) { SPK_EACH p[r] = a[r]; }
SPK_INLINE spk_i h_times(spk_h acc, spk_s s) { SPK_EACH acc.v[r] *= s.v[2*r]; return acc; }
SPK_INLINE spk_i h_scaled(spk_h acc, spk_s s, spk_i sum) { SPK_EACH sum.v[r] += s.v[2*r]*acc.v[r]; return sum; }
SPK_INLINE spk_i s_dot(spk_i sum, spk_s s, const int16_t * x) { SPK_EACH sum.v[r] += s.v[2*r]*x[0] + s.v[2*r + 1]*x[1]; return sum; }
SPK_INLINE spk_i s_times(spk_s s, const int16_t * x) { return s_dot(i_set(0), s, x); }
template <int N> SPK_INLINE spk_i i_less(spk_i a, spk_i b) { SPK_EACH a.v[r] -= N*b.v[r]; return a; } // a - N*b, N a power of two

SPK_INLINE spk_f i_float(spk_i a) { spk_f x; SPK_EACH x.v[r] = (float) a.v[r]; return x; }

SPK_INLINE float half_to_float(const uint8_t * p) {
    ggml_fp16_t h;
    memcpy(&h, p, 2);
    return GGML_FP16_TO_FP32(h);
}
SPK_INLINE spk_f f_zero()                         { spk_f x; SPK_EACH x.v[r] = 0.0f; return x; }
SPK_INLINE spk_f f_set(float x)                   { spk_f a; SPK_EACH a.v[r] = x; return a; }
SPK_INLINE spk_f f_load(const float * p)          { spk_f x; memcpy(x.v, p, 64); return x; }
SPK_INLINE spk_f f_load_half(const uint8_t * p)   { spk_f x; SPK_EACH x.v[r] = half_to_float(p + 2*r); return x; }
SPK_INLINE void  f_store(float * p, spk_f a)      { memcpy(p, a.v, 64); }
SPK_INLINE spk_f f_scale(spk_f a, float b)        { SPK_EACH a.v[r] *= b; return a; }
#ifdef __FMA__ // as the other instruction sets, whatever a compiler makes of a sum
SPK_INLINE spk_f f_fma(spk_f a, spk_f b, spk_f c) { SPK_EACH c.v[r] = __builtin_fmaf(a.v[r], b.v[r], c.v[r]); return c; }
#else
SPK_INLINE spk_f f_fma(spk_f a, spk_f b, spk_f c) { SPK_EACH c.v[r] += a.v[r]*b.v[r]; return c; }
#endif

// encoding
SPK_INLINE spk_d d_zero()                    { spk_d a; SPK_EACH a.v[r] = 0.0; return a; }
SPK_INLINE void  d_add(spk_d & a, spk_f x)   { SPK_EACH a.v[r] += x.v[r]; }
SPK_INLINE void  d_store(double * p, spk_d a){ memcpy(p, a.v, sizeof(a.v)); }
SPK_INLINE spk_f f_mul(spk_f a, spk_f b)     { SPK_EACH a.v[r] *= b.v[r]; return a; }
SPK_INLINE spk_f f_abs(spk_f a)              { SPK_EACH a.v[r] = fabsf(a.v[r]); return a; }
SPK_INLINE spk_f f_max(spk_f a, spk_f b)     { SPK_EACH a.v[r] = a.v[r] > b.v[r] ? a.v[r] : b.v[r]; return a; }
SPK_INLINE float f_top(spk_f a)              { SPK_EACH a.v[0] = a.v[r] > a.v[0] ? a.v[r] : a.v[0]; return a.v[0]; }
SPK_INLINE spk_i f_quotient(spk_f a, float b) {
    spk_i s;
    SPK_EACH s.v[r] = (int32_t) rintf(a.v[r]/b);
    return s;
}
SPK_INLINE spk_i   i_clamp(spk_i a)               { SPK_EACH a.v[r] = a.v[r] > 127 ? 127 : a.v[r] < -127 ? -127 : a.v[r]; return a; }
SPK_INLINE bool    i_differ(spk_i a, spk_i b)     { int32_t x = 0; SPK_EACH x |= a.v[r] ^ b.v[r]; return x != 0; }
SPK_INLINE int32_t i_sum(spk_i a, spk_i b)        { int32_t x = 0; SPK_EACH x += a.v[r] + b.v[r]; return x; }
SPK_INLINE void    i_store(int32_t * p, spk_i a)  { memcpy(p, a.v, 64); }
SPK_INLINE void    i_store_s8(int8_t * p, spk_i a){ SPK_EACH p[r] = (int8_t) a.v[r]; }

// rows as they are on disk: 32 columns of one row
struct spk_p  { int8_t  v[32]; };
struct spk_l  { int32_t v; };
struct spk_lf { float   v; };

SPK_INLINE spk_p p_signed(const void * p) {
    spk_p w;
    memcpy(w.v, p, 32);
    return w;
}
SPK_INLINE spk_p p_4bit(const uint8_t * qs) {
    spk_p w;
    SPK_EACH w.v[r]      = (qs[r] & 15) - 8;
    SPK_EACH w.v[r + 16] = (qs[r] >> 4) - 8;
    return w;
}
SPK_INLINE spk_p p_5bit(const uint8_t * qs, const uint8_t * qh) {
    spk_p w;
    SPK_EACH w.v[r]      = (qs[r] & 15) + (qh[r/8]     >> r % 8 & 1)*16 - 16;
    SPK_EACH w.v[r + 16] = (qs[r] >> 4) + (qh[2 + r/8] >> r % 8 & 1)*16 - 16;
    return w;
}
SPK_INLINE spk_p p_value(const uint8_t * qs) {
    spk_p w;
    SPK_EACH w.v[r]      = SPK_VALUES[qs[r] & 15];
    SPK_EACH w.v[r + 16] = SPK_VALUES[qs[r] >> 4];
    return w;
}
SPK_INLINE spk_l  l_zero()  { return { 0 }; }
SPK_INLINE void   l_dot(spk_l & acc, const spk_p & w, const int8_t * s) {
    for (int i = 0; i < 32; ++i) {
        acc.v += w.v[i]*s[i];
    }
}
SPK_INLINE spk_lf lf_zero() { return { 0.0f }; }
SPK_INLINE void   lf_add(spk_lf & acc, spk_l a, float scale) { acc.v += a.v*scale; }
SPK_INLINE float  lf_sum(spk_lf a) { return a.v; }

// window attention (spk-swa.h, spk-swa-int.h)
#define SWA_PIECES 0
#define SWA_DIRECT 0
static const int  SWA_BITS = 8;
static const bool SWA_FLIP = false;
static const int  SWA_LOADED = 4; // keys that are turned together
SPK_INLINE void   a_store_keys(char * p, const char * rows, int64_t stride) { a_store_words<SWA_FLIP>(p, a_four(rows, stride)); }

typedef float half_reg __attribute__((vector_size(4*SPK_REG)));
SPK_INLINE half_reg r_half(const ggml_fp16_t * p) {
    half_reg x;
    for (int i = 0; i < SPK_REG; ++i) {
        x[i] = GGML_FP16_TO_FP32(p[i]);
    }
    return x;
}

typedef spk_i swa_acc; // 16 keys
struct swa_keys { spk_w a, b; }; // 16 keys x 8 columns

SPK_INLINE swa_acc  a_set(int32_t x)                    { return i_set(x); }
SPK_INLINE swa_keys a_keys(const uint8_t * p)           { return { w_signed(p), w_signed(p + 64) }; }
SPK_INLINE void     a_dot(swa_acc & acc, const swa_keys & k, const int8_t * s) { i_dot(acc, k.a, s); i_dot(acc, k.b, s + 4); }
SPK_INLINE void     a_store(float * p, const swa_acc & acc) { f_store(p, i_float(acc)); }
