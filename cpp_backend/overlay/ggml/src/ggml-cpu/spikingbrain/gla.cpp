#include "spk-ops.h"
#include "spk-vec.h"

#include <cstring>

// A work item is (sequence, key/value head, block of value columns): the columns of S are independent of
// each other, so items share nothing and need no barrier. The block S[d][cols] stays in the first-level
// cache for the whole micro-batch (d = 128, cols = 32: 16 KiB).

namespace {

constexpr int GLA_COLS = 2*SPK_VEC;
constexpr int GLA_MAX_GROUP = 8; // query heads that keep their sums in registers together

struct gla_item {
    const float * q;     // {d, H, n_tok} at this group's first query head
    const float * k;     // {d, G, n_tok} at this head
    const float * v;     //                and this block's first column
    const float * w;
    float       * o;     // as q, at this block's first column
    int64_t d, stride_q, stride_k, n_tok;
    float   scale;
};

// one token: S <- diag(w) S + k^T v (first pass over the group only), acc[r] = q_r S
template <int NV, int R, bool UPDATE>
void gla_token(float * S, const gla_item & it, int64_t t, int64_t r0) {
    const float * q = it.q + t*it.stride_q + r0*it.d;
    const float * k = it.k + t*it.stride_k;
    const float * w = it.w + t*it.stride_k;

    spk_vec v[NV];
    spk_vec acc[R][NV];
    for (int j = 0; j < NV; ++j) {
        v[j] = spk_load(it.v + t*it.stride_k + j*SPK_VEC);
        for (int r = 0; r < R; ++r) {
            acc[r][j] = spk_vec{};
        }
    }
    for (int64_t i = 0; i < it.d; ++i) {
        for (int j = 0; j < NV; ++j) {
            float * s = S + i*NV*SPK_VEC + j*SPK_VEC;
            spk_vec x = spk_load(s);
            if (UPDATE) {
                x = x*w[i] + v[j]*k[i];
                spk_store(s, x);
            }
            for (int r = 0; r < R; ++r) {
                acc[r][j] += x*q[r*it.d + i];
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int j = 0; j < NV; ++j) {
            spk_store(it.o + t*it.stride_q + (r0 + r)*it.d + j*SPK_VEC, acc[r][j]*it.scale);
        }
    }
}

template <int NV, bool UPDATE>
void gla_group(float * S, const gla_item & it, int64_t t, int64_t r0, int64_t n) {
    switch (n) {
        case 1: return gla_token<NV, 1, UPDATE>(S, it, t, r0);
        case 2: return gla_token<NV, 2, UPDATE>(S, it, t, r0);
        case 3: return gla_token<NV, 3, UPDATE>(S, it, t, r0);
        case 4: return gla_token<NV, 4, UPDATE>(S, it, t, r0);
        case 5: return gla_token<NV, 5, UPDATE>(S, it, t, r0);
        case 6: return gla_token<NV, 6, UPDATE>(S, it, t, r0);
        case 7: return gla_token<NV, 7, UPDATE>(S, it, t, r0);
        case 8: return gla_token<NV, 8, UPDATE>(S, it, t, r0);
    }
}

template <int NV>
void gla_block(float * S, const gla_item & it, int64_t n_group) {
    for (int64_t t = 0; t < it.n_tok; ++t) {
        gla_group<NV, true>(S, it, t, 0, std::min<int64_t>(n_group, GLA_MAX_GROUP));
        for (int64_t r = GLA_MAX_GROUP; r < n_group; r += GLA_MAX_GROUP) {
            gla_group<NV, false>(S, it, t, r, std::min<int64_t>(n_group - r, GLA_MAX_GROUP));
        }
    }
}

// the columns left over when the head size is not a multiple of 16
void gla_tail(float * S, const gla_item & it, int64_t n_group, int64_t cols) {
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

int64_t gla_n_blocks(int64_t d) {
    return (d + GLA_COLS - 1)/GLA_COLS;
}

// [cols] columns of the d x d state src (or zeros) <-> the packed block S[d][cols]
void gla_load(float * S, const float * src, int64_t d, int64_t cols) {
    for (int64_t i = 0; i < d; ++i) {
        if (src) {
            memcpy(S + i*cols, src + i*d, cols*sizeof(float));
        } else {
            memset(S + i*cols, 0, cols*sizeof(float));
        }
    }
}

void gla_save(float * dst, const float * S, int64_t d, int64_t cols) {
    for (int64_t i = 0; i < d; ++i) {
        memcpy(dst + i*d, S + i*cols, cols*sizeof(float));
    }
}

} // namespace

// a block per thread, a cache line apart
static size_t gla_block_size(int64_t d) {
    return d*GLA_COLS*sizeof(float) + 64;
}

size_t spk_gla_work_size(const ggml_tensor * dst, int n_tasks) {
    return n_tasks*gla_block_size(dst->ne[0]);
}

void spk_gla(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * v     = dst->src[2];
    const ggml_tensor * w     = dst->src[3];
    const ggml_tensor * state = dst->src[4];
    const ggml_tensor * seqs  = dst->src[5];

    const int64_t d       = q->ne[0];
    const int64_t n_head  = q->ne[1];
    const int64_t n_kv    = k->ne[1];
    const int64_t n_seqs  = seqs->ne[1];
    const int64_t n_tok   = q->ne[2]/n_seqs;
    const int64_t n_group = n_head/n_kv;
    const int64_t n_block = gla_n_blocks(d);

    float * S = (float *) ((char *) params->wdata + params->ith*gla_block_size(d));

    for (int64_t item = params->ith; item < n_seqs*n_kv*n_block; item += params->nth) {
        const int64_t s  = item/(n_kv*n_block);
        const int64_t h  = item/n_block % n_kv;
        const int64_t j0 = item % n_block * GLA_COLS;

        const int32_t * seq = (const int32_t *) seqs->data + s*GGML_SPK_SEQ_N_INFO;
        const int64_t off_q = s*n_tok*n_head*d + h*n_group*d;
        const int64_t off_k = s*n_tok*n_kv*d + h*d;
        const int64_t off_S = h*d*d + j0;

        const float * src = seq[GGML_SPK_SEQ_STATE_SRC] < 0 ? nullptr :
            (const float *) ((const char *) state->data + seq[GGML_SPK_SEQ_STATE_SRC]*state->nb[1]) + off_S;
        float * dst_S = (float *) ((char *) state->data + seq[GGML_SPK_SEQ_STATE_DST]*state->nb[1]) + off_S;

        const gla_item it = {
            (const float *) q->data + off_q, (const float *) k->data + off_k, (const float *) v->data + off_k + j0,
            (const float *) w->data + off_k, (float *) dst->data + off_q + j0,
            d, n_head*d, n_kv*d, n_tok, ggml_get_op_params_f32(dst, 0),
        };

        const int64_t cols = std::min<int64_t>(GLA_COLS, d - j0);
        gla_load(S, src, d, cols);
        switch (cols) {
            case 2*SPK_VEC: gla_block<2>(S, it, n_group); break;
            case 1*SPK_VEC: gla_block<1>(S, it, n_group); break;
            default:        gla_tail (S, it, n_group, cols);
        }
        gla_save(dst_S, S, d, cols);
    }
}
