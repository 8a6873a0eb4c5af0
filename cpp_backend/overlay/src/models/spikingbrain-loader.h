#pragma once

#include "../llama-model-loader.h"

// Called from llama-model-loader.cpp (patch 0003).

// The operator that weight t is used with, where the loader would take op: SPK_MUL_MAT for projections that are fed
// packed activation rows, so that they may lie in the buffer type CPU_SPK. These are
//   INT8 weights; with spikes on (key spikingbrain.spike.enable or its override) also Q8_0, Q4_0 and Q5_0
//   in attn_q, attn_k, attn_v, attn_output, attn_gate, ffn_gate, ffn_up and, unless the scope is "released", ffn_down
ggml_op llama_spikingbrain_weight_op(const llama_model_loader & ml, const LLM_TN_IMPL & tn, const ggml_tensor & t, ggml_op op);

// SPK_MUL_MAT over w, to ask a backend about
ggml_tensor * llama_spikingbrain_probe(ggml_context * ctx, ggml_tensor * w);
