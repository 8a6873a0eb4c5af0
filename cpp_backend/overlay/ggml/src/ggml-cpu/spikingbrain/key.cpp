#include "spk-ops.h"

#include <algorithm>
#include <cmath>

void spk_key(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * z = dst->src[0];
    const ggml_tensor * bound = dst->src[1];
    const float   k_max = ggml_get_op_params_f32(dst, 0), w_min = 1.0f - k_max;
    const int64_t d = dst->ne[0], n_heads = dst->ne[1], n_group = n_heads/z->ne[1], n_rows = n_heads*dst->ne[2];

    for (int64_t r = params->ith; r < n_rows; r += params->nth) {
        const float * x = (const float *) z->data + (r/n_heads*z->ne[1] + r % n_heads/n_group)*d;
        const float * b = bound ? (const float *) bound->data + r % n_heads*d : nullptr;
        float       * k = (float *) dst->data + r*d;
        float       * w = k + n_rows*d;
        for (int64_t i = 0; i < d; ++i) {
            const float yes = 1.0f/(1.0f + expf(-x[i])), no = 1.0f/(1.0f + expf(x[i]));
            k[i] = b ? b[i]*yes : std::min(yes, k_max);
            w[i] = b ? (1.0f - b[i]) + b[i]*no : std::max(no, w_min);
        }
    }
}
