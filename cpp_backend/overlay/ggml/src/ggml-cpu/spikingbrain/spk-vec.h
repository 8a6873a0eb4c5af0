#pragma once

// A small vector wrapper: 16 floats, which the compiler maps to whatever the instruction set has
// (one AVX-512, two AVX, four SSE or NEON registers). Loads and stores need no alignment.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" // no function that takes them is called across libraries
#endif

typedef float spk_vec   __attribute__((vector_size(64)));
typedef float spk_vec_u __attribute__((vector_size(64), aligned(4)));

static const int SPK_VEC = 16;

static inline spk_vec spk_load(const float * x) {
    return *(const spk_vec_u *) x;
}

static inline void spk_store(float * x, spk_vec v) {
    *(spk_vec_u *) x = v;
}

static inline float spk_sum(spk_vec v) {
    typedef float v8 __attribute__((vector_size(32)));
    typedef float v4 __attribute__((vector_size(16)));
    const v8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    const v4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[1]) + (b[2] + b[3]);
}
