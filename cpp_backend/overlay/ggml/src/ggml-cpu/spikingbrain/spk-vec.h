#pragma once

// A small vector wrapper: 16 floats, in a struct of registers of SPK_REG, since GCC keeps a vector type wider than these in memory and
// compares its floats one by one. Loads and stores need no alignment.

#include "spk-simd.h"

static const int SPK_VEC = 16;

typedef float   spk_part     __attribute__((vector_size(4*SPK_REG))); // for arithmetic beyond the operators below
typedef int32_t spk_part_int __attribute__((vector_size(4*SPK_REG)));
struct spk_vec { spk_part v[SPK_VEC/SPK_REG]; };

#define SPK_PARTS _Pragma("GCC unroll 4") for (int i = 0; i < SPK_VEC/SPK_REG; ++i)

#ifdef __aarch64__

SPK_INLINE spk_vec spk_load(const float * x)             { spk_vec a; SPK_PARTS a.v[i] = vld1q_f32(x + 4*i); return a; }
SPK_INLINE void    spk_store(float * x, spk_vec a)       { SPK_PARTS vst1q_f32(x + 4*i, a.v[i]); }
SPK_INLINE spk_vec spk_set(float x)                      { spk_vec a; SPK_PARTS a.v[i] = vdupq_n_f32(x); return a; }
SPK_INLINE spk_vec operator*(spk_vec a, float b)         { SPK_PARTS a.v[i] = vmulq_n_f32(a.v[i], b); return a; }
SPK_INLINE spk_vec operator+(spk_vec a, spk_vec b)       { SPK_PARTS a.v[i] = vaddq_f32(a.v[i], b.v[i]); return a; }
SPK_INLINE spk_vec operator-(spk_vec a, float b)         { SPK_PARTS a.v[i] = vsubq_f32(a.v[i], vdupq_n_f32(b)); return a; }
SPK_INLINE spk_vec spk_fma(spk_vec a, spk_vec b, spk_vec c) { SPK_PARTS c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]); return c; }
SPK_INLINE spk_vec spk_fma(spk_vec a, float b, spk_vec c)   { SPK_PARTS c.v[i] = vfmaq_n_f32(c.v[i], a.v[i], b); return c; }
SPK_INLINE spk_vec operator*(spk_vec a, spk_vec b)       { SPK_PARTS a.v[i] = vmulq_f32(a.v[i], b.v[i]); return a; }
SPK_INLINE spk_vec spk_max(spk_vec a, spk_vec b)         { SPK_PARTS a.v[i] = vmaxnmq_f32(a.v[i], b.v[i]); return a; } // of a NaN and a number: the number
SPK_INLINE float   spk_top(spk_vec a)                    { return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a.v[0], a.v[2]), vmaxnmq_f32(a.v[1], a.v[3]))); }
SPK_INLINE float   spk_sum(spk_vec a)                    { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]))); }

#else

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" // no function that takes them is called across libraries
#endif

typedef float spk_part_u __attribute__((vector_size(4*SPK_REG), aligned(4)));

SPK_INLINE spk_vec spk_load(const float * x)             { spk_vec a; SPK_PARTS a.v[i] = *(const spk_part_u *) (x + i*SPK_REG); return a; }
SPK_INLINE void    spk_store(float * x, spk_vec a)       { SPK_PARTS *(spk_part_u *) (x + i*SPK_REG) = a.v[i]; }
SPK_INLINE spk_vec spk_set(float x)                      { spk_vec a; SPK_PARTS a.v[i] = spk_part{} + x; return a; }
SPK_INLINE spk_vec operator*(spk_vec a, float b)         { SPK_PARTS a.v[i] = a.v[i]*b; return a; }
SPK_INLINE spk_vec operator*(spk_vec a, spk_vec b)       { SPK_PARTS a.v[i] = a.v[i]*b.v[i]; return a; }
SPK_INLINE spk_vec operator+(spk_vec a, spk_vec b)       { SPK_PARTS a.v[i] = a.v[i] + b.v[i]; return a; }
SPK_INLINE spk_vec operator-(spk_vec a, float b)         { SPK_PARTS a.v[i] = a.v[i] - b; return a; }
SPK_INLINE spk_vec spk_fma(spk_vec a, spk_vec b, spk_vec c) { SPK_PARTS c.v[i] = a.v[i]*b.v[i] + c.v[i]; return c; }
SPK_INLINE spk_vec spk_fma(spk_vec a, float b, spk_vec c)   { SPK_PARTS c.v[i] = a.v[i]*b + c.v[i]; return c; }
SPK_INLINE spk_vec spk_max(spk_vec a, spk_vec b)         { SPK_PARTS a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; } // of a NaN and a number b: b

// the floats of a register by f, which is given halves of what is left
template <typename V, typename F>
SPK_INLINE float spk_fold(V v, F f) {
    if constexpr (sizeof(V) == 16) {
        return f(f((float) v[0], (float) v[1]), f((float) v[2], (float) v[3]));
    } else {
        typedef float half __attribute__((vector_size(sizeof(V)/2)));
        half a, b;
        memcpy(&a, &v, sizeof(a));
        memcpy(&b, (const char *) &v + sizeof(a), sizeof(b));
        return spk_fold(f(a, b), f);
    }
}
template <typename F>
SPK_INLINE float spk_fold(spk_vec v, F f) {
    for (int n = SPK_VEC/SPK_REG; n > 1; n /= 2) {
        for (int i = 0; i < n/2; ++i) {
            v.v[i] = f(v.v[i], v.v[i + n/2]);
        }
    }
    return spk_fold(v.v[0], f);
}
SPK_INLINE float spk_sum(spk_vec v) { return spk_fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; }); }
SPK_INLINE float spk_top(spk_vec v) { return spk_fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; }); }

#endif
