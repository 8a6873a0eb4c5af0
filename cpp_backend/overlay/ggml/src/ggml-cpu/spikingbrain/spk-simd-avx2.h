#pragma once

// AVX2 with FMA and F16C, and AVX-VNNI where SPK_VNNI says so: 16 rows are two registers. Included inside the namespace of its instruction set.

#include "spk-simd-ymm.h"

static const int SPK_REG = 8; // floats of a register
static const int SPK_NT = 4; // tokens whose sums stay in registers together
#define SPK_UNPACKED // more of them: spk-unpacked-avx2.h
#ifdef SPK_VNNI // Intel's, as spk-simd-avx512.h
template <int NT> constexpr int SPK_AHEAD = 2048;
static constexpr int SPK_AHEAD_SECOND = 6144;
#define SWA_NEAR 16
#else
#define SPK_SMALL_COUNTS // times bytes: spk-bytes-avx2.h
template <int NT> constexpr int SPK_AHEAD = NT <= 2 ? 1024 : 4096;
static constexpr int SPK_AHEAD_SECOND = 0;
#endif

struct spk_w { __m256i a, b; }; // a step: 16 rows x 4 columns, one byte each
struct spk_i { __m256i a, b; }; // 16 int32, one per row
struct spk_f { __m256  a, b; }; // 16 floats
struct spk_d { __m256d v[4]; };

SPK_INLINE __m256i load256(const void * p) { return _mm256_loadu_si256((const __m256i *) p); }

SPK_INLINE spk_w w_load(const uint8_t * p) { return { load256(p), load256(p + 32) }; }
SPK_INLINE void  w_nibbles(const uint8_t * p, spk_w & lo, spk_w & hi) {
    const __m256i mask = _mm256_set1_epi8(15), a = load256(p), b = load256(p + 32);
    lo = { _mm256_and_si256(a, mask), _mm256_and_si256(b, mask) };
    hi = { _mm256_and_si256(_mm256_srli_epi16(a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(b, 4), mask) };
}
SPK_INLINE __m256i fifth_bit(__m256i w, const uint8_t * p) {
    int32_t bits;
    memcpy(&bits, p, 4);
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i pick   = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    const __m256i x = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), pick);
    return _mm256_or_si256(w, _mm256_and_si256(_mm256_cmpeq_epi8(x, pick), _mm256_set1_epi8(16)));
}
SPK_INLINE spk_w w_fifth_bit(spk_w w, const uint8_t * p) { return { fifth_bit(w.a, p), fifth_bit(w.b, p + 4) }; }

SPK_INLINE spk_w w_flip(spk_w w) { return { _mm256_xor_si256(w.a, _mm256_set1_epi8(-128)), _mm256_xor_si256(w.b, _mm256_set1_epi8(-128)) }; } // w + 128, and back
#ifdef SPK_VNNI
SPK_INLINE spk_w w_taken(spk_w w) { return w_flip(w); } // vpdpbusd takes the weights unsigned
#else
SPK_INLINE spk_w w_taken(spk_w w) { return w; }
#endif
SPK_INLINE spk_w w_signed(const uint8_t * p) { return w_taken(w_load(p)); }
SPK_INLINE spk_w w_value(spk_w w) { return w_taken({ _mm256_shuffle_epi8(values256(), w.a), _mm256_shuffle_epi8(values256(), w.b) }); } // codes become what they stand for (SPK_VALUES)

SPK_INLINE void  w_store(uint8_t * p, spk_w w) { _mm256_storeu_si256((__m256i *) p, w.a); _mm256_storeu_si256((__m256i *) (p + 32), w.b); }
SPK_INLINE void  store_unsigned(uint8_t * p, spk_w w) { w_store(p, w_flip(w)); }

SPK_INLINE spk_i i_set(int32_t x) { return { _mm256_set1_epi32(x), _mm256_set1_epi32(x) }; }
SPK_INLINE spk_i i_start_5bit  (int32_t bias) { return i_set(2*bias); }

// a sum stays as it is written: GCC would add terms of several steps among themselves first, and keep all of them in memory meanwhile
SPK_INLINE __m256i kept(__m256i sum) {
    asm("" : "+x"(sum));
    return sum;
}

// maddubs adds pairs in int16: 2*128*127 fits
SPK_INLINE __m256i dot256(__m256i acc, __m256i w, __m256i s) {
    return kept(_mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, s), _mm256_set1_epi16(1))));
}
SPK_INLINE __m256i bytes4(const int8_t * s) {
    int32_t s4;
    memcpy(&s4, s, 4);
    return _mm256_set1_epi32(s4);
}
struct spk_s { __m256i a, b; }; // two int16 of each row: of K-quants (spk-k.h)
#ifdef SPK_VNNI
SPK_INLINE spk_i i_start_signed(int32_t bias) { return i_set(16*bias); }
SPK_INLINE void  i_dot(spk_i & acc, spk_w w, const int8_t * s) {
    const __m256i x = bytes4(s);
    acc = { _mm256_dpbusd_avx_epi32(acc.a, w.a, x), _mm256_dpbusd_avx_epi32(acc.b, w.b, x) };
}
SPK_INLINE void  i_dot_signed(spk_i & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }

// sums of nibbles over a block
typedef spk_i spk_h;
SPK_INLINE spk_h h_start(int32_t)                              { return i_set(0); }
SPK_INLINE spk_h h_start_signed(int32_t bias)                  { return i_start_signed(bias); }
SPK_INLINE void  h_dot(spk_h & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE void  h_dot_signed(spk_h & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE spk_i h_add(spk_h acc, spk_i sum)                   { return { _mm256_add_epi32(acc.a, sum.a), _mm256_add_epi32(acc.b, sum.b) }; }

template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = COLUMNS/4; // steps whose sums fit in a spk_h
SPK_INLINE spk_i h_times(spk_h acc, spk_s s) { return { _mm256_mullo_epi32(acc.a, _mm256_srai_epi32(s.a, 16)), _mm256_mullo_epi32(acc.b, _mm256_srai_epi32(s.b, 16)) }; } // both int16 of a row are its scale
SPK_INLINE spk_i h_scaled(spk_h acc, spk_s s, spk_i sum) { return h_add(h_times(acc, s), sum); }
#else
SPK_INLINE spk_i i_start_signed(int32_t) { return i_set(0); }
SPK_INLINE void i_dot(spk_i & acc, spk_w w, const int8_t * s) {
    const __m256i x = bytes4(s);
    acc = { dot256(acc.a, w.a, x), dot256(acc.b, w.b, x) };
}
SPK_INLINE void i_dot_signed(spk_i & acc, spk_w w, const int8_t * s) {
    const __m256i x = bytes4(s);
    acc.a = dot256(acc.a, _mm256_abs_epi8(w.a), _mm256_sign_epi8(x, w.a));
    acc.b = dot256(acc.b, _mm256_abs_epi8(w.b), _mm256_sign_epi8(x, w.b));
}

// sums of nibbles over a block: of pairs of columns in 16 bits, 8*2*15*127 fits
struct spk_h { __m256i a, b; };
SPK_INLINE spk_h h_start(int32_t) { return { _mm256_setzero_si256(), _mm256_setzero_si256() }; }
SPK_INLINE void  h_dot(spk_h & acc, spk_w w, const int8_t * s) {
    const __m256i x = bytes4(s);
    acc = { kept(_mm256_add_epi16(acc.a, _mm256_maddubs_epi16(w.a, x))), kept(_mm256_add_epi16(acc.b, _mm256_maddubs_epi16(w.b, x))) };
}
// or of one step of bytes, 2*127*127
SPK_INLINE spk_h h_start_signed(int32_t) { return h_start(0); }
SPK_INLINE void  h_dot_signed(spk_h & acc, spk_w w, const int8_t * s) {
    const __m256i x = bytes4(s);
    acc.a = _mm256_add_epi16(acc.a, _mm256_maddubs_epi16(_mm256_abs_epi8(w.a), _mm256_sign_epi8(x, w.a)));
    acc.b = _mm256_add_epi16(acc.b, _mm256_maddubs_epi16(_mm256_abs_epi8(w.b), _mm256_sign_epi8(x, w.b)));
}
SPK_INLINE spk_i h_add(spk_h acc, spk_i sum) {
    const __m256i one = _mm256_set1_epi16(1);
    return { _mm256_add_epi32(_mm256_madd_epi16(acc.a, one), sum.a), _mm256_add_epi32(_mm256_madd_epi16(acc.b, one), sum.b) };
}

template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = BITS == 4 ? 8 : BITS == 6 ? 2 : BITS == 8 ? 1 : 4; // steps whose sums fit in a spk_h: 2*2*63*127, too
SPK_INLINE spk_i h_times(spk_h acc, spk_s s) { return { _mm256_madd_epi16(acc.a, s.a), _mm256_madd_epi16(acc.b, s.b) }; }
SPK_INLINE spk_i h_scaled(spk_h acc, spk_s s, spk_i sum) {
    return { kept(_mm256_add_epi32(_mm256_madd_epi16(acc.a, s.a), sum.a)), kept(_mm256_add_epi32(_mm256_madd_epi16(acc.b, s.b), sum.b)) };
}
#endif
SPK_INLINE spk_i h_sum(spk_h acc, int32_t bias) { return h_add(acc, i_set(bias)); }

// K-quants (spk-k.h)
template <int J> SPK_INLINE __m256i two_bits(__m256i x) { return _mm256_and_si256(J == 0 ? x : _mm256_srli_epi16(x, 2*J), _mm256_set1_epi8(3)); }
template <int J> SPK_INLINE spk_w w_two_bits(const uint8_t * p) { return { two_bits<J>(load256(p)), two_bits<J>(load256(p + 32)) }; }
template <int TO> SPK_INLINE __m256i bit_plane(__m256i w, __m256i x, int from) { // bit `from` of each byte becomes bit TO
    const __m256i at = from < TO ? _mm256_slli_epi16(x, TO - from) : _mm256_srli_epi16(x, from - TO);
    return _mm256_or_si256(w, _mm256_and_si256(at, _mm256_set1_epi8(1 << TO)));
}
template <int TO> SPK_INLINE spk_w w_bit_plane(spk_w w, const uint8_t * p, int from) { return { bit_plane<TO>(w.a, load256(p), from), bit_plane<TO>(w.b, load256(p + 32), from) }; }
template <int J> SPK_INLINE __m256i upper_bits(__m256i w, const uint8_t * p) {
    const __m256i x = load256(p), at = J == 0 ? _mm256_slli_epi16(x, 4) : J == 1 ? _mm256_slli_epi16(x, 2) : J == 2 ? x : _mm256_srli_epi16(x, 2);
    return _mm256_or_si256(w, _mm256_and_si256(at, _mm256_set1_epi8(0x30)));
}
template <int J> SPK_INLINE spk_w w_upper_bits(spk_w w, const uint8_t * p) { return { upper_bits<J>(w.a, p), upper_bits<J>(w.b, p + 32) }; }
SPK_INLINE spk_s s_load(const int16_t * p) { return { load256(p), load256(p + 16) }; }
template <int BITS> SPK_INLINE spk_s s_scale(const int16_t * p) { return s_load(p); }
SPK_INLINE spk_i s_times(spk_s s, const int16_t * x) {
    const __m256i two = bytes4((const int8_t *) x);
    return { _mm256_madd_epi16(s.a, two), _mm256_madd_epi16(s.b, two) };
}
SPK_INLINE spk_i s_dot(spk_i sum, spk_s s, const int16_t * x) {
    const spk_i y = s_times(s, x);
    return { _mm256_add_epi32(sum.a, y.a), _mm256_add_epi32(sum.b, y.b) };
}
template <int N> SPK_INLINE spk_i i_less(spk_i x, spk_i y) { // x - N*y, N a power of two
    return { _mm256_sub_epi32(x.a, _mm256_slli_epi32(y.a, __builtin_ctz(N))), _mm256_sub_epi32(x.b, _mm256_slli_epi32(y.b, __builtin_ctz(N))) };
}

SPK_INLINE spk_f i_float(spk_i x) { return { _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) }; }

SPK_INLINE spk_f f_zero()                { return { _mm256_setzero_ps(), _mm256_setzero_ps() }; }
SPK_INLINE spk_f f_set(float x)          { return { _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
SPK_INLINE spk_f f_load(const float * p) { return { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
SPK_INLINE spk_f f_load_half(const uint8_t * p) {
    return { _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p + 1)) };
}
SPK_INLINE void  f_store(float * p, spk_f x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
SPK_INLINE spk_f f_scale(spk_f x, float y) {
    return { _mm256_mul_ps(x.a, _mm256_set1_ps(y)), _mm256_mul_ps(x.b, _mm256_set1_ps(y)) };
}
SPK_INLINE spk_f f_fma(spk_f x, spk_f y, spk_f z) { return { _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) }; }

// encoding
SPK_INLINE spk_d d_zero() { return { { _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd() } }; }
SPK_INLINE void  d_add(spk_d & d, spk_f x) {
    d.v[0] = _mm256_add_pd(d.v[0], _mm256_cvtps_pd(_mm256_castps256_ps128(x.a)));
    d.v[1] = _mm256_add_pd(d.v[1], _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)));
    d.v[2] = _mm256_add_pd(d.v[2], _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)));
    d.v[3] = _mm256_add_pd(d.v[3], _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1)));
}
SPK_INLINE void  d_store(double * p, spk_d d) {
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_pd(p + 4*i, d.v[i]);
    }
}
SPK_INLINE __m256 abs256(__m256 x)       { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
SPK_INLINE spk_f  f_mul(spk_f x, spk_f y) { return { _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) }; }
SPK_INLINE spk_f  f_abs(spk_f x)          { return { abs256(x.a), abs256(x.b) }; }
SPK_INLINE spk_f  f_max(spk_f x, spk_f y) { return { _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b) }; }
SPK_INLINE float  f_top(spk_f x) {
    const __m256 m = _mm256_max_ps(x.a, x.b);
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
SPK_INLINE spk_i f_quotient(spk_f x, float y) {
    return { _mm256_cvtps_epi32(_mm256_div_ps(x.a, _mm256_set1_ps(y))), _mm256_cvtps_epi32(_mm256_div_ps(x.b, _mm256_set1_ps(y))) };
}
SPK_INLINE __m256i clamp256(__m256i x) {
    return _mm256_max_epi32(_mm256_min_epi32(x, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
}
SPK_INLINE spk_i   i_clamp(spk_i x) { return { clamp256(x.a), clamp256(x.b) }; }
SPK_INLINE bool    i_differ(spk_i x, spk_i y) {
    const __m256i z = _mm256_or_si256(_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b));
    return !_mm256_testz_si256(z, z);
}
SPK_INLINE int32_t i_sum(spk_i x, spk_i y) {
    const __m256i z = _mm256_add_epi32(_mm256_add_epi32(x.a, x.b), _mm256_add_epi32(y.a, y.b));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(z), _mm256_extracti128_si256(z, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
SPK_INLINE void i_store(int32_t * p, spk_i x) {
    _mm256_storeu_si256((__m256i *) p, x.a);
    _mm256_storeu_si256((__m256i *) p + 1, x.b);
}
SPK_INLINE void i_store_s8(int8_t * p, spk_i x) {
    const __m256i y = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    _mm_storeu_si128((__m128i *) p, _mm_packs_epi16(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
}

// rows as they are on disk (spk-simd-ymm.h)
SPK_INLINE spk_l l_zero() { return { _mm256_setzero_si256() }; }
SPK_INLINE void  l_dot(spk_l & acc, spk_p w, const int8_t * s) {
    acc.v = dot256(acc.v, _mm256_abs_epi8(w.v), _mm256_sign_epi8(load256(s), w.v));
}

// window attention (spk-swa.h, spk-swa-int.h): with digits of 6 bits, 8 products of them with w + 128 fit in 16 bits, two by two
#define SWA_PIECES 0 // a multiplication of floats is one instruction, of bytes three
#define SWA_DIRECT 0
#define SWA_CODES  8 // so many rows multiply with values where they lie
static const int  SWA_BITS = 6;
static const bool SWA_FLIP = true;
static const int  SWA_LOADED = 8; // keys that are turned together, four in each half of a register
SPK_INLINE void   a_store_keys(char * p, const char * rows, int64_t stride) {
    __m256i x[4];
    SPK_UNROLL for (int r = 0; r < 4; ++r) {
        const __m128i a = _mm_loadu_si128((const __m128i *) (rows + r*stride)), b = _mm_loadu_si128((const __m128i *) (rows + (r + 4)*stride));
        x[r] = _mm256_xor_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1), _mm256_set1_epi8(-128));
    }
    const __m256i a = _mm256_unpacklo_epi32(x[0], x[1]), b = _mm256_unpacklo_epi32(x[2], x[3]);
    const __m256i c = _mm256_unpackhi_epi32(x[0], x[1]), d = _mm256_unpackhi_epi32(x[2], x[3]);
    const __m256i out[4] = { _mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b), _mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d) };
    SPK_UNROLL for (int i = 0; i < 4; ++i) {
        _mm256_storeu_si256((__m256i *) (p + 64*i), out[i]);
    }
}

SPK_INLINE __m256 r_codes(const int8_t * p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p))); }
SPK_INLINE __m256 r_half(const ggml_fp16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }

struct swa_acc  { __m256i a, b; }; // 16 keys
struct swa_keys { __m256i v[4]; }; // 16 keys x 8 columns

SPK_INLINE swa_acc  a_set(int32_t x) { return { _mm256_set1_epi32(x), _mm256_set1_epi32(x) }; }
SPK_INLINE swa_keys a_keys(const uint8_t * p) { return { { load256(p), load256(p + 32), load256(p + 64), load256(p + 96) } }; }
SPK_INLINE __m256i  dot_low(__m256i acc, __m256i k0, __m256i k1, __m256i s0, __m256i s1) {
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(k0, s0), _mm256_maddubs_epi16(k1, s1));
    return kept(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
SPK_INLINE void     a_dot(swa_acc & acc, const swa_keys & k, const int8_t * s) {
    const __m256i s0 = bytes4(s), s1 = bytes4(s + 4);
    acc = { dot_low(acc.a, k.v[0], k.v[2], s0, s1), dot_low(acc.b, k.v[1], k.v[3], s0, s1) };
}
SPK_INLINE void     a_store(float * p, swa_acc acc) {
    _mm256_storeu_ps(p,     _mm256_cvtepi32_ps(acc.a));
    _mm256_storeu_ps(p + 8, _mm256_cvtepi32_ps(acc.b));
}
