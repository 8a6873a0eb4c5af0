#include "spk-ops.h"

void spk_top1(const ggml_compute_params * params, ggml_tensor * dst) {
    const int64_t n = dst->src[0]->ne[0];

    for (int64_t t = params->ith; t < dst->ne[1]; t += params->nth) {
        const float * x = (const float *) dst->src[0]->data + t*n;
        int32_t best = 0;
        for (int32_t i = 1; i < n; ++i) {
            best = x[i] > x[best] ? i : best;
        }
        ((int32_t *) dst->data)[t] = best;
    }
}
