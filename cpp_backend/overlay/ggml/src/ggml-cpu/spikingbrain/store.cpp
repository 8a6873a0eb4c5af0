#include "spk-ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

void spk_store(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * x    = dst->src[0];
    const int64_t     * rows = (const int64_t *) dst->src[1]->data;
    const int64_t d = x->ne[0], n_kv = x->ne[1];

    for (int64_t i = params->ith; i < n_kv*x->ne[2]; i += params->nth) {
        const float * in  = (const float *) x->data + i*d;
        int8_t      * out = (int8_t *) dst->data + i % n_kv*dst->nb[2] + rows[i/n_kv]*dst->nb[1];

        float max = 0.0f;
        bool  finite = true;
        for (int64_t j = 0; j < d; ++j) {
            max     = std::max(max, fabsf(in[j]));
            finite &= std::isfinite(in[j]);
        }
        const float scale = std::min(std::max(max/127.0f, 1e-5f), 1e4f);
        for (int64_t j = 0; j < d; ++j) {
            out[j] = finite ? (int8_t) std::min(std::max(nearbyintf(in[j]/scale), -127.0f), 127.0f) : 0;
        }
        const float stored = finite ? scale : NAN;
        memcpy(out + GGML_SPK_KV_ROW(d) - sizeof(float), &stored, sizeof(float));
    }
}
