#include "spk-isa-common.h"

// with pairs it is another table: spk-isa-zen4.cpp
#ifdef SPK_PAIRS
#define SPK_NAME  zen4
#define SPK_ENTRY spk_isa_zen4
#else
#define SPK_NAME  avx512
#define SPK_ENTRY spk_isa_avx512
#endif

#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__) // gcc 12 warns inside its own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "spk-immintrin.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#define SPK_SIMD "spk-simd-avx512.h"
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
