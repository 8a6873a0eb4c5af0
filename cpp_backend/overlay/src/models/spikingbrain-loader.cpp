#include "spikingbrain-loader.h"

#include "ggml-spikingbrain.h"

#include <cstring>

// as load_spike_hparams reads them, which has refused what is wrong; get_key itself would log an override per tensor

static bool spikes_enabled(const llama_model_loader & ml) {
    const char * key = "spikingbrain.spike.enable";
    const auto it = ml.kv_overrides.find(key);
    if (it != ml.kv_overrides.end()) {
        return it->second.tag == LLAMA_KV_OVERRIDE_TYPE_BOOL && it->second.val_bool;
    }
    const int64_t id = gguf_find_key(ml.metadata, key);
    return id >= 0 && gguf_get_val_bool(ml.metadata, id);
}

static bool spikes_reach_down(const llama_model_loader & ml) {
    const int64_t id = gguf_find_key(ml.metadata, "spikingbrain.spike.scope");
    return id < 0 || strcmp(gguf_get_val_str(ml.metadata, id), "paper") == 0;
}

ggml_op llama_spikingbrain_weight_op(const llama_model_loader & ml, const LLM_TN_IMPL & tn, const ggml_tensor & t, ggml_op op) {
    if (ml.arch_name != "spikingbrain" || tn.suffix == nullptr || strcmp(tn.suffix, "weight") != 0) {
        return op;
    }
    switch (tn.tensor) {
        case LLM_TENSOR_ATTN_Q:
        case LLM_TENSOR_ATTN_K:
        case LLM_TENSOR_ATTN_V:
        case LLM_TENSOR_ATTN_OUT:
        case LLM_TENSOR_ATTN_GATE:
        case LLM_TENSOR_FFN_GATE:
        case LLM_TENSOR_FFN_UP:
        case LLM_TENSOR_FFN_DOWN:
            break;
        default:
            return op;
    }
    switch (t.type) {
        case GGML_TYPE_I8:
            if (t.ne[0] % 128 != 0) {
                throw std::runtime_error(format("spikingbrain: %s: got INT8 rows of %lld, expected a multiple of 128; convert the checkpoint again with sb-convert",
                    tn.str().c_str(), (long long) t.ne[0]));
            }
            return GGML_OP_SPK_MUL_MAT;
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q5_0: {
            const bool spiking = spikes_enabled(ml) && (tn.tensor != LLM_TENSOR_FFN_DOWN || spikes_reach_down(ml));
            return spiking ? GGML_OP_SPK_MUL_MAT : op;
        }
        default:
            return op;
    }
}

ggml_tensor * llama_spikingbrain_probe(ggml_context * ctx, ggml_tensor * w) {
    ggml_tensor * act    = ggml_new_tensor_2d(ctx, GGML_TYPE_I8, ggml_spk_row_size(w->ne[0]), 512);
    ggml_tensor * scales = w->type == GGML_TYPE_I8 ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, w->ne[0]/128, w->ne[1]) : nullptr;
    return ggml_spk_mul_mat(ctx, w, scales, nullptr, nullptr, act);
}
