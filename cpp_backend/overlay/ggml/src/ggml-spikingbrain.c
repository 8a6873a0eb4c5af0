#include "ggml-spikingbrain.h"
#include "ggml-impl.h"

// graph constructors: shapes are checked here, kernels rely on them

static void check_heads(const struct ggml_tensor * q, const struct ggml_tensor * seqs) {
    GGML_ASSERT(q->type == GGML_TYPE_F32 && ggml_is_contiguous(q) && q->ne[3] == 1);
    GGML_ASSERT(seqs->type == GGML_TYPE_I32 && ggml_is_contiguous(seqs) && seqs->ne[0] == GGML_SPK_SEQ_N_INFO);
    GGML_ASSERT(q->ne[2] % seqs->ne[1] == 0);
}

struct ggml_tensor * ggml_spk_gla(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * state,
        struct ggml_tensor  * seqs,
        float                 scale) {
    check_heads(q, seqs);
    GGML_ASSERT(k->ne[0] == q->ne[0] && k->ne[2] == q->ne[2] && q->ne[1] % k->ne[1] == 0);
    GGML_ASSERT(ggml_are_same_shape(k, v) && ggml_are_same_shape(k, w));
    GGML_ASSERT(ggml_is_contiguous(k) && ggml_is_contiguous(v) && ggml_is_contiguous(w));
    GGML_ASSERT(k->type == GGML_TYPE_F32 && v->type == GGML_TYPE_F32 && w->type == GGML_TYPE_F32);
    GGML_ASSERT(state->type == GGML_TYPE_F32 && state->ne[0] == q->ne[0]*q->ne[0]*k->ne[1]);

    struct ggml_tensor * result = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2]);
    ggml_set_op_params_f32(result, 0, scale);

    result->op     = GGML_OP_SPK_GLA;
    result->src[0] = q;
    result->src[1] = k;
    result->src[2] = v;
    result->src[3] = w;
    result->src[4] = state;
    result->src[5] = seqs;

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
        float                 scale) {
    check_heads(q, seqs);
    GGML_ASSERT(k_ring->type == GGML_TYPE_F32 || k_ring->type == GGML_TYPE_F16);
    GGML_ASSERT(v_ring->type == GGML_TYPE_F32 || v_ring->type == GGML_TYPE_F16);
    GGML_ASSERT(k_ring->ne[0] == q->ne[0] && q->ne[1] % k_ring->ne[2] == 0);
    GGML_ASSERT(ggml_are_same_shape(k_ring, v_ring) && ggml_is_contiguous(k_ring) && ggml_is_contiguous(v_ring));
    GGML_ASSERT(pos->type == GGML_TYPE_I32 && pos->ne[0] == q->ne[2]);
    GGML_ASSERT(window > 0 && n_ring >= window && k_ring->ne[1] % n_ring == 0);

    struct ggml_tensor * result = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2]);
    ggml_set_op_params_f32(result, 0, scale);
    ggml_set_op_params_i32(result, 1, window);
    ggml_set_op_params_i32(result, 2, n_ring);

    result->op     = GGML_OP_SPK_SWA;
    result->src[0] = q;
    result->src[1] = k_ring;
    result->src[2] = v_ring;
    result->src[3] = pos;
    result->src[4] = seqs;

    return result;
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
