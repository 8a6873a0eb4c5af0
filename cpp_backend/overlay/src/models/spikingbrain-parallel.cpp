// Layers with softmax attention and linear attention side by side, and the sinks before the text (SpikingBrain-76B)

#include "spikingbrain-graph.h"

#include "../llama-impl.h"

#include <cstring>

using graph = llama_model_spikingbrain::graph;

static void require(bool ok, const std::string & what) {
    llama_spikingbrain_require(ok, what);
}

//
// hyperparameters and tensors
//

// a key of one hybrid in a file of the other would be read by nobody
void llama_model_spikingbrain::load_parallel_hparams(llama_model_loader & ml) {
    std::string hybrid = "alternate", q_activation = "relu";
    ml.get_key(LLM_KV_SPIKINGBRAIN_HYBRID, hybrid, false);
    ml.get_key(LLM_KV_SINK_COUNT, n_sinks, false);
    parallel = hybrid == "parallel";

    is_sliding.fill(1);
    const bool has_pattern = ml.get_key_or_arr(LLM_KV_ATTENTION_SLIDING_WINDOW_PATTERN, is_sliding, hparams.n_layer(), false);
    const bool has_norm = ml.get_key(LLM_KV_GLA_GATE_LOGIT_NORMALIZER, gate_norm, false), has_rank = ml.get_key(LLM_KV_GLA_GATE_LOW_RANK_DIM, n_low_rank, false);
    const bool has_q    = ml.get_key(LLM_KV_GLA_Q_ACTIVATION, q_activation, false),       has_k    = ml.get_key(LLM_KV_GLA_K_MAX, k_max, false);
    q_sigmoid = q_activation == "sigmoid";

    require(!parallel || (!has_norm && !has_rank), "gla.gate_*: got keys of a gate, expected none: with hybrid = parallel there is no gate");
    require(parallel || (!has_q && !has_k), "gla.q_activation, gla.k_max: got keys of parallel layers, expected none: hybrid is alternate");
    require(!parallel || (has_q && has_k), "gla.q_activation, gla.k_max: got no such keys, expected both: hybrid is parallel");
    require(!parallel || has_pattern, "attention.sliding_window_pattern: got no such key, expected which layers see a window only: hybrid is parallel");
    require(parallel || n_sinks == 0, format("sink_count: got %u, expected 0: only parallel layers have sinks", n_sinks));
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        require(!parallel || hparams.is_recr(il), format("attention.recurrent_layers: got layer %u without linear attention, expected all with it: hybrid is parallel", il));
    }
    // what a row of the text computes with, a row of the sinks did
    for (const auto & [key, o] : ml.kv_overrides) {
        const std::string name = key.rfind("spikingbrain.", 0) == 0 ? key.substr(strlen("spikingbrain.")) : "";
        const bool counts = !name.empty() && name != "context_length" && name != "pooling_type";
        require(n_sinks == 0 || !counts, name + ": got an override, expected none: the constants of the sinks were computed with this model's own; convert the checkpoint with another one");
    }
}

void llama_model_spikingbrain::load_parallel_tensors(llama_model_loader & ml, int il) {
    const int64_t d = hparams.n_embd_head_k(), n_embd = hparams.n_embd, n_embd_q = d*hparams.n_head(il), n_embd_kv = d*hparams.n_head_kv(il);
    auto & layer = layers[il];

    const struct { llm_tensor tensor; int64_t n_out; ggml_tensor ** w, ** b; } projections[] = {
        { LLM_TENSOR_ATTN_Q,              n_embd_q,  &layer.wq,                  &layer.wq_b                  },
        { LLM_TENSOR_ATTN_K,              n_embd_kv, &layer.wk,                  &layer.wk_b                  },
        { LLM_TENSOR_ATTN_V,              n_embd_kv, &layer.wv,                  &layer.wv_b                  },
        { LLM_TENSOR_TIME_MIX_RECEPTANCE, n_embd_q,  &layer.time_mix_receptance, &layer.time_mix_receptance_b },
        { LLM_TENSOR_TIME_MIX_KEY,        n_embd_kv, &layer.time_mix_key,        &layer.time_mix_key_b        },
        { LLM_TENSOR_TIME_MIX_VALUE,      n_embd_kv, &layer.time_mix_value,      &layer.time_mix_value_b      },
    };
    for (const auto & p : projections) {
        *p.w = create_projection(ml, p.tensor, il, n_embd, p.n_out);
        *p.b = create_tensor(tn(p.tensor, "bias", il), {p.n_out}, 0);
    }
    layer.attn_sub_norm  = create_tensor(tn(LLM_TENSOR_ATTN_SUB_NORM,  "weight", il), {n_embd_q}, 0);
    layer.ssm_norm       = create_tensor(tn(LLM_TENSOR_SSM_NORM,       "weight", il), {n_embd_q}, 0);
    layer.time_mix_decay = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY, "weight", il), {n_embd_q}, TENSOR_NOT_REQUIRED); // only with a lower bound
    layer.wo             = create_projection(ml, LLM_TENSOR_ATTN_OUT, il, n_embd_q, n_embd);

    if (n_sinks > 0) {
        sinks[il].k     = create_tensor(tn(LLM_TENSOR_ATTN_K,       "sinks", il), {d, n_sinks, hparams.n_head_kv(il)}, LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT);
        sinks[il].v     = create_tensor(tn(LLM_TENSOR_ATTN_V,       "sinks", il), {d, n_sinks, hparams.n_head_kv(il)}, LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT);
        sinks[il].state = create_tensor(tn(LLM_TENSOR_TIME_MIX_KEY, "state", il), {d, d, n_head_state(il)},            LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT);
    }
}

// wherever they lie: the storage's layers are on the model's devices, too
void llama_model_spikingbrain::set_sinks(spikingbrain_storage & storage) const {
    const auto read = [](ggml_tensor * t) {
        std::vector<float> x(ggml_nelements(t));
        ggml_backend_tensor_get(t, x.data(), 0, ggml_nbytes(t));
        return x;
    };
    for (size_t il = 0; il < sinks.size(); ++il) {
        storage.set_initial(il, read(sinks[il].state).data());
        storage.set_sinks(il, read(sinks[il].k).data(), read(sinks[il].v).data());
    }
}

void llama_spikingbrain_warn_adapter(const llama_model & model) {
    const auto * own = dynamic_cast<const llama_model_spikingbrain *>(&model);
    if (own && own->n_sinks > 0) {
        LLAMA_LOG_WARN("%s: the constants of the %u sinks were computed without this adapter; its results are approximate\n", __func__, own->n_sinks);
    }
}

//
// blocks
//

// Linear attention without a gate, per query head h, S {n_embd_head, n_embd_head}, c = 1 - lower bound of this head and channel:
//   q = relu(W_q x + b_q) / sqrt(n_embd_head)   z = W_k x + b_k   v = W_v x + b_v   of its key/value head
//   k = c sigmoid(z)   w = 1 - c + c sigmoid(-z);   without a bound k = min(sigmoid(z), k_max), w = 1 - k, the same for a whole group
//   S_t = diag(w_t) S_{t-1} + k_t^T v_t
//   o_t = q_t S_t
ggml_tensor * graph::build_linear(encoded_input & in) const {
    const auto & layer  = model.layers[in.il];
    const auto & memory = inp->mem->get_storage();
    const int64_t d = n_embd_head, T = n_tokens, n_state = memory.n_head(in.il), n_group = n_state/n_head_kv;

    ggml_tensor * q = build_proj(layer.time_mix_receptance, in, { layer.time_mix_receptance_b, !model.q_sigmoid });
    ggml_tensor * z = build_proj(layer.time_mix_key,        in, { layer.time_mix_key_b });
    ggml_tensor * v = build_proj(layer.time_mix_value,      in, { layer.time_mix_value_b });
    q = ggml_reshape_3d(ctx0, model.q_sigmoid ? ggml_sigmoid(ctx0, q) : q, d, n_head, T);
    v = ggml_reshape_4d(ctx0, v, d, 1, n_head_kv, T);
    v = ggml_reshape_3d(ctx0, n_group > 1 ? ggml_repeat_4d(ctx0, v, d, n_group, n_head_kv, T) : v, d, n_state, T);
    cb(q, "linear_q", in.il);
    cb(v, "linear_v", in.il);

    ggml_tensor * kw = ggml_spk_key(ctx0, ggml_reshape_3d(ctx0, z, d, n_head_kv, T), layer.time_mix_decay, model.k_max);
    cb(kw, "linear_kw", in.il);
    ggml_tensor * k = ggml_view_3d(ctx0, kw, d, n_state, T, kw->nb[1], kw->nb[2], 0);
    ggml_tensor * w = ggml_view_3d(ctx0, kw, d, n_state, T, kw->nb[1], kw->nb[2], kw->nb[3]);

    ggml_tensor * cur = ggml_spk_gla(ctx0, q, k, v, w, memory.get_s(in.il), inp->seqs, kq_scale);
    cb(cur, "linear", in.il);

    // the new states, once the old ones are read
    ggml_build_forward_expand(gf, ggml_spk_gla_update(ctx0, memory.get_s(in.il), k, v, w, inp->plan, cur, n_state, memory.n_states(), memory.n_journal()));

    return ggml_reshape_2d(ctx0, cur, d*n_head, T);
}

// W_o (RMSNorm(softmax attention) + RMSNorm(linear attention)), norms over whole rows; the mean of both is in their weights
ggml_tensor * graph::build_parallel_layer(ggml_tensor * inpL, int il) const {
    const auto & layer = model.layers[il];

    auto in = build_normed_input(inpL, layer.attn_norm, { "attn_norm", "spike_attn" }, il, model.spikes(LLM_TENSOR_ATTN_Q), false,
        { layer.wq, layer.wk, layer.wv, layer.time_mix_receptance, layer.time_mix_key, layer.time_mix_value });
    ggml_tensor * window = build_norm(build_window(in), layer.attn_sub_norm, NULL, LLM_NORM_RMS, il);
    ggml_tensor * linear = build_norm(build_linear(in), layer.ssm_norm,      NULL, LLM_NORM_RMS, il);
    ggml_tensor * cur    = ggml_add(ctx0, window, linear);
    cb(cur, "branches", il);

    auto out = build_input(cur, "spike_attn_out", il, LLM_TENSOR_ATTN_OUT);
    return build_proj(layer.wo, out, { nullptr, false, inpL });
}
