#pragma once

// The CPU backend by its registry: with SPIKINGBRAIN_VARIANTS it is a library chosen at run time, not linked with.

#include "ggml.h"
#include "ggml-backend.h"

static inline ggml_backend_reg_t cpu_reg() {
    static const bool loaded = (ggml_backend_load_all(), true);
    GGML_ASSERT(loaded);
    return ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
}

static inline ggml_backend_t cpu_backend() {
    static const ggml_backend_t cpu = ggml_backend_dev_init(ggml_backend_reg_dev_get(cpu_reg(), 0), nullptr);
    return cpu;
}

static inline void cpu_compute(ggml_cgraph * gf, int n_threads) {
    static const auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(cpu_reg(), "ggml_backend_set_n_threads");
    set_n_threads(cpu_backend(), n_threads);
    GGML_ASSERT(ggml_backend_graph_compute(cpu_backend(), gf) == GGML_STATUS_SUCCESS);
}
