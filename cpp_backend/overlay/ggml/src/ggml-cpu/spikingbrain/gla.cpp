#include "spk-isa.h"

#include <cstring>

// A work item is (sequence, key/value head, block of value columns): the columns of S are independent of
// each other, so items share nothing and need no barrier. The block S[d][cols] stays in the first-level
// cache for the whole micro-batch (d = 128, cols = 32: 16 KiB). Its arithmetic: spk-gla.h.

namespace {

constexpr int GLA_COLS = 32;

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

        const spk_gla_item it = {
            (const float *) q->data + off_q, (const float *) k->data + off_k, (const float *) v->data + off_k + j0,
            (const float *) w->data + off_k, (float *) dst->data + off_q + j0,
            d, n_head*d, n_kv*d, n_tok, ggml_get_op_params_f32(dst, 0),
        };

        const int64_t cols = std::min<int64_t>(GLA_COLS, d - j0);
        gla_load(S, src, d, cols);
        spk_get_isa().gla_block(S, it, n_group, cols);
        gla_save(dst_S, S, d, cols);
    }
}
