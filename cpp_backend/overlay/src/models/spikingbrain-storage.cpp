#include "spikingbrain-storage.h"

#include "../llama-impl.h"

#include <cstring>
#include <stdexcept>

//
// allocation
//

spikingbrain_storage::spikingbrain_storage(const spikingbrain_sequences & seqs, const spikingbrain_storage_params & params) :
    seqs(seqs), params(params), layers(params.layers.size()) {
    for (size_t il = 0; il < layers.size(); ++il) {
        make_layer(il, params.layers[il]);
    }
    for (auto & [buft, dev] : devices) {
        allocate(buft, dev);
    }
}

ggml_context * spikingbrain_storage::context_of(ggml_backend_buffer_type_t buft) {
    device & dev = devices[buft];
    if (!dev.ctx) {
        dev.ctx.reset(ggml_init({ (3*layers.size() + 1)*ggml_tensor_overhead(), nullptr, true }));
        dev.plans = ggml_new_tensor_2d(dev.ctx.get(), GGML_TYPE_I32, GGML_SPK_PLAN_N, seqs.size());
    }
    return dev.ctx.get();
}

void spikingbrain_storage::make_layer(int il, const spikingbrain_layer_memory & what) {
    const int64_t d = params.d, n_seqs = seqs.size();
    ggml_context * ctx = context_of(what.buft);
    layer & l = layers[il];
    if (what.state) {
        l.s = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, d, ggml_spk_gla_rows(d, params.n_kv, n_states(), n_journal()*n_seqs));
        ggml_format_name(l.s, "cache_s_l%d", il);
    }
    if (what.window > 0) {
        const bool grows = what.window == spikingbrain_layer_memory::ALL;
        l.n_ring = grows ? params.n_positions : what.window + seqs.n_back() + params.n_ubatch;
        l.window = grows ? params.n_positions : what.window;
        const auto width = [d](ggml_type type) { return type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(d) : d; };
        l.k = ggml_new_tensor_3d(ctx, params.type_k, width(params.type_k), l.n_ring*n_seqs, params.n_kv);
        l.v = ggml_new_tensor_3d(ctx, params.type_v, width(params.type_v), l.n_ring*n_seqs, params.n_kv);
        ggml_format_name(l.k, "cache_k_l%d", il);
        ggml_format_name(l.v, "cache_v_l%d", il);
    }
}

void spikingbrain_storage::allocate(ggml_backend_buffer_type_t buft, device & dev) {
    if (params.no_alloc) {
        dev.buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));
        for (ggml_tensor * t = ggml_get_first_tensor(dev.ctx.get()); t != nullptr; t = ggml_get_next_tensor(dev.ctx.get(), t)) {
            t->buffer = dev.buf.get();
        }
    } else {
        dev.buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(dev.ctx.get(), buft));
    }
    if (!dev.buf) {
        throw std::runtime_error(format("spikingbrain: memory: could not allocate %.2f MiB for %zu sequences in %s; use fewer sequences or a smaller n_ubatch",
            ggml_backend_alloc_ctx_tensors_from_buft_size(dev.ctx.get(), buft)/1024.0/1024.0, seqs.size(), ggml_backend_buft_name(buft)));
    }
    if (ggml_backend_buffer_is_host(dev.buf.get())) {
        ggml_spk_advise_huge_pages(ggml_backend_buffer_get_base(dev.buf.get()), ggml_backend_buffer_get_size(dev.buf.get()));
    }
    ggml_backend_buffer_clear(dev.buf.get(), 0);
}

std::map<ggml_backend_buffer_type_t, size_t> spikingbrain_storage::memory_breakdown() const {
    std::map<ggml_backend_buffer_type_t, size_t> result;
    for (const auto & [buft, dev] : devices) {
        result[buft] = params.no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(dev.ctx.get(), buft) : ggml_backend_buffer_get_size(dev.buf.get());
    }
    return result;
}

size_t spikingbrain_storage::bytes_per_entry() const {
    size_t n = 0;
    for (size_t il = 0; il < layers.size(); ++il) {
        n += layers[il].s ? 2*entry_bytes() : 0;
        n += layers[il].k && params.layers[il].window != spikingbrain_layer_memory::ALL ?
            (ggml_row_size(params.type_k, layers[il].k->ne[0]) + ggml_row_size(params.type_v, layers[il].v->ne[0]))*params.n_kv : 0;
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
            ggml_build_forward_expand(gf, ggml_spk_gla_update(ctx.get(), l.s, nullptr, nullptr, nullptr, in, nullptr, params.n_kv, n_states(), n_journal()));
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
    GGML_ASSERT(seqs.row_initial() >= 0 && layers[il].s);
    ggml_backend_tensor_set(layers[il].s, state, seqs.row_initial()*state_bytes(), state_bytes());
}

void spikingbrain_storage::clear() {
    for (const auto & l : layers) {
        if (l.s) {
            const size_t begin = seqs.size()*seqs.N_STATES*state_bytes(), end = seqs.n_rows()*state_bytes();
            ggml_backend_tensor_memset(l.s, 0, 0, begin);
            ggml_backend_tensor_memset(l.s, 0, end, ggml_nbytes(l.s) - end);
        }
        if (l.k) {
            ggml_backend_tensor_memset(l.k, 0, 0, ggml_nbytes(l.k));
            ggml_backend_tensor_memset(l.v, 0, 0, ggml_nbytes(l.v));
        }
    }
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
    for (const auto & l : layers) {
        if (l.s) {
            const size_t slot = seqs.N_STATES*state_bytes(), journal = n_journal()*entry_bytes(), entries = n_states()*state_bytes();
            copy_bytes(l.s, src*slot, dst*slot, slot);
            copy_bytes(l.s, entries + src*journal, entries + dst*journal, journal);
        }
        for_each_row(l, src, seqs.n_back(), [&](ggml_tensor * t, size_t offset, size_t size) {
            copy_bytes(t, offset, offset + (dst - src)*(int64_t) l.n_ring*(int64_t) t->nb[1], size);
        });
    }
}
