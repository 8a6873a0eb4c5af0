#pragma once

// The graph's builders, one per block kind: spikingbrain.cpp has those of the 7B's layers, spikingbrain-parallel.cpp those of layers with both
// branches, spikingbrain-moe.cpp the mixture of experts.

#include "models.h"
#include "spikingbrain-loader.h"
#include "spikingbrain-memory.h"

#include <array>
#include <cmath>
#include <map>

// what the operators need to know of a micro-batch: where its sequences lie, and the rotary angles
class llm_graph_input_spikingbrain : public llm_graph_input_i {
public:
    llm_graph_input_spikingbrain(const llama_memory_spikingbrain * mem, float freq_base, float freq_scale) :
        mem(mem), freq_base(freq_base), freq_scale(freq_scale) {}

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
            const double freq = freq_scale*std::pow((double) freq_base, -(double) i/half);
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
};

// What the projections of one input read: the floats, or the input in integers, encoded once for all of them.
struct projection_input {
    ggml_tensor * x;              // F32 {n, n_tokens}
    const char  * name;           // of the encoded input, for statistics and debugging
    int           il;
    bool          spiking;

    ggml_tensor * norm = nullptr; // weight of an RMSNorm that is still to be applied to x, as it is encoded: nobody reads its floats
    ggml_tensor * act  = nullptr; // ggml_spk_encode of x
    ggml_tensor * dec  = nullptr; // V_th s as floats
};

struct normed_names {
    const char * floats, * encoded;
};

// what follows a product, in its pass where it is one in integers: silu(gate) * (relu(W x + bias) + residual), each where there is one
struct product_then {
    ggml_tensor * bias     = nullptr;
    bool          relu     = false;
    ggml_tensor * residual = nullptr;
    ggml_tensor * gate     = nullptr;
};

// of each token
struct chosen_experts {
    ggml_tensor * ids;     // I32 {1, n_tokens}
    ggml_tensor * weights; // F32 {1, 1, n_tokens}; NULL: 1
};

// one builder per block kind; cur is {n_embd, n_tokens} in and out, norm and residual included
struct spikingbrain_blocks {
    const llm_graph_context        & g;
    const llama_model_spikingbrain & model;
    llm_graph_input_spikingbrain   * inp;

    ggml_context * ctx0 = g.ctx0;
    const int64_t n_embd_head = g.n_embd_head_k;
    const float   kq_scale    = 1.0f/sqrtf(float(n_embd_head));
    static constexpr float QUERY_K = 256.0f; // codes of a query per its mean, where an INT8 window is read without spikes: finer than the keys'

    projection_input reads(ggml_tensor * x, const char * name, int il, llm_tensor projection) const { return { x, name, il, model.spikes(projection) }; }
    projection_input normed(ggml_tensor * x, ggml_tensor * norm, normed_names names, int il, bool spiking, bool floats, std::initializer_list<ggml_tensor *> weights) const;
    ggml_tensor * encoded(projection_input & in) const;
    ggml_tensor * decoded(projection_input & in) const;
    ggml_tensor * build_proj(ggml_tensor * w, projection_input & in, const product_then & then = {}) const;
    ggml_tensor * build_then(ggml_tensor * cur, const product_then & then) const;
    bool          has_lora(ggml_tensor * w) const;
    bool          reads_floats(ggml_tensor * w, bool spiking) const;
    ggml_tensor * build_lora(ggml_tensor * w, ggml_tensor * x, ggml_tensor * cur) const;
    std::array<ggml_tensor *, 3> build_qkv(projection_input & in, bool relu) const;

    chosen_experts build_router(projection_input & in) const;
    ggml_tensor * build_proj_id(ggml_tensor * w, projection_input & in, const chosen_experts & chosen, ggml_tensor * residual) const;
    ggml_tensor * build_lora_id(ggml_tensor * w, ggml_tensor * x, ggml_tensor * ids, ggml_tensor * cur) const;

    ggml_tensor * build_gate(projection_input & in) const;
    ggml_tensor * build_window(projection_input & in) const;
    ggml_tensor * build_linear(projection_input & in) const;
    ggml_tensor * build_glu(projection_input & in, ggml_tensor * w_gate, ggml_tensor * w_up, ggml_tensor * w_down, ggml_tensor * residual) const;
    ggml_tensor * build_store(ggml_tensor * ring, ggml_tensor * cur, ggml_tensor * rows) const;
    projection_input build_attn_norm(ggml_tensor * cur, int il) const;
    ggml_tensor * build_gla (ggml_tensor * inpL, int il) const;
    ggml_tensor * build_swa (ggml_tensor * inpL, int il) const;
    ggml_tensor * build_parallel(ggml_tensor * inpL, int il) const;
    ggml_tensor * build_attn(ggml_tensor * inpL, int il) const; // one of the three
    ggml_tensor * build_mlp (ggml_tensor * ffn_inp, int il) const;
    ggml_tensor * build_moe (ggml_tensor * ffn_inp, int il) const;
    ggml_tensor * build_head(ggml_tensor * cur) const;
};
