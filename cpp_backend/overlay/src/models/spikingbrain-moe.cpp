// A mixture of experts in place of an MLP, of which each token chooses one, beside an expert that all tokens share

#include "spikingbrain-graph.h"

#include "../llama-impl.h"

#include <algorithm>
#include <cmath>
#include <fstream>

using graph = llama_model_spikingbrain::graph;

static void require(bool ok, const std::string & what) {
    llama_spikingbrain_require(ok, what);
}

//
// hyperparameters and tensors
//

void llama_model_spikingbrain::load_expert_hparams(llama_model_loader & ml) {
    uint32_t n_shared = 0, gating = LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX;
    bool norm = false;
    const bool has_ff = ml.get_key(LLM_KV_EXPERT_FEED_FORWARD_LENGTH, n_ff_exp, false), has_shared_ff = ml.get_key(LLM_KV_EXPERT_SHARED_FEED_FORWARD_LENGTH, n_ff_shexp, false);
    const bool other  = ml.get_key(LLM_KV_EXPERT_SHARED_COUNT, n_shared, false) | ml.get_key(LLM_KV_EXPERT_GATING_FUNC, gating, false) | ml.get_key(LLM_KV_EXPERT_WEIGHTS_NORM, norm, false);
    expert_weight = !norm; // of one expert, the probability over itself

    require(hparams.n_expert > 0 || (!has_ff && !has_shared_ff && !other), "expert_*: got keys of experts, expected none without expert_count");
    require(hparams.n_expert == 0 || has_ff, "expert_feed_forward_length: got no such key, expected the width of an expert");
    require((n_shared > 0) == has_shared_ff, format("expert_shared_feed_forward_length: got %u, expected a width if and only if expert_shared_count is 1", n_ff_shexp));
}

// bytes that this process may have of the machine's
static double memory_of_machine() {
    size_t free = 0, total = 0;
    if (ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
        ggml_backend_dev_memory(cpu, &free, &total);
    }
    double least = total > 0 ? total : INFINITY, limit;
    for (const char * path : { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes" }) {
        if (std::ifstream(path) >> limit) { // "max": none
            least = std::min(least, limit);
        }
    }
    return least;
}

// Experts are read whole and interleaved where all weights fit into memory. Where they do not, they stay in the mapped file, and what is
// chosen is read: llama.cpp's --lazy-mode on, which can be asked for, too. Not where other machines have layers, and their experts.
// Products are those of interleaved experts all the same: they ask for an expert as a whole, and give the same results.
void llama_model_spikingbrain::choose_lazy_mode(llama_model_loader & ml) {
    const double memory = memory_of_machine();
    if (hparams.n_expert > 0 && devices.empty() && ml.lazy.mode == LLAMA_LAZY_MODE_AUTO && ml.n_bytes > 0.9*memory) {
        LLAMA_LOG_WARN("%s: got %.1f GiB of weights, expected less than 0.9 of the memory of %.1f GiB: experts stay in the file and are read as they are chosen (--lazy-mode off: read them all)\n",
            __func__, ml.n_bytes/1024.0/1024.0/1024.0, memory/1024.0/1024.0/1024.0);
        ml.lazy.mode = LLAMA_LAZY_MODE_ON;
    }
    experts_in_file = devices.empty() && ml.lazy.mode == LLAMA_LAZY_MODE_ON && params.use_extra_bufts;
}

bool llama_model_spikingbrain::in_integers(const ggml_tensor * w, bool spiking) const {
    return llama_spikingbrain_in_integers(w, spiking, experts_in_file && w->ne[2] > 1);
}

void llama_model_spikingbrain::load_expert_tensors(llama_model_loader & ml, int il) {
    const int64_t n_embd = hparams.n_embd, n_expert = hparams.n_expert;
    auto & layer = layers[il];

    require(n_expert > 0, format("expert_count: got 0, expected the number of experts that blk.%d.ffn_gate_inp.weight chooses from", il));
    layer.ffn_gate_inp  = create_tensor(tn(LLM_TENSOR_FFN_GATE_INP, "weight", il), {n_embd, n_expert}, 0);
    layer.ffn_gate_exps = create_projection(ml, LLM_TENSOR_FFN_GATE_EXPS, il, n_embd,   n_ff_exp, n_expert);
    layer.ffn_down_exps = create_projection(ml, LLM_TENSOR_FFN_DOWN_EXPS, il, n_ff_exp, n_embd,   n_expert);
    layer.ffn_up_exps   = create_projection(ml, LLM_TENSOR_FFN_UP_EXPS,   il, n_embd,   n_ff_exp, n_expert);
    if (n_ff_shexp > 0) {
        layer.ffn_gate_shexp = create_projection(ml, LLM_TENSOR_FFN_GATE_SHEXP, il, n_embd,     n_ff_shexp);
        layer.ffn_down_shexp = create_projection(ml, LLM_TENSOR_FFN_DOWN_SHEXP, il, n_ff_shexp, n_embd);
        layer.ffn_up_shexp   = create_projection(ml, LLM_TENSOR_FFN_UP_SHEXP,   il, n_embd,     n_ff_shexp);
    }
}

//
// blocks
//

// W[id] x of each token, as build_proj: in integers where the type of W has such a product, else of floats
ggml_tensor * graph::build_proj_id(ggml_tensor * w, encoded_input & in, const chosen_experts & chosen, ggml_tensor * residual) const {
    const bool in_integers = model.in_integers(w, in.spiking);
    const int64_t T = in.n_tokens();
    ggml_tensor * cur;
    if (in_integers) {
        const auto parts = model.int8_parts_of(w);
        cur = ggml_spk_mul_mat_id(ctx0, w, parts.scales, parts.out_index, parts.out_value, in.codes(), chosen.ids);
    } else {
        ggml_tensor * x = in.spiking ? in.decoded() : in.floats();
        cur = ggml_mul_mat_id(ctx0, w, ggml_reshape_3d(ctx0, x, x->ne[0], 1, T), chosen.ids);
        cur = ggml_reshape_2d(ctx0, cur, cur->ne[0], T);
    }
    if (in_integers && !has_lora(w)) {
        ggml_spk_mul_mat_id_then(cur, chosen.weights, residual);
        return cur;
    }
    cur = build_lora_id(w, in.floats(), chosen.ids, cur);
    cur = chosen.weights ? ggml_mul(ctx0, cur, ggml_reshape_2d(ctx0, chosen.weights, 1, T)) : cur;
    return residual ? ggml_add(ctx0, cur, residual) : cur;
}

// what build_lora_mm_id adds, here to a product that it did not make
ggml_tensor * graph::build_lora_id(ggml_tensor * w, ggml_tensor * x, ggml_tensor * ids, ggml_tensor * cur) const {
    x = ggml_reshape_3d(ctx0, x, x->ne[0], 1, x->ne[1]);
    for (const auto & [adapter, adapter_scale] : *loras) {
        if (llama_adapter_lora_weight * lw = adapter->get_weight(w)) {
            ggml_tensor * ab = ggml_mul_mat_id(ctx0, lw->b, ggml_mul_mat_id(ctx0, lw->a, x, ids), ids);
            cur = ggml_add(ctx0, cur, ggml_scale(ctx0, ggml_reshape_2d(ctx0, ab, ab->ne[0], ab->ne[2]), lw->get_scale(adapter->alpha, adapter_scale)));
        }
    }
    return cur;
}

// The expert with the largest probability, the first of equal ones. The router never spikes
chosen_experts graph::build_router(encoded_input & in) const {
    ggml_tensor * router = model.layers[in.il].ffn_gate_inp;
    ggml_tensor * probs  = ggml_soft_max(ctx0, build_lora_mm(router, in.floats()));
    cb(probs, "ffn_moe_probs", in.il);

    ggml_tensor * ids = ggml_spk_top1(ctx0, probs);
    cb(ids, "ffn_moe_topk", in.il);
    if (!model.expert_weight) {
        return { ids, nullptr };
    }
    ggml_tensor * weights = ggml_get_rows(ctx0, ggml_reshape_3d(ctx0, probs, 1, router->ne[1], in.n_tokens()), ids);
    cb(weights, "ffn_moe_weights", in.il);
    return { ids, weights };
}

// Shared(u) + p_e E_e(u), both W_down (silu(W_gate u) * (W_up u)); u is encoded once for all of them
ggml_tensor * graph::build_moe_layer(ggml_tensor * ffn_inp, int il) const {
    const auto & layer = model.layers[il];
    auto in = build_normed_input(ffn_inp, layer.ffn_norm, { "ffn_norm", "spike_ffn" }, il, model.spikes(LLM_TENSOR_FFN_UP), true, {});
    const chosen_experts chosen = build_router(in);

    ggml_tensor * residual = ffn_inp;
    if (layer.ffn_up_shexp) {
        residual = build_glu(in, layer.ffn_gate_shexp, layer.ffn_up_shexp, layer.ffn_down_shexp, ffn_inp);
        cb(residual, "ffn_shexp", il);
    }
    ggml_tensor * gate = build_proj_id(layer.ffn_gate_exps, in, { chosen.ids, nullptr }, nullptr);
    ggml_tensor * up   = build_proj_id(layer.ffn_up_exps,   in, { chosen.ids, nullptr }, nullptr);
    ggml_tensor * cur  = ggml_swiglu_split(ctx0, gate, up);
    cb(cur, "ffn_moe_swiglu", il);

    auto down = build_input(cur, "spike_ffn_down_exps", il, LLM_TENSOR_FFN_DOWN_EXPS);
    return build_proj_id(layer.ffn_down_exps, down, chosen, residual);
}
