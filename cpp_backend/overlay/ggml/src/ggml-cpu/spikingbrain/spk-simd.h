#pragma once

// The vector wrapper of the instruction set that is compiled: a spk-isa-*.cpp says which by SPK_SIMD, and includes this and the kernels over
// it inside its namespace. Nothing said: plain loops, on ARM what every AArch64 has.

#ifndef SPK_SIMD
#ifdef __aarch64__
#define SPK_SIMD "spk-simd-neon.h"
#else
#define SPK_SIMD "spk-simd-scalar.h"
#endif
#endif
#include SPK_SIMD
