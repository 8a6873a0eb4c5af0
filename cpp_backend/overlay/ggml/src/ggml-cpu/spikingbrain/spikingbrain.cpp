#include "spk-ops.h"

void ggml_compute_forward_spikingbrain(const ggml_compute_params * params, ggml_tensor * dst) {
    switch (dst->op) {
        case GGML_OP_SPK_GLA:     return spk_gla    (params, dst);
        case GGML_OP_SPK_GLA_UPDATE: return spk_gla_update(params, dst);
        case GGML_OP_SPK_SWA:     return spk_swa    (params, dst);
        case GGML_OP_SPK_ROPE:    return spk_rope   (params, dst);
        case GGML_OP_SPK_DECAY:   return spk_decay  (params, dst);
        case GGML_OP_SPK_STORE:   return spk_store  (params, dst);
        case GGML_OP_SPK_ENCODE:  return spk_encode (params, dst);
        case GGML_OP_SPK_DECODE:  return spk_decode (params, dst);
        case GGML_OP_SPK_MUL_MAT: return spk_mul_mat(params, dst);
        case GGML_OP_SPK_MUL_MAT_ID: return spk_mul_mat_id(params, dst);
        case GGML_OP_SPK_TOP1:    return spk_top1   (params, dst);
        case GGML_OP_SPK_KEY:     return spk_key    (params, dst);
        default: GGML_ABORT("spikingbrain: operator: got %s, expected one of GGML_SPK_OPS", ggml_op_name(dst->op));
    }
}

size_t ggml_spikingbrain_work_size(const ggml_tensor * dst, int n_tasks) {
    switch (dst->op) {
        case GGML_OP_SPK_GLA:
        case GGML_OP_SPK_GLA_UPDATE: return spk_gla_work_size (dst, n_tasks);
        case GGML_OP_SPK_SWA:     return spk_swa_work_size    (dst, n_tasks);
        case GGML_OP_SPK_ENCODE:  return spk_encode_work_size (dst, n_tasks);
        case GGML_OP_SPK_MUL_MAT: return spk_mul_mat_work_size(dst, n_tasks);
        case GGML_OP_SPK_MUL_MAT_ID: return spk_mul_mat_id_work_size(dst, n_tasks);
        default:              return 0;
    }
}
