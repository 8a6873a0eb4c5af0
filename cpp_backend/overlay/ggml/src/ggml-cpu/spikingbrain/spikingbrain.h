#pragma once

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"

#ifdef __cplusplus
extern "C" {
#endif

// called from ggml-cpu.c for every operator of GGML_SPK_OPS

void   ggml_compute_forward_spikingbrain(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// bytes of work buffer that n_tasks threads need together
size_t ggml_spikingbrain_work_size(const struct ggml_tensor * dst, int n_tasks);

// the extra buffer type of SPK_MUL_MAT's weights, "CPU_SPK"
ggml_backend_buffer_type_t ggml_spikingbrain_buffer_type(void);

// a thread that has looked n_looks times for others: lets them have its CPU if that is long; returns in how many looks' time
uint64_t ggml_spikingbrain_wait(uint64_t n_looks);

// what ggml_backend_reg_get_proc_address finds: "ggml_spk_isa", "ggml_spk_has_kernels"
void * ggml_spikingbrain_proc_address(const char * name);

#ifdef __cplusplus
}
#endif
