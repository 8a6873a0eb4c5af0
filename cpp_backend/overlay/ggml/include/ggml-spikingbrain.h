#pragma once

#include "ggml.h"

// Operators of SpikingBrain's two attention layers. Shapes in ggml order: ne[0] is contiguous.
//   d head size, H query heads, G key/value heads (H a multiple of G), T tokens, N sequences
//   T = n_seq_tokens * N, the tokens of one sequence side by side
//
// seqs I32 {4, N}: per sequence, where its memory lies
//   [0] state row to start from, -1 = zeros   [1] state row to leave the new state in
//   [2] slot of the window ring               [3] first position the sequence holds

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_spk_seq_info {
    GGML_SPK_SEQ_STATE_SRC = 0,
    GGML_SPK_SEQ_STATE_DST = 1,
    GGML_SPK_SEQ_SLOT      = 2,
    GGML_SPK_SEQ_POS_FIRST = 3,
    GGML_SPK_SEQ_N_INFO    = 4,
};

// Gated linear attention (paper section 2.1; checkpoint-format), recurrent form, per key/value head:
//   S_t = diag(w_t) S_{t-1} + k_t^T v_t        o_t = scale * q_t S_t   for each query head of the group
// q F32 {d, H, T}; k, v, w F32 {d, G, T}, w = exp(log gate) in (0, 1]; all contiguous
// state F32 {d*d*G, n_rows}, a row is S[G][d of k][d of v]; rows seqs[1] are written, the others kept
// returns o F32 {d, H, T}
// threads own (sequence, key/value head, block of value columns): the result does not depend on their number
GGML_API struct ggml_tensor * ggml_spk_gla(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * state,
        struct ggml_tensor  * seqs,
        float                 scale);

// Causal softmax attention over a window (paper equation 2): a query at position p sees the keys at
// max(first, p - window + 1) .. p, its own included. Their rows are in the ring already.
// q F32 {d, H, T}; k_ring, v_ring F32 or F16 {d, n_ring*n_slots, G}, position p of a slot in row slot*n_ring + p % n_ring
// pos I32 {T}; returns o F32 {d, H, T}
// sums run over tiles of keys in a fixed order: the result does not depend on the number of threads
GGML_API struct ggml_tensor * ggml_spk_swa(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k_ring,
        struct ggml_tensor  * v_ring,
        struct ggml_tensor  * pos,
        struct ggml_tensor  * seqs,
        int32_t               n_ring,
        int32_t               window,
        float                 scale);

// Rotary embedding over the whole head in half-rotation ("neox") form with given angles:
//   y[i] = x[i] c[i] - x[i + d/2] s[i]     y[i + d/2] = x[i + d/2] c[i] + x[i] s[i]     i < d/2
// x F32 {d, H, T}; table F32 {d, T}: c then s per token. The caller computes the angles in double,
// since float angles lose their meaning after some million tokens and this model has no last position.
GGML_API struct ggml_tensor * ggml_spk_rope(
        struct ggml_context * ctx,
        struct ggml_tensor  * x,
        struct ggml_tensor  * table);

#ifdef __cplusplus
}
#endif
