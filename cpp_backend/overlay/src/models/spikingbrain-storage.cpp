#include "spikingbrain-storage.h"

#include "../llama-impl.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

//
// allocation
//

spikingbrain_storage::spikingbrain_storage(const spikingbrain_sequences & seqs, const spikingbrain_storage_params & params) :
    seqs(seqs), params(params), layers(params.layers.size()), reached(seqs.size()) {
    for (size_t il = 0; il < layers.size(); ++il) {
        make_layer(il, params.layers[il]);
    }
    for (auto & [buft, dev] : devices) {
        dev.buf = allocate(buft, dev.ctx.get());
        ggml_backend_buffer_clear(dev.buf.get(), 0);
        if (ggml_get_first_tensor(dev.ctx_caches.get())) {
            dev.buf_caches = allocate(buft, dev.ctx_caches.get()); // as it is: to clear it would be to use all of it
        }
    }
}

spikingbrain_storage::device & spikingbrain_storage::device_of(ggml_backend_buffer_type_t buft) {
    device & dev = devices[buft];
    if (!dev.ctx) {
        dev.ctx.reset       (ggml_init({ (3*layers.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
        dev.ctx_caches.reset(ggml_init({ (2*layers.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
        dev.plans = ggml_new_tensor_2d(dev.ctx.get(), GGML_TYPE_I32, GGML_SPK_PLAN_N, seqs.size());
    }
    return dev;
}

void spikingbrain_storage::make_layer(int il, const spikingbrain_layer_memory & what) {
    const int64_t d = params.d, n_seqs = seqs.size();
    device & dev = device_of(what.buft);
    layer & l = layers[il];
    if (what.state) {
        l.n_head = what.n_head > 0 ? what.n_head : params.n_kv;
        l.s = ggml_new_tensor_2d(dev.ctx.get(), GGML_TYPE_F32, d, ggml_spk_gla_rows(d, l.n_head, n_states(), n_journal()*n_seqs));
        ggml_format_name(l.s, "cache_s_l%d", il);
    }
    if (what.window > 0) {
        l.grows  = what.window == spikingbrain_layer_memory::ALL;
        l.n_ring = l.grows ? params.n_positions : what.window + seqs.n_back() + params.n_ubatch;
        l.window = l.grows ? params.n_positions : what.window;
        const auto ring = [&](ggml_type type) {
            return ggml_new_tensor_3d(l.grows ? dev.ctx_caches.get() : dev.ctx.get(), type, type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(d) : d,
                l.n_ring*n_seqs + params.n_sinks, params.n_kv);
        };
        l.k = ring(params.type_k);
        l.v = ring(params.type_v);
        ggml_format_name(l.k, "cache_k_l%d", il);
        ggml_format_name(l.v, "cache_v_l%d", il);
    }
}

ggml_backend_buffer_ptr spikingbrain_storage::allocate(ggml_backend_buffer_type_t buft, ggml_context * ctx) const {
    ggml_backend_buffer_ptr buf;
    if (params.no_alloc) {
        buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != nullptr; t = ggml_get_next_tensor(ctx, t)) {
            t->buffer = buf.get();
        }
    } else {
        buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft));
    }
    if (!buf) {
        throw std::runtime_error(format("spikingbrain: memory: could not allocate %.2f MiB for %zu sequences in %s; use fewer sequences, a smaller n_ubatch or n_ctx",
            ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, buft)/1024.0/1024.0, seqs.size(), ggml_backend_buft_name(buft)));
    }
    if (ggml_backend_buffer_is_host(buf.get())) {
        ggml_spk_advise_huge_pages(ggml_backend_buffer_get_base(buf.get()), ggml_backend_buffer_get_size(buf.get()));
    }
    return buf;
}

std::map<ggml_backend_buffer_type_t, size_t> spikingbrain_storage::memory_breakdown() const {
    std::map<ggml_backend_buffer_type_t, size_t> result;
    for (const auto & [buft, dev] : devices) {
        const auto size = [this, type = buft](ggml_context * ctx, ggml_backend_buffer_t buf) {
            return params.no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, type) : buf ? ggml_backend_buffer_get_size(buf) : 0;
        };
        result[buft] = size(dev.ctx.get(), dev.buf.get()) + size(dev.ctx_caches.get(), dev.buf_caches.get());
    }
    return result;
}

size_t spikingbrain_storage::bytes_per_entry() const {
    size_t n = 0;
    for (size_t il = 0; il < layers.size(); ++il) {
        n += layers[il].s ? 2*entry_bytes(layers[il]) : 0;
        n += layers[il].k && !layers[il].grows ?
            (ggml_row_size(params.type_k, layers[il].k->ne[0]) + ggml_row_size(params.type_v, layers[il].v->ne[0]))*params.n_kv : 0;
    }
    return n;
}

size_t spikingbrain_storage::bytes_of_caches() const {
    size_t n = 0;
    for (const layer & l : layers) {
        n += l.grows ? ggml_nbytes(l.k) + ggml_nbytes(l.v) : 0;
    }
    return n;
}

//
// computing
//

ggml_spk_plan spikingbrain_storage::plan(const spikingbrain_advance & advance) {
    ggml_spk_plan p = {};
    for (size_t i = 0; i < 2; ++i) {
        p.steps[i].dst = -1;
        if (i < advance.steps.size()) {
            const auto & step = advance.steps[i];
            p.steps[i] = { step.src, step.dst, step.journal, step.first, step.n };
        }
    }
    p.slot          = advance.seq;
    p.journal_at    = advance.journal_at;
    p.journal_token = advance.journal_token;
    return p;
}

ggml_backend_t spikingbrain_storage::backend_of(ggml_backend_buffer_type_t buft, device & dev) {
    if (!dev.backend) {
        ggml_backend_dev_t d = ggml_backend_buft_get_device(buft);
        d = d ? d : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); // that of the plain CPU buffer type
        dev.backend.reset(d ? ggml_backend_dev_init(d, nullptr) : nullptr);
        if (!dev.backend) {
            throw std::runtime_error(format("spikingbrain: memory: could not open a backend for %s; load the model again", ggml_backend_buft_name(buft)));
        }
        const auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(d), "ggml_backend_set_n_threads");
        if (set_n_threads) {
            set_n_threads(dev.backend.get(), params.n_threads);
        }
    }
    return dev.backend.get();
}

void spikingbrain_storage::run(const std::vector<spikingbrain_advance> & todo) {
    if (todo.empty() || params.no_alloc) {
        return;
    }
    std::vector<ggml_spk_plan> plans;
    for (const auto & advance : todo) {
        plans.push_back(plan(advance));
    }
    for (auto & [buft, dev] : devices) {
        run_on(buft, dev, plans);
    }
}

void spikingbrain_storage::run_on(ggml_backend_buffer_type_t buft, device & dev, const std::vector<ggml_spk_plan> & plans) {
    ggml_context_ptr ctx(ggml_init({ ggml_graph_overhead() + (2*layers.size() + 2)*ggml_tensor_overhead(), nullptr, true }));
    ggml_tensor * in = ggml_view_2d(ctx.get(), dev.plans, GGML_SPK_PLAN_N, plans.size(), dev.plans->nb[1], 0);
    ggml_cgraph * gf = ggml_new_graph(ctx.get());
    for (const auto & l : layers) {
        if (l.s && l.s->buffer == dev.buf.get()) {
            ggml_build_forward_expand(gf, ggml_spk_gla_update(ctx.get(), l.s, nullptr, nullptr, nullptr, in, nullptr, l.n_head, n_states(), n_journal()));
        }
    }
    if (ggml_graph_n_nodes(gf) == 0) {
        return;
    }
    for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
        ggml_backend_view_init(t);
    }
    ggml_backend_tensor_set(in, plans.data(), 0, plans.size()*sizeof(ggml_spk_plan));
    const ggml_status status = ggml_backend_graph_compute(backend_of(buft, dev), gf);
    if (status != GGML_STATUS_SUCCESS) {
        throw std::runtime_error(format("spikingbrain: memory: got status %d of %s, expected its states to be computed; decode the sequences again", (int) status, ggml_backend_buft_name(buft)));
    }
}

//
// bytes
//

void spikingbrain_storage::set_initial(int il, const float * state) {
    const layer & l = layers[il];
    GGML_ASSERT(seqs.row_initial() >= 0 && l.s);
    ggml_backend_tensor_set(l.s, state, seqs.row_initial()*state_bytes(l), state_bytes(l));
}

// as ggml_spk_store writes INT8 rows
static void set_codes(int8_t * row, const float * x, int64_t d) {
    float max = 0.0f;
    for (int64_t i = 0; i < d; ++i) {
        max = std::max(max, std::fabs(x[i]));
    }
    const float scale = std::min(std::max(max/127.0f, 1e-5f), 1e4f);
    for (int64_t i = 0; i < d; ++i) {
        row[i] = (int8_t) std::min(std::max(nearbyintf(x[i]/scale), -127.0f), 127.0f);
    }
    memcpy(row + GGML_SPK_KV_ROW(d) - sizeof(float), &scale, sizeof(float));
}

void spikingbrain_storage::set_sink_rows(ggml_tensor * ring, const float * x) const {
    const int64_t d = params.d, n = params.n_sinks;
    std::vector<uint8_t> rows(n*ring->nb[1]);
    for (int64_t h = 0; h < ring->ne[2]; ++h, x += n*d) {
        switch (ring->type) {
            case GGML_TYPE_F32: memcpy(rows.data(), x, rows.size()); break;
            case GGML_TYPE_F16: ggml_fp32_to_fp16_row(x, (ggml_fp16_t *) rows.data(), n*d); break;
            default:
                for (int64_t j = 0; j < n; ++j) {
                    set_codes((int8_t *) rows.data() + j*ring->nb[1], x + j*d, d);
                }
        }
        ggml_backend_tensor_set(ring, rows.data(), h*ring->nb[2] + (ring->ne[1] - n)*ring->nb[1], rows.size());
    }
}

void spikingbrain_storage::set_sinks(int il, const float * k, const float * v) {
    GGML_ASSERT(params.n_sinks > 0 && layers[il].k);
    set_sink_rows(layers[il].k, k);
    set_sink_rows(layers[il].v, v);
}

void spikingbrain_storage::clear() {
    for (const auto & l : layers) {
        if (l.s) {
            const size_t begin = seqs.size()*seqs.N_STATES*state_bytes(l), end = seqs.n_rows()*state_bytes(l);
            ggml_backend_tensor_memset(l.s, 0, 0, begin);
            ggml_backend_tensor_memset(l.s, 0, end, ggml_nbytes(l.s) - end);
        }
        for (ggml_tensor * t : { l.k, l.v }) {
            for (size_t s = 0; t && s < seqs.size(); ++s) {
                const size_t n = std::min<int32_t>(reached[s], l.n_ring)*t->nb[1];
                for (int64_t h = 0; n > 0 && h < t->ne[2]; ++h) {
                    ggml_backend_tensor_memset(t, 0, h*t->nb[2] + s*l.n_ring*t->nb[1], n);
                }
            }
        }
    }
    std::fill(reached.begin(), reached.end(), 0);
}

void spikingbrain_storage::copy_bytes(ggml_tensor * t, size_t from, size_t to, size_t size) {
    if (ggml_backend_buffer_is_host(t->buffer)) {
        memcpy((char *) t->data + to, (const char *) t->data + from, size);
        return;
    }
    std::vector<uint8_t> bytes(size);
    ggml_backend_tensor_get(t, bytes.data(), from, size);
    ggml_backend_tensor_set(t, bytes.data(), to, size);
}

void spikingbrain_storage::copy(llama_seq_id src, llama_seq_id dst) {
    if (seqs.empty(src) || params.no_alloc) {
        return;
    }
    reach(dst, seqs.last(src));
    for (const auto & l : layers) {
        if (l.s) {
            const size_t slot = seqs.N_STATES*state_bytes(l), journal = n_journal()*entry_bytes(l), entries = n_states()*state_bytes(l);
            copy_bytes(l.s, src*slot, dst*slot, slot);
            copy_bytes(l.s, entries + src*journal, entries + dst*journal, journal);
        }
        for_each_row(l, src, seqs.n_back(), [&](ggml_tensor * t, size_t offset, size_t size) {
            copy_bytes(t, offset, offset + (dst - src)*(int64_t) l.n_ring*(int64_t) t->nb[1], size);
        });
    }
}
