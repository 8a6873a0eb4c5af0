// The product of two BF16 rows on ARM without BF16 instructions, where llama.cpp multiplies one pair at a time in scalar code
// (12 instructions each). It is the last product of an INT8 model whose embedding is its output, and all of a BF16 one.
#pragma once

#include "ggml.h"

#if defined(__aarch64__)
#include <arm_neon.h>

// a float's upper half is a BF16 number: of a register's pairs the even ones go there, the odd ones are there
static inline float32x4_t spk_bf16_even(uint16x8_t v) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(v), 16)); }
static inline float32x4_t spk_bf16_odd (uint16x8_t v) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(v), vdupq_n_u32(0xFFFF0000u))); }
#endif

// sum of x[j]*y[j], j < *i, products exact, sums in F32; *i: how far it came, n without its last 7 at most, 0 on other machines
static inline double spk_bf16_dot(int n, const ggml_bf16_t * x, const ggml_bf16_t * y, int * i) {
    *i = 0;
#if defined(__aarch64__)
    const uint16_t * a = (const uint16_t *) x, * b = (const uint16_t *) y;
    float32x4_t sum[8];
    for (int j = 0; j < 8; ++j) {
        sum[j] = vdupq_n_f32(0.0f);
    }
    for (; *i + 32 <= n; *i += 32) {
        for (int j = 0; j < 4; ++j) {
            const uint16x8_t u = vld1q_u16(a + *i + 8*j), v = vld1q_u16(b + *i + 8*j);
            sum[2*j]     = vfmaq_f32(sum[2*j],     spk_bf16_even(u), spk_bf16_even(v));
            sum[2*j + 1] = vfmaq_f32(sum[2*j + 1], spk_bf16_odd(u),  spk_bf16_odd(v));
        }
    }
    for (; *i + 8 <= n; *i += 8) {
        const uint16x8_t u = vld1q_u16(a + *i), v = vld1q_u16(b + *i);
        sum[0] = vfmaq_f32(sum[0], spk_bf16_even(u), spk_bf16_even(v));
        sum[1] = vfmaq_f32(sum[1], spk_bf16_odd(u),  spk_bf16_odd(v));
    }
    for (int j = 4; j > 0; j /= 2) {
        for (int l = 0; l < j; ++l) {
            sum[l] = vaddq_f32(sum[l], sum[l + j]);
        }
    }
    return vaddvq_f32(sum[0]);
#else
    GGML_UNUSED(n);
    GGML_UNUSED(x);
    GGML_UNUSED(y);
    return 0.0;
#endif
}
