#include "ggml-spikingbrain.h"
#include "ggml-impl.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

// graph constructors: shapes are checked here, kernels rely on them

static void check_heads(const struct ggml_tensor * q, const struct ggml_tensor * seqs) {
    GGML_ASSERT(q->type == GGML_TYPE_F32 && ggml_is_contiguous(q) && q->ne[3] == 1);
    GGML_ASSERT(seqs->type == GGML_TYPE_I32 && ggml_is_contiguous(seqs) && seqs->ne[0] == GGML_SPK_SEQ_N_INFO);
    GGML_ASSERT(q->ne[2] % seqs->ne[1] == 0);
}

static void check_recurrence(const struct ggml_tensor * k, const struct ggml_tensor * v, const struct ggml_tensor * w) {
    GGML_ASSERT(ggml_are_same_shape(k, v) && ggml_are_same_shape(k, w));
    GGML_ASSERT(ggml_is_contiguous(k) && ggml_is_contiguous(v) && ggml_is_contiguous(w));
    GGML_ASSERT(k->type == GGML_TYPE_F32 && v->type == GGML_TYPE_F32 && w->type == GGML_TYPE_F32);
}

static void check_memory(const struct ggml_tensor * memory) {
    GGML_ASSERT(memory->type == GGML_TYPE_F32 && ggml_is_contiguous(memory) && memory->ne[2] == 1 && memory->ne[3] == 1);
}

int64_t ggml_spk_gla_rows(int64_t d, int64_t n_kv, int64_t n_states, int64_t n_entries) {
    return n_states*d*n_kv + n_entries*3*n_kv;
}

struct ggml_tensor * ggml_spk_gla(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * memory,
        struct ggml_tensor  * seqs,
        float                 scale) {
    check_heads(q, seqs);
    check_recurrence(k, v, w);
    check_memory(memory);
    GGML_ASSERT(k->ne[0] == q->ne[0] && k->ne[2] == q->ne[2] && q->ne[1] % k->ne[1] == 0);
    GGML_ASSERT(memory->ne[0] == q->ne[0]);

    struct ggml_tensor * result = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2]);
    ggml_set_op_params_f32(result, 0, scale);

    result->op     = GGML_OP_SPK_GLA;
    result->src[0] = q;
    result->src[1] = k;
    result->src[2] = v;
    result->src[3] = w;
    result->src[4] = memory;
    result->src[5] = seqs;

    return result;
}

struct ggml_tensor * ggml_spk_gla_update(
        struct ggml_context * ctx,
        struct ggml_tensor  * memory,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * plan,
        struct ggml_tensor  * after,
        int32_t               n_kv,
        int32_t               n_states,
        int32_t               n_journal) {
    check_memory(memory);
    GGML_ASSERT(plan->type == GGML_TYPE_I32 && ggml_is_contiguous(plan) && plan->ne[0] == GGML_SPK_PLAN_N);
    GGML_ASSERT(n_kv > 0 && n_journal > 0 && memory->ne[1] >= ggml_spk_gla_rows(memory->ne[0], n_kv, n_states, n_journal));
    if (k) {
        check_recurrence(k, v, w);
        GGML_ASSERT(k->ne[0] == memory->ne[0] && k->ne[1] == n_kv && k->ne[2] % plan->ne[1] == 0);
    }

    struct ggml_tensor * result = ggml_view_tensor(ctx, memory);
    ggml_set_op_params_i32(result, 0, n_kv);
    ggml_set_op_params_i32(result, 1, n_states);
    ggml_set_op_params_i32(result, 2, n_journal);

    result->op     = GGML_OP_SPK_GLA_UPDATE;
    result->src[0] = memory;
    result->src[1] = plan;
    result->src[2] = k;
    result->src[3] = v;
    result->src[4] = w;
    result->src[5] = after;

    return result;
}

struct ggml_tensor * ggml_spk_swa(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k_ring,
        struct ggml_tensor  * v_ring,
        struct ggml_tensor  * pos,
        struct ggml_tensor  * seqs,
        int32_t               n_ring,
        int32_t               window,
        float                 scale,
        float                 spike_k) {
    check_heads(q, seqs);
    const bool int8 = k_ring->type == GGML_TYPE_I8;
    GGML_ASSERT(int8 ? v_ring->type == GGML_TYPE_I8 : k_ring->type == GGML_TYPE_F32 || k_ring->type == GGML_TYPE_F16);
    GGML_ASSERT(int8 || v_ring->type == GGML_TYPE_F32 || v_ring->type == GGML_TYPE_F16);
    GGML_ASSERT(int8 == (spike_k > 0.0f));
    GGML_ASSERT(k_ring->ne[0] == (int8 ? GGML_SPK_KV_ROW(q->ne[0]) : q->ne[0]) && q->ne[1] % k_ring->ne[2] == 0);
    GGML_ASSERT(ggml_are_same_shape(k_ring, v_ring) && ggml_is_contiguous(k_ring) && ggml_is_contiguous(v_ring));
    GGML_ASSERT(pos->type == GGML_TYPE_I32 && pos->ne[0] == q->ne[2]);
    GGML_ASSERT(window > 0 && n_ring >= window && k_ring->ne[1] >= n_ring);

    struct ggml_tensor * result = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2]);
    ggml_set_op_params_f32(result, 0, scale);
    ggml_set_op_params_i32(result, 1, window);
    ggml_set_op_params_i32(result, 2, n_ring);
    ggml_set_op_params_f32(result, 3, spike_k);

    result->op     = GGML_OP_SPK_SWA;
    result->src[0] = q;
    result->src[1] = k_ring;
    result->src[2] = v_ring;
    result->src[3] = pos;
    result->src[4] = seqs;

    return result;
}

void ggml_spk_swa_sinks(struct ggml_tensor * swa, int32_t n_sinks) {
    GGML_ASSERT(swa->op == GGML_OP_SPK_SWA && n_sinks >= 0);
    GGML_ASSERT(swa->src[1]->ne[1] >= ggml_get_op_params_i32(swa, 2) + n_sinks);
    ggml_set_op_params_i32(swa, 4, n_sinks);
}

struct ggml_tensor * ggml_spk_rope(
        struct ggml_context * ctx,
        struct ggml_tensor  * x,
        struct ggml_tensor  * table) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[0] % 2 == 0 && x->ne[3] == 1);
    GGML_ASSERT(table->type == GGML_TYPE_F32 && ggml_is_contiguous(table));
    GGML_ASSERT(table->ne[0] == x->ne[0] && table->ne[1] == x->ne[2]);

    struct ggml_tensor * result = ggml_dup_tensor(ctx, x);

    result->op     = GGML_OP_SPK_ROPE;
    result->src[0] = x;
    result->src[1] = table;

    return result;
}

struct ggml_tensor * ggml_spk_store(
        struct ggml_context * ctx,
        struct ggml_tensor  * ring,
        struct ggml_tensor  * x,
        struct ggml_tensor  * rows) {
    GGML_ASSERT(ring->type == GGML_TYPE_I8 && ggml_is_contiguous(ring) && ring->ne[3] == 1);
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[3] == 1);
    GGML_ASSERT(ring->ne[0] == GGML_SPK_KV_ROW(x->ne[0]) && ring->ne[2] == x->ne[1]);
    GGML_ASSERT(rows->type == GGML_TYPE_I64 && rows->ne[0] == x->ne[2]);

    struct ggml_tensor * result = ggml_view_tensor(ctx, ring);

    result->op     = GGML_OP_SPK_STORE;
    result->src[0] = x;
    result->src[1] = rows;
    result->src[2] = ring;

    return result;
}

//
// packed activation rows: header, s8, bias, scales, scaled sums, outliers, sums, most
//

#define SPK_ROW_ALIGN 64
#define SPK_ROW_BLOCK (sizeof(int32_t) + 2*sizeof(float)) // of 32 columns, between s8 and outliers

static size_t spk_row_s8_size(int64_t n) {
    return GGML_PAD(n, SPK_ROW_ALIGN);
}

size_t ggml_spk_row_size(int64_t n) {
    return GGML_PAD(SPK_ROW_ALIGN + spk_row_s8_size(n) + n/32*(SPK_ROW_BLOCK + 3*sizeof(int16_t) + sizeof(uint8_t)) + n*sizeof(struct ggml_spk_outlier), SPK_ROW_ALIGN);
}

struct ggml_spk_row ggml_spk_row_get(const void * row, int64_t n) {
    const struct ggml_spk_row_header * header = row;
    const char * s8   = (const char *) row + SPK_ROW_ALIGN;
    const char * bias = s8 + spk_row_s8_size(n);
    const struct ggml_spk_outlier * outliers = (const struct ggml_spk_outlier *) (bias + n/32*SPK_ROW_BLOCK);
    const int16_t * sums = (const int16_t *) (outliers + n);

    struct ggml_spk_row result = {
        header->v_th,
        header->encoding,
        header->n_outliers,
        (const int8_t  *) s8,
        (const int32_t *) bias,
        (const float   *) bias + n/32,
        (const float   *) bias + 2*(n/32),
        outliers,
        sums,
        (const uint8_t *) (sums + n/16 + n/32),
    };
    return result;
}

void ggml_spk_row_counts(const void * row, int64_t n, int32_t * counts) {
    const struct ggml_spk_row r = ggml_spk_row_get(row, n);
    for (int64_t i = 0; i < n; ++i) {
        counts[i] = r.s8[i];
    }
    for (int32_t o = 0; o < r.n_outliers; ++o) {
        counts[r.outliers[o].index] += r.outliers[o].excess;
    }
}

struct ggml_tensor * ggml_spk_encode(
        struct ggml_context  * ctx,
        struct ggml_tensor   * x,
        float                  k,
        enum ggml_spk_encoding encoding) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && x->ne[2] == 1 && x->ne[3] == 1);
    GGML_ASSERT(x->ne[0] % 32 == 0);
    GGML_ASSERT(encoding == GGML_SPK_Q8 || (encoding == GGML_SPK_SPIKE && k > 0.0f));

    struct ggml_tensor * result = ggml_new_tensor_2d(ctx, GGML_TYPE_I8, ggml_spk_row_size(x->ne[0]), x->ne[1]);
    ggml_set_op_params_f32(result, GGML_SPK_ENCODE_K, k);
    ggml_set_op_params_i32(result, GGML_SPK_ENCODE_ENCODING, encoding);

    result->op     = GGML_OP_SPK_ENCODE;
    result->src[0] = x;

    return result;
}

static bool is_column(const struct ggml_tensor * t, int64_t n) {
    return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t) && t->ne[0] == n && ggml_nelements(t) == n;
}

struct ggml_tensor * ggml_spk_encode_norm(
        struct ggml_context  * ctx,
        struct ggml_tensor   * x,
        struct ggml_tensor   * weight,
        float                  eps,
        float                  k,
        enum ggml_spk_encoding encoding) {
    GGML_ASSERT(is_column(weight, weight->ne[0]) && weight->ne[0] % 16 == 0 && x->ne[0] % weight->ne[0] == 0);

    struct ggml_tensor * result = ggml_spk_encode(ctx, x, k, encoding);
    ggml_set_op_params_f32(result, GGML_SPK_ENCODE_EPS, eps);
    result->src[1] = weight;

    return result;
}

struct ggml_tensor * ggml_spk_decode(
        struct ggml_context * ctx,
        struct ggml_tensor  * act,
        int64_t               n) {
    GGML_ASSERT(act->type == GGML_TYPE_I8 && ggml_is_contiguous(act) && act->ne[0] == (int64_t) ggml_spk_row_size(n));

    struct ggml_tensor * result = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, act->ne[1]);

    result->op     = GGML_OP_SPK_DECODE;
    result->src[0] = act;

    return result;
}

int64_t ggml_spk_group(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_I8:     return 128;
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_IQ4_NL: return 32;
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_Q3_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_IQ4_XS: return GGML_SPK_SUPERBLOCK;
        default:               return 0;
    }
}

// shared by the product and the product with chosen experts, of which w has one matrix each
static void check_mul_mat(
        const struct ggml_tensor * w,
        const struct ggml_tensor * scales,
        const struct ggml_tensor * out_index,
        const struct ggml_tensor * out_value,
        const struct ggml_tensor * act) {
    GGML_ASSERT(ggml_is_contiguous(w) && w->ne[3] == 1 && w->ne[0] <= INT32_MAX);
    GGML_ASSERT(act->type == GGML_TYPE_I8 && ggml_is_contiguous(act) && act->ne[2] == 1 && act->ne[3] == 1);
    GGML_ASSERT(act->ne[0] == (int64_t) ggml_spk_row_size(w->ne[0]));
    GGML_ASSERT(!out_index == !out_value);
    if (w->type == GGML_TYPE_I8) {
        GGML_ASSERT(scales && scales->type == GGML_TYPE_F32 && ggml_is_contiguous(scales));
        GGML_ASSERT(w->ne[0] % 128 == 0 && scales->ne[0] == w->ne[0]/128 && scales->ne[1] == w->ne[1] && scales->ne[2] == w->ne[2]);
    } else {
        GGML_ASSERT(ggml_spk_group(w->type) > 0);
        GGML_ASSERT(!scales && !out_index);
    }
    if (out_index) {
        GGML_ASSERT(out_index->type == GGML_TYPE_I32 && out_value->type == GGML_TYPE_I16);
        GGML_ASSERT(ggml_is_contiguous(out_index) && ggml_is_contiguous(out_value));
        GGML_ASSERT(ggml_nelements(out_index) == ggml_nelements(out_value) && ggml_nelements(w) <= INT32_MAX);
    }
}

static struct ggml_tensor * new_product(
        struct ggml_context * ctx,
        enum ggml_op          op,
        struct ggml_tensor  * w,
        struct ggml_tensor  * scales,
        struct ggml_tensor  * out_index,
        struct ggml_tensor  * out_value,
        struct ggml_tensor  * act) {
    check_mul_mat(w, scales, out_index, out_value, act);
    struct ggml_tensor * result = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, w->ne[1], act->ne[1]);

    result->op     = op;
    result->src[0] = w;
    result->src[1] = act;
    result->src[2] = scales;
    result->src[3] = out_index;
    result->src[4] = out_value;

    return result;
}

struct ggml_tensor * ggml_spk_mul_mat(
        struct ggml_context * ctx,
        struct ggml_tensor  * w,
        struct ggml_tensor  * scales,
        struct ggml_tensor  * out_index,
        struct ggml_tensor  * out_value,
        struct ggml_tensor  * act) {
    GGML_ASSERT(w->ne[2] == 1);
    return new_product(ctx, GGML_OP_SPK_MUL_MAT, w, scales, out_index, out_value, act);
}

static bool is_like(const struct ggml_tensor * t, const struct ggml_tensor * product) {
    return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t) && ggml_are_same_shape(t, product);
}

void ggml_spk_mul_mat_then(
        struct ggml_tensor * product,
        struct ggml_tensor * bias,
        bool                 relu,
        struct ggml_tensor * residual) {
    GGML_ASSERT(product->op == GGML_OP_SPK_MUL_MAT);
    GGML_ASSERT(!bias || is_column(bias, product->ne[0]));
    GGML_ASSERT(!residual || is_like(residual, product));

    product->src[5] = bias;
    product->src[6] = residual;
    ggml_set_op_params_i32(product, GGML_SPK_MUL_MAT_RELU, relu);
}

void ggml_spk_mul_mat_gate(
        struct ggml_tensor * product,
        struct ggml_tensor * gate) {
    GGML_ASSERT(product->op == GGML_OP_SPK_MUL_MAT && is_like(gate, product));

    product->src[7] = gate;
}

struct ggml_tensor * ggml_spk_mul_mat_id(
        struct ggml_context * ctx,
        struct ggml_tensor  * w,
        struct ggml_tensor  * scales,
        struct ggml_tensor  * out_index,
        struct ggml_tensor  * out_value,
        struct ggml_tensor  * act,
        struct ggml_tensor  * ids) {
    GGML_ASSERT(ids->type == GGML_TYPE_I32 && ggml_is_contiguous(ids) && ids->ne[0] == 1 && ggml_nelements(ids) == act->ne[1]);

    struct ggml_tensor * result = new_product(ctx, GGML_OP_SPK_MUL_MAT_ID, w, scales, out_index, out_value, act);
    result->src[5] = ids;

    return result;
}

void ggml_spk_mul_mat_id_then(
        struct ggml_tensor * product,
        struct ggml_tensor * weights,
        struct ggml_tensor * residual) {
    GGML_ASSERT(product->op == GGML_OP_SPK_MUL_MAT_ID);
    GGML_ASSERT(!weights || (weights->type == GGML_TYPE_F32 && ggml_is_contiguous(weights) && ggml_nelements(weights) == product->ne[1]));
    GGML_ASSERT(!residual || (residual->type == GGML_TYPE_F32 && ggml_is_contiguous(residual) && ggml_are_same_shape(residual, product)));

    product->src[6] = weights;
    product->src[7] = residual;
}

struct ggml_tensor * ggml_spk_top1(
        struct ggml_context * ctx,
        struct ggml_tensor  * x) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[2] == 1 && x->ne[3] == 1);

    struct ggml_tensor * result = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 1, x->ne[1]);

    result->op     = GGML_OP_SPK_TOP1;
    result->src[0] = x;

    return result;
}

struct ggml_tensor * ggml_spk_key(
        struct ggml_context * ctx,
        struct ggml_tensor  * z,
        struct ggml_tensor  * bound,
        float                 k_max) {
    GGML_ASSERT(z->type == GGML_TYPE_F32 && ggml_is_contiguous(z) && z->ne[3] == 1);
    GGML_ASSERT(!bound || (is_column(bound, bound->ne[0]) && bound->ne[0] % (z->ne[0]*z->ne[1]) == 0));

    struct ggml_tensor * result = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, z->ne[0], bound ? bound->ne[0]/z->ne[0] : z->ne[1], z->ne[2], 2);
    ggml_set_op_params_f32(result, 0, k_max);

    result->op     = GGML_OP_SPK_KEY;
    result->src[0] = z;
    result->src[1] = bound;

    return result;
}

struct ggml_tensor * ggml_spk_decay(
        struct ggml_context * ctx,
        struct ggml_tensor  * x,
        struct ggml_tensor  * bias,
        float                 norm) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[2] == 1 && x->ne[3] == 1);
    GGML_ASSERT(!bias || is_column(bias, x->ne[0]));

    struct ggml_tensor * result = ggml_dup_tensor(ctx, x);
    ggml_set_op_params_f32(result, 0, norm);

    result->op     = GGML_OP_SPK_DECAY;
    result->src[0] = x;
    result->src[1] = bias;

    return result;
}

//
// memory
//

void ggml_spk_advise_huge_pages(void * data, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t huge = 2*1024*1024;
    const uintptr_t begin = ((uintptr_t) data + huge - 1)/huge*huge, end = ((uintptr_t) data + size)/huge*huge;
    if (begin < end) {
        madvise((void *) begin, end - begin, MADV_HUGEPAGE); // where the system has none, nothing is lost
    }
#else
    GGML_UNUSED(data);
    GGML_UNUSED(size);
#endif
}
