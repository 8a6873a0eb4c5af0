#pragma once

// Tile products of whole batches: with SMMLA, which multiplies two tokens by two rows over 8 columns at once, or with SDOT.
// The weights are unpacked once for all tokens of a call, SPK_COLUMNS of them at a time: they stay in the caches. Then four rows meet
// 16 tokens: 16 registers hold the sums in float, 8 the rows' 32 columns, the others scales, sums in integers of four tokens and
// columns of theirs. That is all there are. Included inside the namespace of the instruction set.

#include "spk-batch-neon.h"

// In assembly, since compilers load four registers neither by one instruction nor while the address moves. For the same reason
// the weights of a block, and sums in integers where they are loaded, have fixed registers.
#define SPK_WEIGHT_REGISTERS                                                                                                          \
    register int8x16_t w0 asm("v16"), w1 asm("v17"), w2 asm("v18"), w3 asm("v19"), w4 asm("v20"), w5 asm("v21"), w6 asm("v22"), w7 asm("v23")
#define SPK_WEIGHTS "w" (w0), "w" (w1), "w" (w2), "w" (w3), "w" (w4), "w" (w5), "w" (w6), "w" (w7)
#define SPK_READS(x) "m" (*(const char (*)[sizeof(spk_columns)]) (x)) // or fewer

// weights of a quad; it moves on to the same rows of the next block
#define SPK_LOAD_WEIGHTS(quad)                                                                                                        \
    asm("ld1 {v16.16b-v19.16b}, [%[at]], #64\n\t"                                                                                     \
        "ld1 {v20.16b-v23.16b}, [%[at]], %[step]"                                                                                     \
        : "=w" (w0), "=w" (w1), "=w" (w2), "=w" (w3), "=w" (w4), "=w" (w5), "=w" (w6), "=w" (w7), [at] "+r" (quad)                    \
        : [step] "r" (4*sizeof(spk_quad) - 64), SPK_READS(quad))

#ifdef SPK_I8MM
#define SPK_SUM_REGISTERS register int32x4_t c0 asm("v26"), c1 asm("v27"), d0 asm("v30"), d1 asm("v31")

// s0: of rows 0 and 1, 0 and 1, s1: of rows 2 and 3, 2 and 3; it moves on to the next group's
#define SPK_LOAD_SCALES(scale)                                                                                                        \
    register float32x4_t s0 asm("v24"), s1 asm("v25");                                                                                \
    asm("ld2r {v24.2d-v25.2d}, [%[at]], %[step]"                                                                                      \
        : "=w" (s0), "=w" (s1), [at] "+r" (scale) : [step] "r" (SPK_ROWS*sizeof(float)), SPK_READS(scale))

// c0 and c1, of two rows each, += two tokens' columns x and y times weights a .. d
#define SPK_DOT(c0, c1, x, y, a, b, c, d)                                                                                             \
        "smmla " c0 ".4s, " x ".16b, " a ".16b\n\t"                                                                                   \
        "smmla " c1 ".4s, " x ".16b, " b ".16b\n\t"                                                                                   \
        "smmla " c0 ".4s, " y ".16b, " c ".16b\n\t"                                                                                   \
        "smmla " c1 ".4s, " y ".16b, " d ".16b\n\t"
#define SPK_DOT_LOW(c0, c1, x, y)  SPK_DOT(c0, c1, x, y, "v16", "v17", "v18", "v19")
#define SPK_DOT_HIGH(c0, c1, x, y) SPK_DOT(c0, c1, x, y, "v20", "v21", "v22", "v23")

// c = of the first two of four tokens at x; d begins with the biases of the others, so that none takes an instruction of its own. x moves on
// to their columns
#define SPK_FIRST_PAIR(x)                                                                                                             \
    asm("ld1 {v26.16b-v29.16b}, [%[at]], #64\n\t"                                                                                     \
        SPK_DOT_LOW("v26", "v27", "v28", "v29")                                                                                       \
        "ld1 {v28.16b-v31.16b}, [%[at]], #64\n\t"                                                                                     \
        SPK_DOT_HIGH("v26", "v27", "v28", "v29")                                                                                      \
        : "=&w" (c0), "=&w" (c1), "=&w" (d0), "=&w" (d1), [at] "+r" (x) : SPK_WEIGHTS, SPK_READS(x) : "v28", "v29")

// sums += of two tokens whose columns are at x, which moves on
#define SPK_ADD_PAIR(sum0, sum1, x, bytes)                                                                                            \
    asm("ld1 {v26.16b-v29.16b}, [%[at]], %[step]\n\t"                                                                                 \
        SPK_DOT_LOW("%[a]", "%[b]", "v26", "v27")                                                                                     \
        SPK_DOT_HIGH("%[a]", "%[b]", "v28", "v29")                                                                                    \
        : [a] "+w" (sum0), [b] "+w" (sum1), [at] "+r" (x)                                                                             \
        : [step] "r" ((int64_t) (bytes)), SPK_WEIGHTS, SPK_READS(x) : "v26", "v27", "v28", "v29")
#else
#define SPK_SUM_REGISTERS register int32x4_t c0 asm("v24"), c1 asm("v25"), d0 asm("v26"), d1 asm("v27")

// where the sums of four tokens begin; x moves on to their columns
#define SPK_LOAD_SUMS(x)                                                                                                              \
    asm("ld1 {v24.16b-v27.16b}, [%[at]], #64" : "=w" (c0), "=w" (c1), "=w" (d0), "=w" (d1), [at] "+r" (x) : SPK_READS(x))

// in turn: not every processor adds to the same sum in each cycle
#define SPK_DOT(w, i)                                                                                                                 \
        "sdot %[a].4s, " w ".16b, v28.4b[" #i "]\n\t"                                                                                 \
        "sdot %[b].4s, " w ".16b, v29.4b[" #i "]\n\t"                                                                                 \
        "sdot %[c].4s, " w ".16b, v30.4b[" #i "]\n\t"                                                                                 \
        "sdot %[d].4s, " w ".16b, v31.4b[" #i "]\n\t"

// sums += of four tokens whose columns are at x, which moves on
#define SPK_ADD_FOUR(sum0, sum1, sum2, sum3, x, bytes)                                                                                \
    asm("ld1 {v28.16b-v31.16b}, [%[at]], #64\n\t"                                                                                     \
        SPK_DOT("v16", 0) SPK_DOT("v17", 1) SPK_DOT("v18", 2) SPK_DOT("v19", 3)                                                       \
        "ld1 {v28.16b-v31.16b}, [%[at]], %[step]\n\t"                                                                                 \
        SPK_DOT("v20", 0) SPK_DOT("v21", 1) SPK_DOT("v22", 2) SPK_DOT("v23", 3)                                                       \
        : [a] "+w" (sum0), [b] "+w" (sum1), [c] "+w" (sum2), [d] "+w" (sum3), [at] "+r" (x)                                           \
        : [step] "r" ((int64_t) (bytes)), SPK_WEIGHTS, SPK_READS(x) : "v28", "v29", "v30", "v31")

// of four rows: once per four tokens, since no register is left to keep them in; it stays
#define SPK_LOAD_SCALES(scale)                                                                                                        \
    float32x4_t s0;                                                                                                                   \
    asm volatile("ldr %q0, %1" : "=w" (s0) : "m" (*(const float (*)[4]) (scale)));                                                    \
    const float32x4_t s1 = s0
#endif

// four rows times NB batches
template <class W, bool Q8, int NB>
struct quad_product {
    static constexpr int NP = NB*SPK_BATCH/2; // pairs of tokens

    const char     * x[NB]; // tokens
    const float    * x_scales[NB];
    const spk_quad * quad;
    const float    * scale;

    // sum[2*p + i] += of pair p: rows 2i and 2i + 1, or token i
    SPK_MEMBER void finish(float32x4_t * sum, int p, int32x4_t a, int32x4_t b, float32x4_t s0, float32x4_t s1) {
        if (Q8) {
            const float32x4_t of = vld1q_f32(x_scales[p/4] + p % 4*4);
            s0 = MMLA ? vmulq_f32(s0, of) : vmulq_laneq_f32(s0, of, 0);
            s1 = MMLA ? vmulq_f32(s1, of) : vmulq_laneq_f32(s1, of, 2);
        }
        sum[2*p]     = vfmaq_f32(sum[2*p],     vcvtq_f32_s32(a), s0);
        sum[2*p + 1] = vfmaq_f32(sum[2*p + 1], vcvtq_f32_s32(b), s1);
    }

    // a group is a block: sums in float stay in registers
    SPK_MEMBER void by_block(float32x4_t * sums, int64_t n_block) {
        float32x4_t sum[2*NP];
        SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
            sum[i] = sums[i];
        }
        SPK_WEIGHT_REGISTERS;
        SPK_SUM_REGISTERS;
        _Pragma("GCC unroll 2") for (int64_t b = 0; b < n_block; ++b) {
            SPK_LOAD_WEIGHTS(quad);
#ifdef SPK_I8MM
            SPK_LOAD_SCALES(scale);
            SPK_UNROLL for (int p = 0; p < NP; p += 2) {
                SPK_FIRST_PAIR(x[p/4]);
                finish(sum, p, c0, c1, s0, s1);
                SPK_ADD_PAIR(d0, d1, x[p/4], 64);
                finish(sum, p + 1, d0, d1, s0, s1);
            }
#else
            SPK_UNROLL for (int p = 0; p < NP; p += 2) {
                SPK_LOAD_SUMS(x[p/4]);
                SPK_ADD_FOUR(c0, c1, d0, d1, x[p/4], 64);
                SPK_LOAD_SCALES(scale);
                finish(sum, p,     c0, c1, s0, s1);
                finish(sum, p + 1, d0, d1, s0, s1);
            }
            scale += SPK_ROWS;
#endif
            SPK_UNROLL for (int i = 0; Q8 && i < NB; ++i) {
                x_scales[i] += 2*SPK_BATCH;
            }
        }
        SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
            sums[i] = sum[i];
        }
    }

    // a group is four blocks: sums in integers do. x: not the tokens, but their first columns
    SPK_MEMBER void by_four(float32x4_t * sums, int64_t n_block) {
        SPK_WEIGHT_REGISTERS;
        for (int64_t b = 0; b < n_block; b += 4) {
            int32x4_t acc[2*NP];
            SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
                acc[i] = vdupq_n_s32(0);
            }
            for (int j = 0; j < 4; ++j) {
                SPK_LOAD_WEIGHTS(quad);
                SPK_UNROLL for (int p = 0; p < NP; p += 2) {
#ifdef SPK_I8MM
                    SPK_ADD_PAIR(acc[2*p],     acc[2*p + 1], x[p/4], sizeof(spk_columns)/2);
                    SPK_ADD_PAIR(acc[2*p + 2], acc[2*p + 3], x[p/4], sizeof(spk_columns)/2);
#else
                    SPK_ADD_FOUR(acc[2*p], acc[2*p + 1], acc[2*p + 2], acc[2*p + 3], x[p/4], sizeof(spk_columns) - 64);
#endif
                }
            }
            SPK_LOAD_SCALES(scale);
            SPK_UNROLL for (int p = 0; p < NP; ++p) {
                finish(sums, p, acc[2*p], acc[2*p + 1], s0, s1);
            }
            scale += MMLA ? 0 : SPK_ROWS;
        }
    }
};

// a tile and n_batch batches, which lie n_block blocks apart
template <class W, bool Q8>
struct batches {
    static constexpr int64_t MOST = SPK_COLUMNS/32;
    static constexpr int N_BLOCK = Q8 ? 1 : W::GROUP/32, COLUMNS_AT = MMLA ? 32 : 64; // in a spk_columns

    alignas(64) spk_quad quads[MOST][4];
    float       scales[MOST/N_BLOCK][SPK_ROWS];
    float32x4_t sums[4][SPK_TOGETHER]; // [rows][tokens], two by two

    // sums += NB batches times rows 4q .. of what is unpacked, which begins with block b0
    template <int NB>
    SPK_MEMBER void add(const spk_batch * batch, int i, int q, int64_t n_block, int64_t b0, int64_t n) {
        quad_product<W, Q8, NB> product;
        product.quad  = quads[0] + q;
        product.scale = scales[0] + 4*q;
        SPK_UNROLL for (int j = 0; j < NB; ++j) {
            const spk_batch * from = batch + (i + j)*n_block;
            product.x[j]        = (const char *) from + b0*sizeof(from->fours) + (N_BLOCK == 1 ? 0 : COLUMNS_AT);
            product.x_scales[j] = (const float *) ((const char *) from + scales_from(n_block)) + b0*2*SPK_BATCH;
        }
        if (N_BLOCK == 1) {
            product.by_block(sums[q] + i*SPK_BATCH, n);
        } else {
            product.by_four(sums[q] + i*SPK_BATCH, n);
        }
    }

    SPK_MEMBER void multiply(int64_t n_block, const uint8_t * tile, const float * tile_scales, const spk_batch * batch, int n_batch) {
        for (int q = 0; q < 4; ++q) {
            for (int i = 0; i < n_batch*SPK_BATCH; ++i) {
                sums[q][i] = vdupq_n_f32(0.0f);
            }
        }
        for (int64_t b0 = 0; b0 < n_block; b0 += MOST) {
            const int64_t n = n_block - b0 < MOST ? n_block - b0 : MOST;
            unpack_blocks<W, N_BLOCK>(quads, scales[0], tile, tile_scales, b0, n);
            for (int q = 0; q < 4; ++q) {
                int i = 0;
                for (; i + 2 <= n_batch; i += 2) {
                    add<2>(batch, i, q, n_block, b0, n);
                }
                if (i < n_batch) {
                    add<1>(batch, i, q, n_block, b0, n);
                }
            }
        }
    }

    // of tokens t and t + 1
    SPK_MEMBER void get(spk_f & a, spk_f & b, int64_t t) const {
        const float32x4_t * sum = sums[0] + t;
        SPK_EACH {
            const float32x4_t x = sum[q*SPK_TOGETHER], y = sum[q*SPK_TOGETHER + 1];
            a.v[q] = MMLA ? vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y))) : x;
            b.v[q] = MMLA ? vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y))) : y;
        }
    }
};

// out[t*stride + r]; times V_th where act is given
template <class W, bool Q8>
static void batches_product(int64_t n, const uint8_t * tile, const float * scales, const spk_batch * batch, int n_batch,
                            const ggml_spk_row * act, float * out, int64_t stride) {
    batches<W, Q8> product;
    product.multiply(n/32, tile, scales, batch, n_batch);
    for (int t = 0; t < n_batch*SPK_BATCH; t += 2) {
        spk_f a, b;
        product.get(a, b, t);
        f_store(out + t*stride,          act ? f_scale(a, act[t].v_th)     : a);
        f_store(out + t*stride + stride, act ? f_scale(b, act[t + 1].v_th) : b);
    }
}
