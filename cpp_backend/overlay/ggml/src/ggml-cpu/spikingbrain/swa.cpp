#include "spk-isa.h"

#include <cfloat>
#include <cmath>
#include <cstring>

// Softmax attention over the window ring, one pass over the keys with a running maximum.
// Prefill: a work item is (sequence, key/value head, block of tokens); all query heads of the group and all
// tokens of the block share each tile of keys, which is widened to float once.
// Decode (one token per sequence): the keys are split into chunks of fixed size instead, so that several
// threads share one head; the partial results are merged in order after a barrier. Arithmetic of rows and keys: spk-swa.h.

namespace {

constexpr int64_t SWA_TILE   = SPK_SWA_TILE;
constexpr int64_t SWA_CHUNK  = 512; // keys of one work item at decode
constexpr int64_t SWA_TOKENS = 8;   // tokens of one work item at prefill

struct swa_shape {
    int64_t d, n_head, n_kv, n_group, n_seqs, n_tok, window, n_ring;
    int64_t n_block; // token blocks per sequence
    int64_t n_chunk; // key chunks per item
    int64_t rows;    // query rows of an item: tokens of a block x heads of a group
    float   scale;
    float   spike_k; // 0: float keys

    explicit swa_shape(const ggml_tensor * dst) {
        const ggml_tensor * q = dst->src[0];
        const ggml_tensor * k = dst->src[1];
        d       = q->ne[0];
        n_head  = q->ne[1];
        n_kv    = k->ne[2];
        n_group = n_head/n_kv;
        n_seqs  = dst->src[4]->ne[1];
        n_tok   = q->ne[2]/n_seqs;
        scale   = ggml_get_op_params_f32(dst, 0);
        window  = ggml_get_op_params_i32(dst, 1);
        n_ring  = ggml_get_op_params_i32(dst, 2);
        spike_k = ggml_get_op_params_f32(dst, 3);
        n_block = (n_tok + SWA_TOKENS - 1)/SWA_TOKENS;
        n_chunk = n_tok == 1 ? (window + SWA_CHUNK - 1)/SWA_CHUNK : 1;
        rows    = std::min(n_tok, SWA_TOKENS)*n_group;
    }

    int64_t n_items()      const { return n_seqs*n_kv*n_block*n_chunk; }
    int64_t partial_size() const { return rows*(d + 2); }             // floats: per row max, sum, o[d]
    int64_t scratch_size() const { return 2*SWA_TILE*(d + 1) + rows*(SWA_TILE + d + 2); } // floats: see swa_scratch
};

// what a thread works on
struct swa_scratch {
    float * k;       // [SWA_TILE][d]
    float * v;       // [SWA_TILE][d]
    float * k_scale; // [SWA_TILE], of INT8 keys
    float * v_scale; // [SWA_TILE]
    float * score;   // [rows][SWA_TILE]
    float * q;       // [rows][d], counts where the query is spike-encoded
    float * scale;   // [rows], of q . k
    float * old;     // [rows]

    swa_scratch(float * buf, const swa_shape & sh) :
        k(buf), v(k + SWA_TILE*sh.d), k_scale(v + SWA_TILE*sh.d), v_scale(k_scale + SWA_TILE), score(v_scale + SWA_TILE),
        q(score + sh.rows*SWA_TILE), scale(q + sh.rows*sh.d), old(scale + sh.rows) {}
};

// rows row .. row + n of one head's ring as floats, in place when they are; the codes of INT8 rows, their scales beside
const float * swa_tile(const ggml_tensor * ring, int64_t head, int64_t row, int64_t n, int64_t d, float * buf, float * scale) {
    const char * x = (const char *) ring->data + head*ring->nb[2] + row*ring->nb[1];
    switch (ring->type) {
        case GGML_TYPE_F32:
            return (const float *) x;
        case GGML_TYPE_F16:
            ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) x, buf, n*d);
            return buf;
        default:
            spk_get_isa().swa_codes(buf, scale, (const int8_t *) x, ring->nb[1], d, n);
            return buf;
    }
}

// Counts of one query row as floats, with the sum of GGML_OP_SPK_ENCODE. sum|s| <= d*(k + 1/2), so that q . k is an
// exact integer up to d*k of 10^5; a query that is not finite has v_th = NaN.
float swa_encode(const float * x, float k, int64_t d, float * s) {
    double lane[16] = { 0.0 };
    for (int64_t i = 0; i < d; ++i) {
        lane[i % 16] += fabsf(x[i]);
    }
    double sum = 0.0;
    for (double l : lane) {
        sum += l;
    }
    const bool finite = sum <= DBL_MAX;
    const float v_th = finite ? std::min(std::max((float) (sum/d)/k, 1e-5f), 1e4f) : NAN;
    for (int64_t i = 0; i < d; ++i) {
        s[i] = finite ? nearbyintf(x[i]/v_th) : 0.0f;
    }
    return v_th;
}

struct swa_item {
    int64_t seq, head, t0, t1; // tokens t0 .. t1 of the sequence
    int64_t p0, p1;            // positions of the keys
};

// part: per row max, sum, o[d] (not yet divided by the sum)
void swa_run(const swa_shape & sh, const ggml_tensor * dst, const swa_item & it, float * part, const swa_scratch & scratch) {
    const float   * q    = (const float *) dst->src[0]->data;
    const int32_t * pos  = (const int32_t *) dst->src[3]->data + it.seq*sh.n_tok;
    const int32_t * seq  = (const int32_t *) dst->src[4]->data + it.seq*GGML_SPK_SEQ_N_INFO;

    const spk_isa & isa = spk_get_isa();
    const bool int8 = sh.spike_k > 0.0f;

    const int64_t rows = (it.t1 - it.t0)*sh.n_group;
    for (int64_t r = 0; r < rows; ++r) {
        float * x = part + r*(sh.d + 2);
        x[0] = -INFINITY;
        memset(x + 1, 0, (sh.d + 1)*sizeof(float));

        const float * from = q + ((it.seq*sh.n_tok + it.t0 + r/sh.n_group)*sh.n_head + it.head*sh.n_group + r % sh.n_group)*sh.d;
        scratch.scale[r] = sh.scale;
        if (int8) { // q . k is a sum of integers
            scratch.scale[r] *= swa_encode(from, sh.spike_k, sh.d, scratch.q + r*sh.d);
        } else {
            memcpy(scratch.q + r*sh.d, from, sh.d*sizeof(float));
        }
    }

    for (int64_t p = it.p0; p < it.p1; ) {
        const int64_t in_ring = p % sh.n_ring;
        const int64_t n   = std::min(std::min(SWA_TILE, it.p1 - p), sh.n_ring - in_ring);
        const int64_t row = seq[GGML_SPK_SEQ_SLOT]*sh.n_ring + in_ring;
        const float * k = swa_tile(dst->src[1], it.head, row, n, sh.d, scratch.k, scratch.k_scale);
        const float * v = swa_tile(dst->src[2], it.head, row, n, sh.d, scratch.v, scratch.v_scale);

        // keys that token t sees, of this tile
        const auto first = [&](int64_t t) { return std::max<int64_t>(p, std::max<int64_t>(seq[GGML_SPK_SEQ_POS_FIRST], pos[t] - sh.window + 1)) - p; };
        const auto last  = [&](int64_t t) { return std::min<int64_t>(p + n, (int64_t) pos[t] + 1) - p; };
        for (int64_t t = it.t0, next; t < it.t1; t = next) {
            const int64_t lo = first(t), hi = last(t);
            for (next = t + 1; next < it.t1 && first(next) == lo && last(next) == hi; ) {
                ++next;
            }
            if (lo >= hi) {
                continue;
            }
            const int64_t r = (t - it.t0)*sh.n_group;
            const spk_swa_rows item = { scratch.q + r*sh.d, scratch.scale + r, scratch.score, scratch.old, (next - t)*sh.n_group, sh.d };
            isa.swa_rows(part + r*(sh.d + 2), item, k + lo*sh.d, v + lo*sh.d, int8 ? scratch.k_scale + lo : nullptr, int8 ? scratch.v_scale + lo : nullptr, hi - lo);
        }
        p += n;
    }
}

// the n partial results of one row, stride floats apart, into o
void swa_merge(float * o, const float * part, int64_t n, int64_t stride, int64_t d) {
    float max = -INFINITY;
    for (int64_t c = 0; c < n; ++c) {
        max = std::max(max, part[c*stride]);
    }
    float sum = 0.0f;
    memset(o, 0, d*sizeof(float));
    for (int64_t c = 0; c < n; ++c) {
        const float * x = part + c*stride;
        const float   e = x[0] == -INFINITY ? 0.0f : expf(x[0] - max);
        sum += x[1]*e;
        for (int64_t i = 0; i < d; ++i) {
            o[i] += x[2 + i]*e;
        }
    }
    for (int64_t i = 0; i < d; ++i) {
        o[i] /= sum;
    }
}

float * swa_out(ggml_tensor * dst, const swa_shape & sh, int64_t seq, int64_t head, int64_t t, int64_t r) {
    return (float *) dst->data + ((seq*sh.n_tok + t)*sh.n_head + head*sh.n_group + r)*sh.d;
}

} // namespace

size_t spk_swa_work_size(const ggml_tensor * dst, int n_tasks) {
    const swa_shape sh(dst);
    const int64_t n_part = sh.n_chunk > 1 ? sh.n_items() : n_tasks;
    return (n_part*sh.partial_size() + n_tasks*sh.scratch_size())*sizeof(float);
}

void spk_swa(const ggml_compute_params * params, ggml_tensor * dst) {
    const swa_shape sh(dst);
    const bool split = sh.n_chunk > 1;

    float * part    = (float *) params->wdata;
    const swa_scratch scratch(part + (split ? sh.n_items() : params->nth)*sh.partial_size() + params->ith*sh.scratch_size(), sh);

    for (int64_t item = params->ith; item < sh.n_items(); item += params->nth) {
        const int64_t chunk = item % sh.n_chunk;
        const int64_t block = item/sh.n_chunk % sh.n_block;

        swa_item it;
        it.head = item/(sh.n_chunk*sh.n_block) % sh.n_kv;
        it.seq  = item/(sh.n_chunk*sh.n_block*sh.n_kv);
        it.t0   = block*SWA_TOKENS;
        it.t1   = std::min(it.t0 + SWA_TOKENS, sh.n_tok);

        const int32_t * pos   = (const int32_t *) dst->src[3]->data + it.seq*sh.n_tok;
        const int32_t   first = ((const int32_t *) dst->src[4]->data)[it.seq*GGML_SPK_SEQ_N_INFO + GGML_SPK_SEQ_POS_FIRST];
        it.p0 = std::max<int64_t>(first, pos[it.t0] - sh.window + 1);
        it.p1 = (int64_t) pos[it.t1 - 1] + 1;
        if (split) {
            it.p0 = it.p0 + chunk*SWA_CHUNK;
            it.p1 = std::min(it.p1, it.p0 + SWA_CHUNK);
        }

        float * x = part + (split ? item : params->ith)*sh.partial_size();
        swa_run(sh, dst, it, x, scratch);

        if (!split) {
            for (int64_t r = 0; r < (it.t1 - it.t0)*sh.n_group; ++r) {
                swa_merge(swa_out(dst, sh, it.seq, it.head, it.t0 + r/sh.n_group, r % sh.n_group), x + r*(sh.d + 2), 1, 0, sh.d);
            }
        }
    }

    if (split) {
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < sh.n_seqs*sh.n_head; i += params->nth) {
            const int64_t seq  = i/sh.n_head;
            const int64_t head = i % sh.n_head/sh.n_group;
            const int64_t r    = i % sh.n_group;
            const float * x = part + (seq*sh.n_kv + head)*sh.n_chunk*sh.partial_size() + r*(sh.d + 2);
            swa_merge(swa_out(dst, sh, seq, head, 0, r), x, sh.n_chunk, sh.partial_size(), sh.d);
        }
    }
}

void spk_store(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * x    = dst->src[0];
    const int64_t     * rows = (const int64_t *) dst->src[1]->data;
    const int64_t d = x->ne[0], n_kv = x->ne[1];

    for (int64_t i = params->ith; i < n_kv*x->ne[2]; i += params->nth) {
        const float * in  = (const float *) x->data + i*d;
        int8_t      * out = (int8_t *) dst->data + i % n_kv*dst->nb[2] + rows[i/n_kv]*dst->nb[1];

        float max = 0.0f;
        bool  finite = true;
        for (int64_t j = 0; j < d; ++j) {
            max     = std::max(max, fabsf(in[j]));
            finite &= std::isfinite(in[j]);
        }
        const float scale = std::min(std::max(max/127.0f, 1e-5f), 1e4f);
        for (int64_t j = 0; j < d; ++j) {
            out[j] = finite ? (int8_t) std::min(std::max(nearbyintf(in[j]/scale), -127.0f), 127.0f) : 0;
        }
        const float stored = finite ? scale : NAN;
        memcpy(out + GGML_SPK_KV_ROW(d) - sizeof(float), &stored, sizeof(float));
    }
}
