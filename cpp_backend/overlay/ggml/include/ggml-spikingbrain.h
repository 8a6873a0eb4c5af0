#pragma once

#include "ggml.h"

// Operators of SpikingBrain's two kinds of attention, of its projections and its mixture of experts. Shapes in ggml order: ne[0] is contiguous.
//   d head size, H query heads, G key/value heads (H a multiple of G), T tokens, N sequences
//   T = n_seq_tokens * N, the tokens of one sequence side by side
//
// seqs I32 {3, N}: per sequence, where its memory lies
//   [0] row of the state to start from, -1 = zeros   [1] slot of the window ring   [2] first position the sequence holds
//
// No operator writes a source that it does not return as a view: whoever places the graph sees where it must run.

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_spk_seq_info {
    GGML_SPK_SEQ_STATE     = 0,
    GGML_SPK_SEQ_SLOT      = 1,
    GGML_SPK_SEQ_POS_FIRST = 2,
    GGML_SPK_SEQ_N_INFO    = 3,
};

// What a linear-attention layer remembers, one tensor memory F32 {d, n}:
//   states   n_states rows S[G][d of k][d of v]
//   journal  entries of k[G][d], v[G][d], w[G][d], n_journal of them for each slot
// With it states can be made again, exactly.
GGML_API int64_t ggml_spk_gla_rows(int64_t d, int64_t n_kv, int64_t n_states, int64_t n_entries); // n

// Gated linear attention (paper section 2.1; checkpoint-format), recurrent form, per key/value head:
//   S_t = diag(w_t) S_{t-1} + k_t^T v_t        o_t = scale * q_t S_t   for each query head of the group
// q F32 {d, H, T}; k, v, w F32 {d, G, T}, w = exp(log gate) in (0, 1]; all contiguous
// memory is read only: the states seqs[0]
// returns o F32 {d, H, T}
// threads own (sequence, key/value head, block of value columns): the result does not depend on their number
GGML_API struct ggml_tensor * ggml_spk_gla(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * memory,
        struct ggml_tensor  * seqs,
        float                 scale);

// The states after tokens, by the recurrence above. plan I32 {GGML_SPK_PLAN_N, N}, per sequence up to two steps, in order:
//   state row dst = state row src advanced by n tokens, of the micro-batch from token `first` of the sequence on, or of the
//   journal from entry `first` of the slot on (modulo n_journal); dst = -1: no step. src = -1: zeros; src and dst may be equal
// then k, v, w of the tokens from journal_token on become the entries journal_at .. of the slot.
// after: a tensor that must have read the states before, NULL: none. k, v, w NULL: no tokens, steps of the journal only
// returns a view of memory
// the same bits however the tokens are divided into calls, from the journal or not, by any number of threads
GGML_API struct ggml_tensor * ggml_spk_gla_update(
        struct ggml_context * ctx,
        struct ggml_tensor  * memory,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * w,
        struct ggml_tensor  * plan,
        struct ggml_tensor  * after,
        int32_t               n_kv,
        int32_t               n_states,
        int32_t               n_journal);

struct ggml_spk_plan_step {
    int32_t src, dst, from_journal, first, n;
};

struct ggml_spk_plan {
    struct ggml_spk_plan_step steps[2];
    int32_t slot, journal_at, journal_token;
};

#define GGML_SPK_PLAN_N ((int) (sizeof(struct ggml_spk_plan)/sizeof(int32_t)))

// Causal softmax attention over a window (paper equation 2): a query at position p sees the keys at
// max(first, p - window + 1) .. p, its own included. Their rows are in the ring already.
// q F32 {d, H, T}; k_ring, v_ring F32 or F16 {d, n_ring*n_slots, G}, or I8 with spike_k > 0, position p of a slot in row slot*n_ring + p % n_ring
// pos I32 {T}; returns o F32 {d, H, T}
// what lies behind the rows of the last slot is not read, but for sinks (ggml_spk_swa_sinks)
// INT8 (spike_k > 0): rings as ggml_spk_store writes them; each query head is encoded as by GGML_SPK_SPIKE with k = spike_k, and its
// counts times codes are exact integers. A query that cannot be encoded (NaN, infinity, a count of 2^30 or more) gives NaN, and so
// does a row whose scale is NaN, to whoever sees it.
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
        float                 scale,
        float                 spike_k);

// The last n_sinks rows of the rings, behind those of the slots, are seen by every query, too, before all others and whatever the window.
GGML_API void ggml_spk_swa_sinks(struct ggml_tensor * swa, int32_t n_sinks);

// Row of an INT8 key or value: d codes, zeros up to a multiple of 4, the float scale.
#define GGML_SPK_KV_ROW(d) ((((d) + 3) & ~3) + 4)

// Write x F32 {d, G, T} to rows I64 {T} of ring I8 {GGML_SPK_KV_ROW(d), n_rows, G}, symmetric INT8 per row:
// scale = clamp(max|x|/127, 1e-5, 1e4), code = round-half-even(x/scale). Returns a view of the ring.
// x beyond 127e4 saturates at +-127; NaN or infinities make the scale NaN, which shows in every output that reads it
GGML_API struct ggml_tensor * ggml_spk_store(
        struct ggml_context * ctx,
        struct ggml_tensor  * ring,
        struct ggml_tensor  * x,
        struct ggml_tensor  * rows);

// Rotary embedding over the whole head in half-rotation ("neox") form with given angles:
//   y[i] = x[i] c[i] - x[i + d/2] s[i]     y[i + d/2] = x[i + d/2] c[i] + x[i] s[i]     i < d/2
// x F32 {d, H, T}; table F32 {d, T}: c then s per token. The caller computes the angles in double,
// since float angles lose their meaning after some million tokens and this model has no last position.
GGML_API struct ggml_tensor * ggml_spk_rope(
        struct ggml_context * ctx,
        struct ggml_tensor  * x,
        struct ggml_tensor  * table);

//
// integer spikes (checkpoint-format, "The spiking variant"; spikes.md, "Count")
//

enum ggml_spk_encoding {
    GGML_SPK_SPIKE = 0, // spike counts, one threshold per row
    GGML_SPK_Q8    = 1, // ordinary activations for integer products: one scale per 32 values
};

// A row of activations, packed: what GGML_OP_SPK_ENCODE writes and GGML_OP_SPK_MUL_MAT reads.
// s8    the counts s, clamped to +-127 (-128 never occurs)
// bias  -8 times the sum of each 32 of s8: where a kernel with weights stored as w + 8 (or 16, 128) starts
// sums  of each 16 of s8, then of each 32
// most  the largest |s8| of each 32
// scaled  with GGML_SPK_Q8: the sum of each 32 of s8 times their scale
// outliers  those with |s| > 127, ascending index: s = s8[index] + excess; there is room for all n
// GGML_SPK_SPIKE: x ~ v_th*s, scales are not written. GGML_SPK_Q8: x ~ scales[i/32]*s8[i], v_th = 1, no outliers.
// A row that cannot be encoded (NaN, infinity, a count beyond int32) has v_th = NaN and all counts 0.
struct ggml_spk_outlier {
    int32_t index;
    int32_t excess;
};

struct ggml_spk_row_header { // the row begins with it
    float   v_th;
    int32_t encoding; // enum ggml_spk_encoding
    int32_t n_outliers;
};

struct ggml_spk_row {
    float   v_th;
    int32_t encoding;
    int32_t n_outliers;

    const int8_t                  * s8;       // [n]
    const int32_t                 * bias;     // [n/32]
    const float                   * scales;   // [n/32]
    const float                   * scaled;   // [n/32]
    const struct ggml_spk_outlier * outliers; // [n_outliers]
    const int16_t                 * sums;     // [n/16 + n/32]
    const uint8_t                 * most;     // [n/32]
};

GGML_API size_t              ggml_spk_row_size(int64_t n); // bytes, a multiple of 64
GGML_API struct ggml_spk_row ggml_spk_row_get(const void * row, int64_t n);

// the n counts, outliers included
GGML_API void ggml_spk_row_counts(const void * row, int64_t n, int32_t * counts);

// op_params of ggml_spk_encode
enum ggml_spk_encode_param {
    GGML_SPK_ENCODE_K        = 0, // float
    GGML_SPK_ENCODE_ENCODING = 1,
    GGML_SPK_ENCODE_EPS      = 2, // float, of ggml_spk_encode_norm
};

// Encodes rows of x F32 {n, T}, n a multiple of 32, rows contiguous; returns I8 {ggml_spk_row_size(n), T}
// GGML_SPK_SPIKE: V_th = clamp(mean|x|/k, 1e-5, 1e4), s = round half to even(x/V_th)
// GGML_SPK_Q8:    scale = max|x|/127 over each 32 values, s = round half to even(x/scale); k is ignored
// the mean is summed in double in a fixed order: the same bits for every thread count and instruction set
// threads own rows
GGML_API struct ggml_tensor * ggml_spk_encode(
        struct ggml_context  * ctx,
        struct ggml_tensor   * x,
        float                  k,
        enum ggml_spk_encoding encoding);

// Encodes RMSNorm(x)*weight, the norm over each w values of a row: weight F32 {w}, w a multiple of 16 that divides n.
// y = x*(1/sqrt(mean(x^2) + eps))*weight as ggml_rms_norm and ggml_mul, but squares are summed as the encoder sums: in 16 double lanes, added up in order
GGML_API struct ggml_tensor * ggml_spk_encode_norm(
        struct ggml_context  * ctx,
        struct ggml_tensor   * x,
        struct ggml_tensor   * weight,
        float                  eps,
        float                  k,
        enum ggml_spk_encoding encoding);

// The floats that packed spike counts stand for: F32 {n, T}, V_th*s. For weights without an integer kernel.
GGML_API struct ggml_tensor * ggml_spk_decode(
        struct ggml_context * ctx,
        struct ggml_tensor  * act,
        int64_t               n);

// Columns of weights of that type that share a float scale: 128 of I8, 32 of Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 and IQ4_NL, GGML_SPK_SUPERBLOCK of Q2_K to
// Q6_K and IQ4_XS, which a product takes in CPU_SPK only. 0: it does not take the type.
#define GGML_SPK_SUPERBLOCK 256
GGML_API int64_t ggml_spk_group(enum ggml_type type);

// y = W x on packed activations. A group is that of ggml_spk_group; with GGML_SPK_Q8 it is 32.
//   y[r][t] = V_th * sum over groups g of scale[r][g] * (sum over the group's columns of w[r][i]*s[t][i])
// w {n, m} of a type that has one, contiguous; n a multiple of the weight's group, any m. Minima are multiplied with sums of s, integer scales
//   of parts of a superblock with integer sums
//   I8: scales F32 {n/128, m}; optionally a sparse rest of the weights: out_index I32 {c}, ascending row*n + column,
//   out_value I16 {c}: w = code + value there. Others: all three NULL. act as ggml_spk_encode made it; returns F32 {m, T}
// Integer sums are exact: int32 for codes times s8, double (below 2^53) for outliers and for the weights' rest.
// They are scaled and added in float, the parts with outliers in double. The order is fixed per instruction set and
// layout: the result does not depend on the number of threads nor, in CPU_SPK, on how tokens are batched. threads own rows.
// w may lie in the buffer type "CPU_SPK" (m a multiple of 16), which interleaves 16 rows.
GGML_API struct ggml_tensor * ggml_spk_mul_mat(
        struct ggml_context * ctx,
        struct ggml_tensor  * w,
        struct ggml_tensor  * scales,
        struct ggml_tensor  * out_index,
        struct ggml_tensor  * out_value,
        struct ggml_tensor  * act);

// op_params of a product
enum ggml_spk_mul_mat_param {
    GGML_SPK_MUL_MAT_RELU = 0,
};

// What follows a product, in one pass: y = relu(W x + bias) + residual, each optional. bias F32 {m}, NULL: none; residual F32 {m, T}, NULL: none.
// The same bits as ggml_add, ggml_relu and ggml_add after it.
GGML_API void ggml_spk_mul_mat_then(
        struct ggml_tensor * product,
        struct ggml_tensor * bias,
        bool                 relu,
        struct ggml_tensor * residual);

// y = silu(gate)*y after that, gate F32 {m, T}: the bits of ggml_swiglu_split(gate, y)
GGML_API void ggml_spk_mul_mat_gate(
        struct ggml_tensor * product,
        struct ggml_tensor * gate);

// The same with a stack of matrices, one for each expert: y[t] = W[ids[t]] x[t], each of them as ggml_spk_mul_mat computes it.
// w {n, m, E}; I8: scales F32 {n/128, m, E}, out_index ascending (expert*m + row)*n + column; act {.., T}; ids I32 {1, T}, each below E
// Tokens are grouped by their expert, so that rows of chosen experts are read, and once for each group; no others are read.
// w may lie in CPU_SPK (m a multiple of 16).
GGML_API struct ggml_tensor * ggml_spk_mul_mat_id(
        struct ggml_context * ctx,
        struct ggml_tensor  * w,
        struct ggml_tensor  * scales,
        struct ggml_tensor  * out_index,
        struct ggml_tensor  * out_value,
        struct ggml_tensor  * act,
        struct ggml_tensor  * ids);

// What follows it, in one pass: y = weights[t]*y + residual, each optional. weights F32, T elements; residual F32 {m, T}.
// The same bits as ggml_mul and ggml_add after it.
GGML_API void ggml_spk_mul_mat_id_then(
        struct ggml_tensor * product,
        struct ggml_tensor * weights,
        struct ggml_tensor * residual);

// The index of the largest value of each column, the lowest one of equal values; of a column of NaN 0. x F32 {n, T}; returns I32 {1, T}
GGML_API struct ggml_tensor * ggml_spk_top1(
        struct ggml_context * ctx,
        struct ggml_tensor  * x);

// Keys and decays of linear attention whose decay is 1 - k. z F32 {d, G, T}; returns F32 {d, heads, T, 2}: k, then w
//   bound F32 {d*H} = 1 - lower bound, of each query head and channel:  k = bound*sigmoid(z)          w = 1 - bound + bound*sigmoid(-z), heads = H
//   bound NULL:                                                         k = min(sigmoid(z), k_max)    w = max(sigmoid(-z), 1 - k_max),   heads = G
// w does not come from 1 - sigmoid(z), where digits would cancel; it may be 0
GGML_API struct ggml_tensor * ggml_spk_key(
        struct ggml_context * ctx,
        struct ggml_tensor  * z,
        struct ggml_tensor  * bound,
        float                 k_max);

// The decay of gated linear attention: w = exp(logsigmoid(x + bias)/norm) in (0, 1]. x F32 {n, T}, bias F32 {n} or NULL; returns F32 {n, T}
GGML_API struct ggml_tensor * ggml_spk_decay(
        struct ggml_context * ctx,
        struct ggml_tensor  * x,
        struct ggml_tensor  * bias,
        float                 norm);

// Asks the system for huge pages where memory of ours lies that each token reads: less of its time goes into finding pages.
// Advice only, on Linux; to be given before the memory is touched. Memory below a huge page is left as it is.
GGML_API void ggml_spk_advise_huge_pages(void * data, size_t size);

// name of the instruction set that SPK_MUL_MAT, SPK_ENCODE, SPK_GLA and SPK_SWA run on: "zen4", "avx512", "avxvnni", "avx2", "i8mm", "dotprod" or "generic";
// the environment variable SPIKINGBRAIN_ISA overrides the choice. The CPU backend's get_proc_address has it as "ggml_spk_isa".
typedef const char * (*ggml_spk_isa_t)(void);

// whether SPK_MUL_MAT has vector instructions of ours on this CPU for weights of that type: then it is faster than MUL_MAT. "ggml_spk_has_kernels"
typedef bool (*ggml_spk_has_kernels_t)(enum ggml_type type);

#ifdef __cplusplus
}
#endif
