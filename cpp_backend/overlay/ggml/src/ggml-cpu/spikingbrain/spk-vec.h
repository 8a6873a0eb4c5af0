#pragma once

// A small vector wrapper: 16 floats. On NEON four registers in a struct, since GCC keeps a vector type wider than the
// registers in memory; elsewhere one vector type, which the compiler maps to one AVX-512, two AVX or four SSE registers.
// Loads and stores need no alignment.

#include "spk-isa-common.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

static const int SPK_VEC = 16;

#ifdef __aarch64__

typedef float32x4_t spk_part; // for arithmetic beyond the operators below
typedef int32_t     spk_part_int __attribute__((vector_size(16)));
struct spk_vec { spk_part v[4]; };

#define SPK_PARTS _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

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

typedef float   spk_vec      __attribute__((vector_size(64)));
typedef float   spk_vec_u    __attribute__((vector_size(64), aligned(4)));
typedef int32_t spk_part_int __attribute__((vector_size(64)));
typedef spk_vec spk_part;

SPK_INLINE spk_vec spk_load(const float * x)       { return *(const spk_vec_u *) x; }
SPK_INLINE void    spk_store(float * x, spk_vec v) { *(spk_vec_u *) x = v; }
SPK_INLINE spk_vec spk_set(float x)                { return spk_vec{} + x; }
SPK_INLINE spk_vec spk_fma(spk_vec a, spk_vec b, spk_vec c) { return a*b + c; }
SPK_INLINE spk_vec spk_fma(spk_vec a, float b, spk_vec c)   { return a*b + c; }

SPK_INLINE spk_vec spk_max(spk_vec a, spk_vec b) { return a > b ? a : b; } // of a NaN and a number b: b

// the 16 floats by f, which is given halves, then quarters, then floats
template <typename F>
SPK_INLINE float spk_fold(spk_vec v, F f) {
    typedef float v8 __attribute__((vector_size(32)));
    typedef float v4 __attribute__((vector_size(16)));
    const v8 a = f((v8) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), (v8) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    const v4 b = f((v4) __builtin_shufflevector(a, a, 0, 1, 2, 3), (v4) __builtin_shufflevector(a, a, 4, 5, 6, 7));
    return f(f((float) b[0], (float) b[1]), f((float) b[2], (float) b[3]));
}
SPK_INLINE float spk_sum(spk_vec v) { return spk_fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; }); }
SPK_INLINE float spk_top(spk_vec v) { return spk_fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; }); }

#endif
