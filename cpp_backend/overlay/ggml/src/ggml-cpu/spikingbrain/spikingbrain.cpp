#include "spk-isa.h"

#include <cmath>

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
            y[i] = row.v_th*((float) row.s8[i] + row.outliers[o].rest);
        }
    }
}
