#include "mul-mat-tile.h"
#include "spk-buffer.h"
#include "spk-chunks.h"
#include "spk-runs.h"
#include "ggml-backend-impl.h"

#include <algorithm>
#include <cstring>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

// A product with chosen experts. Tokens are sorted by their expert, at most isa.n_tok of one make a group, and a unit of work is a run of
// the rows of one expert (spk-runs.h) with all its groups, while those weights stay in the second-level cache. Units are taken from a shared
// counter, as in mul-mat.cpp, and results lie side by side until all of a run are there. A stack of experts is one matrix of E*m rows:
// tiles, scales and the rest of INT8 codes lie as they do there.

namespace {

constexpr int64_t MIN_TO_PACK = 8;        // tokens of an expert

// sizes of the operands, and of the work
struct mul_mat_id_sizes {
    ggml_type type;
    int64_t   n, m, n_expert, n_tok;
    int64_t   n_tiles, n_groups_of_scales; // of an expert, of a row
    size_t    tile_size, act_size;
    bool      interleaved, mapped, has_rest;
    int64_t   most;   // tiles of a run
    int       width;  // tokens side by side in what the rest is multiplied with

    explicit mul_mat_id_sizes(const ggml_tensor * dst) {
        const ggml_tensor * w = dst->src[0];
        type     = w->type;
        n        = w->ne[0];
        m        = w->ne[1];
        n_expert = w->ne[2];
        n_tok    = dst->ne[1];

        n_tiles            = (m + SPK_ROWS - 1)/SPK_ROWS;
        n_groups_of_scales = n/128;
        tile_size          = SPK_ROWS*ggml_row_size(type, n);
        act_size           = dst->src[1]->nb[1];

        interleaved = w->buffer && w->buffer->buft == spk_buffer_type();
        mapped      = w->buffer && strcmp(ggml_backend_buffer_name(w->buffer), "CPU_Mapped") == 0;
        has_rest    = dst->src[3] && ggml_nelements(dst->src[3]) > 0;
        most        = spk_most_tiles(tile_size, n_tiles, n_tok);
        width       = n_tok == 1 ? 1 : SPK_BATCH;
    }

    int64_t max_groups() const { return n_tok/spk_get_isa().n_tok + std::min(n_expert, n_tok); }
    int64_t max_blocks() const { return n_tok/SPK_BATCH + std::min(n_expert, n_tok); }    // of SPK_BATCH tokens or less
    int64_t max_packed() const { return spk_get_isa().pack_batch ? n_tok/SPK_BATCH : 0; } // whole ones

    // per thread: tokens by expert, where each expert begins, the groups; interleaved tiles of a run, their scales (I8), results of a group
    size_t order_size()  const { return GGML_PAD((n_tok + n_expert + 1 + 4*max_groups())*sizeof(int32_t), 64); }
    size_t pack_size()   const { return interleaved || n_tok < MIN_TO_PACK ? 0 : GGML_PAD(most*tile_size, 64); }
    size_t scales_size() const { return type == GGML_TYPE_I8 ? GGML_PAD(most*n_groups_of_scales*SPK_ROWS*sizeof(float), 64) : 0; }
    size_t results_at()  const { return order_size() + pack_size() + scales_size(); }
    size_t thread_size() const { return results_at() + GGML_PAD(std::min<int64_t>(spk_get_isa().n_tok, n_tok)*most*SPK_ROWS*sizeof(float), 64) + 64; }

    // shared: tokens of whole blocks packed side by side; activations of all blocks, for the rest (of one token: each thread its own)
    size_t batch_size()  const { return n/32*spk_get_isa().batch_block; }
    size_t spread_size() const { return has_rest ? n*width*sizeof(int32_t) : 0; }
    bool   own_spread()  const { return n_tok == 1; }

    size_t batches_at(int n_threads) const { return n_threads*thread_size(); }
    size_t spread_at (int n_threads) const { return batches_at(n_threads) + GGML_PAD(max_packed()*batch_size(), 64); }
    size_t end_at    (int n_threads) const { return spread_at (n_threads) + (own_spread() ? n_threads : max_blocks())*spread_size(); }
};

// tokens of one expert, from `first` of the sorted ones on; block: of all blocks, their first one; packed: their first batch, -1: none
struct id_group {
    int32_t first, n_tok, block, packed;
};

struct mul_mat_id {
    const spk_isa & isa;
    const mul_mat_id_sizes sizes;
    ggml_tensor   * dst;
    uint8_t       * own;     // this thread's part of the work buffer
    uint8_t       * batches; // shared
    uint8_t       * spread;

    int32_t  * order  = (int32_t *) own;              // [n_tok]
    int32_t  * begin  = order + sizes.n_tok;             // [n_expert + 1] groups of an expert
    id_group * groups = (id_group *) (begin + sizes.n_expert + 1);

    const spk_product product = spk_product::of(dst, sizes.width);
    const float   * scales     = product.scales;
    const float   * weights    = dst->src[6] ? (const float *) dst->src[6]->data : nullptr;
    const float   * residual   = dst->src[7] ? (const float *) dst->src[7]->data : nullptr;

    // every thread sorts for itself: cheaper than a barrier
    void sort_tokens() const {
        const int32_t * ids = (const int32_t *) dst->src[5]->data;
        memset(begin, 0, (sizes.n_expert + 1)*sizeof(int32_t));
        for (int64_t t = 0; t < sizes.n_tok; ++t) {
            GGML_ASSERT(ids[t] >= 0 && ids[t] < sizes.n_expert);
            ++begin[ids[t] + 1];
        }
        int32_t n_groups = 0, n_blocks = 0, n_packed = 0, at = 0;
        for (int64_t e = 0; e < sizes.n_expert; ++e) {
            const int32_t n_tok = begin[e + 1];
            begin[e] = n_groups;
            for (int32_t i = 0; i < n_tok; i += isa.n_tok) {
                const int32_t n = std::min<int32_t>(isa.n_tok, n_tok - i);
                const bool packed = n >= SPK_BATCH && isa.pack_batch && (sizes.interleaved || n_tok >= MIN_TO_PACK);
                groups[n_groups++] = { at + i, n, n_blocks, packed ? n_packed : -1 };
                n_blocks += (n + SPK_BATCH - 1)/SPK_BATCH;
                n_packed += packed ? n/SPK_BATCH : 0;
            }
            for (int32_t t = 0, i = 0; i < n_tok; ++t) {
                if (ids[t] == e) {
                    order[at + i++] = t;
                }
            }
            at += n_tok;
        }
        begin[sizes.n_expert] = n_groups;
    }

    void get_tokens(ggml_spk_row * tokens, const id_group & group) const {
        for (int32_t t = 0; t < group.n_tok; ++t) {
            tokens[t] = ggml_spk_row_get((const char *) dst->src[1]->data + order[group.first + t]*sizes.act_size, sizes.n);
        }
    }

    void * batch(const id_group & group, int32_t i = 0) const { return group.packed < 0 ? nullptr : batches + (group.packed + i)*sizes.batch_size(); }

    void * spread_of(int32_t block) const { return spread + (sizes.own_spread() ? 0 : block*product.spread_size()); }

    // what groups read that is made once; true: others must wait for it
    bool prepare(int ith, int nth) const {
        bool any = false;
        for (int32_t g = 0; g < begin[sizes.n_expert]; ++g) {
            const id_group & group = groups[g];
            any = any || group.packed >= 0 || (sizes.has_rest && !sizes.own_spread());
            for (int32_t i = 0; i*SPK_BATCH < group.n_tok; ++i) {
                if ((group.block + i) % nth != ith && !sizes.own_spread()) {
                    continue;
                }
                ggml_spk_row tokens[SPK_MOST_TOKENS];
                get_tokens(tokens, group);
                const int32_t n_tok = std::min(SPK_BATCH, group.n_tok - i*SPK_BATCH);
                if (group.packed >= 0 && n_tok == SPK_BATCH) {
                    isa.pack_batch(batch(group, i), sizes.type, sizes.n, tokens + i*SPK_BATCH);
                }
                if (sizes.has_rest) {
                    product.spread(spread_of(group.block + i), tokens + i*SPK_BATCH, n_tok);
                }
            }
        }
        return any;
    }

    // what follows the product, for n rows from r0 on of a token; a loop each, as in mul-mat.cpp
    void finish(float * result, int64_t r0, int64_t n, int64_t token) const {
        const int64_t at = token*sizes.m + r0;
        for (int64_t r = 0; weights && r < n; ++r) {
            result[r] *= weights[token];
        }
        for (int64_t r = 0; residual && r < n; ++r) {
            result[r] += residual[at + r];
        }
        memcpy((float *) dst->data + at, result, n*sizeof(float));
    }

    // tiles tile0 .. tile1 of an expert
    void run_chunk(int64_t expert, int64_t tile0, int64_t tile1) const {
        const bool      pack    = !sizes.interleaved && groups[begin[expert]].n_tok >= MIN_TO_PACK; // the first group is the largest
        const bool      by_tile = sizes.interleaved || pack;
        const uint8_t * w       = (const uint8_t *) dst->src[0]->data + expert*dst->src[0]->nb[2];
        uint8_t       * packed  = own + sizes.order_size();
        float         * packed_scales = (float *) (packed + sizes.pack_size());
        float         * results = (float *) (own + sizes.results_at());
        const int64_t   n_scales = sizes.n_groups_of_scales, stride = (tile1 - tile0)*SPK_ROWS, row0 = tile0*SPK_ROWS;

        for (int64_t i = tile0; i < tile1; ++i) {
            if (pack) {
                spk_pack_tile(sizes.type, packed + (i - tile0)*sizes.tile_size, w + i*sizes.tile_size, sizes.n, n_rows(i));
            }
            if (scales && by_tile) {
                spk_pack_scales(packed_scales + (i - tile0)*n_scales*SPK_ROWS, scales + (expert*sizes.m + i*SPK_ROWS)*n_scales, n_scales, n_rows(i));
            }
        }
        for (int32_t g = begin[expert]; g < begin[expert + 1]; ++g) {
            ggml_spk_row tokens[SPK_MOST_TOKENS];
            get_tokens(tokens, groups[g]);
            for (int64_t i = tile0; i < tile1; ++i) {
                const float * tile_scales = by_tile ? packed_scales + (i - tile0)*n_scales*SPK_ROWS : scales + (expert*sizes.m + i*SPK_ROWS)*n_scales;
                product.run_tile(pack ? packed + (i - tile0)*sizes.tile_size : w + i*sizes.tile_size, tile_scales, by_tile, expert*sizes.m + i*SPK_ROWS, n_rows(i), tokens, groups[g].n_tok,
                    batch(groups[g]), spread_of(groups[g].block), results + (i - tile0)*SPK_ROWS, stride);
            }
            for (int32_t t = 0; t < groups[g].n_tok; ++t) {
                finish(results + t*stride, row0, std::min(tile1*SPK_ROWS, sizes.m) - row0, order[groups[g].first + t]);
            }
        }
    }

    int n_rows(int64_t tile) const { return (int) std::min<int64_t>(SPK_ROWS, sizes.m - tile*SPK_ROWS); }

    int64_t n_chosen() const {
        int64_t n = 0;
        for (int64_t e = 0; e < sizes.n_expert; ++e) {
            n += begin[e] < begin[e + 1];
        }
        return n;
    }

    // of all units: a run of each expert that is chosen, then the next of each; of a file, one expert after the other, as it is read
    struct unit { int64_t expert, tile0, tile1; };

    unit get_unit(spk_runs & run, int64_t n_runs, int64_t i) const {
        int64_t expert = 0;
        for (int64_t before = sizes.mapped ? i/n_runs : i % run.n_times; begin[expert] == begin[expert + 1] || before-- > 0; ++expert) {
        }
        run.go_to(sizes.mapped ? i % n_runs : i/run.n_times);
        return { expert, run.begin, run.end() };
    }

    // asks for the scales of a unit that this thread will likely take next: they lie apart from the weights, so no processor foresees them
    void prefetch_scales(const unit & u) const {
        const float * first = scales + (u.expert*sizes.m + u.tile0*SPK_ROWS)*sizes.n_groups_of_scales;
        const int64_t n = (std::min(u.tile1*SPK_ROWS, sizes.m) - u.tile0*SPK_ROWS)*sizes.n_groups_of_scales;
        for (int64_t i = 0; i < n; i += 64/sizeof(float)) {
            __builtin_prefetch(first + i, 0, 2);
        }
    }

    // of a file that is read as it is touched, a page at a time: a chosen expert is asked for as a whole
    void ask_for(int64_t expert) const {
#if defined(__unix__) || defined(__APPLE__)
        const uintptr_t page = sysconf(_SC_PAGESIZE), size = dst->src[0]->nb[2], first = (uintptr_t) dst->src[0]->data + expert*size, begin = first/page*page;
        madvise((void *) begin, first + size - begin, MADV_WILLNEED); // only advice: what fails is read as before
#elif defined(_WIN32)
        const size_t size = dst->src[0]->nb[2];
        WIN32_MEMORY_RANGE_ENTRY range = { (char *) dst->src[0]->data + expert*size, size };
        PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
#else
        GGML_UNUSED(expert);
#endif
    }
};

} // namespace

size_t spk_mul_mat_id_work_size(const ggml_tensor * dst, int n_tasks) {
    return 64 + mul_mat_id_sizes(dst).end_at(n_tasks);
}

void spk_mul_mat_id(const ggml_compute_params * params, ggml_tensor * dst) {
    const mul_mat_id_sizes sizes(dst);
    const int ith = params->ith, nth = params->nth;
    uint8_t * work = (uint8_t *) GGML_PAD((uintptr_t) params->wdata, 64);

    const mul_mat_id mm = {
        spk_get_isa(), sizes, dst, work + ith*sizes.thread_size(), work + sizes.batches_at(nth),
        work + sizes.spread_at(nth) + (sizes.own_spread() ? ith*sizes.spread_size() : 0),
    };
    mm.sort_tokens();
    if (mm.prepare(ith, nth)) {
        ggml_barrier(params->threadpool);
    }
    spk_runs run(sizes.n_tiles, nth, SPK_LEAST_SIZE/sizes.tile_size, sizes.most, mm.n_chosen()), ahead = run;
    const int64_t n_runs = run.count(), n_units = n_runs*run.n_times;
    const spk_chunks chunks(params, n_units);
    for (int64_t i = chunks.take(); i < n_units; i = chunks.take()) {
        if (mm.scales && i + nth < n_units) {
            mm.prefetch_scales(mm.get_unit(ahead, n_runs, i + nth));
        }
        const auto u = mm.get_unit(run, n_runs, i);
        if (sizes.mapped && u.tile0 == 0) {
            mm.ask_for(u.expert);
        }
        mm.run_chunk(u.expert, u.tile0, u.tile1);
    }
}
