#pragma once

// What AVX2 and AVX-512 share for rows as they are on disk: one block of 32 columns is one register.

#include "spk-isa-common.h"

#include "spk-immintrin.h"

struct spk_p  { __m256i v; }; // 32 columns of one row
struct spk_l  { __m256i v; }; // 8 int32 sums
struct spk_lf { __m256  v; };

SPK_INLINE spk_p p_signed(const void * p) {
    return { _mm256_loadu_si256((const __m256i *) p) };
}
SPK_INLINE __m256i p_unpack(const uint8_t * qs) {
    const __m128i q = _mm_loadu_si128((const __m128i *) qs);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}
SPK_INLINE spk_p p_4bit(const uint8_t * qs) {
    return { _mm256_sub_epi8(p_unpack(qs), _mm256_set1_epi8(8)) };
}
SPK_INLINE __m256i values256() { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) SPK_VALUES)); }
SPK_INLINE spk_p p_value(const uint8_t * qs) { return { _mm256_shuffle_epi8(values256(), p_unpack(qs)) }; }
// 0xff where the bit of that column is set
SPK_INLINE __m256i p_bits(const uint8_t * qh) {
    int32_t bits;
    memcpy(&bits, qh, 4);
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i pick   = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    const __m256i x = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), pick);
    return _mm256_cmpeq_epi8(x, pick);
}
SPK_INLINE spk_p p_5bit(const uint8_t * qs, const uint8_t * qh) {
    // w = nibble + 16*bit - 16 = nibble | 0xf0 where the bit is not set
    return { _mm256_or_si256(p_unpack(qs), _mm256_andnot_si256(p_bits(qh), _mm256_set1_epi8((char) 0xf0))) };
}

// K-quants (spk-k.h): of each of 16 rows one byte of a, one of b
template <class B> SPK_INLINE void s_store(int16_t * p, B a, B b) {
    _mm256_storeu_si256((__m256i *) p,     _mm256_cvtepi8_epi16(_mm_unpacklo_epi8((__m128i) a, (__m128i) b)));
    _mm256_storeu_si256((__m256i *) p + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8((__m128i) a, (__m128i) b)));
}
template <class B> SPK_INLINE void s_store_floats(float * p, B a) {
    _mm256_storeu_ps(p,     _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32((__m128i) a)));
    _mm256_storeu_ps(p + 8, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_bsrli_si128((__m128i) a, 8))));
}

SPK_INLINE float half_to_float(const uint8_t * p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}
SPK_INLINE spk_lf lf_zero() { return { _mm256_setzero_ps() }; }
SPK_INLINE void   lf_add(spk_lf & acc, spk_l a, float scale) {
    acc.v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(a.v), _mm256_set1_ps(scale), acc.v);
}
SPK_INLINE float  lf_sum(spk_lf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
