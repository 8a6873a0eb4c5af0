#pragma once

// The graph's builders, one per block kind: spikingbrain.cpp has those of the 7B's layers, spikingbrain-parallel.cpp those of layers with both
// branches, spikingbrain-moe.cpp the mixture of experts, spikingbrain-projections.cpp the products that all of them are made of.

#include "models.h"
#include "spikingbrain-loader.h"
#include "spikingbrain-memory.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

// what the operators need to know of a micro-batch: where its sequences lie, and the rotary angles
class llm_graph_input_spikingbrain : public llm_graph_input_i {
public:
    // freq_factors: what each frequency is divided by; empty: nothing
    llm_graph_input_spikingbrain(const llama_memory_spikingbrain * mem, float freq_base, float freq_scale, std::vector<float> freq_factors) :
        mem(mem), freq_base(freq_base), freq_scale(freq_scale), freq_factors(std::move(freq_factors)) {}

    void set_input(const llama_ubatch * ubatch) override {
        mem->set_seqs(*ubatch, (int32_t *) seqs->data, (ggml_spk_plan *) plan->data);
        for (const auto & [n_ring, t] : rows) {
            mem->set_rows(*ubatch, n_ring, (int64_t *) t->data);
        }
        std::copy(ubatch->pos, ubatch->pos + ubatch->n_tokens, (int32_t *) pos->data);
        set_rope(*ubatch);
    }

    // angles in double, reduced before they become float: exact at any position; the sinks' come before the text's
    void set_rope(const llama_ubatch & ubatch) {
        const int64_t half = rope->ne[0]/2, n_sinks = mem->get_storage().n_sinks();
        float * data = (float *) rope->data;
        for (int64_t i = 0; i < half; ++i) {
            const double freq = freq_scale*std::pow((double) freq_base, -(double) i/half)/(freq_factors.empty() ? 1.0f : freq_factors[i]);
            for (uint32_t t = 0; t < ubatch.n_tokens; ++t) {
                data[t*2*half + i]        = (float) std::cos((n_sinks + ubatch.pos[t])*freq);
                data[t*2*half + half + i] = (float) std::sin((n_sinks + ubatch.pos[t])*freq);
            }
        }
    }

    bool can_reuse(const llm_graph_params & params) override {
        mem = static_cast<const llama_memory_spikingbrain_context *>(params.mctx)->get_mem();
        return pos->ne[0] == params.ubatch.n_tokens && seqs->ne[1] == params.ubatch.n_seqs;
    }

    ggml_tensor * seqs; // I32 {GGML_SPK_SEQ_N_INFO, n_seqs}
    ggml_tensor * plan; // I32 {GGML_SPK_PLAN_N, n_seqs}
    std::map<int32_t, ggml_tensor *> rows; // by n_ring: I64 {n_tokens}, rows of such a ring to write
    ggml_tensor * pos;  // I32 {n_tokens}
    ggml_tensor * rope; // F32 {n_embd_head, n_tokens}

    const llama_memory_spikingbrain * mem;

private:
    const float freq_base;
    const float freq_scale;
    const std::vector<float> freq_factors;
};

// what follows a product, in its pass where it is one in integers: silu(gate) * (relu(W x + bias) + residual), each where there is one
struct product_then {
    ggml_tensor * bias     = nullptr;
    bool          relu     = false;
    ggml_tensor * residual = nullptr;
    ggml_tensor * gate     = nullptr;
};

// names of a norm's output, as floats or encoded
struct normed_names {
    const char * floats, * encoded;
};

// of each token
struct chosen_experts {
    ggml_tensor * ids;     // I32 {1, n_tokens}
    ggml_tensor * weights; // F32 {1, 1, n_tokens}; NULL: 1
};

struct llama_model_spikingbrain::graph : public llm_graph_context {
    graph(const llama_model & model, const llm_graph_params & params);

private:
    // What the projections of one input read: its floats, or the input in integers, encoded once for all of them by the first that asks.
    class encoded_input {
    public:
        // x: F32 {n, n_tokens}; name: of the encoded input, for statistics and debugging
        // norm: weight of an RMSNorm that is still to be applied to x, as it is encoded: nobody reads its floats; NULL: none
        encoded_input(const graph & g, ggml_tensor * x, const char * name, int il, bool spiking, ggml_tensor * norm = nullptr) :
            il(il), spiking(spiking), g(g), x(x), norm(norm), name(name) {}

        ggml_tensor * floats() const { return norm ? nullptr : x; } // F32 {n, n_tokens}; NULL: nobody reads them
        ggml_tensor * codes();                                      // ggml_spk_encode of x
        ggml_tensor * decoded();                                    // V_th s, F32 {n, n_tokens}
        int64_t       n_tokens() const { return x->ne[1]; }

        const int  il;
        const bool spiking;

    private:
        const graph & g;
        ggml_tensor * const x;
        ggml_tensor * const norm;
        const char  * const name;
        ggml_tensor * act = nullptr;
        ggml_tensor * dec = nullptr;
    };

    const llama_model_spikingbrain & model;

    const int64_t n_embd_head = n_embd_head_k;
    const float   kq_scale    = 1.0f/sqrtf(float(n_embd_head));
    static constexpr float QUERY_K = 256.0f; // codes of a query per its mean, where an INT8 window is read without spikes: finer than the keys'

    llm_graph_input_spikingbrain * inp = nullptr;

    llm_graph_input_spikingbrain * build_inp() const;

    // layers, one per kind: inpL is {n_embd, n_tokens} in and out, norm and residual included
    ggml_tensor * build_gla_layer     (ggml_tensor * inpL, int il) const;
    ggml_tensor * build_swa_layer     (ggml_tensor * inpL, int il) const;
    ggml_tensor * build_parallel_layer(ggml_tensor * inpL, int il) const;
    ggml_tensor * build_mlp_layer(ggml_tensor * ffn_inp, int il) const;
    ggml_tensor * build_moe_layer(ggml_tensor * ffn_inp, int il) const;
    ggml_tensor * build_head(ggml_tensor * cur) const;

    // their parts
    encoded_input build_attn_norm(ggml_tensor * cur, int il) const;
    std::array<ggml_tensor *, 3> build_proj_qkv(encoded_input & in, bool relu) const;
    ggml_tensor * build_gate  (encoded_input & in) const;
    ggml_tensor * build_window(encoded_input & in) const;
    ggml_tensor * build_linear(encoded_input & in) const;
    ggml_tensor * build_store(ggml_tensor * ring, ggml_tensor * cur, ggml_tensor * rows) const;
    ggml_tensor * build_glu(encoded_input & in, ggml_tensor * w_gate, ggml_tensor * w_up, ggml_tensor * w_down, ggml_tensor * residual) const;
    chosen_experts build_router(encoded_input & in) const;

    // inputs of projections, and products with them
    encoded_input build_input(ggml_tensor * x, const char * name, int il, llm_tensor projection) const;
    encoded_input build_normed_input(ggml_tensor * x, ggml_tensor * norm, normed_names names, int il, bool spiking, bool floats, std::initializer_list<ggml_tensor *> weights) const;
    ggml_tensor * build_proj   (ggml_tensor * w, encoded_input & in, const product_then & then = {}) const;
    ggml_tensor * build_proj_id(ggml_tensor * w, encoded_input & in, const chosen_experts & chosen, ggml_tensor * residual) const;
    ggml_tensor * build_then(ggml_tensor * cur, const product_then & then) const;
    ggml_tensor * build_lora   (ggml_tensor * w, ggml_tensor * x, ggml_tensor * cur) const;
    ggml_tensor * build_lora_id(ggml_tensor * w, ggml_tensor * x, ggml_tensor * ids, ggml_tensor * cur) const;
    bool has_lora    (ggml_tensor * w) const;
    bool reads_floats(ggml_tensor * w, bool spiking) const;
};
