#pragma once

// AVX-512 with VNNI: 16 rows are one register. Included inside the namespace of its instruction set.

#include "spk-simd-ymm.h"

static const int SPK_REG = 16; // floats of a register
static const int SPK_NT = 8; // tokens whose sums stay in registers together
#ifdef SPK_PAIRS
// AMD: one token does without, it is no slower than the processor looks ahead
template <int NT> constexpr int SPK_AHEAD = NT == 1 ? 0 : 4096;
static constexpr int SPK_AHEAD_SECOND = 0;
#else
// Intel looks less far ahead: one token read Q4_0 at two thirds of the memory's rate without, at nine tenths with the first cache alone
template <int NT> constexpr int SPK_AHEAD = 2048;
static constexpr int SPK_AHEAD_SECOND = 6144;
#endif

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
SPK_INLINE spk_w w_value(spk_w w) { // codes become what they stand for (SPK_VALUES), + 128
    const __m512i values = _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) SPK_VALUES)), _mm512_set1_epi8(-128));
    return { _mm512_shuffle_epi8(values, w.v) };
}

// integer sums, started so that w + 8, w + 16 and what w_signed returns give the sum over w
SPK_INLINE spk_i i_set         (int32_t x)    { return { _mm512_set1_epi32(x) }; }
SPK_INLINE spk_i i_start_4bit  (int32_t bias) { return { _mm512_set1_epi32(bias) }; }
SPK_INLINE spk_i i_start_5bit  (int32_t bias) { return { _mm512_set1_epi32(2*bias) }; }
SPK_INLINE spk_i i_start_signed(int32_t bias) { return { _mm512_set1_epi32(16*bias) }; }
// += w times 4 signed bytes. In assembler: GCC loads those into a register first, and then loads are what limits a processor of two products a cycle
SPK_INLINE void dot_four(__m512i & acc, __m512i w, const int8_t * s) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int8_t (*)[4]) s));
}
SPK_INLINE void i_dot(spk_i & acc, spk_w w, const int8_t * s) { dot_four(acc.v, w.v, s); }
SPK_INLINE void i_dot_signed(spk_i & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE spk_f i_float(spk_i a) { return { _mm512_cvtepi32_ps(a.v) }; }

// sums of nibbles over a block
typedef spk_i spk_h;
SPK_INLINE spk_h h_start(int32_t bias)                         { return i_start_4bit(bias); }
SPK_INLINE spk_h h_start_signed(int32_t bias)                  { return i_start_signed(bias); }
SPK_INLINE void  h_dot(spk_h & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE void  h_dot_signed(spk_h & acc, spk_w w, const int8_t * s) { i_dot(acc, w, s); }
SPK_INLINE spk_i h_sum(spk_h acc, int32_t)                     { return acc; }

// K-quants (spk-k.h)
struct spk_s { __m512i v; };   // two int16 of each row
struct spk_low { __m512i v; }; // one, and zero
// steps whose sums fit in a spk_h; 16 columns of 4 bits in int16, which is multiplied and added at once, where int32 takes three operations
template <int BITS, int COLUMNS> constexpr int SPK_CHAIN = BITS <= 4 ? 4 : COLUMNS/4;
template <int J> SPK_INLINE spk_w w_two_bits(const uint8_t * p) {
    const __m512i x = _mm512_loadu_si512(p);
    return { _mm512_and_si512(J == 0 ? x : _mm512_srli_epi16(x, 2*J), _mm512_set1_epi8(3)) };
}
template <int TO> SPK_INLINE spk_w w_bit_plane(spk_w w, const uint8_t * p, int from) { // bit `from` of each byte becomes bit TO
    const __m512i x = _mm512_loadu_si512(p), at = from < TO ? _mm512_slli_epi16(x, TO - from) : _mm512_srli_epi16(x, from - TO);
    return { _mm512_or_si512(w.v, _mm512_and_si512(at, _mm512_set1_epi8(1 << TO))) };
}
template <int J> SPK_INLINE spk_w w_upper_bits(spk_w w, const uint8_t * p) {
    const __m512i x = _mm512_loadu_si512(p), at = J == 0 ? _mm512_slli_epi16(x, 4) : J == 1 ? _mm512_slli_epi16(x, 2) : J == 2 ? x : _mm512_srli_epi16(x, 2);
    return { _mm512_or_si512(w.v, _mm512_and_si512(at, _mm512_set1_epi8(0x30))) };
}
SPK_INLINE spk_s s_load(const int16_t * p) { return { _mm512_loadu_si512(p) }; }
template <int BITS> SPK_INLINE auto s_scale(const int16_t * p) { // both int16 of a row are its scale
    if constexpr (BITS <= 4) {
        return spk_low { _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(0xffff)) };
    } else {
        return s_load(p);
    }
}
SPK_INLINE spk_i h_times(spk_h acc, spk_s s)   { return { _mm512_mullo_epi32(acc.v, _mm512_srai_epi32(s.v, 16)) }; }
SPK_INLINE spk_i h_times(spk_h acc, spk_low s) { return { _mm512_madd_epi16(acc.v, s.v) }; }
SPK_INLINE spk_i h_scaled(spk_h acc, spk_s s, spk_i sum) { return { _mm512_add_epi32(h_times(acc, s).v, sum.v) }; }
SPK_INLINE spk_i h_scaled(spk_h acc, spk_low s, spk_i sum) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum.v) : "v"(acc.v), "v"(s.v)); // as dot_four
    return sum;
}
SPK_INLINE spk_i s_times(spk_s s, const int16_t * x) {
    int32_t two;
    memcpy(&two, x, 4);
    return { _mm512_madd_epi16(s.v, _mm512_set1_epi32(two)) };
}
SPK_INLINE spk_i s_dot(spk_i sum, spk_s s, const int16_t * x) { return { _mm512_add_epi32(sum.v, s_times(s, x).v) }; }
template <int N> SPK_INLINE spk_i i_less(spk_i a, spk_i b) { return { _mm512_sub_epi32(a.v, _mm512_slli_epi32(b.v, __builtin_ctz(N))) }; } // a - N*b, N a power of two

SPK_INLINE spk_f f_zero()                        { return { _mm512_setzero_ps() }; }
SPK_INLINE spk_f f_set(float x)                  { return { _mm512_set1_ps(x) }; }
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
SPK_INLINE spk_f f_mul(spk_f a, spk_f b)   { return { _mm512_mul_ps(a.v, b.v) }; }
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

// rows as they are on disk (spk-simd-ymm.h)
SPK_INLINE spk_l l_zero() { return { _mm256_setzero_si256() }; }
SPK_INLINE void  l_dot(spk_l & acc, spk_p w, const int8_t * s) {
    const __m256i a = _mm256_loadu_si256((const __m256i *) s);
    acc.v = _mm256_dpbusd_epi32(acc.v, _mm256_abs_epi8(w.v), _mm256_sign_epi8(a, w.v));
}

// window attention (spk-swa.h, spk-swa-int.h)
#define SWA_PIECES  3
#define SWA_MOST    16776960.0f // below 2^24
#define SWA_COLUMNS 2           // 16s of columns whose sums stay in registers together
#ifndef SPK_PAIRS
// Intel: what is asked for into the second cache alone comes late, and two multiplications of floats a cycle are faster than turning bytes
#define SWA_NEAR  16
#define SWA_CODES 8 // so many rows multiply with values where they lie
SPK_INLINE __m512 r_codes(const int8_t * p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))); }
#endif
static const int  SWA_BITS = 8;
static const bool SWA_FLIP = true; // codes of keys as w + 128, which vpdpbusd takes

SPK_INLINE __m512 r_whole(__m512 x)             { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SPK_INLINE __m512 r_power(__m512 y, __m512 n)   { return _mm512_scalef_ps(y, n); }
SPK_INLINE __m512 r_half(const ggml_fp16_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }

struct swa_acc   { __m512i v; };    // 16 keys, or columns
struct swa_keys  { __m512i a, b; }; // 16 keys x 8 columns
struct swa_codes { __m512i v; };    // 16 columns x 4 keys

typedef __m512i swa_block; // 4 rows of 16 bytes

SPK_INLINE swa_block a_four(const void * a, const void * b, const void * c, const void * d) {
    const __m256i lo = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) a)), _mm_loadu_si128((const __m128i *) b), 1);
    const __m256i hi = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) c)), _mm_loadu_si128((const __m128i *) d), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}
// words of 4 columns, those of the rows side by side
SPK_INLINE __m512i   a_words(const char * rows, int64_t stride) {
    const swa_block x = a_four(rows, rows + stride, rows + 2*stride, rows + 3*stride);
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}
// 64 bytes from each word to the next
static const int     SWA_LOADED = 4; // keys that are turned together
SPK_INLINE void      a_store_keys(char * p, const char * rows, int64_t stride) {
    const __m512i y = _mm512_xor_si512(a_words(rows, stride), _mm512_set1_epi8(-128));
    _mm_storeu_si128((__m128i *) p, _mm512_castsi512_si128(y));
    _mm_storeu_si128((__m128i *) (p +  64), _mm512_extracti32x4_epi32(y, 1));
    _mm_storeu_si128((__m128i *) (p + 128), _mm512_extracti32x4_epi32(y, 2));
    _mm_storeu_si128((__m128i *) (p + 192), _mm512_extracti32x4_epi32(y, 3));
}
// 16 columns, the bytes of the rows side by side
SPK_INLINE void      a_store_values(char * p, const char * rows, int64_t stride) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    _mm512_storeu_si512(p, _mm512_shuffle_epi8(a_words(rows, stride), order));
}

SPK_INLINE __m512i  words4(const void * p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
SPK_INLINE swa_acc  a_set(int32_t x)         { return { _mm512_set1_epi32(x) }; }
SPK_INLINE swa_keys a_keys(const uint8_t * p) { return { _mm512_loadu_si512(p), _mm512_loadu_si512(p + 64) }; }
SPK_INLINE void     a_dot(swa_acc & acc, swa_keys k, const int8_t * s) {
    dot_four(acc.v, k.a, s);
    dot_four(acc.v, k.b, s + 4);
}
SPK_INLINE void     a_store(float * p, swa_acc acc) { _mm512_storeu_ps(p, _mm512_cvtepi32_ps(acc.v)); }

SPK_INLINE swa_codes a_codes(const char * p) { return { _mm512_loadu_si512(p) }; }
typedef __m512i swa_piece;
SPK_INLINE swa_piece a_piece(const char * p, int i) { return words4(p + 4*i); }
// in assembler: GCC 12 would keep every sum in two registers and copy it
SPK_INLINE swa_acc   a_dot_piece(swa_acc acc, swa_codes v, swa_piece x, int) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(x), "v"(v.v));
    return acc;
}
// acc[0] + 2^8 acc[1] + 2^16 acc[2], times a step
SPK_INLINE void      a_store_sum(float * p, const swa_acc * acc, float step) {
    const __m512i low = _mm512_add_epi32(acc[0].v, _mm512_slli_epi32(acc[1].v, 8));
    const __m512  sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[2].v), _mm512_set1_ps(65536.0f), _mm512_cvtepi32_ps(low));
    _mm512_storeu_ps(p, _mm512_mul_ps(sum, _mm512_set1_ps(step)));
}
// 16 floats become whole numbers below 2^24, the lowest bytes of 4 of them side by side, then their next
SPK_INLINE void      a_split(float * p) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    _mm512_storeu_si512(p, _mm512_shuffle_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(p)), order));
}

#define SWA_DIRECT 8  // so many rows multiply with keys where they lie (swa_scores_direct)
#define SWA_KEYS   16
typedef __m512i swa_slice; // 16 bytes of 4 rows
typedef __m512i swa_lanes; // their partial sums

SPK_INLINE swa_lanes a_no_lanes() { return _mm512_setzero_si512(); }
SPK_INLINE swa_slice a_query(const int8_t * q) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) q)); }
SPK_INLINE swa_slice a_key(const char * p, int64_t stride, int a, int64_t c) {
    p += a*stride + c;
    return _mm512_xor_si512(a_four(p, p + 4*stride, p + 8*stride, p + 12*stride), _mm512_set1_epi8(-128));
}
SPK_INLINE swa_lanes a_dot_lanes(swa_lanes acc, swa_slice k, swa_slice q) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(k), "v"(q)); // as a_dot_piece
    return acc;
}
SPK_INLINE __m512i   a_pairs(__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); }
SPK_INLINE void      a_store_lanes(float * p, const swa_lanes * a, int32_t start) {
    const __m512i x = a_pairs(a[0], a[1]), y = a_pairs(a[2], a[3]);
    const __m512i sum = _mm512_add_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
    _mm512_storeu_ps(p, _mm512_cvtepi32_ps(_mm512_add_epi32(sum, _mm512_set1_epi32(start))));
}
