// A context: the memory that a model gives it, and what we add to llama.cpp's C interface

#include "spikingbrain-context.h"

#include "models.h"
#include "spikingbrain-memory.h"

#include "../llama-context.h"
#include "../llama-impl.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <atomic>

//
// the memory of a context
//

// llama.cpp's default window type is F16. It stands for the model's own: INT8 in the spiking variant, else as the matrices. Q8_0 is INT8, too.
static ggml_type window_type(const char * what, ggml_type type, const llama_model_spikingbrain & model) {
    if (type == GGML_TYPE_Q8_0 || type == GGML_TYPE_I8) {
        return GGML_TYPE_I8;
    }
    if (model.spike) {
        if (type != GGML_TYPE_F16) {
            throw std::runtime_error(format("spikingbrain: %s: got %s, expected the default: a spiking model keeps its window in int8", what, ggml_type_name(type)));
        }
        return GGML_TYPE_I8;
    }
    if (type != GGML_TYPE_F16 && type != GGML_TYPE_F32) {
        throw std::runtime_error(format("spikingbrain: %s: got %s, expected f16, f32 or q8_0", what, ggml_type_name(type)));
    }
    return model.layers[0].wq->type == GGML_TYPE_F32 ? GGML_TYPE_F32 : type;
}

static spikingbrain_storage_params storage_params(const llama_model_spikingbrain & model, const llama_memory_params & params, const llama_cparams & cparams) {
    const llama_hparams & hparams = model.hparams;
    spikingbrain_storage_params result = {};
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        ggml_backend_buffer_type_t buft = cparams.offload_kqv ? ggml_backend_dev_buffer_type(model.dev_layer(il)) : ggml_backend_cpu_buffer_type();
        const uint32_t window = model.has_window(il) ? model.sees_all(il) ? spikingbrain_layer_memory::ALL : model.n_window : 0;
        result.layers.push_back({ hparams.is_recr(il), window, buft, model.n_head_state(il) });
    }
    result.d           = hparams.n_embd_head_k();
    result.n_kv        = hparams.n_head_kv();
    result.type_k      = window_type("type_k", params.type_k, model);
    result.type_v      = window_type("type_v", params.type_v, model);
    if ((result.type_k == GGML_TYPE_I8) != (result.type_v == GGML_TYPE_I8)) {
        throw std::runtime_error(format("spikingbrain: type_v: got %s with type_k %s, expected both q8_0 or neither", ggml_type_name(params.type_v), ggml_type_name(params.type_k)));
    }
    result.n_ubatch    = cparams.n_ubatch;
    result.n_positions = cparams.n_ctx_seq;
    result.n_threads   = 1; // milliseconds at most: threads made for that take as long, and share one CPU where this thread is bound to it
    result.no_alloc    = hparams.no_alloc;
    result.n_sinks     = model.n_sinks;
    return result;
}

llama_memory_i * llama_spikingbrain_create_memory(
        const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams) {
    const auto & sb = static_cast<const llama_model_spikingbrain &>(model);
    sb.check_int8();
    sb.rope_factors();

    if (cparams.yarn_ext_factor != 0.0f) {
        throw std::runtime_error("spikingbrain: rope scaling: got yarn, expected none or linear; the window is relative and needs no extension");
    }
    if (!cparams.causal_attn) {
        throw std::runtime_error("spikingbrain: attention: got non-causal, expected causal");
    }
    if (sb.n_sinks > 0 && (cparams.rope_freq_base != sb.hparams.rope_freq_base_train || cparams.rope_freq_scale != sb.hparams.rope_freq_scale_train)) {
        throw std::runtime_error(format("spikingbrain: rope: got base %g and scale %g, expected %g and %g: the constants of the sinks were computed with these",
            cparams.rope_freq_base, cparams.rope_freq_scale, sb.hparams.rope_freq_base_train, sb.hparams.rope_freq_scale_train));
    }
    const bool pooled = cparams.pooling_type == LLAMA_POOLING_TYPE_MEAN || cparams.pooling_type == LLAMA_POOLING_TYPE_CLS || cparams.pooling_type == LLAMA_POOLING_TYPE_RANK;
    auto mem = std::make_unique<llama_memory_spikingbrain>(storage_params(sb, params, cparams), cparams.n_seq_max, cparams.n_rs_seq, pooled);
    if (!sb.hparams.no_alloc) {
        sb.set_sinks(mem->get_storage());
    }
    return mem.release();
}

//
// what can be taken back
//

static std::atomic<uint32_t> n_rs_seq_default { LLAMA_SPIKINGBRAIN_N_RS_SEQ };

bool llama_spikingbrain_set_n_rs_seq(int64_t n) {
    if (n < 1 || n > LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX) {
        return false;
    }
    n_rs_seq_default = n;
    return true;
}

uint32_t llama_spikingbrain_n_rs_seq(const llama_model * model, uint32_t n, uint32_t n_others) {
    if (model->arch != LLM_ARCH_SPIKINGBRAIN) {
        return n_others;
    }
    if (n > LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX) {
        throw std::runtime_error(format("spikingbrain: n_rs_seq: got %u, expected at most %u tokens that can be taken back", n, LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX));
    }
    return n > 0 ? n : n_rs_seq_default.load();
}

//
// sizes and limits
//

size_t llama_spikingbrain_state_bytes(const llama_context * ctx) {
    size_t n = 0;
    if (const llama_memory_i * mem = llama_get_memory(ctx)) {
        for (const auto & [buft, size] : mem->memory_breakdown()) {
            n += size;
        }
    }
    return n;
}

static llama_memory_spikingbrain * memory_of(const llama_context * ctx) {
    return dynamic_cast<llama_memory_spikingbrain *>(llama_get_memory(ctx));
}

size_t llama_spikingbrain_cache_bytes(const llama_context * ctx) {
    const llama_memory_spikingbrain * mem = memory_of(ctx);
    return mem ? mem->get_storage().bytes_of_caches() : 0;
}

bool llama_spikingbrain_remembers(const llama_context * ctx) {
    return memory_of(ctx) != nullptr;
}

int32_t llama_spikingbrain_default_end(const llama_model * model) {
    const auto * own = dynamic_cast<const llama_model_spikingbrain *>(model);
    const uint32_t n_trained = own ? own->n_ctx_file : model->hparams.n_ctx_train;
    return std::clamp<uint32_t>(n_trained, LLAMA_SPIKINGBRAIN_DEFAULT_END, llama_model_spikingbrain::N_CTX_UNBOUNDED);
}

int32_t llama_spikingbrain_default_limit(const llama_model * model, int64_t n_prompt) {
    return std::max<int64_t>(llama_spikingbrain_default_end(model) - n_prompt, LLAMA_SPIKINGBRAIN_DEFAULT_NEW);
}

float llama_spikingbrain_spike_k(const llama_model * model) {
    const auto * own = dynamic_cast<const llama_model_spikingbrain *>(model);
    return own && own->spike ? own->spike_k : 0.0f;
}

//
// outputs
//

const llama_adapter_cvec * llama_spikingbrain_context::cvec(const llama_context & ctx) { return ctx.cvec.get(); }

const llama_adapter_loras & llama_spikingbrain_context::loras(const llama_context & ctx) { return *ctx.loras; }

llama_cparams & llama_spikingbrain_context::cparams(llama_context & ctx) { return ctx.cparams; }

bool llama_spikingbrain_context::set_logits(llama_context & ctx, const float * const * rows, uint32_t n_rows) {
    const size_t n_vocab = ctx.model.vocab.n_tokens();
    ctx.synchronize();
    if (n_rows > ctx.cparams.n_outputs_max || ctx.output_reserve(n_rows) < n_rows) {
        return false;
    }
    for (uint32_t i = 0; i < n_rows; ++i) {
        std::copy_n(rows[i], n_vocab, ctx.logits.data + i*n_vocab);
        ctx.output_ids[i] = i;
    }
    ctx.output_swaps.clear();
    ctx.n_outputs = n_rows;
    return true;
}

bool llama_spikingbrain_set_logits(llama_context * ctx, const float * const * rows, int32_t n_rows) {
    return n_rows >= 0 && llama_spikingbrain_context::set_logits(*ctx, rows, n_rows);
}

void llama_spikingbrain_allow_outputs(llama_context * ctx, uint32_t n) {
    auto & cparams = llama_spikingbrain_context::cparams(*ctx); // asked before each decode
    cparams.n_outputs_max = std::max(cparams.n_outputs_max, std::min(n, cparams.n_batch));
}

void llama_spikingbrain_set_eval_callback(llama_context * ctx, ggml_backend_sched_eval_callback callback, void * data) {
    auto & cparams = llama_spikingbrain_context::cparams(*ctx); // read when a graph is built
    cparams.cb_eval           = callback;
    cparams.cb_eval_user_data = data;
    ggml_backend_sched_set_eval_callback(ctx->get_sched(), callback, data); // of the graph that is there
}
