#pragma once

// included at the end of models.h

struct llama_memory_params;

struct llama_model_spikingbrain : public llama_model_base {
    llama_model_spikingbrain(const struct llama_model_params & params) : llama_model_base(params) {}
    void load_arch_hparams(llama_model_loader & ml) override;
    void load_arch_tensors(llama_model_loader & ml) override;

    struct graph : public llm_graph_context {
        graph(const llama_model & model, const llm_graph_params & params);
    };

    std::unique_ptr<llm_graph_context> build_arch_graph(const llm_graph_params & params) const override;

    // the window and the gate are members, not llama_hparams: a non-zero hparams.n_swa would make the tools
    // treat this memory as a stock sliding-window cache
    uint32_t n_window   = 0;
    uint32_t n_low_rank = 0;     // rank of the gate projection, 0 = one full matrix
    float    gate_norm  = 16.0f; // log gate = logsigmoid(W h + b) / gate_norm
};

// called by llama_model::create_memory
llama_memory_i * llama_spikingbrain_create_memory(
        const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams);
