#include "spk-isa-common.h"

#ifdef __aarch64__
#include <arm_neon.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("no-schedule-insns") // it would load early and run out of registers: a fifth more instructions
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif

#define SPK_SIMD "spk-simd-neon.h"
#define SPK_DOTPROD
#define SPK_I8MM
namespace {
namespace i8mm {
#include "spk-kernels.h"
}
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const spk_isa table = SPK_TABLE(i8mm);

const spk_isa * spk_isa_i8mm() { return &table; }
#else
const spk_isa * spk_isa_i8mm() { return nullptr; }
#endif
