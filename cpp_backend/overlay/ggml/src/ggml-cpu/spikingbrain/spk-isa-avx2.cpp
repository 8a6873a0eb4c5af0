#include "spk-isa-common.h"

// with AVX-VNNI it is another table: spk-isa-avxvnni.cpp
#ifdef SPK_VNNI
#define SPK_NAME  avxvnni
#define SPK_ENTRY spk_isa_avxvnni
#else
#define SPK_NAME  avx2
#define SPK_ENTRY spk_isa_avx2
#endif

// GCC before 11 has no AVX-VNNI
#if defined(__x86_64__) && (!defined(SPK_VNNI) || __has_include(<avxvnniintrin.h>))
#include "spk-immintrin.h"

#if defined(__clang__) && defined(SPK_VNNI)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#elif defined(SPK_VNNI)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define SPK_SIMD "spk-simd-avx2.h"
namespace {
namespace SPK_NAME {
#include "spk-kernels.h"
}
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const spk_isa table = SPK_TABLE(SPK_NAME);

const spk_isa * SPK_ENTRY() { return &table; }
#else
const spk_isa * SPK_ENTRY() { return nullptr; }
#endif
