// Tile products of whole batches with SMMLA, which multiplies two rows by two tokens over 8 columns at once.
// The weights are unpacked and zipped once for all tokens of a call, SPK_COLUMNS of them at a time: they stay in the caches. Then
// four rows meet 16 tokens: 16 registers hold the sums in float, 8 the rows' 32 columns, 4 those of two tokens, 2 their sums
// in integers, 2 scales. That is all there are. Included inside the namespace of the instruction set.

static const int SPK_COLUMNS = 1024;

// 32 columns of SPK_BATCH tokens, two by two
struct spk_batch {
    struct pair {
        int8_t  s8[4][16];  // 8 columns of each: those of steps 0 and 2, 1 and 3, 4 and 6, 5 and 7 (spk-layout.h)
        int32_t bias[2][4]; // where two sums begin: of two rows each
        float   scales[4];  // with GGML_SPK_Q8
    } pairs[SPK_BATCH/2];
};

// 32 columns of four rows, two by two
struct spk_quad {
    int8_t s8[4][2][16]; // columns as s8 above
    float  scale[2][4];
};

static void pack_batch(void * dst, ggml_type, int64_t n, const ggml_spk_row * act) {
    const bool q8 = act->encoding == GGML_SPK_Q8;
    for (int p = 0; p < SPK_BATCH/2; ++p) {
        const ggml_spk_row a = act[2*p], b = act[2*p + 1];
        for (int64_t i = 0; i < n/32; ++i) {
            auto & pair = ((spk_batch *) dst)[i].pairs[p];
            SPK_UNROLL for (int half = 0; half < 2; ++half) {
                const int32x4_t x = vreinterpretq_s32_s8(vld1q_s8(a.s8 + 32*i + 16*half));
                const int32x4_t y = vreinterpretq_s32_s8(vld1q_s8(b.s8 + 32*i + 16*half));
                vst1q_s8(pair.s8[2*half],     vreinterpretq_s8_s32(vuzp1q_s32(x, y)));
                vst1q_s8(pair.s8[2*half + 1], vreinterpretq_s8_s32(vuzp2q_s32(x, y)));
            }
            const int32x4_t bias = { a.bias[i], b.bias[i], a.bias[i], b.bias[i] };
            vst1q_s32(pair.bias[0], bias);
            vst1q_s32(pair.bias[1], bias);
            if (q8) {
                vst1q_f32(pair.scales, float32x4_t{ a.scales[i], b.scales[i], a.scales[i], b.scales[i] });
            }
        }
    }
}

// 16 bytes of each, four by four in turn: of steps, 8 columns of rows 0 and 1, then of rows 2 and 3; returns what lies behind
SPK_INLINE int8_t * store_zipped(int8_t * to, int8x16_t a, int8x16_t b) {
    vst2q_s32((int32_t *) to, int32x4x2_t{ { vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b) } });
    to += 32;
    asm("" : "+r" (to)); // one instruction stores and moves on; else GCC 12 adds for each address
    return to;
}

// a block of a tile becomes to[4]; of codes + OFFSET, those + 8 remain or none, as biases are
template <class W>
SPK_INLINE void unpack_quads(spk_quad * to, const uint8_t * block) {
    spk_w held[2];
    W::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) {
        if (W::OFFSET > 8) {
            SPK_EACH w.v[q] = vsubq_s8(w.v[q], vdupq_n_s8(W::OFFSET - 8));
        }
        if (step % 4 < 2) {
            held[step % 2] = w;
            return;
        }
        SPK_EACH store_zipped(to[q].s8[step/4*2 + step % 2][0], held[step % 2].v[q], w.v[q]);
    });
}

// block b of a tile of n_block, with its scales
template <class W>
SPK_INLINE void unpack_block(spk_quad * to, const uint8_t * tile, const float * scales, int64_t n_block, int64_t b) {
    unpack_quads<W>(to, tile + spk_block_at(b, W::BLOCK, W::TILE_SCALES));
    const spk_f scale = W::tile_scales(tile, scales, n_block, b);
    SPK_EACH {
        const int8x16_t four = vreinterpretq_s8_f32(scale.v[q]);
        store_zipped((int8_t *) to[q].scale, four, four);
    }
}

// rows by rows, so that the address only moves on
template <>
SPK_MEMBER void unpack_block<weights_q4_0>(spk_quad * to, const uint8_t * tile, const float *, int64_t n_block, int64_t b) {
    using W = weights_q4_0;
    const uint8_t * block = tile + spk_block_at(b, W::BLOCK, W::TILE_SCALES), * half = tile + spk_scales_at(b, n_block, W::BLOCK, W::TILE_SCALES);
    int8_t * p = to->s8[0][0];
    SPK_EACH {
        uint8x16_t x[4];
        SPK_UNROLL for (int i = 0; i < 4; ++i) {
            x[i] = vld1q_u8(block + 64*i + 16*q);
        }
        SPK_UNROLL for (int i = 0; i < 4; i += 2) {
            p = store_zipped(p, vreinterpretq_s8_u8(vandq_u8(x[i], vdupq_n_u8(15))), vreinterpretq_s8_u8(vandq_u8(x[i + 1], vdupq_n_u8(15))));
            p = store_zipped(p, vreinterpretq_s8_u8(vshrq_n_u8(x[i], 4)),            vreinterpretq_s8_u8(vshrq_n_u8(x[i + 1], 4)));
        }
        const int8x16_t scale = vreinterpretq_s8_f32(vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(half + 8*q))));
        p = store_zipped(p, scale, scale);
    }
}

// In assembly, since compilers load four registers neither by one instruction nor while the address moves. For the same reason
// the weights of a block have fixed registers: a0 .. a3 two rows, b0 .. b3 two more.
#define SPK_WEIGHT_REGISTERS                                                                                                          \
    register int8x16_t a0 asm("v16"), b0 asm("v17"), a1 asm("v18"), b1 asm("v19"), a2 asm("v20"), b2 asm("v21"), a3 asm("v22"), b3 asm("v23")

// weights and scales of a quad; it moves on to the same rows of the next block
#define SPK_LOAD_WEIGHTS(quad, scale)                                                                                                 \
    asm("ld1 {v16.16b-v19.16b}, [%[at]], #64\n\t"                                                                                     \
        "ld1 {v20.16b-v23.16b}, [%[at]], #64\n\t"                                                                                     \
        "ldp %q[s0], %q[s1], [%[at]], %[step]"                                                                                        \
        : "=w" (a0), "=w" (a1), "=w" (a2), "=w" (a3), "=w" (b0), "=w" (b1), "=w" (b2), "=w" (b3),                                     \
          [s0] "=w" ((scale)[0]), [s1] "=w" ((scale)[1]), [at] "+r" (quad)                                                            \
        : [step] "i" (4*sizeof(spk_quad) - 128), "m" (*(const char (*)[]) (quad)))

// acc[0], acc[1] += two rows each times the two tokens at x; it moves on to the next two
#define SPK_MULTIPLY(acc, x)                                                                                                          \
    asm("ld1   {v28.16b-v31.16b}, [%[at]], %[step]\n\t"                                                                               \
        "smmla %[a].4s, %[a0].16b, v28.16b\n\t"                                                                                       \
        "smmla %[b].4s, %[b0].16b, v28.16b\n\t"                                                                                       \
        "smmla %[a].4s, %[a1].16b, v29.16b\n\t"                                                                                       \
        "smmla %[b].4s, %[b1].16b, v29.16b\n\t"                                                                                       \
        "smmla %[a].4s, %[a2].16b, v30.16b\n\t"                                                                                       \
        "smmla %[b].4s, %[b2].16b, v30.16b\n\t"                                                                                       \
        "smmla %[a].4s, %[a3].16b, v31.16b\n\t"                                                                                       \
        "smmla %[b].4s, %[b3].16b, v31.16b"                                                                                           \
        : [a] "+&w" ((acc)[0]), [b] "+&w" ((acc)[1]), [at] "+r" (x)                                                                   \
        : [a0] "w" (a0), [a1] "w" (a1), [a2] "w" (a2), [a3] "w" (a3), [b0] "w" (b0), [b1] "w" (b1), [b2] "w" (b2), [b3] "w" (b3),     \
          [step] "r" ((int64_t) sizeof(spk_batch::pair)), "m" (*(const char (*)[]) (x))                                               \
        : "v28", "v29", "v30", "v31")

// four rows times NB batches
template <class W, bool Q8, int NB>
struct quad_product {
    static constexpr int NP = NB*SPK_BATCH/2; // pairs of tokens

    const spk_batch::pair * x[NB];

    // sum[2*p + r] += rows 2r and 2r + 1 times tokens 2p and 2p + 1. A group is a block: sums in float stay in registers
    SPK_MEMBER void by_block(float32x4_t * sums, const spk_quad * quad, int64_t n_block) {
        float32x4_t sum[2*NP];
        SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
            sum[i] = sums[i];
        }
        SPK_WEIGHT_REGISTERS;
        _Pragma("GCC unroll 2") for (int64_t b = 0; b < n_block; ++b) {
            float32x4_t scale[2];
            SPK_LOAD_WEIGHTS(quad, scale);
            SPK_UNROLL for (int p = 0; p < NP; ++p) {
                const spk_batch::pair *& at = x[p/4];
                int32x4_t acc[2];
                SPK_UNROLL for (int r = 0; r < 2; ++r) {
                    acc[r] = W::OFFSET ? vld1q_s32(at->bias[r]) : vdupq_n_s32(0);
                }
                SPK_MULTIPLY(acc, at);
                SPK_UNROLL for (int r = 0; r < 2; ++r) {
                    const float32x4_t s = Q8 ? vmulq_f32(scale[r], vld1q_f32(at[-1].scales)) : scale[r];
                    sum[2*p + r] = vfmaq_f32(sum[2*p + r], vcvtq_f32_s32(acc[r]), s);
                }
            }
        }
        SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
            sums[i] = sum[i];
        }
    }

    // a group is four blocks: sums in integers do
    SPK_MEMBER void by_four(float32x4_t * sums, const spk_quad * quad, int64_t n_block) {
        SPK_WEIGHT_REGISTERS;
        for (int64_t b = 0; b < n_block; b += 4) {
            float32x4_t scale[2];
            int32x4_t   acc[2*NP];
            SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
                acc[i] = vdupq_n_s32(0);
            }
            for (int j = 0; j < 4; ++j) {
                SPK_LOAD_WEIGHTS(quad, scale);
                SPK_UNROLL for (int p = 0; p < NP; ++p) {
                    SPK_MULTIPLY(acc + 2*p, x[p/4]);
                }
            }
            SPK_UNROLL16 for (int i = 0; i < 2*NP; ++i) {
                sums[i] = vfmaq_f32(sums[i], vcvtq_f32_s32(acc[i]), scale[i % 2]);
            }
        }
    }
};

template <class W, bool Q8, int NB>
static void add_quad(float32x4_t * sums, const spk_quad * quad, int64_t n_block, const spk_batch * batch, int64_t stride) {
    quad_product<W, Q8, NB> product;
    SPK_UNROLL for (int i = 0; i < NB; ++i) {
        product.x[i] = batch[i*stride].pairs;
    }
    if (Q8 || W::GROUP == 32) {
        product.by_block(sums, quad, n_block);
    } else {
        product.by_four(sums, quad, n_block);
    }
}

// out[t*stride + r] of a tile and n_batch batches, which lie n/32 blocks apart; times V_th where act is given
template <class W, bool Q8>
static void batches_product(int64_t n, const uint8_t * tile, const float * scales, const spk_batch * batch, int n_batch,
                            const ggml_spk_row * act, float * out, int64_t stride) {
    constexpr int64_t N_BLOCK = SPK_COLUMNS/32;
    spk_quad    quads[N_BLOCK][4];
    float32x4_t sums[4][SPK_TOGETHER]; // [rows][tokens], two by two

    for (int q = 0; q < 4; ++q) {
        for (int i = 0; i < n_batch*SPK_BATCH; ++i) {
            sums[q][i] = vdupq_n_f32(0.0f);
        }
    }
    for (int64_t b0 = 0; b0 < n/32; b0 += N_BLOCK) {
        const int64_t n_block = n/32 - b0 < N_BLOCK ? n/32 - b0 : N_BLOCK;
        for (int64_t b = 0; b < n_block; b += 2) { // in pairs: the compiler sees where blocks and scales of even ones lie
            unpack_block<W>(quads[b], tile, scales, n/32, b0 + b);
            if (b + 1 < n_block) {
                unpack_block<W>(quads[b + 1], tile, scales, n/32, b0 + b + 1);
            }
        }
        for (int q = 0; q < 4; ++q) {
            int i = 0;
            for (; i + 2 <= n_batch; i += 2) {
                add_quad<W, Q8, 2>(sums[q] + i*SPK_BATCH, quads[0] + q, n_block, batch + i*(n/32) + b0, n/32);
            }
            if (i < n_batch) {
                add_quad<W, Q8, 1>(sums[q] + i*SPK_BATCH, quads[0] + q, n_block, batch + i*(n/32) + b0, n/32);
            }
        }
    }
    for (int t = 0; t < n_batch*SPK_BATCH; t += 2) {
        spk_f a, b;
        SPK_EACH {
            a.v[q] = vuzp1q_f32(sums[q][t], sums[q][t + 1]);
            b.v[q] = vuzp2q_f32(sums[q][t], sums[q][t + 1]);
        }
        f_store(out + t*stride,          act ? f_scale(a, act[t].v_th)     : a);
        f_store(out + t*stride + stride, act ? f_scale(b, act[t + 1].v_th) : b);
    }
}
