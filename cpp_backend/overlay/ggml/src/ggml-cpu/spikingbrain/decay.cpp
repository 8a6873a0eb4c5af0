#include "spk-ops.h"

#include <algorithm>
#include <cmath>

// logsigmoid(x) = -softplus(-x) = -log(1 + exp(-x))
void spk_decay(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * bias = dst->src[1];
    const float   norm = ggml_get_op_params_f32(dst, 0);
    const int64_t n = dst->ne[0], n_all = ggml_nelements(dst);
    const int64_t part = (n_all + params->nth - 1)/params->nth, begin = params->ith*part, end = std::min(begin + part, n_all);
    const float * x = (const float *) dst->src[0]->data;
    float       * y = (float *) dst->data;

    for (int64_t i = begin; i < end; ++i) {
        const float v = bias ? x[i] + ((const float *) bias->data)[i % n] : x[i];
        y[i] = expf(ggml_compute_softplus_f32(-v)*(-1.0f/norm));
    }
}
