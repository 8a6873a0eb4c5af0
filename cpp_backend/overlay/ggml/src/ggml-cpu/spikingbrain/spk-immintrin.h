#pragma once

// intrinsics of all instruction sets, whichever the command line turns on: functions name their own

#include <immintrin.h>

#if defined(_MSC_VER) && defined(__clang__) // an older clang-cl leaves out what the command line does not turn on
#include <pmmintrin.h>
#include <tmmintrin.h>
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <f16cintrin.h>
#include <fmaintrin.h>
#include <avx512fintrin.h>
#include <avx512vlintrin.h>
#include <avx512bwintrin.h>
#include <avx512dqintrin.h>
#include <avx512vlbwintrin.h>
#include <avx512vldqintrin.h>
#include <avx512vnniintrin.h>
#include <avx512vlvnniintrin.h>
#if __has_include(<avxvnniintrin.h>)
#include <avxvnniintrin.h>
#endif
#endif
