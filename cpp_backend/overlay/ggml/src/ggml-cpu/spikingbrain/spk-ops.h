#pragma once

#include "ggml-spikingbrain.h"
#include "ggml-impl.h"
#include "spikingbrain.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <cstdint>

// contracts: ggml-spikingbrain.h. The work buffer holds one equal part per thread, plus what threads share.

void spk_gla    (const ggml_compute_params * params, ggml_tensor * dst);
void spk_gla_update(const ggml_compute_params * params, ggml_tensor * dst);
void spk_swa    (const ggml_compute_params * params, ggml_tensor * dst);
void spk_rope   (const ggml_compute_params * params, ggml_tensor * dst);
void spk_decay  (const ggml_compute_params * params, ggml_tensor * dst);
void spk_store  (const ggml_compute_params * params, ggml_tensor * dst);
void spk_encode (const ggml_compute_params * params, ggml_tensor * dst);
void spk_decode (const ggml_compute_params * params, ggml_tensor * dst);
void spk_mul_mat(const ggml_compute_params * params, ggml_tensor * dst);
void spk_mul_mat_id(const ggml_compute_params * params, ggml_tensor * dst);
void spk_top1   (const ggml_compute_params * params, ggml_tensor * dst);
void spk_key    (const ggml_compute_params * params, ggml_tensor * dst);

size_t spk_encode_work_size(const ggml_tensor * dst, int n_tasks);
size_t spk_gla_work_size(const ggml_tensor * dst, int n_tasks);
size_t spk_swa_work_size(const ggml_tensor * dst, int n_tasks);
size_t spk_mul_mat_work_size(const ggml_tensor * dst, int n_tasks);
size_t spk_mul_mat_id_work_size(const ggml_tensor * dst, int n_tasks);
