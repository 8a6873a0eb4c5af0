// AVX2 on processors that multiply bytes and add them up in one instruction without AVX-512: Intel's for desktops and laptops since 2021
#define SPK_VNNI
#include "spk-isa-avx2.cpp"
