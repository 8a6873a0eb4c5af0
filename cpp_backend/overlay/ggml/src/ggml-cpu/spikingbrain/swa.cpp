#include "spk-chunks.h"
#include "spk-isa.h"
#include "spk-runs.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

// Softmax attention over the window ring, one pass over the keys with a running maximum.
// A work item is (sequence, key/value head, block of tokens): all query heads of the group and all tokens of the block share each
// tile of keys. Of a few tokens (decode, drafts) the keys are split into chunks of fixed size, too, so that several threads share one
// head; the partial results are merged in order after a barrier. Threads take items in runs (spk-runs.h): they read on where they were, and
// prepare the queries of a head once. Arithmetic of rows and keys: spk-swa.h.

namespace {

constexpr int64_t SWA_TILE   = SPK_SWA_TILE;
constexpr int64_t SWA_CHUNK  = 512; // keys of one work item, where they are split
constexpr int64_t SWA_TOKENS = 8;   // tokens of one work item
constexpr float   LOG2_E = 1.44269504f; // scores are powers of two

struct swa_sizes {
    int64_t d, n_head, n_kv, n_group, n_seqs, n_tok, window, n_ring;
    int64_t n_block; // token blocks per sequence
    int64_t n_chunk; // key chunks per item
    int64_t n_sinks;
    int64_t rows;    // query rows of an item: tokens of a block x heads of a group
    float   scale;
    float   spike_k; // 0: float keys

    explicit swa_sizes(const ggml_tensor * dst) {
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
        n_sinks = ggml_get_op_params_i32(dst, 4);
        n_block = (n_tok + SWA_TOKENS - 1)/SWA_TOKENS;
        n_chunk = n_block == 1 ? (window + n_tok - 1 + SWA_CHUNK - 1)/SWA_CHUNK : 1;
        rows    = std::min(n_tok, SWA_TOKENS)*n_group;
    }

    int64_t n_items()      const { return n_seqs*n_kv*n_block*n_chunk; }
    int64_t partial_size() const { return rows*(d + 2); } // floats: per row max, sum, o[d]
};

// hands out room at `at` in whole cache lines; a vector that lies on two takes twice as long
struct swa_room {
    char * at;

    template <typename T>
    void take(T *& p, int64_t n) {
        p   = (T *) at;
        at += (n*sizeof(T) + 63)/64*64;
    }
};

// a thread's work from `buf` on, a multiple of 64; its size
size_t swa_take(spk_swa_work & w, char * buf, const swa_sizes & sizes) {
    const int64_t width = spk_swa_width(sizes.d), rows = (sizes.rows + 3)/4*4; // whole registers of rows
    swa_room room = { buf };
    room.take(w.q,        rows*width);
    room.take(w.digits,   SPK_SWA_DIGITS*sizes.rows*width);
    room.take(w.start,    SPK_SWA_DIGITS*sizes.rows);
    room.take(w.n_digits, sizes.rows);
    room.take(w.unit,     sizes.rows);
    room.take(w.k,        SWA_TILE*width);
    room.take(w.v,        SWA_TILE*width);
    room.take(w.k_scale,  SWA_TILE);
    room.take(w.v_scale,  SWA_TILE);
    room.take(w.score,    SWA_TILE*rows);
    room.take(w.old,      sizes.rows);
    room.take(w.step,     sizes.rows);
    return room.at - buf;
}

struct swa_item {
    int64_t seq, head, t0, t1; // tokens t0 .. t1 of the sequence
    int64_t p0, p1;            // positions of the keys
    bool    sinks;             // those, too
};

swa_item swa_item_at(const swa_sizes & sizes, const ggml_tensor * dst, int64_t item) {
    const int64_t chunk = item % sizes.n_chunk;
    const int64_t block = item/sizes.n_chunk % sizes.n_block;

    swa_item it;
    it.head = item/(sizes.n_chunk*sizes.n_block) % sizes.n_kv;
    it.seq  = item/(sizes.n_chunk*sizes.n_block*sizes.n_kv);
    it.t0   = block*SWA_TOKENS;
    it.t1   = std::min(it.t0 + SWA_TOKENS, sizes.n_tok);

    const int32_t * pos   = (const int32_t *) dst->src[3]->data + it.seq*sizes.n_tok;
    const int32_t   first = ((const int32_t *) dst->src[4]->data)[it.seq*GGML_SPK_SEQ_N_INFO + GGML_SPK_SEQ_POS_FIRST];
    it.p0 = std::max<int64_t>(first, pos[it.t0] - sizes.window + 1);
    it.p1 = (int64_t) pos[it.t1 - 1] + 1;
    it.sinks = chunk == 0;
    if (sizes.n_chunk > 1) {
        it.p0 = it.p0 + chunk*SWA_CHUNK;
        it.p1 = std::min(it.p1, it.p0 + SWA_CHUNK);
    }
    return it;
}

// the queries of an item's sequence, head and tokens
void swa_queries(const swa_sizes & sizes, const ggml_tensor * dst, const swa_item & it, spk_swa_work & w) {
    const float * q = (const float *) dst->src[0]->data;
    w.d       = sizes.d;
    w.n_rows  = (it.t1 - it.t0)*sizes.n_group;
    w.scale   = sizes.scale*LOG2_E;
    w.spike_k = sizes.spike_k;
    for (int64_t r = 0; r < w.n_rows; ++r) {
        const int64_t token = it.seq*sizes.n_tok + it.t0 + r/sizes.n_group;
        spk_get_isa().swa_query(w, r, q + (token*sizes.n_head + it.head*sizes.n_group + r % sizes.n_group)*sizes.d);
    }
}

// part: per row max, sum, o[d] (not yet divided by the sum)
void swa_run(const swa_sizes & sizes, const ggml_tensor * dst, const swa_item & it, float * part, spk_swa_work & w) {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    const int32_t * pos = (const int32_t *) dst->src[3]->data + it.seq*sizes.n_tok;
    const int32_t * seq = (const int32_t *) dst->src[4]->data + it.seq*GGML_SPK_SEQ_N_INFO;

    for (int64_t r = 0; r < w.n_rows; ++r) {
        float * x = part + r*(sizes.d + 2);
        x[0] = -INFINITY;
        memset(x + 1, 0, (sizes.d + 1)*sizeof(float));
    }
    w.type_k   = k->type;
    w.type_v   = v->type;
    w.stride_k = k->nb[1];
    w.stride_v = v->nb[1];
    const auto load = [&](int64_t row, int64_t n) {
        w.n      = n;
        w.keys = (const char *) k->data + it.head*k->nb[2] + row*k->nb[1];
        w.values = (const char *) v->data + it.head*v->nb[2] + row*v->nb[1];
        spk_get_isa().swa_load(w);
    };
    for (int64_t j = 0; it.sinks && j < sizes.n_sinks; j += w.n) {
        load(k->ne[1] - sizes.n_sinks + j, std::min(SWA_TILE, sizes.n_sinks - j));
        spk_get_isa().swa_rows(part, w, 0, w.n_rows, 0, w.n);
    }
    for (int64_t p = it.p0; p < it.p1; p += w.n) {
        const int64_t in_ring = p % sizes.n_ring;
        load(seq[GGML_SPK_SEQ_SLOT]*sizes.n_ring + in_ring, std::min(std::min(SWA_TILE, it.p1 - p), sizes.n_ring - in_ring));

        // keys that token t sees, of this tile
        const auto first = [&](int64_t t) { return std::max<int64_t>(p, std::max<int64_t>(seq[GGML_SPK_SEQ_POS_FIRST], pos[t] - sizes.window + 1)) - p; };
        const auto last  = [&](int64_t t) { return std::min<int64_t>(p + w.n, (int64_t) pos[t] + 1) - p; };
        for (int64_t t = it.t0, next; t < it.t1; t = next) {
            const int64_t lo = first(t), hi = last(t);
            for (next = t + 1; next < it.t1 && first(next) == lo && last(next) == hi; ) {
                ++next;
            }
            if (lo < hi) {
                const int64_t r = (t - it.t0)*sizes.n_group;
                spk_get_isa().swa_rows(part + r*(sizes.d + 2), w, r, (next - t)*sizes.n_group, lo, hi);
            }
        }
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
        const float   e = x[0] == -INFINITY ? 0.0f : exp2f(x[0] - max);
        sum += x[1]*e;
        for (int64_t i = 0; i < d; ++i) {
            o[i] += x[2 + i]*e;
        }
    }
    for (int64_t i = 0; i < d; ++i) {
        o[i] /= sum;
    }
}

float * swa_out(ggml_tensor * dst, const swa_sizes & sizes, int64_t seq, int64_t head, int64_t t, int64_t r) {
    return (float *) dst->data + ((seq*sizes.n_tok + t)*sizes.n_head + head*sizes.n_group + r)*sizes.d;
}

size_t swa_partials_size(const swa_sizes & sizes, int64_t n_tasks) {
    return (std::max(sizes.n_chunk > 1 ? sizes.n_items() : 0, n_tasks)*sizes.partial_size()*sizeof(float) + 63)/64*64;
}

// No more chunks than the sequences have keys for: a window may be as long as a text can become.
void swa_shorten(swa_sizes & sizes, const ggml_tensor * dst) {
    int64_t most = 1;
    for (int64_t s = 0; s < sizes.n_seqs; ++s) {
        const int32_t * pos   = (const int32_t *) dst->src[3]->data + s*sizes.n_tok;
        const int64_t   first = ((const int32_t *) dst->src[4]->data)[s*GGML_SPK_SEQ_N_INFO + GGML_SPK_SEQ_POS_FIRST];
        most = std::max(most, (int64_t) pos[sizes.n_tok - 1] + 1 - first);
    }
    sizes.n_chunk = std::min(sizes.n_chunk, (most + SWA_CHUNK - 1)/SWA_CHUNK);
}

} // namespace

size_t spk_swa_work_size(const ggml_tensor * dst, int n_tasks) {
    const swa_sizes sizes(dst);
    spk_swa_work w;
    return 64 + swa_partials_size(sizes, n_tasks) + n_tasks*swa_take(w, nullptr, sizes);
}

void spk_swa(const ggml_compute_params * params, ggml_tensor * dst) {
    swa_sizes sizes(dst);
    swa_shorten(sizes, dst);
    const bool split = sizes.n_chunk > 1;

    float * part = (float *) (((uintptr_t) params->wdata + 63) & ~(uintptr_t) 63);
    spk_swa_work w;
    const size_t size = swa_take(w, nullptr, sizes);
    swa_take(w, (char *) part + swa_partials_size(sizes, params->nth) + params->ith*size, sizes);

    spk_runs run(sizes.n_items(), params->nth, 1, sizes.n_items(), 1);
    const int64_t n_runs = run.count();
    const spk_chunks runs(params, n_runs);
    for (int64_t i = runs.take(); i < n_runs; i = runs.take()) {
        run.go_to(i);
        for (int64_t item = run.begin, end = run.end(); item < end; ++item) {
            const swa_item it = swa_item_at(sizes, dst, item);
            if (item == run.begin || item % sizes.n_chunk == 0) {
                swa_queries(sizes, dst, it, w);
            }
            float * x = part + (split ? item : params->ith)*sizes.partial_size();
            swa_run(sizes, dst, it, x, w);

            if (!split) {
                for (int64_t r = 0; r < w.n_rows; ++r) {
                    swa_merge(swa_out(dst, sizes, it.seq, it.head, it.t0 + r/sizes.n_group, r % sizes.n_group), x + r*(sizes.d + 2), 1, 0, sizes.d);
                }
            }
        }
    }

    if (split) {
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < sizes.n_seqs*sizes.n_tok*sizes.n_head; i += params->nth) {
            const int64_t seq  = i/(sizes.n_tok*sizes.n_head);
            const int64_t t    = i/sizes.n_head % sizes.n_tok;
            const int64_t head = i % sizes.n_head/sizes.n_group;
            const int64_t r    = t*sizes.n_group + i % sizes.n_group;
            const float * x = part + (seq*sizes.n_kv + head)*sizes.n_chunk*sizes.partial_size() + r*(sizes.d + 2);
            swa_merge(swa_out(dst, sizes, seq, head, t, i % sizes.n_group), x, sizes.n_chunk, sizes.partial_size(), sizes.d);
        }
    }
}
