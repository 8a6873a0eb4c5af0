#include "spikingbrain-graph.h"

#include "../llama-impl.h"

#include <algorithm>

static void require(bool ok, const std::string & what) {
    llama_spikingbrain_require(ok, what);
}

// llama_spikingbrain_check_header has seen each key's type and range; here is what one must be beside another
void llama_model_spikingbrain::load_arch_hparams(llama_model_loader & ml) {
    ml.get_key(LLM_KV_ATTENTION_LAYERNORM_RMS_EPS, hparams.f_norm_rms_eps);
    ml.get_key(LLM_KV_ATTENTION_SLIDING_WINDOW,    n_window);
    ml.get_key_or_arr(LLM_KV_ATTENTION_RECURRENT_LAYERS, hparams.is_recr_impl, hparams.n_layer());
    load_parallel_hparams(ml);
    load_expert_hparams(ml);

    const uint32_t d = hparams.n_embd_head_k();
    require(n_window <= hparams.n_ctx_train, format("attention.sliding_window: got %u, expected at most context_length %u: no longer window was trained", n_window, hparams.n_ctx_train));
    require(d == hparams.n_embd_head_v(), format("attention.value_length: got %u, expected attention.key_length %u", hparams.n_embd_head_v(), d));
    require(d > 0 && d % 2 == 0 && hparams.n_rot() == d, format("rope.dimension_count: got %u, expected the even head size %u", hparams.n_rot(), d));
    require(hparams.n_head() % hparams.n_head_kv() == 0, format("attention.head_count_kv: got %u, expected a divisor of %u", hparams.n_head_kv(), hparams.n_head()));

    load_spike_hparams(ml);

    n_ctx_file = hparams.n_ctx_train;
    bool grows = false;
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        grows = grows || (has_window(il) && sees_all(il));
    }
    hparams.n_ctx_train = grows ? n_ctx_file : N_CTX_UNBOUNDED;

    switch (hparams.n_layer()) {
        case 28: type = parallel ? LLM_TYPE_UNKNOWN : LLM_TYPE_7B; break;
        default: type = LLM_TYPE_UNKNOWN;
    }
}

// Absent keys: not spiking; switched on at load (--override-kv spikingbrain.spike.enable=bool:true): k = 3, scope "paper".
void llama_model_spikingbrain::load_spike_hparams(llama_model_loader & ml) {
    std::string scope = "paper";
    ml.get_key(LLM_KV_SPIKE_ENABLE, spike,   false);
    ml.get_key(LLM_KV_SPIKE_K,      spike_k, false);
    ml.get_key(LLM_KV_SPIKE_SCOPE,  scope,   false);

    require(!ml.kv_overrides.count("spikingbrain.spike.scope"), "spike.scope: got an override, expected none: it is fixed when the checkpoint is converted (sb-convert --spike-scope)");
    for (uint32_t width : { hparams.n_embd, hparams.n_ff(), hparams.n_embd_head_k()*hparams.n_head(), n_ff_exp, n_ff_shexp }) {
        require(!spike || width % 32 == 0, format("spike.enable: got a width of %u, expected multiples of 32", width));
    }
    spike_down = scope == "paper";

    float sink_k = spike ? spike_k : 0.0f;
    std::string sink_scope = scope;
    const bool told = ml.get_key(LLM_KV_SINK_SPIKE_K, sink_k, false);
    ml.get_key(LLM_KV_SINK_SPIKE_SCOPE, sink_scope, false);
    require(!told || sink_k == (spike ? spike_k : 0.0f), format("sink_spike_k: got constants of the sinks for k = %g (0: no spikes), expected %g, which this model has; convert the checkpoint again", sink_k, spike ? spike_k : 0.0f));
    require(!told || !spike || sink_scope == scope, format("sink_spike_scope: got constants of the sinks for scope %s, expected %s, which this model has; convert the checkpoint again", sink_scope.c_str(), scope.c_str()));
}

bool llama_model_spikingbrain::spikes(llm_tensor projection) const {
    const bool down = projection == LLM_TENSOR_FFN_DOWN || projection == LLM_TENSOR_FFN_DOWN_EXPS || projection == LLM_TENSOR_FFN_DOWN_SHEXP;
    return spike && (!down || spike_down);
}

// a projection of a layer; INT8 codes come with their scales and, where codes lie outside int8, with the rest of them
ggml_tensor * llama_model_spikingbrain::create_projection(llama_model_loader & ml, llm_tensor tensor, int il, int64_t n_in, int64_t n_out, int64_t n_expert) {
    const std::string   name = tn(tensor, "weight", il).str();
    const ggml_tensor * meta = ml.get_tensor_meta(name.c_str());
    const ggml_type     type = meta ? meta->type : GGML_TYPE_F32; // a missing one is said below

    require(type != GGML_TYPE_I8 || n_in % 128 == 0, format("%s: got INT8 rows of %lld, expected a multiple of 128, the group of a scale; convert the checkpoint again with sb-convert",
        name.c_str(), (long long) n_in));

    const int64_t n_all = n_in*n_out*std::max<int64_t>(n_expert, 1);
    const auto create = [&](const char * suffix, int64_t n0, int flags) {
        return n_expert > 0 ? create_tensor(tn(tensor, suffix, il), {n0, n_out, n_expert}, flags | (devices.empty() ? TENSOR_READ_LAZY : 0)) : create_tensor(tn(tensor, suffix, il), {n0, n_out}, flags);
    };
    ggml_tensor * w = create("weight", n_in, llama_spikingbrain_weight_flags(meta, spikes(tensor)));
    if (type != GGML_TYPE_I8) {
        return w;
    }
    int8_parts parts;
    parts.scales = create("scales", n_in/128, n_expert > 0 ? LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT : LLAMA_SPIKINGBRAIN_TENSOR_SPK);
    if (const ggml_tensor * index = ml.get_tensor_meta(tn(tensor, "outlier_index", il).str().c_str())) {
        require(n_all <= INT32_MAX, format("%s: got outliers in %lld codes, expected at most 2^31 - 1 codes: an outlier's index has 32 bits", w->name, (long long) n_all));
        const int flags = n_expert > 0 ? LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT : 0;
        parts.out_index = create_tensor(tn(tensor, "outlier_index", il), {index->ne[0]}, flags);
        parts.out_value = create_tensor(tn(tensor, "outlier_value", il), {index->ne[0]}, flags);
    }
    int8[w] = parts;
    return w;
}

// upstream's name of them, and its meaning: frequency i is divided by factor i
std::vector<float> llama_model_spikingbrain::rope_factors() const {
    if (!rope_freqs || !rope_freqs->buffer || !rope_freqs->data) {
        return {}; // none, or a model loaded to measure its size
    }
    std::vector<float> factors(ggml_nelements(rope_freqs));
    ggml_backend_tensor_get(rope_freqs, factors.data(), 0, ggml_nbytes(rope_freqs)); // it may lie on another machine
    for (float factor : factors) {
        require(std::isfinite(factor) && factor > 0.0f, format("%s: got a factor of %g, expected finite numbers above 0; convert the checkpoint again with sb-convert", rope_freqs->name, factor));
    }
    return factors;
}

void llama_model_spikingbrain::check_int8() const {
    for (const auto & [w, parts] : int8) {
        if (!parts.out_index || !parts.out_index->data) {
            continue; // none, or a model loaded to measure its size
        }
        std::vector<int32_t> index(ggml_nelements(parts.out_index));
        ggml_backend_tensor_get(parts.out_index, index.data(), 0, ggml_nbytes(parts.out_index)); // it may lie on another machine
        int64_t last = -1;
        for (int64_t i = 0; i < parts.out_index->ne[0]; ++i) {
            if (index[i] <= last || index[i] >= ggml_nelements(w)) {
                require(false, format("%s: outlier %lld: got index %d, expected one above %lld and below %lld; convert the checkpoint again with sb-convert",
                    w->name, (long long) i, index[i], (long long) last, (long long) ggml_nelements(w)));
            }
            last = index[i];
        }
    }
}

// whether one layer has one of these: then a model has all of them in all layers, and a missing one is an error
bool llama_model_spikingbrain::has_tensor(const llama_model_loader & ml, std::initializer_list<llm_tensor> tensors, const char * suffix) const {
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        for (llm_tensor tensor : tensors) {
            if (ml.get_tensor_meta(tn(tensor, suffix, il).str().c_str())) {
                return true;
            }
        }
    }
    return false;
}

// of layers that have one kind of attention
void llama_model_spikingbrain::load_attn_tensors(llama_model_loader & ml, int il) {
    LLAMA_LOAD_LOCALS;
    GGML_UNUSED(n_vocab);
    const int64_t n_embd_q = n_embd_head_k*n_head;
    auto & layer = layers[il];

    layer.wq   = create_projection(ml, LLM_TENSOR_ATTN_Q,   il, n_embd,   n_embd_q);
    layer.wk   = create_projection(ml, LLM_TENSOR_ATTN_K,   il, n_embd,   n_embd_k_gqa);
    layer.wv   = create_projection(ml, LLM_TENSOR_ATTN_V,   il, n_embd,   n_embd_v_gqa);
    layer.wo   = create_projection(ml, LLM_TENSOR_ATTN_OUT, il, n_embd_q, n_embd);
    if (has_tensor(ml, { LLM_TENSOR_ATTN_Q, LLM_TENSOR_ATTN_K, LLM_TENSOR_ATTN_V }, "bias")) {
        layer.wq_b = create_tensor(tn(LLM_TENSOR_ATTN_Q, "bias", il), {n_embd_q},     0);
        layer.wk_b = create_tensor(tn(LLM_TENSOR_ATTN_K, "bias", il), {n_embd_k_gqa}, 0);
        layer.wv_b = create_tensor(tn(LLM_TENSOR_ATTN_V, "bias", il), {n_embd_v_gqa}, 0);
    }
    if (has_tensor(ml, { LLM_TENSOR_ATTN_Q_NORM, LLM_TENSOR_ATTN_K_NORM }, "weight")) {
        layer.attn_q_norm = create_tensor(tn(LLM_TENSOR_ATTN_Q_NORM, "weight", il), {n_embd_head_k}, 0);
        layer.attn_k_norm = create_tensor(tn(LLM_TENSOR_ATTN_K_NORM, "weight", il), {n_embd_head_k}, 0);
    }

    if (hparams.is_recr(il)) {
        if (n_low_rank > 0) {
            layer.time_mix_decay_w1  = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W1, "weight", il), {n_embd, n_low_rank}, 0);
            layer.time_mix_decay_w2  = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W2, "weight", il), {n_low_rank, n_embd_k_gqa}, 0);
            layer.time_mix_decay     = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W2, "bias",   il), {n_embd_k_gqa}, 0);
        } else {
            layer.wqkv_gate          = create_projection(ml, LLM_TENSOR_ATTN_GATE, il, n_embd, n_embd_k_gqa);
            layer.time_mix_decay     = create_tensor(tn(LLM_TENSOR_ATTN_GATE, "bias",   il), {n_embd_k_gqa}, 0);
        }
        layer.ssm_norm = create_tensor(tn(LLM_TENSOR_SSM_NORM, "weight", il), {n_embd_head_v}, 0);
    }
}

void llama_model_spikingbrain::load_ffn_tensors(llama_model_loader & ml, int il) {
    const int64_t n_embd = hparams.n_embd, n_ff = hparams.n_ff(il);
    auto & layer = layers[il];

    layer.ffn_gate = create_projection(ml, LLM_TENSOR_FFN_GATE, il, n_embd,   n_ff);
    layer.ffn_down = create_projection(ml, LLM_TENSOR_FFN_DOWN, il,   n_ff, n_embd);
    layer.ffn_up   = create_projection(ml, LLM_TENSOR_FFN_UP,   il, n_embd,   n_ff);
}

void llama_model_spikingbrain::load_arch_tensors(llama_model_loader & ml) {
    LLAMA_LOAD_LOCALS;

    llama_spikingbrain_check_types(ml);
    choose_lazy_mode(ml);

    tok_embd = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), {n_embd, n_vocab}, 0);

    // output
    output_norm = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "weight"), {n_embd}, 0);
    // without an output of its own the input tok embed
    const bool tied = !ml.get_tensor_meta(tn(LLM_TENSOR_OUTPUT, "weight").str().c_str());
    const auto head = tn(tied ? LLM_TENSOR_TOKEN_EMBD : LLM_TENSOR_OUTPUT, "weight");
    output = create_tensor(head, {n_embd, n_vocab}, (tied ? TENSOR_DUPLICATED : 0) | llama_spikingbrain_weight_flags(ml.get_tensor_meta(head.str().c_str()), false));

    if (!parallel) {
        rope_freqs = create_tensor(tn(LLM_TENSOR_ROPE_FREQS, "weight", 0), {n_rot/2}, TENSOR_NOT_REQUIRED | LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT);
    }
    sinks.resize(n_sinks > 0 ? n_layer : 0);
    if (n_sinks > 0) {
        create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "sinks"), {n_embd, n_sinks}, LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT); // its constants are read instead
    }
    for (int i = 0; i < n_layer; ++i) {
        layers[i].attn_norm = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "weight", i), {n_embd}, 0);
        parallel ? load_parallel_tensors(ml, i) : load_attn_tensors(ml, i);

        layers[i].ffn_norm = create_tensor(tn(LLM_TENSOR_FFN_NORM, "weight", i), {n_embd}, 0);
        const bool routed = ml.get_tensor_meta(tn(LLM_TENSOR_FFN_GATE_INP, "weight", i).str().c_str()) != nullptr;
        routed ? load_expert_tensors(ml, i) : load_ffn_tensors(ml, i);
    }

    llama_spikingbrain_check_all_read(ml);
}

std::unique_ptr<llm_graph_context> llama_model_spikingbrain::build_arch_graph(const llm_graph_params & params) const {
    return std::make_unique<graph>(*this, params);
}

//
// graph
//

using graph = llama_model_spikingbrain::graph;

llama_model_spikingbrain::graph::graph(const llama_model & model, const llm_graph_params & params) :
    llm_graph_context(params), model(static_cast<const llama_model_spikingbrain &>(model)) {
    ggml_tensor * cur;
    ggml_tensor * inpL = build_inp_embd(model.tok_embd);

    inp = build_inp();
    ggml_tensor * inp_out_ids = build_inp_out_ids();

    for (int il = 0; il < n_layer; ++il) {
        res->t_layer_inp[il] = inpL;

        // one kind of attention, or both side by side
        ggml_tensor * ffn_inp = this->model.parallel ? build_parallel_layer(inpL, il) : hparams.is_recr(il) ? build_gla_layer(inpL, il) : build_swa_layer(inpL, il);
        if (il == n_layer - 1 && inp_out_ids) {
            ffn_inp = ggml_get_rows(ctx0, ffn_inp, inp_out_ids);
        }
        cb(ffn_inp, "ffn_inp", il);

        cur = model.layers[il].ffn_gate_inp ? build_moe_layer(ffn_inp, il) : build_mlp_layer(ffn_inp, il);
        cur = build_cvec(cur, il);
        cb(cur, "l_out", il);

        inpL = cur;
    }

    res->t_logits = build_head(inpL);
    ggml_build_forward_expand(gf, res->t_logits);
}

llm_graph_input_spikingbrain * graph::build_inp() const {
    const auto * mem = static_cast<const llama_memory_spikingbrain_context *>(mctx)->get_mem();
    auto inp = std::make_unique<llm_graph_input_spikingbrain>(mem, freq_base, freq_scale, model.rope_factors());

    inp->seqs = ggml_new_tensor_2d(ctx0, GGML_TYPE_I32, GGML_SPK_SEQ_N_INFO, ubatch.n_seqs);
    inp->plan = ggml_new_tensor_2d(ctx0, GGML_TYPE_I32, GGML_SPK_PLAN_N, ubatch.n_seqs);
    inp->pos  = ggml_new_tensor_1d(ctx0, GGML_TYPE_I32, n_tokens);
    inp->rope = ggml_new_tensor_2d(ctx0, GGML_TYPE_F32, n_embd_head, n_tokens);
    std::vector<ggml_tensor *> all = { inp->seqs, inp->plan, inp->pos, inp->rope };
    for (int il = 0; il < n_layer; ++il) {
        const auto & storage = mem->get_storage();
        if (storage.get_k(il) && !inp->rows.count(storage.n_ring(il))) {
            all.push_back(inp->rows[storage.n_ring(il)] = ggml_new_tensor_1d(ctx0, GGML_TYPE_I64, n_tokens));
        }
    }
    for (ggml_tensor * t : all) {
        ggml_set_input(t);
        ggml_build_forward_expand(gf, t); // allocated also where no layer reads it
    }
    return static_cast<llm_graph_input_spikingbrain *>(res->add_input(std::move(inp)));
}

//
// attention
//

// {n_embd_head, n_head, n_tokens}, and n_head_kv for keys and values
// relu: of queries and keys, after the norms of their heads where there are such
std::array<ggml_tensor *, 3> graph::build_proj_qkv(encoded_input & in, bool relu) const {
    const auto & layer = model.layers[in.il];
    const auto normed = [&](ggml_tensor * w, ggml_tensor * b, ggml_tensor * norm, int64_t n) {
        ggml_tensor * cur = ggml_reshape_3d(ctx0, build_proj(w, in, { b, relu && !norm }), n_embd_head, n, n_tokens);
        cur = norm ? build_norm(cur, norm, NULL, LLM_NORM_RMS, in.il) : cur;
        return norm && relu ? ggml_relu(ctx0, cur) : cur;
    };
    return {
        normed(layer.wq, layer.wq_b, layer.attn_q_norm, n_head),
        normed(layer.wk, layer.wk_b, layer.attn_k_norm, n_head_kv),
        ggml_reshape_3d(ctx0, build_proj(layer.wv, in, { layer.wv_b }), n_embd_head, n_head_kv, n_tokens),
    };
}

// a low-rank gate reads the floats
graph::encoded_input graph::build_attn_norm(ggml_tensor * cur, int il) const {
    const auto & layer = model.layers[il];
    return build_normed_input(cur, layer.attn_norm, { "attn_norm", "spike_attn" }, il, model.spikes(LLM_TENSOR_ATTN_Q), layer.time_mix_decay_w1 != nullptr,
        { layer.wq, layer.wk, layer.wv, layer.wqkv_gate });
}

// w = exp(logsigmoid(W h + b) / gate_norm) in (0, 1], {n_embd_head, n_head_kv, n_tokens}; a low-rank gate never spikes
ggml_tensor * graph::build_gate(encoded_input & in) const {
    const auto & layer = model.layers[in.il];

    ggml_tensor * cur;
    if (layer.wqkv_gate) {
        cur = build_proj(layer.wqkv_gate, in);
    } else {
        cur = build_lora_mm(layer.time_mix_decay_w2, build_lora_mm(layer.time_mix_decay_w1, in.floats()));
    }
    cur = ggml_spk_decay(ctx0, cur, layer.time_mix_decay, model.gate_norm);
    cb(cur, "decay", in.il);

    return ggml_reshape_3d(ctx0, cur, n_embd_head, n_head_kv, n_tokens);
}

// Gated linear attention, per key/value head h and query head r of its group, state S {n_embd_head, n_embd_head}:
//   q = relu(W_q x + b_q)   k = relu(W_k x + b_k)   v = W_v x + b_v   w = exp(logsigmoid(W_g x + b_g) / 16)
//   S_t = diag(w_t) S_{t-1} + k_t^T v_t
//   o_t = (q_t / sqrt(n_embd_head)) S_t
//   y   = W_o concat(RMSNorm(o, g_norm))
ggml_tensor * graph::build_gla_layer(ggml_tensor * inpL, int il) const {
    const auto & layer = model.layers[il];

    auto in = build_attn_norm(inpL, il);
    auto [Qcur, Kcur, Vcur] = build_proj_qkv(in, true);
    cb(Qcur, "Qcur", il);
    cb(Kcur, "Kcur", il);
    cb(Vcur, "Vcur", il);

    ggml_tensor * decay = build_gate(in);

    const auto & memory = inp->mem->get_storage();
    ggml_tensor * cur = ggml_spk_gla(ctx0, Qcur, Kcur, Vcur, decay, memory.get_s(il), inp->seqs, kq_scale);
    cb(cur, "gla", il);

    // the new states, once the old ones are read
    ggml_build_forward_expand(gf, ggml_spk_gla_update(ctx0, memory.get_s(il), Kcur, Vcur, decay, inp->plan, cur,
        memory.n_head(il), memory.n_states(), memory.n_journal()));

    cur = ggml_reshape_2d(ctx0, cur, n_embd_head*n_head, n_tokens);
    auto out = build_normed_input(cur, layer.ssm_norm, { "gla_norm", "spike_attn_out" }, il, model.spikes(LLM_TENSOR_ATTN_OUT), false, { layer.wo });
    return build_proj(layer.wo, out, { nullptr, false, inpL });
}

// this micro-batch's keys or values into the ring, which keeps the rows of a head together
ggml_tensor * graph::build_store(ggml_tensor * ring, ggml_tensor * cur, ggml_tensor * rows) const {
    if (ring->type == GGML_TYPE_I8) {
        return ggml_spk_store(ctx0, ring, cur, rows);
    }
    return ggml_set_rows(ctx0, ring, ggml_permute(ctx0, cur, 0, 2, 1, 3), rows);
}

// Softmax attention: grouped-query over the last n_window keys, the query's own included, and the sinks; {n_embd_head*n_head, n_tokens}
// Spiking: q is encoded per head, k and v are INT8 per token and head as in the released code. INT8 without spikes: q is encoded finely.
ggml_tensor * graph::build_window(encoded_input & in) const {
    const auto & memory = inp->mem->get_storage();
    const int il = in.il;

    auto [Qcur, Kcur, Vcur] = build_proj_qkv(in, false);
    Qcur = ggml_spk_rope(ctx0, Qcur, inp->rope);
    Kcur = ggml_spk_rope(ctx0, Kcur, inp->rope);
    cb(Qcur, "Qcur", il);
    cb(Kcur, "Kcur", il);
    cb(Vcur, "Vcur", il);

    ggml_tensor * rows = inp->rows.at(memory.n_ring(il));
    ggml_tensor * K = build_store(memory.get_k(il), Kcur, rows);
    ggml_tensor * V = build_store(memory.get_v(il), Vcur, rows);

    const float query_k = model.spike ? model.spike_k : K->type == GGML_TYPE_I8 ? QUERY_K : 0.0f;
    ggml_tensor * cur = ggml_spk_swa(ctx0, Qcur, K, V, inp->pos, inp->seqs, memory.n_ring(il), memory.n_window(il), kq_scale, query_k);
    ggml_spk_swa_sinks(cur, memory.n_sinks());
    cur = ggml_reshape_2d(ctx0, cur, n_embd_head*n_head, n_tokens);
    cb(cur, "swa", il);
    return cur;
}

ggml_tensor * graph::build_swa_layer(ggml_tensor * inpL, int il) const {
    auto in  = build_attn_norm(inpL, il);
    auto out = build_input(build_window(in), "spike_attn_out", il, LLM_TENSOR_ATTN_OUT);
    return build_proj(model.layers[il].wo, out, { nullptr, false, inpL });
}

//
// MLP and output
//

// W_down (silu(W_gate x) * (W_up x))
ggml_tensor * graph::build_glu(encoded_input & in, ggml_tensor * w_gate, ggml_tensor * w_up, ggml_tensor * w_down, ggml_tensor * residual) const {
    const int il = in.il;
    ggml_tensor * gate = build_proj(w_gate, in);
    cb(gate, "ffn_gate", il);

    ggml_tensor * cur = build_proj(w_up, in, { nullptr, false, nullptr, gate });
    cb(cur, "ffn_swiglu", il);

    auto down = build_input(cur, "spike_ffn_down", il, LLM_TENSOR_FFN_DOWN);
    return build_proj(w_down, down, { nullptr, false, residual });
}

ggml_tensor * graph::build_mlp_layer(ggml_tensor * ffn_inp, int il) const {
    const auto & layer = model.layers[il];
    auto in = build_normed_input(ffn_inp, layer.ffn_norm, { "ffn_norm", "spike_ffn" }, il, model.spikes(LLM_TENSOR_FFN_UP), false, { layer.ffn_gate, layer.ffn_up });
    return build_glu(in, layer.ffn_gate, layer.ffn_up, layer.ffn_down, ffn_inp);
}

// ordinary activations; embeddings are the floats before it
ggml_tensor * graph::build_head(ggml_tensor * cur) const {
    auto in = build_normed_input(cur, model.output_norm, { "result_norm", "output_codes" }, -1, false, cparams.embeddings, { model.output });
    res->t_embd = in.floats();

    cur = build_proj(model.output, in);
    cb(cur, "result_output", -1);
    return cur;
}
