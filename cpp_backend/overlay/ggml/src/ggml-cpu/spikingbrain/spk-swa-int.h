#pragma once

// Window attention on INT8 keys and values (spk-isa.h). A query is spike counts, split into digits of SWA_BITS bits that are
// multiplied with the codes of 16 keys at a time, exactly. Where integers are the faster way, the softmax times the scales of the
// values becomes SWA_PIECES bytes per key, of one unit per row and tile; SWA_CODES rows or fewer take values as they lie, as floats.
// Included inside the namespace of the instruction set.

#include "spk-encode.h"
#include "spk-swa-tile.h"

// 16 bytes from column i of a row, zeros beyond its end
SPK_INLINE swa_bytes swa_columns(const char * row, int64_t i, int64_t stride) {
    swa_bytes x = {};
    memcpy(&x, row + i, i + 16 <= stride ? 16 : stride - i);
    return x;
}

// n <= N rows as N, 16 columns at a time: f(column, their bytes, from a row's to the next one's). Behind the last row that again: there is
// room, and nobody reads it.
template <int N, typename F>
SPK_INLINE void swa_each_16(const char * rows, int64_t stride, int64_t n, int64_t d, F f) {
    int64_t i = 0;
    for (; n >= N && i + 16 <= d; i += 16) {
        f(i, rows + i, stride);
    }
    for (; i < d; i += 16) {
        swa_bytes x[N];
        for (int64_t r = 0; r < N; ++r) {
            x[r] = swa_columns(rows + (r < n ? r : n - 1)*stride, i, stride);
        }
        f(i, (const char *) x, sizeof(x[0]));
    }
}

// the scales of a tile's rows
static void swa_load_scales(float * scale, const char * rows, int64_t stride, int64_t n) {
    SPK_UNROLL for (int64_t j = 0; j < n; ++j) {
        memcpy(scale + j, rows + (j + 1)*stride - sizeof(float), sizeof(float));
    }
}

// codes in steps of 4 columns, 16 keys of a step side by side
static void swa_load_keys(const spk_swa_work & w) {
    const int64_t width = spk_swa_width(w.d);
    for (int64_t j = 0; j < w.n; j += SWA_LOADED) {
        char * out = (char *) w.k + j/16*16*width + j % 16*4;
        swa_each_16<SWA_LOADED>(w.keys + j*w.stride_k, w.stride_k, w.n - j, w.d,
            [&](int64_t i, const char * rows, int64_t stride) SWA_INLINE { a_store_keys(out + i*16, rows, stride); });
    }
}

// codes as floats, or those of a column of 4 values side by side
static void swa_load_values(const spk_swa_work & w) {
#if SWA_PIECES > 0
    for (int64_t j = 0; j < w.n; j += 4) {
        char * out = (char *) w.v + j*spk_swa_width(w.d);
        swa_each_16<4>(w.values + j*w.stride_v, w.stride_v, w.n - j, w.d,
            [&](int64_t i, const char * rows, int64_t stride) SWA_INLINE { a_store_values(out + 4*i, rows, stride); });
    }
#else
    for (int64_t j = 0; j < w.n; ++j) {
        const int8_t * row = (const int8_t *) (w.values + j*w.stride_v);
        float * out = w.v + j*w.d;
        for (int64_t i = 0; i < w.d; ++i) {
            out[i] = row[i];
        }
    }
#endif
}

// few rows multiply with keys where they lie
SPK_INLINE bool swa_direct(const spk_swa_work & w) { return w.n_rows <= SWA_DIRECT && w.d % 16 == 0; }

// and with values
#ifdef SWA_CODES
SPK_INLINE bool swa_values_lie(const spk_swa_work & w) { return w.n_rows <= SWA_CODES; }
#else
SPK_INLINE bool swa_values_lie(const spk_swa_work &)   { return false; }
#endif

// and with both: nothing is loaded before, the scales with the keys
SPK_INLINE bool swa_all_lie(const spk_swa_work & w) { return swa_direct(w) && swa_values_lie(w); }

static void swa_load_int(const spk_swa_work & w) {
    if (swa_all_lie(w)) {
        return;
    }
    swa_load_scales(w.k_scale, w.keys, w.stride_k, w.n);
    swa_load_scales(w.v_scale, w.values, w.stride_v, w.n);
    if (!swa_direct(w)) {
        swa_load_keys(w);
    }
    if (!swa_values_lie(w)) {
        swa_load_values(w);
    }
}

SPK_INLINE spk_f swa_sixteen(const float * x, int64_t n) {
    float part[16] = {};
    memcpy(part, x, (n < 16 ? n : 16)*sizeof(float));
    return f_load(part);
}

// counts of a query as GGML_OP_SPK_ENCODE makes them, in balanced digits; what it cannot encode has the unit NaN
static void swa_query_int(const spk_swa_work & w, int64_t r, const float * q) {
    const int64_t width = spk_swa_width(w.d);
    row_sum magnitudes = { d_zero(), f_zero() };
    for (int64_t i = 0; i < w.d; i += 16) {
        magnitudes.add(swa_sixteen(q + i, w.d - i));
    }
    const double sum  = in_order(magnitudes.lanes);
    const float  v_th = threshold(sum, w.d, w.spike_k);
    const bool ok = sum <= DBL_MAX && f_top(magnitudes.top)/v_th < (float) SPK_SWA_MAX_COUNT;
    w.unit[r] = ok ? w.scale*v_th : NAN;

    int32_t * count = (int32_t *) w.q + r*width;
    for (int64_t i = 0; i < width; i += 16) {
        i_store(count + i, f_quotient(swa_sixteen(q + i, w.d - i), v_th));
    }
    const int32_t half = 1 << (SWA_BITS - 1);
    int32_t left = 1;
    int p = 0;
    for (; left != 0 && p < SPK_SWA_DIGITS; ++p) {
        int8_t * digit = w.digits + (p*w.n_rows + r)*width;
        int32_t total = 0;
        left = 0;
        for (int64_t i = 0; i < width; ++i) {
            const int32_t s = ok ? count[i] : 0;
            const int32_t c = ((s + half) & (2*half - 1)) - half;
            digit[i] = (int8_t) c;
            total   += c;
            count[i] = (s - c) >> SWA_BITS;
            left    |= count[i];
        }
        w.start[p*w.n_rows + r] = SWA_FLIP ? -128*total : 0;
    }
    w.n_digits[r] = p;
}

SPK_INLINE void swa_add_digit(float * score, const float * sum, int n, int digit) {
    const float value = (float) ((int64_t) 1 << digit*SWA_BITS);
    for (int j = 0; j < n; ++j) {
        score[j] = digit == 0 ? sum[j] : score[j] + value*sum[j];
    }
}

// score of R rows from r on, or with digit > 0 what that digit adds to it, in 16s of keys
template <int R>
static void swa_scores_int(const spk_swa_work & w, int64_t r, int digit, int64_t first, int64_t last) {
    const int64_t width = spk_swa_width(w.d), row = digit*w.n_rows + r;
    for (int64_t j = first - first % 16; j < last; j += 16) {
        const uint8_t * k = (const uint8_t *) w.k + j*width;
        swa_acc acc[R];
        SPK_UNROLL for (int i = 0; i < R; ++i) {
            acc[i] = a_set(w.start[row + i]);
        }
        for (int64_t c = 0; c < w.d; c += 8) {
            const swa_keys step = a_keys(k + c*16);
            SPK_UNROLL for (int i = 0; i < R; ++i) {
                a_dot(acc[i], step, w.digits + (row + i)*width + c);
            }
        }
        SPK_UNROLL for (int i = 0; i < R; ++i) {
            float sum[16];
            a_store(sum, acc[i]);
            swa_add_digit(w.score + (r + i)*SPK_SWA_TILE + j, sum, 16, digit);
        }
    }
}

#if SWA_DIRECT > 0
// the tile's last keys from j on, fewer than SWA_KEYS: as many, behind the last one that again
static const char * swa_last_keys(const spk_swa_work & w, int64_t j) {
    char * out = (char *) w.k;
    for (int64_t i = 0; i < SWA_KEYS; ++i) {
        memcpy(out + i*w.d, w.keys + (j + i < w.n ? j + i : w.n - 1)*w.stride_k, w.d);
    }
    return out;
}

// the same with keys where they lie, each lane of 16 bytes another key's; load: the scales, too, and with them the lines of the values
template <int R>
static void swa_scores_direct(const spk_swa_work & w, int64_t r, int digit, int64_t first, int64_t last, bool load) {
    const int64_t row = digit*w.n_rows + r;
    for (int64_t j = first - first % SWA_KEYS; j < last; j += SWA_KEYS) {
        const bool all = w.n - j >= SWA_KEYS;
        const char * keys = all ? w.keys + j*w.stride_k : swa_last_keys(w, j);
        const int64_t stride = all ? w.stride_k : w.d;
        if (load) {
            const int64_t n = all ? SWA_KEYS : w.n - j;
            swa_ahead(w.keys + j*w.stride_k, SWA_KEYS*w.stride_k, w.stride_k);
            swa_load_scales(w.k_scale + j, w.keys + j*w.stride_k, w.stride_k, n);
            swa_load_scales(w.v_scale + j, w.values + j*w.stride_v, w.stride_v, n);
        }
        swa_lanes acc[R][4];
        SPK_UNROLL for (int i = 0; i < R; ++i) {
            SPK_UNROLL for (int a = 0; a < 4; ++a) {
                acc[i][a] = a_no_lanes();
            }
        }
        for (int64_t c = 0; c < w.d; c += 16) {
            swa_slice q[R];
            SPK_UNROLL for (int i = 0; i < R; ++i) {
                q[i] = a_query(w.digits + (row + i)*w.d + c);
            }
            SPK_UNROLL for (int a = 0; a < 4; ++a) {
                const swa_slice k = a_key(keys, stride, a, c);
                SPK_UNROLL for (int i = 0; i < R; ++i) {
                    acc[i][a] = a_dot_lanes(acc[i][a], k, q[i]);
                }
            }
        }
        SPK_UNROLL for (int i = 0; i < R; ++i) {
            float sum[SWA_KEYS];
            a_store_lanes(sum, acc[i], w.start[row + i]);
            swa_add_digit(w.score + (r + i)*SPK_SWA_TILE + j, sum, SWA_KEYS, digit);
        }
    }
}
#endif

template <int R>
SPK_INLINE void swa_scores_digit(const spk_swa_work & w, int64_t r, int digit, int64_t first, int64_t last, bool load) {
#if SWA_DIRECT > 0
    if (swa_direct(w)) {
        return swa_scores_direct<R>(w, r, digit, first, last, load && swa_all_lie(w));
    }
#endif
    swa_scores_int<R>(w, r, digit, first, last);
}

static void swa_scores_int_all(const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE { swa_scores_digit<decltype(R)::value>(w, r0 + r, 0, first, last, r == 0); });
    for (int64_t r = r0; r < r0 + n_rows; ++r) {
        for (int digit = 1; digit < w.n_digits[r]; ++digit) {
            swa_scores_digit<1>(w, r, digit, first, last, false);
        }
    }
}

#if SWA_PIECES > 0
static const int64_t SWA_AHEAD = 4; // rows

// the tile's x of row r in units of a step, 4 keys' bytes of a piece side by side, the pieces of 4 keys one after the other
static void swa_pieces(const spk_swa_work & w, int64_t r, const spk_vec * x) {
    float * out = w.score + r*SPK_SWA_TILE;
    spk_vec top = spk_set(0.0f);
    SWA_EACH top = spk_max(x[i], top);
    const float most = spk_top(top);
    const float unit = most > 1e-30f ? SWA_MOST/most : 0.0f; // below, nothing of it is left beside a sum of 1 or more
    w.step[r] = most/SWA_MOST;
    SWA_EACH {
        spk_store(out + i*SPK_VEC, x[i]*unit);
        a_split(out + i*SPK_VEC);
    }
}

// o[r] <- o[r]*old[r] + step[r]*(sums of integers) for R rows and C times 16 columns from i on; asks for `ahead` bytes of keys and
// values to come with every 4 keys
template <int R, int C>
static void swa_sums(float * part, const spk_swa_work & w, int64_t r, int64_t i, float bad, int64_t first, int64_t last,
                     int64_t ahead, const char * next_k, const char * next_v) {
    const int64_t width = spk_swa_width(w.d);
    swa_acc acc[R][C][SWA_PIECES];
    SPK_UNROLL for (int n = 0; n < R; ++n) {
        SPK_UNROLL for (int c = 0; c < C; ++c) {
            SPK_UNROLL for (int p = 0; p < SWA_PIECES; ++p) {
                acc[n][c][p] = a_set(0);
            }
        }
    }
    for (int64_t j = first - first % 4; j < last; j += 4) {
        for (int64_t b = 0; b < ahead; b += 64) {
            __builtin_prefetch(next_k + j/4*ahead + b, 0, 2);
            __builtin_prefetch(next_v + j/4*ahead + b, 0, 2);
        }
        swa_codes v[C];
        SPK_UNROLL for (int c = 0; c < C; ++c) {
            v[c] = a_codes((const char *) w.v + j*width + (i + 16*c)*4);
        }
        SPK_UNROLL for (int n = 0; n < R; ++n) {
            const char * x = (const char *) (w.score + (r + n)*SPK_SWA_TILE + j);
            SPK_UNROLL for (int p = 0; p < SWA_PIECES; ++p) {
                const swa_piece y = a_piece(x, p);
                SPK_UNROLL for (int c = 0; c < C; ++c) {
                    acc[n][c][p] = a_dot_piece(acc[n][c][p], v[c], y, p);
                }
            }
        }
    }
    SPK_UNROLL for (int n = 0; n < R; ++n) {
        SPK_UNROLL for (int c = 0; c < C; ++c) {
            float * o = part + n*(w.d + 2) + 2 + i + 16*c;
            float sum[SPK_VEC];
            a_store_sum(sum, acc[n][c], w.step[r + n] + bad);
            if (i + 16*c + SPK_VEC <= w.d) {
                spk_store(o, spk_fma(spk_load(o), w.old[r + n], spk_load(sum)));
                continue;
            }
            for (int64_t e = 0; i + 16*c + e < w.d; ++e) {
                o[e] = o[e]*w.old[r + n] + sum[e];
            }
        }
    }
}

static void swa_values_int(float * part, const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
#ifdef SWA_CODES
    if (swa_values_lie(w)) {
        const auto ahead = [&](int64_t i) { return swa_rows_ahead { w.values + SPK_SWA_TILE*w.stride_v + i, w.stride_v }; };
        return swa_values<int8_t, 2, false>(part + 2, w.old + r0, w.score + r0*SPK_SWA_TILE, n_rows, w.values, w.stride_v, w.d, first, last, ahead);
    }
#endif
    uint32_t top = 0; // of the scales' bits without sign: integers do not show a value that is no number
    for (int64_t j = first; j < last; ++j) {
        uint32_t bits;
        memcpy(&bits, w.v_scale + j, 4);
        bits &= 0x7fffffff;
        top = bits > top ? bits : top;
    }
    const float bad = top < 0x7f800000 ? 0.0f : NAN;
    // the tile after the next is asked for evenly, while the first rows are worked on: all at once would wait for memory
    const int64_t passes = ((n_rows < SWA_AHEAD ? n_rows : SWA_AHEAD) + 1)/2*(w.d/(16*SWA_COLUMNS));
    const int64_t size = w.d + 2, step = passes > 0 ? 4*w.stride_v/passes : 0;
    int64_t i = 0, pass = 0;
    for (; i + 16*SWA_COLUMNS <= w.d; i += 16*SWA_COLUMNS) {
        for (int64_t r = 0; r < n_rows; r += 2) {
            const int64_t ahead = r < SWA_AHEAD ? step : 0, at = 2*SPK_SWA_TILE*w.stride_v + pass*ahead*SPK_SWA_TILE/4;
            if (r + 2 <= n_rows) {
                swa_sums<2, SWA_COLUMNS>(part + r*size, w, r0 + r, i, bad, first, last, ahead, w.keys + at, w.values + at);
            } else {
                swa_sums<1, SWA_COLUMNS>(part + r*size, w, r0 + r, i, bad, first, last, ahead, w.keys + at, w.values + at);
            }
            pass += ahead > 0;
        }
    }
    for (; i < w.d; i += 16) {
        for (int64_t r = 0; r < n_rows; ++r) {
            swa_sums<1, 1>(part + r*size, w, r0 + r, i, bad, first, last, 0, nullptr, nullptr);
        }
    }
}
#else
static void swa_pieces(const spk_swa_work &, int64_t, const spk_vec *) {}
static void swa_values_int(float * part, const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    const char * v = (const char *) w.v;
    const int64_t stride = w.d*sizeof(float), next = SPK_SWA_TILE*w.stride_v, pass = SWA_C*SPK_REG;
    // the next tile's keys during the first pass, its values during the second; what is asked for later is there
    const auto ahead = [&](int64_t i) {
        return i < pass ? swa_rows_ahead { w.keys + next, w.stride_k } : i < 2*pass ? swa_rows_ahead { w.values + next, w.stride_v } : swa_rows_ahead { v, 0 };
    };
    const float * old = w.old + r0, * p = w.score + r0*SPK_SWA_TILE;
#ifdef SWA_CODES
    if (swa_values_lie(w)) {
        return swa_values<int8_t, 2, true>(part + 2, old, p, n_rows, w.values, w.stride_v, w.d, first, last, ahead);
    }
#endif
    swa_values<float, 2, false>(part + 2, old, p, n_rows, v, stride, w.d, first, last, ahead);
}
#endif
