#include "spikingbrain-loader.h"

#include "ggml-spikingbrain.h"

#include <cstring>

static const llama_model_kv_override * find_override(const llama_model_loader & ml, const char * key, llama_model_kv_override_type tag) {
    const auto it = ml.kv_overrides.find(key);
    return it != ml.kv_overrides.end() && it->second.tag == tag ? &it->second : nullptr;
}

static bool spikes_enabled(const llama_model_loader & ml) {
    const char * key = "spikingbrain.spike.enable";
    if (const auto * o = find_override(ml, key, LLAMA_KV_OVERRIDE_TYPE_BOOL)) {
        return o->val_bool;
    }
    const int64_t id = gguf_find_key(ml.metadata, key);
    return id >= 0 && gguf_get_kv_type(ml.metadata, id) == GGUF_TYPE_BOOL && gguf_get_val_bool(ml.metadata, id);
}

static std::string spike_scope(const llama_model_loader & ml) {
    const char * key = "spikingbrain.spike.scope";
    if (const auto * o = find_override(ml, key, LLAMA_KV_OVERRIDE_TYPE_STR)) {
        return o->val_str;
    }
    const int64_t id = gguf_find_key(ml.metadata, key);
    return id >= 0 && gguf_get_kv_type(ml.metadata, id) == GGUF_TYPE_STRING ? gguf_get_val_str(ml.metadata, id) : "";
}

ggml_op llama_spikingbrain_weight_op(const llama_model_loader & ml, const LLM_TN_IMPL & tn, const ggml_tensor & t, ggml_op op) {
    if (tn.arch != LLM_ARCH_SPIKINGBRAIN || tn.suffix == nullptr || strcmp(tn.suffix, "weight") != 0) {
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
            const bool fed_floats = tn.tensor == LLM_TENSOR_FFN_DOWN && spike_scope(ml) == "released";
            return spikes_enabled(ml) && !fed_floats ? GGML_OP_SPK_MUL_MAT : op;
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
