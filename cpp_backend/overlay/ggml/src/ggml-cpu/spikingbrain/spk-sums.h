#pragma once

// The sums of a tile product: 16 rows times NT tokens, an integer register set per token.
// NEON has its own (spk-sums-neon.h). Included inside the namespace of the instruction set.

#include "spk-weights.h"

#ifdef SPK_UNPACKED
static const int SPK_TOGETHER = SPK_MOST_TOKENS;
#else
static const int SPK_TOGETHER = SPK_BATCH;
#endif
typedef spk_batch_block spk_batch;

SPK_INLINE void pack_block(spk_batch & block, const ggml_spk_row * act, int64_t b) {
    const bool q8 = act->encoding == GGML_SPK_Q8;
    for (int t = 0; t < SPK_BATCH; ++t) {
        block.bias[t]   = act[t].bias[b];
        block.scales[t] = q8 ? act[t].scales[b] : 0.0f;
        memcpy(block.s8[0][t], act[t].s8 + 32*b,      16);
        memcpy(block.s8[1][t], act[t].s8 + 32*b + 16, 16);
    }
}

static void pack_rows(void * dst, ggml_type, int64_t n, const ggml_spk_row * act) {
    for (int64_t b = 0; b < n/32; ++b) {
        pack_block(((spk_batch *) dst)[b], act, b);
    }
}

#ifndef SPK_PAIRS
// NULL: rows are read as they are
static void (* const pack_batch)(void *, ggml_type, int64_t, const ggml_spk_row *) = SPK_NT == SPK_BATCH ? pack_rows : nullptr;
#endif

// what a product reads of its tokens: rows
template <bool BATCHED>
struct spk_tokens {
    const ggml_spk_row * act;

    SPK_MEMBER static spk_tokens from(const ggml_spk_row * act, const spk_batch_block *) { return { act }; }

    template <int N_BLOCK> SPK_MEMBER int32_t bias(int t, int64_t b) const { return row_bias<N_BLOCK>(act[t], b); }
    SPK_MEMBER float          scale  (int t, int64_t b)           const { return act[t].scales[b]; }
    SPK_MEMBER const int8_t * columns(int t, int64_t b, int step) const { return act[t].s8 + b*32 + step*4; }
};

// or a batch: one pointer, where eight would not stay in registers
template <>
struct spk_tokens<true> {
    const spk_batch_block * batch;

    SPK_MEMBER static spk_tokens from(const ggml_spk_row *, const spk_batch_block * batch) { return { batch }; }

    template <int N_BLOCK> SPK_MEMBER int32_t bias(int t, int64_t b) const {
        int32_t bias = 0;
        for (int j = 0; j < N_BLOCK; ++j) {
            bias += batch[b + j].bias[t];
        }
        return bias;
    }
    SPK_MEMBER float          scale  (int t, int64_t b)           const { return batch[b].scales[t]; }
    SPK_MEMBER const int8_t * columns(int t, int64_t b, int step) const { return batch[b].s8[step/4][t] + step % 4*4; }
};

// PART: which rows of the tile, where the registers do not hold all of them (PARTS > 1)
template <class W, int NT, int PART>
struct spk_sums {
    static constexpr int PARTS = 1;
    static constexpr bool NIBBLES = W::OFFSET == 8; // sums of a block of them have their own form (spk_h)

    typedef spk_tokens<NT == SPK_BATCH> tokens;

    spk_i acc[NT];
    spk_h nibble_acc[NT];

    struct floats { spk_f v[NT]; };

    SPK_MEMBER static void zero(floats & sum) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum.v[t] = f_zero();
        }
    }
    SPK_MEMBER static tokens operand(const ggml_spk_row * act, const spk_batch_block * batch) { return tokens::from(act, batch); }

    // a group of N_BLOCK blocks begins, the first is b
    template <int N_BLOCK> SPK_MEMBER void start(tokens x, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const int32_t bias = x.template bias<N_BLOCK>(t, b);
            if (NIBBLES) {
                nibble_acc[t] = h_start(bias);
            } else {
                acc[t] = W::OFFSET == 16 ? i_start_5bit(bias) : i_start_signed(bias);
            }
        }
    }
    // a step of block b: 4 columns
    SPK_MEMBER void dot(int step, spk_w w, tokens x, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const int8_t * s8 = x.columns(t, b, step);
            NIBBLES ? h_dot(nibble_acc[t], w, s8) : W::OFFSET ? i_dot(acc[t], w, s8) : i_dot_signed(acc[t], w, s8);
        }
    }
    // the group ends: scaled and added; block b of the activations has their scale
    template <bool Q8> SPK_MEMBER void add(floats & sum, spk_f scale, tokens x, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const spk_f y = i_float(NIBBLES ? h_sum(nibble_acc[t], x.template bias<1>(t, b)) : acc[t]);
            sum.v[t] = f_fma(y, Q8 ? f_scale(scale, x.scale(t, b)) : scale, sum.v[t]);
        }
    }
    // out [NT][SPK_ROWS]
    SPK_MEMBER static void store(float * out, const floats & sum) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) { // a loop would keep all sums in memory, too
            f_store(out + t*SPK_ROWS, sum.v[t]);
        }
    }
};
