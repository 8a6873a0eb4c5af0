// Window attention of query rows over a tile of keys (spk-isa.h): two small matrix products around an exponential. Blocks
// of rows share what is loaded of K and V. Included once per instruction set, inside its namespace.

#include "spk-reg.h"

static const int SWA_R = SPK_REG == 4 || SPK_REG == 16 ? 4 : 2; // rows of a block: with its sums, what the registers hold

// out[r][c] = q[r] . k[c], R rows of q and C keys; out's rows are SPK_SWA_TILE apart. The order of a sum is the same for every R and C.
template <int R, int C>
static void swa_dots(float * out, const float * q, const float * k, int64_t d) {
    spk_reg acc[R][4] = {};
    const int64_t dv = d - d % SPK_REG;
    for (int64_t i = 0; i < dv; i += SPK_REG) {
        spk_reg x[R];
        SPK_UNROLL for (int r = 0; r < R; ++r) {
            x[r] = r_load(q + r*d + i);
            r_keep(x[r]);
        }
        SPK_UNROLL for (int c = 0; c < C; ++c) {
            spk_reg y = r_load(k + c*d + i);
            r_keep(y);
            SPK_UNROLL for (int r = 0; r < R; ++r) {
                acc[r][c] += x[r]*y;
            }
        }
    }
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        spk_four sum = r_sums(acc[r]);
        for (int64_t i = dv; i < d; ++i) {
            SPK_UNROLL for (int c = 0; c < C; ++c) {
                sum[c] += q[r*d + i]*k[c*d + i];
            }
        }
        memcpy(out + r*SPK_SWA_TILE, &sum, C*sizeof(float));
    }
}

template <int C>
static void swa_scores(float * out, const float * q, int64_t n_rows, const float * k, int64_t d) {
    int64_t r = 0;
    for (; r + SWA_R <= n_rows; r += SWA_R) {
        swa_dots<SWA_R, C>(out + r*SPK_SWA_TILE, q + r*d, k, d);
    }
    for (; r + 2 <= n_rows; r += 2) {
        swa_dots<2, C>(out + r*SPK_SWA_TILE, q + r*d, k, d);
    }
    if (r < n_rows) {
        swa_dots<1, C>(out + r*SPK_SWA_TILE, q + r*d, k, d);
    }
}

// o[r] <- o[r]*old[r] + sum_j p[r][j] v[j] for NV registers of columns; o's rows are d + 2 apart
template <int R, int NV>
static void swa_values(float * o, const float * old, const float * p, const float * v, int64_t d, int64_t n) {
    spk_reg acc[R][NV];
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            acc[r][c] = r_load(o + r*(d + 2) + c*SPK_REG)*old[r];
        }
    }
    for (int64_t j = 0; j < n; ++j) {
        spk_reg x[NV];
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            x[c] = r_load(v + j*d + c*SPK_REG);
            r_keep(x[c]);
        }
        SPK_UNROLL for (int r = 0; r < R; ++r) {
            SPK_UNROLL for (int c = 0; c < NV; ++c) {
                acc[r][c] += x[c]*p[r*SPK_SWA_TILE + j];
            }
        }
    }
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        SPK_UNROLL for (int c = 0; c < NV; ++c) {
            r_store(o + r*(d + 2) + c*SPK_REG, acc[r][c]);
        }
    }
}

template <int NV>
static void swa_columns(float * o, const float * old, const float * p, const float * v, int64_t d, int64_t n, int64_t n_rows) {
    int64_t r = 0;
    for (; r + SWA_R <= n_rows; r += SWA_R) {
        swa_values<SWA_R, NV>(o + r*(d + 2), old + r, p + r*SPK_SWA_TILE, v, d, n);
    }
    for (; r + 2 <= n_rows; r += 2) {
        swa_values<2, NV>(o + r*(d + 2), old + r, p + r*SPK_SWA_TILE, v, d, n);
    }
    if (r < n_rows) {
        swa_values<1, NV>(o + r*(d + 2), old + r, p + r*SPK_SWA_TILE, v, d, n);
    }
}

static void swa_values_all(float * o, const float * old, const float * p, const float * v, int64_t d, int64_t n, int64_t n_rows) {
    int64_t i = 0;
    for (; i + 4*SPK_REG <= d; i += 4*SPK_REG) {
        swa_columns<4>(o + i, old, p, v + i, d, n, n_rows);
    }
    for (; i + SPK_REG <= d; i += SPK_REG) {
        swa_columns<1>(o + i, old, p, v + i, d, n, n_rows);
    }
    for (; i < d; ++i) {
        for (int64_t r = 0; r < n_rows; ++r) {
            float sum = o[r*(d + 2) + i]*old[r];
            for (int64_t j = 0; j < n; ++j) {
                sum += p[r*SPK_SWA_TILE + j]*v[j*d + i];
            }
            o[r*(d + 2) + i] = sum;
        }
    }
}

// exp(x) for x <= 0, relative error below 2e-7; below -87 the result is that of -87, 10^-38
// x = n ln 2 + r, |r| <= ln(2)/2; exp(r) by its Taylor series up to r^6/6!
SPK_INLINE spk_part swa_exp(spk_part x) {
    const spk_part low = spk_part{} - 87.0f;
    x = x < low ? low : x; // NaN stays
    const spk_part_int n = __builtin_convertvector(x*1.44269504f - 0.5f, spk_part_int); // towards zero, so the nearest of x <= 0
    const spk_part f = __builtin_convertvector(n, spk_part);
    const spk_part r = (x - f*0.693359375f) + f*2.12194440e-4f;
    spk_part y = r*(1.0f/720.0f) + 1.0f/120.0f;
    y = y*r + 1.0f/24.0f;
    y = y*r + 1.0f/6.0f;
    y = y*r + 0.5f;
    y = y*r*r + r + 1.0f;
    return y*(spk_part) ((n + 127) << 23);
}

SPK_INLINE spk_vec swa_exp_all(spk_vec x) {
#ifdef __aarch64__
    SPK_PARTS x.v[i] = swa_exp(x.v[i]);
    return x;
#else
    return swa_exp(x);
#endif
}

// score of one row over n keys: scaled, then its softmax over them and what came before, times v_scale; part: maximum, sum.
// Returns what the outputs until now are multiplied with. Goes on to a whole number of vectors: there is room.
static float swa_softmax(float * score, float * part, int64_t n, float scale, const float * k_scale, const float * v_scale) {
    for (int64_t j = 0; j < n; j += SPK_VEC) {
        const spk_vec x = spk_load(score + j);
        spk_store(score + j, k_scale ? x*(spk_load(k_scale + j)*scale) : x*scale);
    }
    for (int64_t j = n; j % SPK_VEC != 0; ++j) {
        score[j] = -INFINITY;
    }
    spk_vec top = spk_set(part[0]);
    for (int64_t j = 0; j < n; j += SPK_VEC) {
        top = spk_max(spk_load(score + j), top);
    }
    const float max = spk_top(top);
    const float old = part[0] == -INFINITY ? 0.0f : expf(part[0] - max);

    for (int64_t j = 0; j < n; j += SPK_VEC) {
        spk_store(score + j, swa_exp_all(spk_load(score + j) - max));
    }
    for (int64_t j = n; j % SPK_VEC != 0; ++j) {
        score[j] = 0.0f;
    }
    spk_vec sum = spk_set(0.0f);
    for (int64_t j = 0; j < n; j += SPK_VEC) {
        const spk_vec x = spk_load(score + j);
        sum = sum + x;
        if (v_scale) {
            spk_store(score + j, x*spk_load(v_scale + j));
        }
    }
    part[0] = max;
    part[1] = part[1]*old + spk_sum(sum);
    return old;
}

static void swa_rows(float * part, const spk_swa_rows & it, const float * k, const float * v, const float * k_scale, const float * v_scale, int64_t n) {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        swa_scores<4>(it.score + j, it.q, it.n_rows, k + j*it.d, it.d);
    }
    for (; j < n; ++j) {
        swa_scores<1>(it.score + j, it.q, it.n_rows, k + j*it.d, it.d);
    }
    for (int64_t r = 0; r < it.n_rows; ++r) {
        it.old[r] = swa_softmax(it.score + r*SPK_SWA_TILE, part + r*(it.d + 2), n, it.scale[r], k_scale, v_scale);
    }
    swa_values_all(part + 2, it.old, it.score, v, it.d, n, it.n_rows);
}

static void swa_codes(float * out, float * scale, const int8_t * rows, int64_t stride, int64_t d, int64_t n) {
    for (int64_t j = 0; j < n; ++j, rows += stride) {
        for (int64_t i = 0; i < d; ++i) {
            out[j*d + i] = rows[i];
        }
        memcpy(scale + j, rows + GGML_SPK_KV_ROW(d) - sizeof(float), sizeof(float));
    }
}
