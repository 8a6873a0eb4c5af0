#include "spk-isa.h"

#include <cstring>

// A work item is (sequence, key/value head, block of value columns): the columns of S are independent of
// each other, so items share nothing and need no barrier. The block S[d][cols] stays in the first-level
// cache for the whole micro-batch (d = 128, cols = 32: 16 KiB); of one token it is read where it lies. Its arithmetic: spk-gla.h.
// Outputs and new states are two operators: reading a state and leaving another one, each says in the graph what it does.

namespace {

constexpr int GLA_COLS = 32;

int64_t gla_n_blocks(int64_t d) {
    return (d + GLA_COLS - 1)/GLA_COLS;
}

// [cols] columns of the d x d state src (or zeros) <-> the packed block S[d][cols]
void gla_load(float * S, const float * src, int64_t d, int64_t cols) {
    if (!src) {
        memset(S, 0, d*cols*sizeof(float));
        return;
    }
    for (int64_t i = 0; i < d; ++i) {
        memcpy(S + i*cols, src + i*d, cols*sizeof(float));
    }
}

void gla_save(float * dst, const float * S, int64_t d, int64_t cols) {
    for (int64_t i = 0; i < d; ++i) {
        memcpy(dst + i*d, S + i*cols, cols*sizeof(float));
    }
}

// one sequence, head and block of columns of GGML_OP_SPK_GLA_UPDATE
struct gla_update {
    const ggml_tensor   * dst;
    const ggml_spk_plan * plan;
    int64_t s, h, j0; // sequence, key/value head, first column

    int64_t d         = dst->src[0]->ne[0];
    int64_t n_kv      = ggml_get_op_params_i32(dst, 0);
    int64_t n_states  = ggml_get_op_params_i32(dst, 1);
    int64_t n_journal = ggml_get_op_params_i32(dst, 2);
    int64_t n_tok     = dst->src[2] ? dst->src[2]->ne[2]/dst->src[1]->ne[1] : 0;
    int64_t cols      = std::min<int64_t>(GLA_COLS, d - j0);

    float * state(int32_t row) const { return row < 0 ? nullptr : (float *) dst->data + (row*n_kv + h)*d*d + j0; }
    float * entry(int64_t i) const {
        return (float *) dst->data + n_states*n_kv*d*d + (plan->slot*n_journal + i % n_journal)*3*n_kv*d + h*d;
    }
    const float * token(int src, int64_t t) const { return (const float *) dst->src[src]->data + ((s*n_tok + t)*n_kv + h)*d; }

    spk_gla_item item(const float * k, const float * v, const float * w, int64_t stride, int64_t n) const {
        return { nullptr, k, v + j0, w, nullptr, d, 0, stride, n, 0.0f };
    }

    // a block of full width goes from row to row, others by way of the packed one
    void run(float * packed, const ggml_spk_plan_step & step) const {
        const float * src = state(step.src);
        const bool direct = src && cols == GLA_COLS && step.n > 0;
        float * S = direct ? state(step.dst) : packed;
        const int64_t stride = direct ? d : cols;
        if (!direct) {
            gla_load(packed, src, d, cols);
            src = packed;
        }
        if (!step.from_journal) {
            spk_get_isa().gla_advance(S, src, stride, item(token(2, step.first), token(3, step.first), token(4, step.first), n_kv*d, step.n), cols);
        }
        for (int64_t i = 0, n; step.from_journal && i < step.n; i += n) {
            const int64_t first = (step.first + i) % n_journal;
            n = std::min<int64_t>(step.n - i, n_journal - first);
            const float * e = entry(first);
            spk_get_isa().gla_advance(S, src, stride, item(e, e + n_kv*d, e + 2*n_kv*d, 3*n_kv*d, n), cols);
            src = S;
        }
        if (!direct) {
            gla_save(state(step.dst), packed, d, cols);
        }
    }

    // of the whole head
    void write_journal() const {
        for (int64_t t = plan->journal_token; t < n_tok; ++t) {
            float * e = entry(plan->journal_at + t - plan->journal_token);
            for (int part = 0; part < 3; ++part) {
                memcpy(e + part*n_kv*d, token(2 + part, t), d*sizeof(float));
            }
        }
    }
};

} // namespace

// a block per thread, a cache line apart
static size_t gla_block_size(int64_t d) {
    return d*GLA_COLS*sizeof(float) + 64;
}

size_t spk_gla_work_size(const ggml_tensor * dst, int n_tasks) {
    return n_tasks*gla_block_size(dst->ne[0]);
}

void spk_gla(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * q      = dst->src[0];
    const ggml_tensor * k      = dst->src[1];
    const ggml_tensor * v      = dst->src[2];
    const ggml_tensor * w      = dst->src[3];
    const ggml_tensor * memory = dst->src[4];
    const ggml_tensor * seqs   = dst->src[5];

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
        const int64_t row   = seq[GGML_SPK_SEQ_STATE];
        const float * src   = row < 0 ? nullptr : (const float *) memory->data + (row*n_kv + h)*d*d + j0;

        const spk_gla_item it = {
            (const float *) q->data + off_q, (const float *) k->data + off_k, (const float *) v->data + off_k + j0,
            (const float *) w->data + off_k, (float *) dst->data + off_q + j0,
            d, n_head*d, n_kv*d, n_tok, ggml_get_op_params_f32(dst, 0),
        };

        const int64_t cols = std::min<int64_t>(GLA_COLS, d - j0);
        if (n_tok == 1 && src && cols == GLA_COLS) {
            spk_get_isa().gla_block(const_cast<float *>(src), d, it, n_group, cols, true); // read where it lies
            continue;
        }
        gla_load(S, src, d, cols);
        spk_get_isa().gla_block(S, cols, it, n_group, cols, false);
    }
}

void spk_gla_update(const ggml_compute_params * params, ggml_tensor * dst) {
    const int64_t n_kv    = ggml_get_op_params_i32(dst, 0);
    const int64_t n_block = gla_n_blocks(dst->ne[0]);

    float * S = (float *) ((char *) params->wdata + params->ith*gla_block_size(dst->ne[0]));

    for (int64_t item = params->ith; item < dst->src[1]->ne[1]*n_kv*n_block; item += params->nth) {
        const int64_t s = item/(n_kv*n_block);
        const gla_update it = { dst, (const ggml_spk_plan *) dst->src[1]->data + s, s, item/n_block % n_kv, item % n_block * GLA_COLS };
        for (const auto & step : it.plan->steps) {
            if (step.dst >= 0) {
                it.run(S, step);
            }
        }
        if (it.j0 == 0) {
            it.write_journal();
        }
    }
}
