#pragma once

// Window attention of query rows over a tile of keys (spk-isa.h): two small matrix products around an exponential. Blocks of
// rows share what is loaded of K and V. INT8 keys and values: spk-swa-int.h. Included inside the namespace of the instruction set.

#include "spk-swa-int.h"
#include "spk-swa-tile.h"

// The scores of R rows over the keys first .. last: scaled, then their softmax over them and what came before, zero for other keys. part:
// maximum, sum; old: what the outputs until now are multiplied with. INT8: times the values' scales, as floats or integers. Step by step for
// all rows, since each step waits for a row's maximum or sum.
template <bool INT8, int R>
static void swa_softmax(float * part, const spk_swa_work & w, int64_t r0, int64_t first, int64_t last) {
    const int64_t size = w.d + 2;
    spk_vec x[R][SPK_SWA_TILE/SPK_VEC];
    SWA_ROWS {
        float * score = w.score + (r0 + r)*SPK_SWA_TILE;
        const float unit = w.unit[r0 + r];
        SWA_EACH x[r][i] = INT8 ? spk_load(score + i*SPK_VEC)*(spk_load(w.k_scale + i*SPK_VEC)*unit) : spk_load(score + i*SPK_VEC)*unit;
        if (last - first < SPK_SWA_TILE) {
            SWA_EACH spk_store(score + i*SPK_VEC, x[r][i]);
            for (int64_t j = 0; j < SPK_SWA_TILE; j += j == first - 1 ? 1 + last - first : 1) {
                score[j] = j < first || j >= last ? -INFINITY : score[j];
            }
            SWA_EACH x[r][i] = spk_load(score + i*SPK_VEC);
        }
    }
    float max[R], sum[R];
    SWA_ROWS {
        spk_vec top = spk_set(part[r*size]);
        SWA_EACH top = spk_max(x[r][i], top);
        max[r] = spk_top(top);
    }
    SWA_ROWS {
        spk_vec all = spk_set(0.0f);
        SWA_EACH {
            x[r][i] = swa_exp2_all(x[r][i] - max[r]);
            all = all + x[r][i];
        }
        sum[r] = spk_sum(all);
    }
    SWA_ROWS {
        float * before = part + r*size;
        const float old = max[r] == before[0] ? 1.0f : exp2f(before[0] - max[r]);
        w.old[r0 + r] = old;
        before[0] = max[r];
        before[1] = before[1]*old + sum[r];
    }
    if (INT8) {
        SWA_ROWS SWA_EACH x[r][i] = x[r][i]*spk_load(w.v_scale + i*SPK_VEC);
    }
    SWA_ROWS {
        if (INT8 && SWA_PIECES > 0 && !swa_values_lie(w)) {
            swa_pieces(w, r0 + r, x[r]);
        } else {
            SWA_EACH spk_store(w.score + (r0 + r)*SPK_SWA_TILE + i*SPK_VEC, x[r][i]);
        }
    }
}

template <bool INT8>
static void swa_softmax_all(float * part, const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE { swa_softmax<INT8, decltype(R)::value>(part + r*(w.d + 2), w, r0 + r, first, last); });
}

#define SWA_ZIP(a, b, f) __builtin_shufflevector(a, b, f, f + 4, f + 1, f + 5)

// keys side by side: out[i][j] = rows[j][i]; behind the last one that again, which nobody reads
template <typename T>
static void swa_turn(float * out, const char * rows, int64_t stride, int64_t d, int64_t n) {
    static const int64_t PART = 64; // columns
    float wide[4*PART];
    for (int64_t j = 0; j < n; j += 4) {
        for (int64_t i0 = 0; i0 < d; i0 += PART) {
            const int64_t m = d - i0 < PART ? d - i0 : PART;
            for (int64_t r = 0; r < 4; ++r) {
                swa_widen<T>(wide + r*PART, rows + (j + r < n ? j + r : n - 1)*stride + i0*sizeof(T), 0, m, 1);
            }
            int64_t i = 0;
            for (; i + 4 <= m; i += 4) {
                spk_four x[4];
                SPK_UNROLL for (int r = 0; r < 4; ++r) {
                    x[r] = *(const spk_four *) (wide + r*PART + i);
                }
                const spk_four a = SWA_ZIP(x[0], x[2], 0), b = SWA_ZIP(x[1], x[3], 0), c = SWA_ZIP(x[0], x[2], 2), e = SWA_ZIP(x[1], x[3], 2);
                const spk_four y[4] = { SWA_ZIP(a, b, 0), SWA_ZIP(a, b, 2), SWA_ZIP(c, e, 0), SWA_ZIP(c, e, 2) };
                SPK_UNROLL for (int r = 0; r < 4; ++r) {
                    *(spk_four *) (out + (i0 + i + r)*SPK_SWA_TILE + j) = y[r];
                }
            }
            for (; i < m; ++i) {
                for (int64_t r = 0; r < 4; ++r) {
                    out[(i0 + i)*SPK_SWA_TILE + j + r] = wide[r*PART + i];
                }
            }
        }
    }
}

static void swa_query(const spk_swa_work & w, int64_t r, const float * q) {
    if (w.spike_k > 0.0f) {
        return swa_query_int(w, r, q);
    }
    w.unit[r] = w.scale;
    if (swa_in_lanes(w)) {
        return swa_query_in_lanes(w.q, q, r, w.d);
    }
    memcpy(w.q + r*w.d, q, w.d*sizeof(float));
}

template <typename T>
static void swa_load_floats(const spk_swa_work & w, const char * rows, int64_t stride, float * out, bool turn) {
    if (turn) {
        swa_turn<T>(out, rows, stride, w.d, w.n);
    } else if (sizeof(T) < sizeof(float)) {
        swa_widen<T>(out, rows, stride, w.d, w.n);
    }
}

static void swa_load(const spk_swa_work & w) {
    if (w.spike_k > 0.0f) {
        return swa_load_int(w);
    }
    if (w.n_rows <= SWA_FEW) {
        return;
    }
    if (w.type_k == GGML_TYPE_F16) {
        swa_load_floats<ggml_fp16_t>(w, w.keys, w.stride_k, w.k, SWA_TURN);
    } else {
        swa_load_floats<float>(w, w.keys, w.stride_k, w.k, SWA_TURN);
    }
    if (w.type_v == GGML_TYPE_F16) {
        swa_load_floats<ggml_fp16_t>(w, w.values, w.stride_v, w.v, false);
    }
}

static void swa_scores(const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    const bool few = w.n_rows <= SWA_FEW, half = w.type_k == GGML_TYPE_F16;
    if (SWA_TURN && !few) {
        constexpr int NV = SWA_C;
        const float * q = w.q + r0*w.d;
        float * score = w.score + r0*SPK_SWA_TILE;
        for (int64_t j = first - first % (NV*SPK_REG); j < last; j += NV*SPK_REG) {
            swa_blocks(n_rows, [&](int64_t r, auto R) SWA_INLINE {
                swa_product<decltype(R)::value, NV, 0, false, float>(score + r*SPK_SWA_TILE + j, SPK_SWA_TILE, nullptr, q + r*w.d, w.d,
                    (const char *) (w.k + j), SPK_SWA_TILE*sizeof(float), 0, w.d);
            });
        }
    } else if (few && half) {
        swa_dots_all<ggml_fp16_t>(w, w.keys, w.stride_k, r0, n_rows, first, last);
    } else if (few || !half) {
        swa_dots_all<float>(w, w.keys, w.stride_k, r0, n_rows, first, last);
    } else {
        swa_dots_all<float>(w, (const char *) w.k, w.d*sizeof(float), r0, n_rows, first, last);
    }
}

// values that are v, or what a tile of them was widened to; the next tile's rows are asked for as they lie
template <typename T, bool LIES>
static void swa_values_float(float * o, const float * old, const float * p, int64_t n_rows, const spk_swa_work & w, const char * v, int64_t stride, int64_t first, int64_t last) {
    const int64_t size = w.type_v == GGML_TYPE_F16 ? sizeof(ggml_fp16_t) : sizeof(float);
    const auto ahead = [&](int64_t i) { return swa_rows_ahead { w.values + SPK_SWA_TILE*w.stride_v + i*size, w.stride_v }; };
    swa_values<T, (SWA_C*SPK_REG*sizeof(T) + 63)/64, LIES>(o, old, p, n_rows, v, stride, w.d, first, last, ahead);
}

static void swa_rows(float * part, const spk_swa_work & w, int64_t r0, int64_t n_rows, int64_t first, int64_t last) {
    if (w.spike_k > 0.0f) {
        swa_scores_int_all(w, r0, n_rows, first, last);
        swa_softmax_all<true>(part, w, r0, n_rows, first, last);
        return swa_values_int(part, w, r0, n_rows, first, last);
    }
    swa_scores(w, r0, n_rows, first, last);
    swa_softmax_all<false>(part, w, r0, n_rows, first, last);
    float       * o = part + 2;
    const float * p = w.score + r0*SPK_SWA_TILE, * old = w.old + r0;
    if (w.type_v != GGML_TYPE_F16) {
        swa_values_float<float, true>(o, old, p, n_rows, w, w.values, w.stride_v, first, last);
    } else if (w.n_rows <= SWA_FEW) {
        swa_values_float<ggml_fp16_t, true>(o, old, p, n_rows, w, w.values, w.stride_v, first, last);
    } else {
        swa_values_float<float, false>(o, old, p, n_rows, w, (const char *) w.v, w.d*sizeof(float), first, last);
    }
}
