// AVX-512 with VNNI: 16 rows are one register. Included once, inside the namespace of its instruction set.

static const int SPK_REG = 16; // floats of a register
static const int SPK_NT = 8; // tokens whose sums stay in registers together

struct spk_w { __m512i v; }; // a step: 16 rows x 4 columns, one byte each
struct spk_i { __m512i v; }; // 16 int32, one per row
struct spk_f { __m512  v; }; // 16 floats
struct spk_d { __m512d lo, hi; };

// steps of weights; vpdpbusd takes the weights unsigned, so signed ones become w + 128
SPK_INLINE spk_w w_signed(const uint8_t * p) {
    return { _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128)) };
}
SPK_INLINE void w_nibbles(const uint8_t * p, spk_w & lo, spk_w & hi) {
    const __m512i q = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15);
    lo.v = _mm512_and_si512(q, mask);
    hi.v = _mm512_and_si512(_mm512_srli_epi16(q, 4), mask);
}
SPK_INLINE spk_w w_fifth_bit(spk_w w, const uint8_t * p) {
    uint64_t bits;
    memcpy(&bits, p, 8);
    return { _mm512_mask_add_epi8(w.v, bits, w.v, _mm512_set1_epi8(16)) };
}

// integer sums, started so that w + 8, w + 16 and what w_signed returns give the sum over w
SPK_INLINE spk_i i_start_4bit  (int32_t bias) { return { _mm512_set1_epi32(bias) }; }
SPK_INLINE spk_i i_start_5bit  (int32_t bias) { return { _mm512_set1_epi32(2*bias) }; }
SPK_INLINE spk_i i_start_signed(int32_t bias) { return { _mm512_set1_epi32(16*bias) }; }
SPK_INLINE void i_dot(spk_i & acc, spk_w w, const int8_t * s) {
    int32_t s4;
    memcpy(&s4, s, 4);
    acc.v = _mm512_dpbusd_epi32(acc.v, w.v, _mm512_set1_epi32(s4));
}
SPK_INLINE void i_dot_signed(spk_i & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE spk_f i_float(spk_i a) { return { _mm512_cvtepi32_ps(a.v) }; }

SPK_INLINE spk_f f_zero()                        { return { _mm512_setzero_ps() }; }
SPK_INLINE spk_f f_load(const float * p)         { return { _mm512_loadu_ps(p) }; }
SPK_INLINE spk_f f_load_half(const uint8_t * p)  { return { _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)) }; }
SPK_INLINE void  f_store(float * p, spk_f a)     { _mm512_storeu_ps(p, a.v); }
SPK_INLINE spk_f f_scale(spk_f a, float b)       { return { _mm512_mul_ps(a.v, _mm512_set1_ps(b)) }; }
SPK_INLINE spk_f f_fma(spk_f a, spk_f b, spk_f c){ return { _mm512_fmadd_ps(a.v, b.v, c.v) }; }

// encoding
SPK_INLINE spk_d d_zero() { return { _mm512_setzero_pd(), _mm512_setzero_pd() }; }
SPK_INLINE void  d_add(spk_d & a, spk_f x) {
    a.lo = _mm512_add_pd(a.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(x.v)));
    a.hi = _mm512_add_pd(a.hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1)));
}
SPK_INLINE void  d_store(double * p, spk_d a) { _mm512_storeu_pd(p, a.lo); _mm512_storeu_pd(p + 8, a.hi); }
SPK_INLINE spk_f f_abs(spk_f a)            { return { _mm512_abs_ps(a.v) }; }
SPK_INLINE spk_f f_max(spk_f a, spk_f b)   { return { _mm512_max_ps(a.v, b.v) }; }
SPK_INLINE float f_top(spk_f a)            { return _mm512_reduce_max_ps(a.v); }
SPK_INLINE spk_i f_quotient(spk_f a, float b) { return { _mm512_cvtps_epi32(_mm512_div_ps(a.v, _mm512_set1_ps(b))) }; }
SPK_INLINE spk_i i_clamp(spk_i a) {
    return { _mm512_max_epi32(_mm512_min_epi32(a.v, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127)) };
}
SPK_INLINE bool    i_differ(spk_i a, spk_i b)     { return _mm512_cmpneq_epi32_mask(a.v, b.v) != 0; }
SPK_INLINE int32_t i_sum(spk_i a, spk_i b)        { return _mm512_reduce_add_epi32(_mm512_add_epi32(a.v, b.v)); }
SPK_INLINE void    i_store(int32_t * p, spk_i a)  { _mm512_storeu_si512(p, a.v); }
SPK_INLINE void    i_store_s8(int8_t * p, spk_i a){ _mm_storeu_si128((__m128i *) p, _mm512_cvtepi32_epi8(a.v)); }

// rows as they are on disk: 32 columns of one row, 8 int32 sums
struct spk_p  { __m256i v; };
struct spk_l  { __m256i v; };
struct spk_lf { __m256  v; };

SPK_INLINE spk_l l_zero() { return { _mm256_setzero_si256() }; }
SPK_INLINE void  l_dot(spk_l & acc, spk_p w, const int8_t * s) {
    const __m256i a = _mm256_loadu_si256((const __m256i *) s);
    acc.v = _mm256_dpbusd_epi32(acc.v, _mm256_abs_epi8(w.v), _mm256_sign_epi8(a, w.v));
}
#include "spk-simd-ymm.h"
