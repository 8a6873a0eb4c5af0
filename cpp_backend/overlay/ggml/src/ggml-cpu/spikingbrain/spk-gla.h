// Gated linear attention of one block of value columns (spk-isa.h), over the vectors of spk-vec.h. Included once per
// instruction set, inside its namespace.

// query heads and vectors of columns that keep their sums in registers together
#ifdef __aarch64__
static const int GLA_MAX_GROUP = 4, GLA_NV = 1;
#else
static const int GLA_MAX_GROUP = 8, GLA_NV = 2;
#endif

// one token, NV vectors of the `cols` columns of S: S <- diag(w) S + k^T v (first pass over the group only), acc[r] = q_r S
template <int NV, int R, bool UPDATE>
static void gla_token(float * S, int64_t cols, const spk_gla_item & it, int64_t t, int64_t r0) {
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
            float * s = S + i*cols + j*SPK_VEC;
            spk_vec x = spk_load(s);
            if (UPDATE) {
                x = spk_fma(x, w[i], v[j]*k[i]);
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

template <int NV, bool UPDATE>
static void gla_group(float * S, int64_t cols, const spk_gla_item & it, int64_t t, int64_t r0, int64_t n) {
    switch (n) {
        case 1: return gla_token<NV, 1, UPDATE>(S, cols, it, t, r0);
        case 2: return gla_token<NV, 2, UPDATE>(S, cols, it, t, r0);
        case 3: return gla_token<NV, 3, UPDATE>(S, cols, it, t, r0);
        case 4: return gla_token<NV, 4, UPDATE>(S, cols, it, t, r0);
    }
    if constexpr (GLA_MAX_GROUP > 4) {
        switch (n) {
            case 5: return gla_token<NV, 5, UPDATE>(S, cols, it, t, r0);
            case 6: return gla_token<NV, 6, UPDATE>(S, cols, it, t, r0);
            case 7: return gla_token<NV, 7, UPDATE>(S, cols, it, t, r0);
            case 8: return gla_token<NV, 8, UPDATE>(S, cols, it, t, r0);
        }
    }
}

template <int NV>
static void gla_columns(float * S, int64_t cols, const spk_gla_item & it, int64_t n_group) {
    for (int64_t t = 0; t < it.n_tok; ++t) {
        gla_group<NV, true>(S, cols, it, t, 0, n_group < GLA_MAX_GROUP ? n_group : GLA_MAX_GROUP);
        for (int64_t r = GLA_MAX_GROUP; r < n_group; r += GLA_MAX_GROUP) {
            gla_group<NV, false>(S, cols, it, t, r, n_group - r < GLA_MAX_GROUP ? n_group - r : GLA_MAX_GROUP);
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

static void gla_block(float * S, const spk_gla_item & it, int64_t n_group, int64_t cols) {
    if (cols % SPK_VEC != 0) {
        return gla_tail(S, it, n_group, cols);
    }
    int64_t j = 0;
    spk_gla_item part = it;
    for (; j + GLA_NV*SPK_VEC <= cols; j += GLA_NV*SPK_VEC) {
        part.v = it.v + j;
        part.o = it.o + j;
        gla_columns<GLA_NV>(S + j, cols, part, n_group);
    }
    if (j < cols) {
        part.v = it.v + j;
        part.o = it.o + j;
        gla_columns<1>(S + j, cols, part, n_group);
    }
}

// N rows of S and NV vectors of its columns stay in registers while the tokens go by: S <- diag(w) S + k^T v
template <int NV, int N>
static void gla_advance_rows(float * S, int64_t cols, const spk_gla_item & it, int64_t i) {
    spk_vec x[N][NV];
    SPK_UNROLL for (int r = 0; r < N; ++r) {
        SPK_UNROLL for (int j = 0; j < NV; ++j) {
            x[r][j] = spk_load(S + (i + r)*cols + j*SPK_VEC);
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
            spk_store(S + (i + r)*cols + j*SPK_VEC, x[r][j]);
        }
    }
}

template <int NV>
static void gla_advance_columns(float * S, int64_t cols, const spk_gla_item & it) {
    int64_t i = 0;
    for (; i + 4 <= it.d; i += 4) {
        gla_advance_rows<NV, 4>(S, cols, it, i);
    }
    for (; i < it.d; ++i) {
        gla_advance_rows<NV, 1>(S, cols, it, i);
    }
}

static void gla_advance(float * S, const spk_gla_item & it, int64_t cols) {
    if (cols % SPK_VEC != 0) {
        return gla_tail(S, it, 0, cols);
    }
    int64_t j = 0;
    spk_gla_item part = it;
    for (; j + GLA_NV*SPK_VEC <= cols; j += GLA_NV*SPK_VEC) {
        part.v = it.v + j;
        gla_advance_columns<GLA_NV>(S + j, cols, part);
    }
    if (j < cols) {
        part.v = it.v + j;
        gla_advance_columns<1>(S + j, cols, part);
    }
}
