#pragma once

// The CPU backend by its registry: with SPIKINGBRAIN_VARIANTS it is a library chosen at run time, not linked with.

#include "ggml.h"
#include "ggml-backend.h"

#include <cstring>
#include <vector>

static inline ggml_backend_reg_t cpu_reg() {
    static const bool loaded = (ggml_backend_load_all(), true);
    GGML_ASSERT(loaded);
    return ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
}

static inline ggml_backend_t cpu_backend() {
    static const ggml_backend_t cpu = ggml_backend_dev_init(ggml_backend_reg_dev_get(cpu_reg(), 0), nullptr);
    return cpu;
}

static inline ggml_backend_buffer_type_t spk_buffer_type() {
    auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(cpu_reg(), "ggml_backend_dev_get_extra_bufts");
    for (auto * buft = extra(ggml_backend_get_device(cpu_backend())); *buft; ++buft) {
        if (strcmp(ggml_backend_buft_name(*buft), "CPU_SPK") == 0) {
            return *buft;
        }
    }
    GGML_ABORT("no CPU_SPK");
}

static inline void cpu_compute(ggml_cgraph * gf, int n_threads) {
    static const auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(cpu_reg(), "ggml_backend_set_n_threads");
    set_n_threads(cpu_backend(), n_threads);
    GGML_ASSERT(ggml_backend_graph_compute(cpu_backend(), gf) == GGML_STATUS_SUCCESS);
}

// tensors with their data, and what an operator makes of them
struct graph {
    ggml_context * ctx = ggml_init({ 256u << 20, nullptr, false });
    ~graph() { ggml_free(ctx); }

    template <typename T>
    ggml_tensor * tensor(ggml_type type, std::vector<int64_t> ne, const std::vector<T> & data) {
        ggml_tensor * t = ggml_new_tensor(ctx, type, ne.size(), ne.data());
        GGML_ASSERT(ggml_nbytes(t) == data.size()*sizeof(T));
        memcpy(t->data, data.data(), ggml_nbytes(t));
        return t;
    }

    std::vector<float> run(ggml_tensor * t, int n_threads) {
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, t);
        cpu_compute(gf, n_threads);
        return std::vector<float>((float *) t->data, (float *) t->data + ggml_nelements(t));
    }
};
