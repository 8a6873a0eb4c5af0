#pragma once

#include "ggml-cpu-impl.h"

#ifdef __cplusplus
extern "C" {
#endif

// called from ggml-cpu.c for every operator of GGML_SPK_OPS

void   ggml_compute_forward_spikingbrain(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// bytes of work buffer that n_tasks threads need together
size_t ggml_spikingbrain_work_size(const struct ggml_tensor * dst, int n_tasks);

#ifdef __cplusplus
}
#endif
