#pragma once

// Single registers of SPK_REG floats, where a kernel plans its registers by itself; wider vectors are in spk-vec.h.
// Included inside the namespace of the instruction set.

#include "spk-simd.h"

typedef float spk_reg   __attribute__((vector_size(4*SPK_REG)));
typedef float spk_reg_u __attribute__((vector_size(4*SPK_REG), aligned(4)));
typedef float spk_four  __attribute__((vector_size(16), aligned(4)));

SPK_INLINE spk_reg r_load(const float * x)         { return *(const spk_reg_u *) x; }
SPK_INLINE void    r_store(float * x, spk_reg v)   { *(spk_reg_u *) x = v; }

// loaded once: the compiler would load it again for every use, as x86's arithmetic can
SPK_INLINE void r_keep(spk_reg & v) {
#ifdef __x86_64__
    asm("" : "+v"(v));
#else
    (void) v;
#endif
}

// lanes 0, 2, 4 .. of a and of b, four by four, plus the odd ones
template <typename V>
SPK_INLINE V r_pairs(V a, V b) {
    if constexpr (sizeof(V) == 64) {
        return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
             + __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
    } else if constexpr (sizeof(V) == 32) {
        return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
    } else {
        return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
    }
}
// a[0] + a[1] turned by a lane + a[2] by two + a[3] by three; registers of one lane: a[0]
template <typename V>
SPK_INLINE V r_turned(const V * a) {
    if constexpr (sizeof(V) == 64) {
        return (a[0] + __builtin_shufflevector(a[1], a[1], 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
             + (__builtin_shufflevector(a[2], a[2], 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
              + __builtin_shufflevector(a[3], a[3], 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3));
    } else if constexpr (sizeof(V) == 32) {
        return a[0] + __builtin_shufflevector(a[1], a[1], 4, 5, 6, 7, 0, 1, 2, 3);
    } else {
        return a[0];
    }
}
#if defined(__aarch64__)
SPK_INLINE spk_four r_sums(const spk_reg * a) { return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])); }
#else
// the sums of a[0], a[1], a[2], a[3]
SPK_INLINE spk_four r_sums(const spk_reg * a) {
    const spk_reg s = r_pairs(r_pairs(a[0], a[1]), r_pairs(a[2], a[3]));
    spk_four sum = {};
    for (int i = 0; i < SPK_REG; i += 4) {
        spk_four part;
        memcpy(&part, (const char *) &s + 4*i, 16);
        sum += part;
    }
    return sum;
}
#endif
