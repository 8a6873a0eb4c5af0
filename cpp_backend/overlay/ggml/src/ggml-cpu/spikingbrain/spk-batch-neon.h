#pragma once

// What the products of spk-mmla-neon.h read: tokens and rows four by four. An SMMLA wants 8 columns of two tokens and two rows,
// zipped; an SDOT 4 columns of one token and four rows, as tiles have them. Included inside the namespace of the instruction set.

#include "spk-weights.h"

static const int SPK_COLUMNS = 1024; // that are unpacked together

// 32 columns of four tokens, and where their sums begin (0 where no codes are offset), in the order in which they are loaded, four registers at a time
#ifdef SPK_I8MM
struct spk_columns {
    struct {
        int32_t bias[2][4]; // of two rows each
        int8_t  s8[4][16];  // of two tokens: steps 0 and 2, 1 and 3, 4 and 6, 5 and 7 (spk-layout.h)
    } pairs[2];
};
#else
struct spk_columns {
    int32_t bias[4][4];   // of a token each
    int8_t  s8[2][4][16]; // 16 columns of each
};
#endif

// and of SPK_BATCH. In memory the tokens' columns of all blocks come first, then, with GGML_SPK_Q8, the scales of all: each twice
struct spk_batch {
    spk_columns fours[SPK_BATCH/4];
    float    scales[SPK_BATCH][2];
};

// 32 columns of four rows; with i8mm two by two, steps as in s8 above, else step by step
struct spk_quad {
    int8_t s8[8][16];
};

// bytes from a batch to its scales
SPK_INLINE int64_t scales_from(int64_t n_block) { return n_block*sizeof(spk_batch::fours); }

#ifdef SPK_I8MM
SPK_INLINE void pack_four(spk_columns * to, const ggml_spk_row * act, int64_t i, bool with_bias) {
    SPK_UNROLL for (int p = 0; p < 2; ++p) {
        auto & pair = to->pairs[p];
        SPK_UNROLL for (int half = 0; half < 2; ++half) {
            const int32x4_t x = vreinterpretq_s32_s8(vld1q_s8(act[2*p].s8     + 32*i + 16*half));
            const int32x4_t y = vreinterpretq_s32_s8(vld1q_s8(act[2*p + 1].s8 + 32*i + 16*half));
            vst1q_s8(pair.s8[2*half],     vreinterpretq_s8_s32(vuzp1q_s32(x, y)));
            vst1q_s8(pair.s8[2*half + 1], vreinterpretq_s8_s32(vuzp2q_s32(x, y)));
        }
        const int32_t a = with_bias ? act[2*p].bias[i] : 0, b = with_bias ? act[2*p + 1].bias[i] : 0;
        const int32x4_t bias = { a, a, b, b };
        vst1q_s32(pair.bias[0], bias);
        vst1q_s32(pair.bias[1], bias);
    }
}
#else
SPK_INLINE void pack_four(spk_columns * to, const ggml_spk_row * act, int64_t i, bool with_bias) {
    SPK_UNROLL for (int t = 0; t < 4; ++t) {
        vst1q_s8(to->s8[0][t], vld1q_s8(act[t].s8 + 32*i));
        vst1q_s8(to->s8[1][t], vld1q_s8(act[t].s8 + 32*i + 16));
        vst1q_s32(to->bias[t], vdupq_n_s32(with_bias ? act[t].bias[i] : 0));
    }
}
#endif

static void pack_batch(void * dst, ggml_type type, int64_t n, const ggml_spk_row * act) {
    const bool with_bias = type != GGML_TYPE_I8 && type != GGML_TYPE_Q8_0 && type != GGML_TYPE_IQ4_NL, q8 = act->encoding == GGML_SPK_Q8;
    for (int t = 0; t < SPK_BATCH; t += 4) {
        const ggml_spk_row four[4] = { act[t], act[t + 1], act[t + 2], act[t + 3] };
        spk_columns * to    = (spk_columns *) dst + t/4;
        float    * scale = (float *) ((char *) dst + scales_from(n/32)) + 2*t;
        for (int64_t i = 0; i < n/32; ++i, to += SPK_BATCH/4, scale += 2*SPK_BATCH) {
            pack_four(to, four, i, with_bias);
            SPK_UNROLL for (int j = 0; q8 && j < 4; ++j) {
                scale[2*j] = scale[2*j + 1] = four[j].scales[i];
            }
        }
    }
}

// A block of a tile becomes to[4]; of codes + OFFSET, those + 8 remain or none, as biases are. In assembly for most types: compilers
// load four registers neither by one instruction nor while the address moves, and copy those that a store wants side by side
template <class W>
SPK_INLINE void unpack_codes(spk_quad * to, const uint8_t * block) {
    spk_w held[2];
    W::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) {
        SPK_EACH w.v[q] = vsubq_s8(w.v[q], vdupq_n_s8(W::OFFSET > 0 ? W::OFFSET - 8 : 0));
        if (!MMLA) {
            SPK_EACH vst1q_s8(to[q].s8[step], w.v[q]);
        } else if (step % 4 < 2) {
            held[step % 2] = w;
        } else {
            SPK_EACH {
                const int32x4x2_t two = { { vreinterpretq_s32_s8(held[step % 2].v[q]), vreinterpretq_s32_s8(w.v[q]) } };
                vst2q_s32((int32_t *) to[q].s8[step/4*4 + step % 2*2], two);
            }
        }
    });
}

// a and b .. : steps of four rows at `to`, which moves on
#ifdef SPK_I8MM
#define SPK_STORE_STEPS(to, a, b, c, d)                                                                                               \
        "st2 {v" #a ".4s-v" #b ".4s}, [%[" #to "]], #32\n\t"                                                                          \
        "st2 {v" #c ".4s-v" #d ".4s}, [%[" #to "]], #32\n\t"
#else
#define SPK_STORE_STEPS(to, a, b, c, d)                                                                                               \
        "st1 {v" #a ".16b-v" #d ".16b}, [%[" #to "]], #64\n\t"
#endif

// steps 2i and 2i + 1 in the nibbles of v`x`, 2i + 2 and 2i + 3 in those of v`y`
#ifdef SPK_I8MM
#define SPK_SPLIT(x, y)                                                                                                               \
        "and  v24.16b, v" #x ".16b, %[low].16b\n\t"                                                                                   \
        "and  v25.16b, v" #y ".16b, %[low].16b\n\t"                                                                                   \
        "ushr v26.16b, v" #x ".16b, #4\n\t"                                                                                           \
        "ushr v27.16b, v" #y ".16b, #4\n\t"                                                                                           \
        SPK_STORE_STEPS(to, 24, 25, 26, 27)
#else
#define SPK_SPLIT(x, y)                                                                                                               \
        "and  v24.16b, v" #x ".16b, %[low].16b\n\t"                                                                                   \
        "ushr v25.16b, v" #x ".16b, #4\n\t"                                                                                           \
        "and  v26.16b, v" #y ".16b, %[low].16b\n\t"                                                                                   \
        "ushr v27.16b, v" #y ".16b, #4\n\t"                                                                                           \
        SPK_STORE_STEPS(to, 24, 25, 26, 27)
#endif

template <>
SPK_MEMBER void unpack_codes<weights_q4_0>(spk_quad * to, const uint8_t * block) {
    asm volatile("ld1  {v0.16b-v3.16b},   [%[at]], #64\n\t"
        "ld1  {v4.16b-v7.16b},   [%[at]], #64\n\t"
        "ld1  {v16.16b-v19.16b}, [%[at]], #64\n\t"
        "ld1  {v20.16b-v23.16b}, [%[at]]\n\t"
        SPK_SPLIT(0, 4) SPK_SPLIT(16, 20) SPK_SPLIT(1, 5) SPK_SPLIT(17, 21) SPK_SPLIT(2, 6) SPK_SPLIT(18, 22) SPK_SPLIT(3, 7) SPK_SPLIT(19, 23)
        : [at] "+r" (block), [to] "+r" (to)
        : [low] "w" (vdupq_n_u8(15))
        : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27");
}

template <>
SPK_MEMBER void unpack_codes<weights_q4_1>(spk_quad * to, const uint8_t * block) { unpack_codes<weights_q4_0>(to, block); }

// steps a .. d of eight rows: four at `even`, four at `odd`
#define SPK_COPY(a, b, c, d)                                                                                                          \
        "ldp q0, q4, [%[at], #64*" #a "]\n\t"                                                                                         \
        "ldp q1, q5, [%[at], #64*" #b "]\n\t"                                                                                         \
        "ldp q2, q6, [%[at], #64*" #c "]\n\t"                                                                                         \
        "ldp q3, q7, [%[at], #64*" #d "]\n\t"                                                                                         \
        SPK_STORE_STEPS(even, 0, 1, 2, 3)                                                                                             \
        SPK_STORE_STEPS(odd,  4, 5, 6, 7)

SPK_INLINE void copy_codes(spk_quad * to, const uint8_t * block) {
    for (int q = 0; q < 4; q += 2) {
        spk_quad * even = to + q, * odd = even + 1;
#ifdef SPK_I8MM
        asm volatile(SPK_COPY(0, 2, 1, 3) SPK_COPY(4, 6, 5, 7)
#else
        asm volatile(SPK_COPY(0, 1, 2, 3) SPK_COPY(4, 5, 6, 7)
#endif
            : [even] "+r" (even), [odd] "+r" (odd) : [at] "r" (block + 16*q) : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7");
    }
}

template <> SPK_MEMBER void unpack_codes<weights_i8>  (spk_quad * to, const uint8_t * block) { copy_codes(to, block); }
template <> SPK_MEMBER void unpack_codes<weights_q8_0>(spk_quad * to, const uint8_t * block) { copy_codes(to, block); }

// eight, in fewer instructions than f_load_half takes
SPK_INLINE void store_halves(float * to, const uint8_t * from) {
    const float16x8_t x = vreinterpretq_f16_u8(vld1q_u8(from));
    vst1q_f32(to,     vcvt_f32_f16(vget_low_f16(x)));
    vst1q_f32(to + 4, vcvt_high_f32_f16(x));
}

// n_block blocks of a tile from b0 on, which is even; to_scales [n_block/N_BLOCK][SPK_ROWS]. Asks for what is unpacked next: by then
// the products with this will have taken longer than memory takes
template <class W, int N_BLOCK>
SPK_INLINE void unpack_blocks(spk_quad (*to)[4], float * to_scales, const uint8_t * tile, const float * scales, int64_t b0, int64_t n_block) {
    const uint8_t * at = tile + spk_block_at(b0, W::BLOCK, W::TILE_SCALES);
    for (int64_t b = 0; W::TILE_SCALES == 0 && b < n_block; b += N_BLOCK, to_scales += SPK_ROWS) {
        f_store(to_scales, W::tile_scales(tile, scales, 0, b0 + b));
    }
    for (int64_t b = 0; b < n_block; b += 2) { // as they lie: two blocks, then the scales of both
        const int two = b + 1 < n_block ? 2 : 1;
        const uint8_t * ahead = at + SPK_COLUMNS/32*(W::BLOCK + W::TILE_SCALES);
        asm("" : "+r" (ahead)); // else GCC 12 adds for each address
        _Pragma("GCC unroll 32") for (int i = 0; i < 2*(W::BLOCK + W::TILE_SCALES); i += 64) {
            __builtin_prefetch(ahead + i, 0, 2);
        }
        for (int i = 0; i < two; ++i, at += W::BLOCK) {
            unpack_codes<W>(to[b + i], at);
        }
        for (int i = 0; W::TILE_SCALES > 0 && i < two; ++i, at += W::TILE_SCALES, to_scales += SPK_ROWS) {
            store_halves(to_scales, at);
            store_halves(to_scales + 8, at + 16);
        }
    }
}
