#pragma once

// Spike counts times Q4_0, half of the columns by Winograd's inner product ("A new algorithm for inner product", 1968): of two codes c and counts s
//   c1 s1 + c2 s2 = (c1 + s2)(c2 + s1) - c1 c2 - s1 s2
// what depends on one side alone is subtracted once per tile or token. It takes two additions of bytes for a multiplication, which
// pays on AMD's processors: there additions have ports of their own. Only counts leave room for a code in a byte; the sums are the same
// integers. Half of the columns, since then both kinds of ports are busy. The order of instructions is given, since a Zen 4 deals them
// out to ports as they come: 64 cycles for a block of 8 tokens, 72 in GCC's order, 74 without pairs, 61 by the ports.
// Included inside the namespace of the instruction set.

#include "spk-sums.h"

// beyond, a sum with a code of -8 .. 7 leaves int8, or with 128 uint8
static const int PAIR_MOST = 120;

// Of a block in pairs the columns 0 .. 15 (those of bytes 0 .. 127 of a block of weights): four that are added to high nibbles as s + 120,
// four that are added to low ones as s - 8; bias: where sums begin

SPK_INLINE __m512i four_tokens(const ggml_spk_row * act, int64_t at) {
    return a_four(act[0].s8 + at, act[1].s8 + at, act[2].s8 + at, act[3].s8 + at);
}

// sums over each 4 of 16 int32
SPK_INLINE void store_sums_of_four(int32_t * p, __m512i x) {
    const __m512i y = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC));
    const __m512i z = _mm512_add_epi32(y, _mm512_shuffle_epi32(y, _MM_PERM_CDAB));
    _mm_storeu_si128((__m128i *) p, _mm512_castsi512_si128(_mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), z)));
}

// a block of four tokens; false: a count is too large
SPK_INLINE bool pack_pairs(spk_batch_block & block, int t, const ggml_spk_row * act, int64_t b) {
    const __m512i s = four_tokens(act, 32*b), later = four_tokens(act, 32*b + 16);
    if (_mm512_cmpgt_epu8_mask(_mm512_abs_epi8(s), _mm512_set1_epi8(PAIR_MOST))) {
        return false;
    }
    const __m512i second  = _mm512_maskz_shuffle_epi32(0x5555, s, _MM_PERM_DDBB);           // s2 where s1 is
    const __m512i paired  = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_xor_si512(s, _mm512_set1_epi8(-128)), second); // s1 s2 + 128 s2
    const __m512i minus   = _mm512_dpbusd_epi32(paired, _mm512_set1_epi8(8), later);
    store_sums_of_four(block.bias + t, _mm512_sub_epi32(_mm512_setzero_si512(), minus));
    _mm512_storeu_si512(block.s8[0][t], _mm512_add_epi8(s, _mm512_set1_epi64((int64_t) 0xf8f8f8f878787878ull)));
    _mm512_storeu_si512(block.s8[1][t], later);
    return true;
}

static void pack_batch(void * dst, ggml_type type, int64_t n, const ggml_spk_row * act) {
    if (type != GGML_TYPE_Q4_0 || act->encoding != GGML_SPK_SPIKE) {
        return pack_rows(dst, type, n, act);
    }
    spk_batch_block * batch = (spk_batch_block *) dst;
    for (int64_t b = 0; b < n/32; ++b) {
        batch[b].in_pairs = pack_pairs(batch[b], 0, act, b) && pack_pairs(batch[b], 4, act + 4, b);
        if (!batch[b].in_pairs) {
            pack_block(batch[b], act, b);
        }
    }
}

SPK_INLINE void pair_shift(__m512i & high, const uint8_t * p) { asm volatile("vpsrlw $4, %1, %0" : "=v"(high) : "m"(*(const uint8_t (*)[64]) p)); }
SPK_INLINE void pair_and(__m512i & low, const uint8_t * p)    { asm volatile("vpandd %1, %2, %0" : "=v"(low) : "m"(*(const uint8_t (*)[64]) p), "v"(_mm512_set1_epi8(15))); }
SPK_INLINE void pair_and(__m512i & x)                         { asm volatile("vpandd %1, %0, %0" : "+v"(x) : "v"(_mm512_set1_epi8(15))); }
SPK_INLINE void pair_add(__m512i & sum, __m512i w, __m512i x) { asm volatile("vpaddb %2, %1, %0" : "=v"(sum) : "v"(w), "v"(x)); }
SPK_INLINE void pair_add(__m512i & sum, __m512i w, const int8_t * s) {
    asm volatile("vpbroadcastd %2, %0\n\tvpaddb %0, %1, %0" : "=&v"(sum) : "v"(w), "m"(*(const int8_t (*)[4]) s));
}
SPK_INLINE void pair_dot(__m512i & acc, __m512i u, __m512i s) { asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s)); }
SPK_INLINE void pair_dot(__m512i & acc, __m512i u, const int8_t * s) {
    asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u), "m"(*(const int8_t (*)[4]) s));
}

// 16 columns from 8*i on in pairs, and 16 from 16 + 8*i on; own: the sum of what depends on the weights alone
SPK_INLINE void pair_steps(__m512i * acc, __m512i & own, const uint8_t * block, const spk_batch_block & x, int i) {
    __m512i low, high, plain_low, plain_high, own_low, own_high, first[4], second[4];
    pair_shift(plain_high, block + 128 + 64*i);
    pair_shift(high,       block + 64*i);
    pair_and(plain_low,    block + 128 + 64*i);
    pair_and(low,          block + 64*i);
    pair_and(plain_high);
    pair_and(high);
    pair_add(own_high, high, _mm512_set1_epi8(PAIR_MOST));
    pair_add(own_low,  low,  _mm512_set1_epi8(-8));

    const auto add = [&](int t0) __attribute__((always_inline)) {
        SPK_UNROLL for (int t = 0; t < 4; ++t) {
            pair_add(second[t], low,  x.s8[0][t0 + t] + 8*i + 4);
            pair_add(first[t],  high, x.s8[0][t0 + t] + 8*i);
        }
    };
    const auto dot = [&](int t0) __attribute__((always_inline)) {
        SPK_UNROLL for (int t = 0; t < 4; ++t) {
            pair_dot(acc[t0 + t], first[t], second[t]);
        }
    };
    SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
        pair_dot(acc[t], plain_low, x.s8[1][t] + 8*i);
    }
    add(0);
    pair_dot(own, own_high, own_low);
    dot(0);
    add(4);
    SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
        pair_dot(acc[t], plain_high, x.s8[1][t] + 8*i + 4);
    }
    dot(4);
}

// a block's sums become floats
SPK_INLINE void pair_block(__m512 * sum, const uint8_t * block, const spk_batch_block & x) {
    __m512i acc[SPK_BATCH], own = _mm512_setzero_si512();
    SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
        acc[t] = _mm512_set1_epi32(x.bias[t]);
    }
    pair_steps(acc, own, block, x, 0);
    pair_steps(acc, own, block, x, 1);
    SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
        asm volatile("vpsubd %1, %0, %0" : "+v"(acc[t]) : "v"(own));
    }
    SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
        asm volatile("vcvtdq2ps %1, %0" : "=v"(sum[t]) : "v"(acc[t]));
    }
}

// 16 rows times SPK_BATCH tokens, out [SPK_BATCH][SPK_ROWS], as tile_sums
static void pair_sums(int64_t n, const uint8_t * tile, const spk_batch_block * batch, float * out) {
    using W     = weights_q4_0;
    using plain = spk_sums<W, SPK_BATCH, 0>;
    const auto x = plain::operand(nullptr, batch);
    plain::floats total;
    plain::zero(total);
    for (int64_t b = 0; b < n/32; ++b) {
        const uint8_t * block = tile + spk_block_at(b, W::BLOCK, W::TILE_SCALES);
        prefetch_ahead<W, SPK_BATCH>(block, b);
        const spk_f scale = W::tile_scales(tile, nullptr, n/32, b);
        if (!batch[b].in_pairs) {
            plain sums;
            sums.start<1>(x, b);
            W::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) { sums.dot(step, w, x, b); });
            sums.add<false>(total, scale, x, b);
            continue;
        }
        __m512 sum[SPK_BATCH];
        pair_block(sum, block, batch[b]);
        SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
            asm volatile("vfmadd231ps %2, %1, %0" : "+v"(total.v[t].v) : "v"(sum[t]), "v"(scale.v));
        }
    }
    plain::store(out, total);
}
