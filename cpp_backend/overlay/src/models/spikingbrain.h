#pragma once

// included at the end of models.h

#include "spikingbrain-header.h"

#include <unordered_map>
#include <vector>

struct llama_memory_params;
class spikingbrain_storage;

struct llama_model_spikingbrain : public llama_model_base {
    llama_model_spikingbrain(const struct llama_model_params & params) : llama_model_base(params) {}
    void load_arch_hparams(llama_model_loader & ml) override;
    void load_arch_tensors(llama_model_loader & ml) override;

    struct graph; // spikingbrain-graph.h

    std::unique_ptr<llm_graph_context> build_arch_graph(const llm_graph_params & params) const override;

    // the window and the gate are members, not llama_hparams: a non-zero hparams.n_swa would make the tools
    // treat this memory as a stock sliding-window cache
    uint32_t n_window   = 0;
    // No position is the last one for this model: what llama.cpp derives from the trained length (default n_ctx,
    // limits of the tools) gets this instead. Small enough that n_ctx times a few sequences stays an int.
    static constexpr uint32_t N_CTX_UNBOUNDED = 1u << 30;
    uint32_t n_ctx_file = 0;     // the trained length, of which hparams.n_ctx_train tells the tools nothing
    uint32_t n_low_rank = 0;     // rank of the gate projection, 0 = one full matrix
    float    gate_norm  = 16.0f; // log gate = logsigmoid(W h + b) / gate_norm

    // "parallel": each layer has window attention and linear attention side by side (spikingbrain-parallel.cpp); else it has one of them
    bool     parallel  = false;
    bool     q_sigmoid = false; // linear attention's queries; else relu
    float    k_max     = 1.0f;  // its keys, in layers without a lower bound
    uint32_t n_sinks   = 0;     // rows before the text that every query sees: constants

    std::array<uint32_t, LLAMA_MAX_LAYERS> is_sliding; // 0: softmax attention sees all of the text

    ggml_tensor * rope_freqs = nullptr; // F32 {d/2}, where the rotary frequencies are scaled
    std::vector<float> rope_factors() const; // its data, empty: none. Throws: no factors

    bool    has_window(int il) const { return parallel || !hparams.is_recr(il); }
    bool    sees_all  (int il) const { return !is_sliding[il]; }
    // states of linear attention: query heads of a group share one where they share keys and decays
    int64_t n_head_state(int il) const { return parallel && layers[il].time_mix_decay ? hparams.n_head(il) : hparams.n_head_kv(il); }

    // what text reads of the sinks, F32
    struct sink_parts {
        ggml_tensor * k     = nullptr; // {d, n_sinks, n_head_kv}, after rotary
        ggml_tensor * v     = nullptr; // {d, n_sinks, n_head_kv}
        ggml_tensor * state = nullptr; // {d of v, d of k, states}
    };
    std::vector<sink_parts> sinks; // of each layer, or empty
    void set_sinks(spikingbrain_storage & storage) const;

    // a mixture of experts, in layers that have a router (spikingbrain-moe.cpp)
    uint32_t n_ff_exp   = 0;
    uint32_t n_ff_shexp = 0; // of the shared expert, 0: none
    bool     expert_weight = true; // the expert's output times its probability
    bool     experts_in_file = false; // read as they are chosen, by our products
    bool in_integers(const ggml_tensor * w, bool spiking) const; // llama_spikingbrain_in_integers, or an expert that would be if it were interleaved

    // the spiking variant (paper section 3.3): projections read integer spike counts
    bool  spike      = false;
    float spike_k    = 3.0f;  // V_th = mean|x| / k
    bool  spike_down = true;  // scope "paper"; in scope "released" the MLP's down projection reads floats

    // whether the input of a projection spikes: the loader chooses its buffer by it, the graph its operator
    bool spikes(llm_tensor projection) const;

    // what belongs to a matrix of INT8 codes, all nullptr for other matrices
    struct int8_parts {
        ggml_tensor * scales    = nullptr; // F32 {n_in/128, n_out}
        ggml_tensor * out_index = nullptr; // I32 {n}, codes outside int8: row*n_in + column, ascending
        ggml_tensor * out_value = nullptr; // I16 {n}, what is to be added to the stored code
    };
    std::unordered_map<const ggml_tensor *, int8_parts> int8;
    int8_parts int8_parts_of(const ggml_tensor * w) const {
        const auto found = int8.find(w);
        return found == int8.end() ? int8_parts() : found->second;
    }

    // outliers must be ascending and inside their matrix; called once their data is there, throws
    void check_int8() const;

private:
    void load_spike_hparams   (llama_model_loader & ml);
    void load_parallel_hparams(llama_model_loader & ml);
    void load_expert_hparams  (llama_model_loader & ml);
    void load_attn_tensors    (llama_model_loader & ml, int il);
    void load_parallel_tensors(llama_model_loader & ml, int il);
    void load_ffn_tensors     (llama_model_loader & ml, int il);
    void load_expert_tensors  (llama_model_loader & ml, int il);
    void choose_lazy_mode     (llama_model_loader & ml);
    bool has_tensor(const llama_model_loader & ml, std::initializer_list<llm_tensor> tensors, const char * suffix) const;
    // n_expert > 0: a stack of as many
    ggml_tensor * create_projection(llama_model_loader & ml, llm_tensor tensor, int il, int64_t n_in, int64_t n_out, int64_t n_expert = 0);
};

// called by llama_model::create_memory
llama_memory_i * llama_spikingbrain_create_memory(
        const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams);
