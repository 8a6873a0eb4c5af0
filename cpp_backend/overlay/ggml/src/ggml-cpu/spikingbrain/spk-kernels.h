#pragma once

// The kernels of spk-isa.h over the vector wrapper of one instruction set (spk-simd.h), inside whose namespace they are included. No
// templates of the standard library here: the linker would keep one instruction set's copy for all.

#include "spk-encode.h"
#include "spk-gla.h"
#include "spk-swa.h"
#include "spk-minima.h"
#include "spk-weights.h"

#if defined(__aarch64__)
#include "spk-sums-neon.h"
#else
#include "spk-few.h"
#include "spk-sums.h"
#endif
#include "spk-k.h"
#ifdef SPK_UNPACKED
#include "spk-unpacked-avx2.h"
#endif
#ifdef SPK_SMALL_COUNTS
#include "spk-bytes-avx2.h"
#endif
#ifdef SPK_DOTPROD
#include "spk-k-mmla-neon.h"
#include "spk-k-one-neon.h"
#include "spk-mmla-neon.h"
#include "spk-one-neon.h"
#endif
#ifdef SPK_PAIRS
#include "spk-pairs-avx512.h"
#endif

// whether more tokens of a tile ask for its weights anew, which lie in the second cache by then
#ifdef SPK_UNPACKED
static const bool SPK_AHEAD_AGAIN = false;
#else
static const bool SPK_AHEAD_AGAIN = true;
#endif

// 16 rows times NT tokens, PARTS passes over them; a group is summed in integers, then scaled and added in float
template <class W, int NT, bool Q8, int PART = 0>
static void tile_sums(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, const spk_batch_block * batch, bool ahead, float * out) {
    constexpr int N_BLOCK = Q8 ? 1 : W::GROUP/32;

    spk_sums<W, NT, PART> sums;
    typename spk_sums<W, NT, PART>::floats total;
    const auto x = sums.operand(act, batch);
    sums.zero(total);
    for (int64_t b = 0; b < n/32; b += N_BLOCK) {
        sums.template start<N_BLOCK>(x, b);
        for (int j = 0; j < N_BLOCK; ++j) {
            const uint8_t * block = tile + spk_block_at(b + j, W::BLOCK, W::TILE_SCALES);
            if (NT > 1 && PART == 0 && ahead) {
                prefetch_ahead<W, NT>(block, b + j);
            }
            W::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) {
                sums.dot(step, w, x, b + j);
            });
        }
        sums.template add<Q8>(total, W::tile_scales(tile, scales, n/32, b), x, b);
    }
    sums.store(out, total);
    if constexpr (PART + 1 < spk_sums<W, NT, PART>::PARTS) {
        tile_sums<W, NT, Q8, PART + 1>(n, tile, scales, act, batch, ahead, out);
    }
}

// the sums [n_tok][SPK_ROWS] become results
SPK_INLINE void put_tokens(const float * out, const ggml_spk_row * act, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
    for (int t = 0; t < n_tok; ++t) {
        if (!corr && n_rows == SPK_ROWS) {
            f_store(y + t*stride_y, f_scale(f_load(out + t*SPK_ROWS), act[t].v_th));
            continue;
        }
        for (int r = 0; r < n_rows; ++r) {
            const float sum = out[t*SPK_ROWS + r];
            y[t*stride_y + r] = corr ? (float) (act[t].v_th*(sum + corr[t*SPK_ROWS + r])) : act[t].v_th*sum;
        }
    }
}

// the same, where minima are still to be added
template <class W, bool Q8>
SPK_INLINE void put_sums(int64_t n, const uint8_t * tile, float * out, const ggml_spk_row * act, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
    if constexpr (W::MINIMA) {
        add_minima<W, Q8>(n, tile, act, n_tok, out);
    }
    put_tokens(out, act, n_tok, corr, y, stride_y, n_rows);
}

#ifdef SPK_DOTPROD
// not inlined: decoding calls it for each tile, and it saves fewer registers than the rest
template <class W, bool Q8>
__attribute__((noinline)) static void tile_one(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act,
                                               const double * corr, float * y, int64_t stride_y, int n_rows) {
    float out[SPK_ROWS];
    if constexpr (one_token<W>::THERE) {
        one_token_sums<W, Q8>(n, tile, scales, *act, out);
    } else {
        tile_sums<W, 1, Q8>(n, tile, scales, act, nullptr, false, out);
    }
    put_sums<W, Q8>(n, tile, out, act, 1, corr, y, stride_y, n_rows);
}

// the same with superblocks
template <class W, bool Q8>
__attribute__((noinline)) static void k_tile_one(int64_t n, const uint8_t * tile, const ggml_spk_row * act, const double * corr, float * y, int64_t stride_y, int n_rows) {
    float out[SPK_ROWS];
    k_one_sums<W, Q8>(n, tile, *act, out);
    put_tokens(out, act, 1, corr, y, stride_y, n_rows);
}
#endif

template <class W, int NT, bool Q8>
static void tile_tokens(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, const spk_batch_block * batch, bool ahead,
                        const double * corr, float * y, int64_t stride_y, int n_rows) {
#ifdef SPK_DOTPROD
    if constexpr (NT == 1) {
        return tile_one<W, Q8>(n, tile, scales, act, corr, y, stride_y, n_rows);
    }
#endif
    float out[NT*SPK_ROWS];
#ifndef __aarch64__
    if constexpr (2*NT <= SPK_NT) {
        (far_between<W>(n, NT) ? few_sums<W, NT, Q8, W::OFFSET != 0> : few_sums<W, NT, Q8, false>)(n, tile, scales, act, out);
        return put_sums<W, Q8>(n, tile, out, act, NT, corr, y, stride_y, n_rows);
    }
#endif
#ifdef SPK_PAIRS
    if constexpr (std::is_same_v<W, weights_q4_0> && NT == SPK_BATCH && !Q8) {
        pair_sums(n, tile, batch, out);
    } else
#endif
    tile_sums<W, NT, Q8>(n, tile, scales, act, batch, ahead, out);
    put_sums<W, Q8>(n, tile, out, act, NT, corr, y, stride_y, n_rows);
}

template <class W, int NT, bool Q8>
static void tile_all(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, const spk_batch_block * batch, int n_tok,
                     const double * corr, float * y, int64_t stride_y, int n_rows) {
    int t = 0;
    for (; t + NT <= n_tok; t += NT) {
        tile_tokens<W, NT, Q8>(n, tile, scales, act + t, batch, SPK_AHEAD_AGAIN || t == 0, corr ? corr + t*SPK_ROWS : nullptr, y + t*stride_y, stride_y, n_rows);
    }
    if constexpr (NT > 1) {
        if (t < n_tok) {
            tile_all<W, NT/2, Q8>(n, tile, scales, act + t, batch, n_tok - t, corr ? corr + t*SPK_ROWS : nullptr, y + t*stride_y, stride_y, n_rows);
        }
    }
}

template <class W, bool Q8>
static void tile_batches(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, const void * batch, int n_tok,
                         const double * corr, float * y, int64_t stride_y, int n_rows) {
    int t = 0;
#ifdef SPK_DOTPROD
    const int n_batch = n_tok/SPK_BATCH;
    if (n_batch > 0 && !corr && n_rows == SPK_ROWS && !W::MINIMA) {
        batches_product<W, Q8>(n, tile, scales, (const spk_batch *) batch, n_batch, act, y, stride_y);
    } else if (n_batch > 0) {
        float out[SPK_TOGETHER*SPK_ROWS];
        batches_product<W, Q8>(n, tile, scales, (const spk_batch *) batch, n_batch, nullptr, out, SPK_ROWS);
        put_sums<W, Q8>(n, tile, out, act, n_batch*SPK_BATCH, corr, y, stride_y, n_rows);
    }
    t = n_batch*SPK_BATCH;
#endif
#ifdef SPK_UNPACKED
    if (SPK_UNPACKS<W> && n_tok >= SPK_UNPACK_FROM<W>) {
        float out[SPK_TOGETHER*SPK_ROWS];
        unpacked_sums<W, Q8>(n, tile, scales, act, n_tok, out);
        return put_sums<W, Q8>(n, tile, out, act, n_tok, corr, y, stride_y, n_rows);
    }
#endif
#ifdef SPK_SMALL_COUNTS
    if constexpr (W::OFFSET == 0 && !Q8) {
        if (n_tok >= SPK_BATCH) {
            float out[SPK_TOGETHER*SPK_ROWS];
            bytes_sums<W>(n, tile, scales, act, n_tok, out);
            return put_sums<W, Q8>(n, tile, out, act, n_tok, corr, y, stride_y, n_rows);
        }
    }
#endif
    tile_all<W, SPK_NT, Q8>(n, tile, scales, act + t, (const spk_batch_block *) batch, n_tok - t, corr ? corr + t*SPK_ROWS : nullptr, y + t*stride_y, stride_y, n_rows);
}

template <class W, bool Q8>
static void rows_all(int64_t n, const uint8_t * rows, const float * scales, const ggml_spk_row * act, int n_tok,
                     const double * corr, float * y, int64_t stride_y, int n_rows) {
    constexpr int N_BLOCK = Q8 ? 1 : W::GROUP/32;

    for (int r = 0; r < n_rows; ++r) {
        const uint8_t * row = rows + r*(n/32)*W::DISK;
        for (int t = 0; t < n_tok; ++t) {
            spk_lf sum = lf_zero();
            for (int64_t b = 0; b < n/32; b += N_BLOCK) {
                spk_l acc = l_zero();
                for (int j = 0; j < N_BLOCK; ++j) {
                    l_dot(acc, W::row_block(row + (b + j)*W::DISK), act[t].s8 + (b + j)*32);
                }
                const float scale = W::row_scale(row + b*W::DISK, scales, r*(n/W::GROUP) + b*32/W::GROUP);
                lf_add(sum, acc, Q8 ? scale*act[t].scales[b] : scale);
            }
            float out = lf_sum(sum);
            if constexpr (W::MINIMA) {
                out += row_minima<W, Q8>(n, row, act[t]);
            }
            y[t*stride_y + r] = corr ? (float) (act[t].v_th*(out + corr[t*SPK_ROWS + r])) : act[t].v_th*out;
        }
    }
}

template <class W, bool Q8>
static void k_batches(int64_t n, const uint8_t * tile, const ggml_spk_row * act, const void * batch, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
    float out[SPK_TOGETHER*SPK_ROWS];
#ifdef SPK_DOTPROD
    const int unpacked = n_tok & ~3; // four tokens need not be packed in a batch; for three, unpacking costs more than it saves
    if (unpacked > 0) {
        k_batches_product<W, Q8>(n, tile, act, (const spk_batch *) batch, unpacked, out);
    }
    for (int t = unpacked; t < n_tok; ++t) {
        k_one_sums<W, Q8>(n, tile, act[t], out + t*SPK_ROWS);
    }
#else
    k_sums<W, Q8>(n, tile, act, (const spk_batch_block *) batch, n_tok, out);
#endif
    put_tokens(out, act, n_tok, corr, y, stride_y, n_rows);
}

// returns where the type has superblocks
#define SPK_FOR_K_TYPE(type, call)                                           \
    switch (type) {                                                          \
        case GGML_TYPE_Q2_K: { using W = weights_q2_K; return call; }        \
        case GGML_TYPE_Q3_K: { using W = weights_q3_K; return call; }        \
        case GGML_TYPE_Q4_K: { using W = weights_q4_K; return call; }        \
        case GGML_TYPE_Q5_K: { using W = weights_q5_K; return call; }        \
        case GGML_TYPE_Q6_K: { using W = weights_q6_K; return call; }        \
        case GGML_TYPE_IQ4_XS: { using W = weights_iq4_xs; return call; }    \
        default: break;                                                      \
    }

#define SPK_FOR_TYPE(type, call)                                             \
    switch (type) {                                                          \
        case GGML_TYPE_I8:   { using W = weights_i8;   return call; }        \
        case GGML_TYPE_Q8_0: { using W = weights_q8_0; return call; }        \
        case GGML_TYPE_Q5_1: { using W = weights_q5_1; return call; }        \
        case GGML_TYPE_Q5_0: { using W = weights_q5_0; return call; }        \
        case GGML_TYPE_Q4_1: { using W = weights_q4_1; return call; }        \
        case GGML_TYPE_Q4_0: { using W = weights_q4_0; return call; }        \
        case GGML_TYPE_IQ4_NL: { using W = weights_iq4_nl; return call; }    \
        default: GGML_ABORT("spikingbrain: matrix product: got type %s, expected one that ggml_spk_group knows", ggml_type_name(type)); \
    }

static __attribute__((noinline)) void mul_tile_of_many(ggml_type type, int64_t n, const uint8_t * tile, const float * scales,
                                                       const ggml_spk_row * act, const void * batch, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
    const bool q8 = act->encoding == GGML_SPK_Q8;
    SPK_FOR_K_TYPE(type, ((q8 ? k_batches<W, true> : k_batches<W, false>)(n, tile, act, batch, n_tok, corr, y, stride_y, n_rows)))
    if (q8) {
        SPK_FOR_TYPE(type, (tile_batches<W, true>(n, tile, scales, act, batch, n_tok, corr, y, stride_y, n_rows)))
    }
    SPK_FOR_TYPE(type, (tile_batches<W, false>(n, tile, scales, act, batch, n_tok, corr, y, stride_y, n_rows)))
}

// One token is apart, where it has loops of its own: decoding saves no registers that only many tokens need.
static void mul_tile(ggml_type type, int64_t n, const uint8_t * tile, const float * scales,
                     const ggml_spk_row * act, const void * batch, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
#ifdef SPK_DOTPROD
    if (n_tok == 1) {
        const bool q8 = act->encoding == GGML_SPK_Q8;
        SPK_FOR_K_TYPE(type, ((q8 ? k_tile_one<W, true> : k_tile_one<W, false>)(n, tile, act, corr, y, stride_y, n_rows)))
        SPK_FOR_TYPE(type, ((q8 ? tile_one<W, true> : tile_one<W, false>)(n, tile, scales, act, corr, y, stride_y, n_rows)))
    }
#endif
    mul_tile_of_many(type, n, tile, scales, act, batch, n_tok, corr, y, stride_y, n_rows);
}

static void mul_rows(ggml_type type, int64_t n, const uint8_t * rows, const float * scales,
                     const ggml_spk_row * act, int n_tok, const double * corr, float * y, int64_t stride_y, int n_rows) {
    if (act->encoding == GGML_SPK_Q8) {
        SPK_FOR_TYPE(type, (rows_all<W, true>(n, rows, scales, act, n_tok, corr, y, stride_y, n_rows)))
    }
    SPK_FOR_TYPE(type, (rows_all<W, false>(n, rows, scales, act, n_tok, corr, y, stride_y, n_rows)))
}

// counts beyond +-127 and the rest of I8 weights: few, in double, where their products are exact

template <class W>
static void tile_outliers_all(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, double * corr) {
    for (int o = 0; o < act->n_outliers; ++o) {
        const int64_t i      = act->outliers[o].index;
        const double  excess = act->outliers[o].excess;
        int32_t code[SPK_ROWS];
        float   scale[SPK_ROWS];
        W::column(code, tile + spk_block_at(i/32, W::BLOCK, W::TILE_SCALES), i % 32);
        f_store(scale, W::tile_scales(tile, scales, n/32, i/32));
        for (int r = 0; r < SPK_ROWS; ++r) {
            corr[r] += scale[r]*(code[r]*excess);
        }
        if constexpr (W::MINIMA) {
            const uint8_t * at = tile + spk_scales_at(i/32, n/32, W::BLOCK, W::TILE_SCALES) + 2*SPK_ROWS;
            for (int r = 0; r < SPK_ROWS; ++r) {
                corr[r] += (half_to_float(at + 2*r) + (double) W::OFFSET*scale[r])*excess;
            }
        }
    }
}

template <class W>
static void rows_outliers_all(int64_t n, const uint8_t * rows, const float * scales, int n_rows, const ggml_spk_row * act, double * corr) {
    for (int r = 0; r < n_rows; ++r) {
        const uint8_t * row = rows + r*(n/32)*W::DISK;
        for (int o = 0; o < act->n_outliers; ++o) {
            const int64_t   i     = act->outliers[o].index;
            const uint8_t * block = row + i/32*W::DISK;
            const double    scale = W::row_scale(block, scales, r*(n/W::GROUP) + i/W::GROUP);
            corr[r] += scale*(W::code(block, i % 32)*(double) act->outliers[o].excess);
            if constexpr (W::MINIMA) {
                corr[r] += row_minimum<W>(block)*(double) act->outliers[o].excess;
            }
        }
    }
}

static void tile_outliers(ggml_type type, int64_t n, const uint8_t * tile, const float * scales, int, const ggml_spk_row * act, double * corr) {
    SPK_FOR_K_TYPE(type, (k_outliers<W>(tile, act, corr)))
    SPK_FOR_TYPE(type, (tile_outliers_all<W>(n, tile, scales, act, corr)))
}

static void rows_outliers(ggml_type type, int64_t n, const uint8_t * rows, const float * scales, int n_rows, const ggml_spk_row * act, double * corr) {
    SPK_FOR_TYPE(type, (rows_outliers_all<W>(n, rows, scales, n_rows, act, corr)))
}

template <typename T>
static void add_rest_of(const int32_t * index, const int16_t * value, int64_t n_rest, int64_t first, const float * scales, int64_t stride,
                        const T * x, int width, double * sum) {
    for (int64_t i = 0; i < n_rest; ++i) {
        const int64_t column = index[i] - first;
        const double  w      = (double) scales[column/128*stride]*value[i];
        if (width == 1) {
            sum[0] += w*x[column];
        } else {
            for (int t = 0; t < SPK_BATCH; ++t) {
                sum[t] += w*x[column*SPK_BATCH + t];
            }
        }
    }
}

static void add_rest(const int32_t * index, const int16_t * value, int64_t n_rest, int64_t first, const float * scales, int64_t stride,
                     const void * x, ggml_spk_encoding encoding, int width, double * sum) {
    if (encoding == GGML_SPK_Q8) {
        add_rest_of(index, value, n_rest, first, scales, stride, (const float *) x, width, sum);
    } else {
        add_rest_of(index, value, n_rest, first, scales, stride, (const int32_t *) x, width, sum);
    }
}
