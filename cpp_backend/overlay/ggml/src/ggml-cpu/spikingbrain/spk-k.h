#pragma once

// Tile products with K-quants: Q4_K, Q5_K, Q6_K. 256 columns of a row share d (and dmin), 32 or 16 of them an integer scale, so that counts are summed
// in integers over all 256: d*(sum of scale*code*s) - dmin*(sum of min*s), where Q6_K has 32*scale*d for a minimum. Ordinary activations have a scale
// per 32 columns: floats from there on. The operations of one token are those of many, in the same order. Tiles: spk-layout.h.
// x86 only: ARM takes llama.cpp's kernels. Included inside the namespace of the instruction set.

#include "spk-sums.h"

typedef uint8_t k_bytes __attribute__((vector_size(16))); // one of each row
SPK_INLINE k_bytes k_load(const uint8_t * p) {
    k_bytes x;
    memcpy(&x, p, 16);
    return x;
}

// BITS of a code; COLUMNS share a scale; SUPER: bytes of 256 columns of a tile, SCALES come first
template <int BITS_>
struct weights_nibbles_k {
    static constexpr int BITS = BITS_, COLUMNS = 32, BLOCK = 64*BITS, SCALES = 256, SUPER = SCALES + SPK_SUPER*BLOCK;
    static constexpr bool CENTRED = false;

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        typedef typename std::conditional<BITS == 4, weights_q4_0, weights_q5_0>::type plain;
        plain::steps(block, f);
    }
    // of block b of 8, all rows
    SPK_INLINE k_bytes lower(const uint8_t * super, int b) { return k_load(super + 4*SPK_ROWS + SPK_ROWS*b); }
    SPK_INLINE k_bytes upper(const uint8_t * super, int b) { return k_load(super + 4*SPK_ROWS + SPK_ROWS*(SPK_SUPER + b/2)) >> b % 2*4; }
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int b) { return (lower(super, b) & 15) | (upper(super, b) & 3) << 4; }
    SPK_INLINE k_bytes row_mins  (const uint8_t * super, int b) { return lower(super, b) >> 4   | (upper(super, b) & 12) << 2; }
    SPK_INLINE int scale(const uint8_t * super, int b, int, int r) { return row_scales(super, b)[r]; }
    SPK_INLINE int min  (const uint8_t * super, int b, int r)      { return row_mins(super, b)[r]; }
    SPK_INLINE int code(const uint8_t * block, int r, int i) {
        const int q = block[i/8*64 + r*4 + i % 4] >> i/4 % 2*4 & 15, bit = 4*r + i % 4;
        return BITS == 4 ? q : q + (block[256 + i/4*8 + bit/8] >> bit % 8 & 1)*16;
    }
};
typedef weights_nibbles_k<4> weights_q4_K;
typedef weights_nibbles_k<5> weights_q5_K;

struct weights_q6_K {
    static constexpr int BITS = 6, COLUMNS = 16, BLOCK = 64*BITS, SCALES = 288, SUPER = SCALES + SPK_SUPER*BLOCK;
    static constexpr bool CENTRED = true; // codes are stored as q + 32

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        SPK_UNROLL for (int i = 0; i < 2; ++i) {
            const uint8_t * upper = block + 256 + 64*i;
            spk_w a, b, c, d;
            w_nibbles(block + 128*i, a, b);
            f(4*i,     w_upper_bits<0>(a, upper));
            f(4*i + 1, w_upper_bits<1>(b, upper));
            w_nibbles(block + 128*i + 64, c, d);
            f(4*i + 2, w_upper_bits<2>(c, upper));
            f(4*i + 3, w_upper_bits<3>(d, upper));
        }
    }
    // of 16 columns j, all rows
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) { return k_load(super + 2*SPK_ROWS + SPK_ROWS*j); }
    SPK_INLINE int scale(const uint8_t * super, int b, int half, int r) { return (int8_t) row_scales(super, 2*b + half)[r]; }
    SPK_INLINE int code(const uint8_t * block, int r, int i) {
        return (block[i/8*64 + r*4 + i % 4] >> i/4 % 2*4 & 15) + (block[256 + i/16*64 + r*4 + i % 4] >> i/4 % 4*2 & 3)*16 - 32;
    }
};

// what the tokens share of 256 columns; Q8: whether they are ordinary activations
template <class W, bool Q8>
struct spk_k_scales {
    alignas(64) int16_t scale[SPK_SUPER*32/W::COLUMNS][2*SPK_ROWS]; // each row's twice
    alignas(64) int16_t low[SPK_SUPER][2*SPK_ROWS]; // centred: scales of both halves of a block; else minima of two blocks
    alignas(64) float   min[SPK_SUPER][SPK_ROWS];   // minima, for ordinary activations
    spk_f d, dmin;

    SPK_MEMBER explicit spk_k_scales(const uint8_t * super) {
        d = f_load_half(super);
        if constexpr (W::CENTRED) {
            for (int b = 0; b < SPK_SUPER; ++b) {
                const k_bytes first = W::row_scales(super, 2*b), second = W::row_scales(super, 2*b + 1);
                s_store(scale[2*b],     first,  first);
                s_store(scale[2*b + 1], second, second);
                s_store(low[b],         first,  second);
            }
        } else {
            dmin = f_scale(f_load_half(super + 2*SPK_ROWS), -1.0f);
            for (int b = 0; b < SPK_SUPER; b += 2) {
                const k_bytes first = W::row_scales(super, b), second = W::row_scales(super, b + 1);
                s_store(scale[b],     first,  first);
                s_store(scale[b + 1], second, second);
                const k_bytes min_first = W::row_mins(super, b), min_second = W::row_mins(super, b + 1);
                if constexpr (Q8) {
                    s_store_floats(min[b],     min_first);
                    s_store_floats(min[b + 1], min_second);
                } else {
                    s_store(low[b/2], min_first, min_second);
                }
            }
        }
    }
};

// the codes of 256 columns: as a tile has them
template <class W>
struct spk_k_codes {
    const uint8_t * super;

    template <class F> SPK_MEMBER void steps(int b, F && f) const { W::steps(super + W::SCALES + b*W::BLOCK, f); }
};

#ifdef SPK_UNPACKED
// or unpacked once for several groups of tokens, where they stay in the first cache (as spk-unpacked-avx2.h)
template <class W>
struct spk_k_unpacked {
    alignas(64) uint8_t v[SPK_SUPER][8][64];

    SPK_MEMBER explicit spk_k_unpacked(const uint8_t * super) {
        for (int b = 0; b < SPK_SUPER; ++b) {
            W::steps(super + W::SCALES + b*W::BLOCK, [&](int step, spk_w x) __attribute__((always_inline)) { w_store(v[b][step], x); });
        }
    }
    template <class F> SPK_MEMBER void steps(int b, F && f) const {
        SPK_STEPS for (int i = 0; i < 8; ++i) {
            f(i, w_signed(v[b][i]));
        }
    }
};
#endif

// bytes that one or two tokens ask for ahead
template <int NT> constexpr int K_AHEAD = (SPK_AHEAD_FEW<NT>) > 0 ? SPK_AHEAD_FEW<NT> : 4096;

// asks for block b of what lies AHEAD bytes behind a superblock, and an eighth of its scales
template <class W, int AHEAD>
SPK_INLINE void prefetch_super(const uint8_t * super, int b) {
    SPK_UNROLL for (int i = 0; i < W::SUPER/SPK_SUPER; i += 64) {
        __builtin_prefetch(super + b*(W::SUPER/SPK_SUPER) + i + AHEAD);
    }
}

// out [NT][SPK_ROWS] += 256 columns from block b0 on of NT tokens; super: where they lie, to ask for what follows, or NULL
template <class W, int NT, bool Q8, class Codes>
static __attribute__((noinline)) void k_tokens(int64_t n, const uint8_t * super, const spk_k_scales<W, Q8> & k, const Codes & codes, const ggml_spk_row * act,
                                               const spk_batch_block * batch, int64_t b0, float * out) {
    constexpr int CHAIN = SPK_CHAIN<W::BITS, W::COLUMNS>;

    const auto x = spk_tokens<NT == SPK_BATCH>::from(act, batch);
    spk_i sum[NT];
    spk_f y[NT], z[NT];
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        sum[t] = i_set(0);
        y[t] = f_zero();
    }
    for (int b = 0; b < SPK_SUPER; ++b) {
        spk_h acc[NT];
        if (super) {
            prefetch_super<W, NT <= 2 ? K_AHEAD<NT> : 4096>(super, b);
        }
        codes.steps(b, [&](int step, spk_w w) __attribute__((always_inline)) {
            SPK_UNROLL for (int t = 0; t < NT; ++t) {
                acc[t] = step % CHAIN == 0 ? h_start(0) : acc[t];
                h_dot(acc[t], w, x.columns(t, b0 + b, step));
            }
            if (step % CHAIN == CHAIN - 1) {
                const spk_s scale = s_load(k.scale[(32*b + 4*step)/W::COLUMNS]);
                SPK_UNROLL for (int t = 0; t < NT; ++t) {
                    sum[t] = Q8 && step < CHAIN ? h_times(acc[t], scale) : h_scaled(acc[t], scale, sum[t]);
                }
            }
        });
        if constexpr (Q8) {
            SPK_UNROLL for (int t = 0; t < NT; ++t) {
                const spk_i own = W::CENTRED ? i_less_32(sum[t], s_times(s_load(k.low[b]), act[t].sums + 2*(b0 + b))) : sum[t];
                y[t] = f_fma(i_float(own), f_set(act[t].scales[b0 + b]), y[t]);
            }
        }
    }
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        z[t] = f_zero();
        if constexpr (!Q8) {
            const int16_t * sums = act[t].sums + (W::CENTRED ? 2*b0 : n/16 + b0);
            spk_i low = s_times(s_load(k.low[0]), sums);
            for (int b = 1; b < (W::CENTRED ? SPK_SUPER : SPK_SUPER/2); ++b) {
                low = s_dot(low, s_load(k.low[b]), sums + 2*b);
            }
            y[t] = i_float(W::CENTRED ? i_less_32(sum[t], low) : sum[t]);
            z[t] = i_float(low);
        } else if constexpr (!W::CENTRED) {
            for (int b = 0; b < SPK_SUPER; ++b) {
                z[t] = f_fma(f_load(k.min[b]), f_set(act[t].scaled[b0 + b]), z[t]);
            }
        }
        float * to = out + t*SPK_ROWS;
        spk_f total = f_fma(y[t], k.d, f_load(to));
        if constexpr (!W::CENTRED) {
            total = f_fma(z[t], k.dmin, total);
        }
        f_store(to, total);
    }
}

template <class W, int NT, bool Q8, class Codes>
SPK_INLINE void k_groups(int64_t n, const uint8_t * super, const spk_k_scales<W, Q8> & k, const Codes & codes, const ggml_spk_row * act, const spk_batch_block * batch,
                         int64_t b0, int n_tok, int t, float * out) {
    for (; t + NT <= n_tok; t += NT) {
        k_tokens<W, NT, Q8>(n, t == 0 ? super : nullptr, k, codes, act + t, batch, b0, out + t*SPK_ROWS);
    }
    if constexpr (NT > 1) {
        if (t < n_tok) {
            k_groups<W, NT/2, Q8>(n, super, k, codes, act, batch, b0, n_tok, t, out);
        }
    }
}

// out [n_tok][SPK_ROWS]
template <class W, bool Q8>
static void k_sums(int64_t n, const uint8_t * tile, const ggml_spk_row * act, const spk_batch_block * batch, int n_tok, float * out) {
    memset(out, 0, n_tok*SPK_ROWS*sizeof(float));
    for (int64_t b0 = 0; b0 < n/32; b0 += SPK_SUPER, tile += W::SUPER) {
        const spk_k_scales<W, Q8> k(tile);
#ifdef SPK_UNPACKED
        if (n_tok > SPK_NT) {
            const spk_k_unpacked<W> codes(tile);
            k_groups<W, SPK_NT, Q8>(n, tile, k, codes, act, batch, b0, n_tok, 0, out);
            continue;
        }
#endif
        k_groups<W, SPK_NT, Q8>(n, tile, k, spk_k_codes<W>{ tile }, act, batch, b0, n_tok, 0, out);
    }
}

template <class W>
static void k_outliers(const uint8_t * tile, const ggml_spk_row * act, double * corr) {
    for (int o = 0; o < act->n_outliers; ++o) {
        const int       i     = act->outliers[o].index % (32*SPK_SUPER), b = i/32;
        const uint8_t * super = tile + act->outliers[o].index/(32*SPK_SUPER)*W::SUPER;
        for (int r = 0; r < SPK_ROWS; ++r) {
            double w = (double) half_to_float(super + 2*r)*W::scale(super, b, i/16 % 2, r)*W::code(super + W::SCALES + b*W::BLOCK, r, i % 32);
            if constexpr (!W::CENTRED) {
                w -= (double) half_to_float(super + 2*SPK_ROWS + 2*r)*W::min(super, b, r);
            }
            corr[r] += w*act->outliers[o].excess;
        }
    }
}
