#include "spk-isa-common.h"

#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__) // gcc 12 warns inside its own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

namespace {
namespace avx512 {
#include "spk-simd-avx512.h"
#include "spk-kernels.h"
}
// on processors of AMD: spike counts times Q4_0 in pairs
namespace zen4 {
#define SPK_PAIRS
#include "spk-simd-avx512.h"
#include "spk-kernels.h"
}
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const spk_isa table = SPK_TABLE(avx512), in_pairs = SPK_TABLE(zen4);

const spk_isa * spk_isa_avx512() { return &table; }
const spk_isa * spk_isa_zen4()   { return &in_pairs; }
#else
const spk_isa * spk_isa_avx512() { return nullptr; }
const spk_isa * spk_isa_zen4()   { return nullptr; }
#endif
