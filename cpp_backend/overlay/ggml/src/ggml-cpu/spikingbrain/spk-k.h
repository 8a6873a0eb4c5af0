#pragma once

// Tile products with superblocks, Q2_K to Q6_K and IQ4_XS. 256 columns of a row share d (and dmin), 32 or 16 of them an integer scale (and minimum), so that counts are
// summed in integers over all 256: d*(sum of scale*code*s) - dmin*(sum of min*s). Where codes are centred, stored as code + CENTRE, CENTRE*(sum of scale*s)
// is taken away instead. Ordinary activations have a scale per 32 columns: floats from there on. The operations of one token are those of many, in the
// same order. Tiles: spk-layout.h. Included inside the namespace of the instruction set.

#if defined(__aarch64__)
#include "spk-k-neon.h"
#else
#include "spk-sums.h"
#ifdef SPK_SMALL_COUNTS
#include "spk-bytes-avx2.h"
#endif

typedef uint8_t k_bytes __attribute__((vector_size(16))); // one of each row

static const int K_NT = SPK_NT;
template <int NT> using k_source = spk_tokens<NT == SPK_BATCH>;
#endif

SPK_INLINE k_bytes k_load(const uint8_t * p) {
    k_bytes x;
    memcpy(&x, p, 16);
    return x;
}

// BITS of a code; COLUMNS share a scale; SUPER: bytes of 256 columns of a tile, SCALES come first
template <int BITS_, int COLUMNS_, int CENTRE_, int SCALES_>
struct weights_k {
    static constexpr int  BITS = BITS_, COLUMNS = COLUMNS_, CENTRE = CENTRE_, SCALES = SCALES_, BLOCK = 64*BITS, SUPER = SCALES + SPK_SUPER*BLOCK;
    static constexpr bool MINIMA = CENTRE == 0, SIGNED = false;
};

// the i-th of N pairs of numbers of 6 bits, at p
template <int N = SPK_SUPER> SPK_INLINE k_bytes k_upper (const uint8_t * p, int i) { return k_load(p + SPK_ROWS*(N + i/2)) >> i % 2*4; }
template <int N = SPK_SUPER> SPK_INLINE k_bytes k_first (const uint8_t * p, int i) { return (k_load(p + SPK_ROWS*i) & 15) | (k_upper<N>(p, i) & 3) << 4; }
template <int N = SPK_SUPER> SPK_INLINE k_bytes k_second(const uint8_t * p, int i) { return k_load(p + SPK_ROWS*i) >> 4   | (k_upper<N>(p, i) & 12) << 2; }

// of row r and column i of a block: a nibble, two bits, one bit
SPK_INLINE int k_nibble(const uint8_t * p, int r, int i)   { return p[i/8*64 + r*4 + i % 4] >> i/4 % 2*4 & 15; }
SPK_INLINE int k_two_bits(const uint8_t * p, int r, int i) { return p[i/16*64 + r*4 + i % 4] >> i/4 % 4*2 & 3; }
SPK_INLINE int k_one_bit(const uint8_t * p, int r, int i)  { return p[r*4 + i % 4] >> i/4 & 1; }

// of each type: row_scales, row_mins: of the j-th COLUMNS of 256, all rows; code: of row r and column i of a block
struct weights_q2_K : weights_k<2, 16, 0, 320> {
    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        SPK_UNROLL for (int i = 0; i < 2; ++i) {
            f(4*i,     w_two_bits<0>(block + 64*i));
            f(4*i + 1, w_two_bits<1>(block + 64*i));
            f(4*i + 2, w_two_bits<2>(block + 64*i));
            f(4*i + 3, w_two_bits<3>(block + 64*i));
        }
    }
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) { return k_load(super + 4*SPK_ROWS + SPK_ROWS*j) & 15; }
    SPK_INLINE k_bytes row_mins  (const uint8_t * super, int j) { return k_load(super + 4*SPK_ROWS + SPK_ROWS*j) >> 4; }
    SPK_INLINE int code(const uint8_t * block, int r, int i) { return k_two_bits(block, r, i); }
};

struct weights_q3_K : weights_k<3, 16, 4, 224> {
    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        weights_q2_K::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) { f(step, w_bit_plane<2>(w, block + 128, step)); });
    }
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) {
        return (j % 2 ? k_second(super + 2*SPK_ROWS, j/2) : k_first(super + 2*SPK_ROWS, j/2)) - 32;
    }
    SPK_INLINE int code(const uint8_t * block, int r, int i) { return k_two_bits(block, r, i) + 4*k_one_bit(block + 128, r, i) - CENTRE; }
};

template <int BITS>
struct weights_nibbles_k : weights_k<BITS, 32, 0, 256> {
    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) {
        weights_q4_0::steps(block, [&](int step, spk_w w) __attribute__((always_inline)) { f(step, BITS == 5 ? w_bit_plane<4>(w, block + 256, step) : w); });
    }
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) { return k_first (super + 4*SPK_ROWS, j); }
    SPK_INLINE k_bytes row_mins  (const uint8_t * super, int j) { return k_second(super + 4*SPK_ROWS, j); }
    SPK_INLINE int code(const uint8_t * block, int r, int i) { return k_nibble(block, r, i) + (BITS == 5 ? 16*k_one_bit(block + 256, r, i) : 0); }
};
typedef weights_nibbles_k<4> weights_q4_K;
typedef weights_nibbles_k<5> weights_q5_K;

struct weights_q6_K : weights_k<6, 16, 32, 288> {
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
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) { return k_load(super + 2*SPK_ROWS + SPK_ROWS*j); }
    SPK_INLINE int code(const uint8_t * block, int r, int i) { return k_nibble(block, r, i) + 16*k_two_bits(block + 256, r, i) - CENTRE; }
};

// codes stand for signed bytes
struct weights_iq4_xs : weights_k<4, 32, 0, 128> {
    static constexpr bool MINIMA = false, SIGNED = true;

    template <class F> SPK_INLINE void steps(const uint8_t * block, F && f) { weights_iq4_nl::steps(block, f); }
    SPK_INLINE k_bytes row_scales(const uint8_t * super, int j) {
        return (j % 2 ? k_second<SPK_SUPER/2>(super + 2*SPK_ROWS, j/2) : k_first<SPK_SUPER/2>(super + 2*SPK_ROWS, j/2)) - 32;
    }
    SPK_INLINE int code(const uint8_t * block, int r, int i) { return SPK_VALUES[k_nibble(block, r, i)]; }
};

// what the tokens share of 256 columns; Q8: whether they are ordinary activations
template <class W, bool Q8>
struct spk_k_scales {
    static constexpr bool HALVES = W::COLUMNS == 16;
    static constexpr int  LOWS   = HALVES ? SPK_SUPER : SPK_SUPER/2;

    alignas(64) int16_t scale[SPK_SUPER*32/W::COLUMNS][2*SPK_ROWS]; // each row's twice
    alignas(64) int16_t low[LOWS][2*SPK_ROWS];    // of both halves of a block, or of two blocks: minima, where codes are centred scales
    alignas(64) float   min[SPK_SUPER][SPK_ROWS]; // instead, of whole blocks and ordinary activations
    spk_f d, dmin;

    SPK_MEMBER explicit spk_k_scales(const uint8_t * super) {
        d = f_load_half(super);
        if constexpr (W::MINIMA) {
            dmin = f_scale(f_load_half(super + 2*SPK_ROWS), -1.0f);
        }
        for (int i = 0; i < LOWS; ++i) {
            const k_bytes first = W::row_scales(super, 2*i), second = W::row_scales(super, 2*i + 1);
            s_store(scale[2*i],     first,  first);
            s_store(scale[2*i + 1], second, second);
            if constexpr (!W::MINIMA) {
                s_store(low[i], first, second);
            } else if constexpr (Q8 && !HALVES) {
                s_store_floats(min[2*i],     W::row_mins(super, 2*i));
                s_store_floats(min[2*i + 1], W::row_mins(super, 2*i + 1));
            } else {
                s_store(low[i], W::row_mins(super, 2*i), W::row_mins(super, 2*i + 1));
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

// asks ahead for block b of a superblock, and an eighth of its scales, for one token, too
template <class W, int NT>
SPK_INLINE void prefetch_super(const uint8_t * super, int b) {
    SPK_UNROLL for (int i = 0; i < W::SUPER/SPK_SUPER; i += 64) {
        prefetch_line<SPK_AHEAD<NT> == 0 ? SPK_BATCH : NT>(super + b*(W::SUPER/SPK_SUPER) + i);
    }
}

#ifdef SPK_UNPACKED
// or unpacked once for several groups of tokens, where they stay in the first cache (as spk-unpacked-avx2.h); UNSIGNED: signed bytes + 128
template <class W, bool UNSIGNED = false>
struct spk_k_unpacked {
    alignas(64) uint8_t v[SPK_SUPER][8][64];

    SPK_MEMBER explicit spk_k_unpacked(const uint8_t * super) {
        for (int b = 0; b < SPK_SUPER; ++b) {
            if (UNSIGNED) { // else the first tokens do
                prefetch_super<W, SPK_BATCH>(super, b);
            }
            W::steps(super + W::SCALES + b*W::BLOCK, [&](int step, spk_w x) __attribute__((always_inline)) { (UNSIGNED ? store_unsigned : w_store)(v[b][step], x); });
        }
    }
    template <class F> SPK_MEMBER void steps(int b, F && f) const {
        SPK_STEPS for (int i = 0; i < 8; ++i) {
            f(i, w_load(v[b][i]));
        }
    }
};
#endif

// out [NT][SPK_ROWS] += 256 columns from block b0 on of NT tokens; super: where they lie, to ask for what follows, or NULL
template <class W, int NT, bool Q8, class Codes>
static __attribute__((noinline)) void k_tokens(int64_t n, const uint8_t * super, const spk_k_scales<W, Q8> & k, const Codes & codes, const ggml_spk_row * act,
                                               const spk_batch_block * batch, int64_t b0, float * out) {
    constexpr int  BITS   = W::SIGNED ? 8 : W::BITS, CHAIN = SPK_CHAIN<BITS, W::COLUMNS>;
    constexpr bool HALVES = W::COLUMNS == 16;

    const auto x = k_source<NT>::from(act, batch);
    spk_i sum[NT];
    spk_f y[NT], z[NT];
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        sum[t] = i_set(0);
        y[t] = z[t] = f_zero();
    }
    for (int b = 0; b < SPK_SUPER; ++b) {
        spk_h acc[NT];
        if (super) {
            prefetch_super<W, NT>(super, b);
        }
        codes.steps(b, [&](int step, spk_w w) __attribute__((always_inline)) {
            SPK_UNROLL for (int t = 0; t < NT; ++t) {
                if constexpr (W::SIGNED) {
                    acc[t] = step % CHAIN == 0 ? h_start_signed(x.template bias<1>(t, b0 + b)) : acc[t];
                    h_dot_signed(acc[t], w, x.columns(t, b0 + b, step));
                } else {
                    acc[t] = step % CHAIN == 0 ? h_start(0) : acc[t];
                    h_dot(acc[t], w, x.columns(t, b0 + b, step));
                }
            }
            if (step % CHAIN == CHAIN - 1) {
                const auto scale = s_scale<BITS>(k.scale[(32*b + 4*step)/W::COLUMNS]);
                SPK_UNROLL for (int t = 0; t < NT; ++t) {
                    sum[t] = Q8 && step < CHAIN ? h_times(acc[t], scale) : h_scaled(acc[t], scale, sum[t]);
                }
            }
        });
        if constexpr (Q8) {
            SPK_UNROLL for (int t = 0; t < NT; ++t) {
                const spk_f scale = f_set(act[t].scales[b0 + b]);
                if constexpr (HALVES) {
                    const spk_i low = s_times(s_load(k.low[b]), act[t].sums + 2*(b0 + b));
                    if constexpr (W::CENTRE != 0) {
                        sum[t] = i_less<W::CENTRE>(sum[t], low);
                    } else {
                        z[t] = f_fma(i_float(low), scale, z[t]);
                    }
                }
                y[t] = f_fma(i_float(sum[t]), scale, y[t]);
            }
        }
    }
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        if constexpr (W::SIGNED) {
            y[t] = Q8 ? y[t] : i_float(sum[t]);
        } else if constexpr (!Q8) {
            const int16_t * sums = act[t].sums + (HALVES ? 2*b0 : n/16 + b0);
            spk_i low = s_times(s_load(k.low[0]), sums);
            for (int i = 1; i < k.LOWS; ++i) {
                low = s_dot(low, s_load(k.low[i]), sums + 2*i);
            }
            if constexpr (W::CENTRE != 0) {
                sum[t] = i_less<W::CENTRE>(sum[t], low);
            }
            y[t] = i_float(sum[t]);
            z[t] = i_float(low);
        } else if constexpr (!HALVES) {
            for (int b = 0; b < SPK_SUPER; ++b) {
                z[t] = f_fma(f_load(k.min[b]), f_set(act[t].scaled[b0 + b]), z[t]);
            }
        }
        float * to = out + t*SPK_ROWS;
        spk_f total = f_fma(y[t], k.d, f_load(to));
        if constexpr (W::MINIMA) {
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

#ifdef SPK_SMALL_COUNTS
// signed bytes and counts, by spk-bytes-avx2.h: stored as byte + 128, 128*(sum of scale*s) is taken away
template <class W, int NT>
static void k_small(int64_t n, const spk_k_scales<W, false> & k, const spk_k_unpacked<W, true> & codes, const ggml_spk_row * act, int64_t b0, float * out) {
    const int8_t * s8[NT];
    spk_i sum[NT];
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        s8[t]  = act[t].s8;
        sum[t] = i_set(0);
    }
    for (int b = 0; b < SPK_SUPER; ++b) {
        bytes_block<NT>(sum, codes.v[b], act, s8, b0 + b, s_load(k.scale[b]));
    }
    SPK_UNROLL for (int t = 0; t < NT; ++t) {
        const int16_t * sums = act[t].sums + n/16 + b0;
        spk_i low = i_set(0);
        for (int i = 0; i < k.LOWS; ++i) {
            low = s_dot(low, s_load(k.low[i]), sums + 2*i);
        }
        f_store(out + t*SPK_ROWS, f_fma(i_float(i_less<128>(sum[t], low)), k.d, f_load(out + t*SPK_ROWS)));
    }
}
#endif

// out [n_tok][SPK_ROWS]
template <class W, bool Q8>
static void k_sums(int64_t n, const uint8_t * tile, const ggml_spk_row * act, const spk_batch_block * batch, int n_tok, float * out) {
    memset(out, 0, n_tok*SPK_ROWS*sizeof(float));
    for (int64_t b0 = 0; b0 < n/32; b0 += SPK_SUPER, tile += W::SUPER) {
        const spk_k_scales<W, Q8> k(tile);
#ifdef SPK_UNPACKED
        if (n_tok > K_NT) {
#ifdef SPK_SMALL_COUNTS
            if constexpr (W::SIGNED && !Q8) {
                const spk_k_unpacked<W, true> codes(tile);
                int t = 0;
                for (; t + K_NT <= n_tok; t += K_NT) {
                    k_small<W, K_NT>(n, k, codes, act + t, b0, out + t*SPK_ROWS);
                }
                for (; t < n_tok; ++t) {
                    k_small<W, 1>(n, k, codes, act + t, b0, out + t*SPK_ROWS);
                }
                continue;
            }
#endif
            k_groups<W, K_NT, Q8>(n, tile, k, spk_k_unpacked<W>(tile), act, batch, b0, n_tok, 0, out);
            continue;
        }
#endif
        k_groups<W, K_NT, Q8>(n, tile, k, spk_k_codes<W>{ tile }, act, batch, b0, n_tok, 0, out);
    }
}

template <class W>
static void k_outliers(const uint8_t * tile, const ggml_spk_row * act, double * corr) {
    for (int o = 0; o < act->n_outliers; ++o) {
        const int       i     = act->outliers[o].index % (32*SPK_SUPER), b = i/32;
        const uint8_t * super = tile + act->outliers[o].index/(32*SPK_SUPER)*W::SUPER;
        const int       part  = i/W::COLUMNS;
        for (int r = 0; r < SPK_ROWS; ++r) {
            double w = (double) half_to_float(super + 2*r)*(int8_t) W::row_scales(super, part)[r]*W::code(super + W::SCALES + b*W::BLOCK, r, i % 32);
            if constexpr (W::MINIMA) {
                w -= (double) half_to_float(super + 2*SPK_ROWS + 2*r)*W::row_mins(super, part)[r];
            }
            corr[r] += w*act->outliers[o].excess;
        }
    }
}
