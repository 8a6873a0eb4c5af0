// AVX-512 on processors of AMD: spike counts times Q4_0 in pairs
#define SPK_PAIRS
#include "spk-isa-avx512.cpp"
