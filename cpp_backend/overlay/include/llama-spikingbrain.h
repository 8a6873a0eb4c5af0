#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of memory allocated for the state of all sequences of a context: keys and values, and linear-attention states. Fixed when the
// context is made; independent of the tokens processed and, where no layer sees all of the text, of n_ctx.
LLAMA_API size_t llama_spikingbrain_state_bytes(const struct llama_context * ctx);
// Those of them that belong to layers that see all of the text: allocated for n_ctx, but taken only as texts grow.
LLAMA_API size_t llama_spikingbrain_cache_bytes(const struct llama_context * ctx);

// How many of the last tokens of a sequence can be taken back (llama_memory_seq_rm): llama_context_params.n_rs_seq, where 0 stands
// for the default. llama_n_rs_seq() tells it. Positions after llama_memory_seq_pos_min() can be removed: any number of them, in any
// number of calls, until more are decoded.
#define LLAMA_SPIKINGBRAIN_N_RS_SEQ     32
#define LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX 65536
// The default of contexts made from now on in this process (the tools' --n-rs-seq). False: n is out of range, nothing changes.
LLAMA_API bool llama_spikingbrain_set_n_rs_seq(int64_t n);
// What n stands for in a model's context; n_others: in one of another architecture. Throws std::runtime_error (C++ only).
LLAMA_API uint32_t llama_spikingbrain_n_rs_seq(const struct llama_model * model, uint32_t n, uint32_t n_others);

// Whether the context has this model's memory.
LLAMA_API bool llama_spikingbrain_remembers(const struct llama_context * ctx);

// Rows of n_vocab logits that were computed earlier become the context's, as if it had just decoded a batch of n_rows tokens: until the
// next decode llama_get_logits_ith(), and whatever samples through it, finds row i at index i. The rows are copied. False, and nothing
// changes, if they are more than one decode may give. Of any architecture.
LLAMA_API bool llama_spikingbrain_set_logits(struct llama_context * ctx, const float * const * rows, int32_t n_rows);

// Rows of logits that one decode may ask for: at least n from now on, n_batch at most, whatever n_outputs_max was. They are allocated by the
// first decode that asks for them. Of any architecture.
LLAMA_API void llama_spikingbrain_allow_outputs(struct llama_context * ctx, uint32_t n);

// llama_context_params.cb_eval of a context that exists, from the next decode on; NULL: none. Of any architecture.
LLAMA_API void llama_spikingbrain_set_eval_callback(struct llama_context * ctx, ggml_backend_sched_eval_callback callback, void * data);

// k of V_th = mean|x| / k, with which the projections' inputs are encoded as spikes. 0: the model does not spike.
LLAMA_API float llama_spikingbrain_spike_k(const struct llama_model * model);

// Where a request that names no limit ends: prompt and answer together at the trained length (the file's, also where the model
// reports 2^30) or at LLAMA_SPIKINGBRAIN_DEFAULT_END, whichever is more, and not before LLAMA_SPIKINGBRAIN_DEFAULT_NEW tokens
// are generated. Of any architecture.
#define LLAMA_SPIKINGBRAIN_DEFAULT_END 32768
#define LLAMA_SPIKINGBRAIN_DEFAULT_NEW 4096
LLAMA_API int32_t llama_spikingbrain_default_end  (const struct llama_model * model);                   // tokens in all
LLAMA_API int32_t llama_spikingbrain_default_limit(const struct llama_model * model, int64_t n_prompt); // new tokens

// What a state belongs to. A saved one may be restored where all four are what they were, whatever file, slot, cache or process
// it lies in: else it is the state of another computation. The same on every machine, and however a model is split into files.
struct llama_spikingbrain_print {
    uint64_t weights;  // of all tensors of all files of the model; what that guarantees: src/models/spikingbrain-print.h
    uint64_t settings; // hyperparameters and spikes with the overrides applied, rope, control vectors
    uint64_t adapters; // LoRA adapters and their scales; 0: none, or all at scale 0
    uint64_t memory;   // types of keys and values
};
LLAMA_API struct llama_spikingbrain_print llama_spikingbrain_print_of(const struct llama_context * ctx);
LLAMA_API uint64_t llama_spikingbrain_adapter_print(const struct llama_adapter_lora * adapter);

// In words, which of them differ first, and what to do: "model: got ..., expected ...; do ...". NULL: all are equal.
LLAMA_API const char * llama_spikingbrain_print_difference(
        const struct llama_spikingbrain_print * got, const struct llama_spikingbrain_print * expected);

// Whether results and states of a model are worth nothing any more: an RPC server that has layers of it was lost. The reason, one
// sentence, into why, which has n bytes.
LLAMA_API bool llama_spikingbrain_why_lost(const struct llama_model * model, char * why, size_t n);

#ifdef __cplusplus
}
#endif
