#pragma once

// what a spk-isa-*.cpp needs before it switches to its instruction set

#include "spk-isa.h"
#include "spk-layout.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <type_traits>

typedef int8_t swa_bytes __attribute__((vector_size(16))); // 16 columns of a key or value

#define SPK_INLINE static inline __attribute__((always_inline))
#define SPK_MEMBER inline __attribute__((always_inline))
#define SPK_UNROLL   _Pragma("GCC unroll 8")
#define SPK_UNROLL16 _Pragma("GCC unroll 16")

// the kernels of one namespace, in the order of spk_isa
#define SPK_TABLE_OF(ns) { #ns, ns::encode_row, ns::SPK_TOGETHER, sizeof(ns::spk_batch), ns::pack_batch, ns::mul_tile, ns::mul_rows, ns::tile_outliers, ns::rows_outliers, ns::add_rest, ns::gla_block, ns::gla_advance, ns::swa_query, ns::swa_load, ns::swa_rows }
#define SPK_TABLE(ns) SPK_TABLE_OF(ns)
