#include "spk-isa.h"

// a row of a thread, normed
static size_t normed_size(const ggml_tensor * dst) {
    return dst->src[1] ? GGML_PAD(dst->src[0]->ne[0]*sizeof(float), 64) : 0;
}

size_t spk_encode_work_size(const ggml_tensor * dst, int n_tasks) {
    return n_tasks*normed_size(dst);
}

void spk_encode(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * x = dst->src[0], * weight = dst->src[1];
    const float k = ggml_get_op_params_f32(dst, GGML_SPK_ENCODE_K);
    const auto encoding = (ggml_spk_encoding) ggml_get_op_params_i32(dst, GGML_SPK_ENCODE_ENCODING);
    const spk_norm norm = {
        weight ? (const float *) weight->data : nullptr, weight ? weight->ne[0] : 0, ggml_get_op_params_f32(dst, GGML_SPK_ENCODE_EPS),
        (float *) ((char *) params->wdata + params->ith*normed_size(dst)),
    };

    for (int64_t t = params->ith; t < x->ne[1]; t += params->nth) {
        spk_get_isa().encode_row((char *) dst->data + t*dst->nb[1], (const float *) ((const char *) x->data + t*x->nb[1]), x->ne[0], k, encoding, norm);
    }
}
