// What the sums of spk-sums-neon.h read of NT tokens: of their rows, or of all SPK_BATCH side by side. The first saves
// nothing; the second saves eight pointers, and with i8mm the zipping, for each of a tile's rows.
// Included inside the namespace of the instruction set.

template <int NT>
struct spk_tokens {
    using source = const ggml_spk_row *;

    SPK_MEMBER static source from(const ggml_spk_row * act, const spk_batch_block *) { return act; }

    // x[t]: 16 columns of block b
    SPK_MEMBER static void columns(int8x16_t * x, source act, int64_t b, int half) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            x[t] = vld1q_s8(act[t].s8 + 32*b + 16*half);
        }
    }
    SPK_MEMBER static void biases(int32_t * bias, source act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            bias[t] = act[t].bias[b];
        }
    }
    SPK_MEMBER static void scales(float * scale, source act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            scale[t] = act[t].scales[b];
        }
    }
};

template <>
struct spk_tokens<SPK_BATCH> {
    using source = const spk_batch_block *;

    SPK_MEMBER static source from(const ggml_spk_row *, const spk_batch_block * batch) { return batch; }

    SPK_MEMBER static void columns(int8x16_t * x, source batch, int64_t b, int half) {
        const int8_t (*s8)[16] = batch[b].s8[half];
#ifdef SPK_I8MM
        const int8x16x4_t lo = vld1q_s8_x4(s8[0]), hi = vld1q_s8_x4(s8[4]);
        SPK_UNROLL for (int t = 0; t < 4; ++t) {
            x[t]     = lo.val[t];
            x[4 + t] = hi.val[t];
        }
#else // so that each can be loaded late: registers are short
        SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
            x[t] = vld1q_s8(s8[t]);
        }
#endif
    }
    // from lanes: one instruction spreads each
    SPK_MEMBER static void biases(int32_t * bias, source batch, int64_t b) {
        const int32x4_t v[2] = { vld1q_s32(batch[b].bias), vld1q_s32(batch[b].bias + 4) };
        SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
            bias[t] = v[t/4][t % 4];
        }
    }
    SPK_MEMBER static void scales(float * scale, source batch, int64_t b) {
        const float32x4_t v[2] = { vld1q_f32(batch[b].scales), vld1q_f32(batch[b].scales + 4) };
        SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
            scale[t] = v[t/4][t % 4];
        }
    }
};

// columns 0 .. 7 of both, columns 8 .. 15 of both
SPK_INLINE void zip_pair(int8x16_t & x, int8x16_t & y) {
    const int64x2_t a = vreinterpretq_s64_s8(x), b = vreinterpretq_s64_s8(y);
    x = vreinterpretq_s8_s64(vzip1q_s64(a, b));
    y = vreinterpretq_s8_s64(vzip2q_s64(a, b));
}

static void pack_batch(spk_batch_block * batch, int64_t n, const ggml_spk_row * act) {
    const bool q8 = act->encoding == GGML_SPK_Q8;
    for (int t = 0; t < SPK_BATCH; ++t) {
        const ggml_spk_row row = act[t];
        for (int64_t b = 0; b < n/32; ++b) {
            batch[b].bias[t] = row.bias[b];
        }
        for (int64_t b = 0; q8 && b < n/32; ++b) {
            batch[b].scales[t] = row.scales[b];
        }
    }
    for (int t = 0; t < SPK_BATCH; t += 2) {
        const int8_t * s0 = act[t].s8, * s1 = act[t + 1].s8;
        for (int64_t b = 0; b < n/32; ++b) {
            SPK_UNROLL for (int half = 0; half < 2; ++half) {
                int8x16_t x = vld1q_s8(s0 + 32*b + 16*half), y = vld1q_s8(s1 + 32*b + 16*half);
#ifdef SPK_I8MM
                zip_pair(x, y);
#endif
                vst1q_s8(batch[b].s8[half][t],     x);
                vst1q_s8(batch[b].s8[half][t + 1], y);
            }
        }
    }
}
