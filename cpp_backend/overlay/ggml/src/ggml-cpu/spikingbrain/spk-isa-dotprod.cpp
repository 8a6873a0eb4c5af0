#include "spk-isa-common.h"

#ifdef __aarch64__
#include <arm_neon.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("no-schedule-insns") // it would load early and run out of registers: a fifth more instructions
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#define SPK_SIMD "spk-simd-neon.h"
#define SPK_DOTPROD
namespace {
namespace dotprod {
#include "spk-kernels.h"
}
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const spk_isa table = SPK_TABLE(dotprod);

const spk_isa * spk_isa_dotprod() { return &table; }
#else
const spk_isa * spk_isa_dotprod() { return nullptr; }
#endif
