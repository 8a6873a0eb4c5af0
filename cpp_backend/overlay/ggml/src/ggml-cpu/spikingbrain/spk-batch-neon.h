// What the sums of spk-sums-neon.h read of NT tokens: of their rows, or, without i8mm, of all SPK_BATCH side by side, which saves
// eight pointers for each of a tile's rows. Included inside the namespace of the instruction set.

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

#ifdef SPK_I8MM

// columns 0 .. 7 of both, columns 8 .. 15 of both
SPK_INLINE void zip_pair(int8x16_t & x, int8x16_t & y) {
    const int64x2_t a = vreinterpretq_s64_s8(x), b = vreinterpretq_s64_s8(y);
    x = vreinterpretq_s8_s64(vzip1q_s64(a, b));
    y = vreinterpretq_s8_s64(vzip2q_s64(a, b));
}

#else

template <>
struct spk_tokens<SPK_BATCH> {
    using source = const spk_batch_block *;

    SPK_MEMBER static source from(const ggml_spk_row *, const spk_batch_block * batch) { return batch; }

    SPK_MEMBER static void columns(int8x16_t * x, source batch, int64_t b, int half) {
        const int8_t (*s8)[16] = batch[b].s8[half];
        SPK_UNROLL for (int t = 0; t < SPK_BATCH; ++t) {
            x[t] = vld1q_s8(s8[t]);
        }
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

static void pack_batch(void * dst, ggml_type, int64_t n, const ggml_spk_row * act) {
    spk_batch * batch = (spk_batch *) dst;
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
    for (int t = 0; t < SPK_BATCH; ++t) {
        const int8_t * s8 = act[t].s8;
        for (int64_t b = 0; b < n/32; ++b) {
            vst1q_s8(batch[b].s8[0][t], vld1q_s8(s8 + 32*b));
            vst1q_s8(batch[b].s8[1][t], vld1q_s8(s8 + 32*b + 16));
        }
    }
}

#endif
