#include "spk-ops.h"

void spk_rope(const ggml_compute_params * params, ggml_tensor * dst) {
    const int64_t half   = dst->ne[0]/2;
    const int64_t n_head = dst->ne[1];
    const int64_t n_rows = n_head*dst->ne[2];

    for (int64_t r = params->ith; r < n_rows; r += params->nth) {
        const float * x = (const float *) dst->src[0]->data + r*2*half;
        const float * c = (const float *) dst->src[1]->data + r/n_head*2*half;
        const float * s = c + half;
        float       * y = (float *) dst->data + r*2*half;
        for (int64_t i = 0; i < half; ++i) {
            y[i]        = x[i]*c[i] - x[i + half]*s[i];
            y[i + half] = x[i + half]*c[i] + x[i]*s[i];
        }
    }
}
