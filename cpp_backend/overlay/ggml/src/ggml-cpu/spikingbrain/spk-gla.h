#pragma once

// Gated linear attention of one block of value columns (spk-isa.h), over the vectors of spk-vec.h. Included once per
// instruction set, inside its namespace.

#include "spk-vec.h"

// query heads and vectors of columns that keep their sums in registers together
#ifdef __aarch64__
static const int GLA_MAX_GROUP = 4, GLA_NV = 1;
#else
static const int GLA_MAX_GROUP = 8, GLA_NV = 2;
#endif

// what a pass over the query heads of a group does with S
enum gla_pass {
    GLA_READ,   // it is after the token
    GLA_ADVANCE,
    GLA_PEEK,   // it is before the token, and stays so
};

// one token, NV vectors of columns of S, rows `stride` apart: S <- diag(w) S + k^T v, acc[r] = q_r S
template <int NV, int R, gla_pass PASS>
static void gla_token(float * S, int64_t stride, const spk_gla_item & it, int64_t t, int64_t r0) {
    const float * q = it.q + t*it.stride_q + r0*it.d;
    const float * k = it.k + t*it.stride_k;
    const float * w = it.w + t*it.stride_k;

    spk_vec v[NV];
    spk_vec acc[R][NV];
    SPK_UNROLL for (int j = 0; j < NV; ++j) {
        v[j] = spk_load(it.v + t*it.stride_k + j*SPK_VEC);
        SPK_UNROLL for (int r = 0; r < R; ++r) {
            acc[r][j] = spk_set(0.0f);
        }
    }
    for (int64_t i = 0; i < it.d; ++i) {
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            float * s = S + i*stride + j*SPK_VEC;
            spk_vec x = spk_load(s);
            if (PASS != GLA_READ) {
                x = spk_fma(x, w[i], v[j]*k[i]);
            }
            if (PASS == GLA_ADVANCE) {
                spk_store(s, x);
            }
            SPK_UNROLL for (int r = 0; r < R; ++r) {
                acc[r][j] = spk_fma(x, q[r*it.d + i], acc[r][j]);
            }
        }
    }
    SPK_UNROLL for (int r = 0; r < R; ++r) {
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            spk_store(it.o + t*it.stride_q + (r0 + r)*it.d + j*SPK_VEC, acc[r][j]*it.scale);
        }
    }
}

template <int NV, gla_pass PASS>
static void gla_group(float * S, int64_t stride, const spk_gla_item & it, int64_t t, int64_t r0, int64_t n) {
    switch (n) {
        case 1: return gla_token<NV, 1, PASS>(S, stride, it, t, r0);
        case 2: return gla_token<NV, 2, PASS>(S, stride, it, t, r0);
        case 3: return gla_token<NV, 3, PASS>(S, stride, it, t, r0);
        case 4: return gla_token<NV, 4, PASS>(S, stride, it, t, r0);
    }
    if constexpr (GLA_MAX_GROUP > 4) {
        switch (n) {
            case 5: return gla_token<NV, 5, PASS>(S, stride, it, t, r0);
            case 6: return gla_token<NV, 6, PASS>(S, stride, it, t, r0);
            case 7: return gla_token<NV, 7, PASS>(S, stride, it, t, r0);
            case 8: return gla_token<NV, 8, PASS>(S, stride, it, t, r0);
        }
    }
}

template <int NV>
static void gla_columns(float * S, int64_t stride, const spk_gla_item & it, int64_t n_group, bool peek) {
    for (int64_t t = 0; t < it.n_tok; ++t) {
        for (int64_t r = 0; r < n_group; r += GLA_MAX_GROUP) {
            const int64_t n = n_group - r < GLA_MAX_GROUP ? n_group - r : GLA_MAX_GROUP;
            if (peek) {
                gla_group<NV, GLA_PEEK>(S, stride, it, t, r, n);
            } else if (r == 0) {
                gla_group<NV, GLA_ADVANCE>(S, stride, it, t, r, n);
            } else {
                gla_group<NV, GLA_READ>(S, stride, it, t, r, n);
            }
        }
    }
}

// the columns left over when the head size is not a multiple of 16
static void gla_tail(float * S, const spk_gla_item & it, int64_t n_group, int64_t cols) {
    for (int64_t t = 0; t < it.n_tok; ++t) {
        const float * k = it.k + t*it.stride_k;
        const float * v = it.v + t*it.stride_k;
        const float * w = it.w + t*it.stride_k;
        for (int64_t i = 0; i < it.d; ++i) {
            for (int64_t j = 0; j < cols; ++j) {
                S[i*cols + j] = S[i*cols + j]*w[i] + k[i]*v[j];
            }
        }
        for (int64_t r = 0; r < n_group; ++r) {
            const float * q = it.q + t*it.stride_q + r*it.d;
            float       * o = it.o + t*it.stride_q + r*it.d;
            for (int64_t j = 0; j < cols; ++j) {
                float sum = 0.0f;
                for (int64_t i = 0; i < it.d; ++i) {
                    sum += q[i]*S[i*cols + j];
                }
                o[j] = sum*it.scale;
            }
        }
    }
}

static void gla_block(float * S, int64_t stride, const spk_gla_item & it, int64_t n_group, int64_t cols, bool peek) {
    if (cols % SPK_VEC != 0) {
        return gla_tail(S, it, n_group, cols);
    }
    int64_t j = 0;
    spk_gla_item part = it;
    for (; j + GLA_NV*SPK_VEC <= cols; j += GLA_NV*SPK_VEC) {
        part.v = it.v + j;
        part.o = it.o + j;
        gla_columns<GLA_NV>(S + j, stride, part, n_group, peek);
    }
    if (j < cols) {
        part.v = it.v + j;
        part.o = it.o + j;
        gla_columns<1>(S + j, stride, part, n_group, peek);
    }
}

// N rows of S and NV vectors of its columns stay in registers while the tokens go by: dst <- diag(w) src + k^T v
template <int NV, int N>
static void gla_advance_rows(float * dst, const float * src, int64_t stride, const spk_gla_item & it, int64_t i) {
    spk_vec x[N][NV];
    SPK_UNROLL for (int r = 0; r < N; ++r) {
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            x[r][j] = spk_load(src + (i + r)*stride + j*SPK_VEC);
        }
    }
    for (int64_t t = 0; t < it.n_tok; ++t) {
        const float * k = it.k + t*it.stride_k + i;
        const float * w = it.w + t*it.stride_k + i;
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            const spk_vec v = spk_load(it.v + t*it.stride_k + j*SPK_VEC);
            SPK_UNROLL for (int r = 0; r < N; ++r) {
                x[r][j] = spk_fma(x[r][j], w[r], v*k[r]);
            }
        }
    }
    SPK_UNROLL for (int r = 0; r < N; ++r) {
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            spk_store(dst + (i + r)*stride + j*SPK_VEC, x[r][j]);
        }
    }
}

template <int NV>
static void gla_advance_columns(float * dst, const float * src, int64_t stride, const spk_gla_item & it) {
    int64_t i = 0;
    for (; i + 4 <= it.d; i += 4) {
        gla_advance_rows<NV, 4>(dst, src, stride, it, i);
    }
    for (; i < it.d; ++i) {
        gla_advance_rows<NV, 1>(dst, src, stride, it, i);
    }
}

static void gla_advance(float * dst, const float * src, int64_t stride, const spk_gla_item & it, int64_t cols) {
    if (cols % SPK_VEC != 0) {
        return gla_tail(dst, it, 0, cols);
    }
    int64_t j = 0;
    spk_gla_item part = it;
    for (; j + GLA_NV*SPK_VEC <= cols; j += GLA_NV*SPK_VEC) {
        part.v = it.v + j;
        gla_advance_columns<GLA_NV>(dst + j, src + j, stride, part);
    }
    if (j < cols) {
        part.v = it.v + j;
        gla_advance_columns<1>(dst + j, src + j, stride, part);
    }
}
