#pragma once

// Tile products of so few tokens that the registers hold the sums of two blocks: what decoding does. A tile is read from its first byte to its
// last, by one pointer: in the loop of many tokens, which calculates where each block lies, one token takes half as many instructions more, and the
// processor looks that much less far ahead. In float the operations of tile_sums, in the same order. (ARM's dot products: spk-one-neon.h.)
// Included inside the namespace of the instruction set.

#include "spk-sums.h"

// Whether a tile and the activations of n_tok tokens leave the first cache, of 32 KiB, before the next tile asks for these again. Where weights
// are plain bytes they come at the memory's rate all the same.
template <class W>
SPK_INLINE bool far_between(int64_t n, int n_tok) { return W::OFFSET > 0 && n/32*(W::BLOCK + W::TILE_SCALES + 32*n_tok) > 32*1024; }

// Asks for 16 blocks of such activations, in one go: asked for one by one they hold the weights up.
SPK_INLINE void prefetch_row(const ggml_spk_row & row, int64_t b) {
    SPK_UNROLL for (int i = 0; i < 8; ++i) {
        __builtin_prefetch(row.s8 + 32*(b + 8) + 64*i);
    }
    __builtin_prefetch(row.bias + b + 16);
}

template <class W, int NT, bool Q8>
struct tile_reader {
    typedef spk_sums<W, NT, 0> sums;

    typename sums::tokens x;
    const uint8_t * at;
    typename sums::floats total;

    // block b
    SPK_MEMBER void dot(sums & s, int64_t b) {
        prefetch_ahead<W, NT>(at, b);
        W::steps(at, [&](int step, spk_w w) __attribute__((always_inline)) { s.dot(step, w, x, b); });
        at += W::BLOCK;
    }
    // N blocks from b on, then the scales of them
    template <int N> SPK_MEMBER void blocks(int64_t b) {
        sums s[N];
        SPK_UNROLL for (int i = 0; i < N; ++i) {
            s[i].template start<1>(x, b + i);
            dot(s[i], b + i);
        }
        SPK_UNROLL for (int i = 0; i < N; ++i) {
            s[i].template add<Q8>(total, f_load_half(at), x, b + i);
            at += W::TILE_SCALES;
        }
    }
    // of I8: four blocks from b on have one scale; summed in integers as far as the activations have one, too
    SPK_MEMBER void group(const float * scale, int64_t b) {
        constexpr int N_BLOCK = Q8 ? 1 : 4;
        for (int64_t i = b; i < b + 4; i += N_BLOCK) {
            sums s;
            s.template start<N_BLOCK>(x, i);
            for (int j = 0; j < N_BLOCK; ++j) {
                dot(s, i + j);
            }
            s.template add<Q8>(total, f_load(scale), x, i);
        }
    }
};

// FAR: see far_between. Not inlined: decoding calls it for each tile, and it saves fewer registers than its caller
template <class W, int NT, bool Q8, bool FAR>
__attribute__((noinline)) static void few_sums(int64_t n, const uint8_t * tile, const float * scales, const ggml_spk_row * act, float * out) {
    typedef spk_sums<W, NT, 0> sums;

    tile_reader<W, NT, Q8> read = { sums::operand(act, nullptr), tile, {} };
    sums::zero(read.total);
    int64_t b = 0;
    if constexpr (W::TILE_SCALES == 0) {
        for (; b < n/32; b += 4) {
            read.group(scales + b/4*SPK_ROWS, b);
        }
    } else {
        for (; b + 2 <= n/32; b += 2) {
            if (FAR && b % 16 == 0) {
                SPK_UNROLL for (int t = 0; t < NT; ++t) {
                    prefetch_row(act[t], b);
                }
            }
            read.template blocks<2>(b);
        }
        if (b < n/32) {
            read.template blocks<1>(b);
        }
    }
    sums::store(out, read.total);
}
