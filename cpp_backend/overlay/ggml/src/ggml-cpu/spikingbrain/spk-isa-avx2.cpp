#include "spk-isa-common.h"

#ifdef __x86_64__
#include "spk-immintrin.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define SPK_SIMD "spk-simd-avx2.h"
namespace {
namespace avx2 {
#include "spk-kernels.h"
}
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const spk_isa table = SPK_TABLE(avx2);

const spk_isa * spk_isa_avx2() { return &table; }
#else
const spk_isa * spk_isa_avx2() { return nullptr; }
#endif
