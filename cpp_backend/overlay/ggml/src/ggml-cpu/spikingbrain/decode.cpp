#include "spk-ops.h"

void spk_decode(const ggml_compute_params * params, ggml_tensor * dst) {
    const int64_t n = dst->ne[0];

    for (int64_t t = params->ith; t < dst->ne[1]; t += params->nth) {
        const ggml_spk_row row = ggml_spk_row_get((const char *) dst->src[0]->data + t*dst->src[0]->nb[1], n);
        float * y = (float *) ((char *) dst->data + t*dst->nb[1]);
        for (int64_t i = 0; i < n; ++i) {
            y[i] = row.v_th*row.s8[i];
        }
        for (int32_t o = 0; o < row.n_outliers; ++o) {
            const int32_t i = row.outliers[o].index;
            y[i] = row.v_th*((float) row.s8[i] + row.outliers[o].excess);
        }
    }
}
