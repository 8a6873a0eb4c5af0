#include "models.h"
#include "spikingbrain-memory.h"

#include "../llama-impl.h"

#include <algorithm>
#include <cmath>

// No position is the last one for this model: what llama.cpp derives from the trained length (default n_ctx,
// limits of the tools) gets this instead. Small enough that n_ctx times a few sequences stays an int.
static const uint32_t N_CTX_UNBOUNDED = 1u << 30;

void llama_model_spikingbrain::load_arch_hparams(llama_model_loader & ml) {
    ml.get_key(LLM_KV_ATTENTION_LAYERNORM_RMS_EPS, hparams.f_norm_rms_eps);
    ml.get_key(LLM_KV_ATTENTION_SLIDING_WINDOW,    n_window);
    ml.get_key(LLM_KV_GLA_GATE_LOGIT_NORMALIZER,   gate_norm,  false);
    ml.get_key(LLM_KV_GLA_GATE_LOW_RANK_DIM,       n_low_rank, false);
    ml.get_key_or_arr(LLM_KV_ATTENTION_RECURRENT_LAYERS, hparams.is_recr_impl, hparams.n_layer());

    auto require = [](bool ok, const std::string & what) {
        if (!ok) {
            throw std::runtime_error("spikingbrain: " + what + "; convert the checkpoint again with sb-convert");
        }
    };
    const uint32_t d = hparams.n_embd_head_k();
    require(n_window > 0 && n_window < N_CTX_UNBOUNDED, format("attention.sliding_window: got %u, expected a positive number", n_window));
    require(gate_norm > 0.0f, format("gla.gate_logit_normalizer: got %g, expected a positive number", gate_norm));
    require(d == hparams.n_embd_head_v(), format("attention.value_length: got %u, expected attention.key_length %u", hparams.n_embd_head_v(), d));
    require(d % 2 == 0 && hparams.n_rot() == d, format("rope.dimension_count: got %u, expected the even head size %u", hparams.n_rot(), d));
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        require(hparams.n_head(il) == hparams.n_head() && hparams.n_head_kv(il) == hparams.n_head_kv(), "attention.head_count: got different counts per layer, expected one");
    }
    require(hparams.n_head_kv() > 0 && hparams.n_head() % hparams.n_head_kv() == 0,
        format("attention.head_count_kv: got %u, expected a divisor of %u", hparams.n_head_kv(), hparams.n_head()));

    hparams.n_ctx_train = N_CTX_UNBOUNDED;

    switch (hparams.n_layer()) {
        case 28: type = LLM_TYPE_7B; break;
        default: type = LLM_TYPE_UNKNOWN;
    }
}

void llama_model_spikingbrain::load_arch_tensors(llama_model_loader &) {
    LLAMA_LOAD_LOCALS;

    tok_embd = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), {n_embd, n_vocab}, 0);

    // output
    output_norm = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "weight"), {n_embd}, 0);
    output      = create_tensor(tn(LLM_TENSOR_OUTPUT,      "weight"), {n_embd, n_vocab}, TENSOR_NOT_REQUIRED);
    // if output is NULL, init from the input tok embed
    if (output == NULL) {
        output = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), {n_embd, n_vocab}, TENSOR_DUPLICATED);
    }

    const int64_t n_embd_q = n_embd_head_k*n_head;

    for (int i = 0; i < n_layer; ++i) {
        auto & layer = layers[i];

        layer.attn_norm = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "weight", i), {n_embd}, 0);

        create_tensor_qkv(layer, i, n_embd, n_embd_q, n_embd_k_gqa, n_embd_v_gqa, 0);
        layer.wo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "weight", i), {n_embd_q, n_embd}, 0);

        if (hparams.is_recr(i)) {
            if (n_low_rank > 0) {
                layer.time_mix_decay_w1  = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W1, "weight", i), {n_embd, n_low_rank}, 0);
                layer.time_mix_decay_w2  = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W2, "weight", i), {n_low_rank, n_embd_k_gqa}, 0);
                layer.time_mix_decay     = create_tensor(tn(LLM_TENSOR_TIME_MIX_DECAY_W2, "bias",   i), {n_embd_k_gqa}, 0);
            } else {
                layer.wqkv_gate          = create_tensor(tn(LLM_TENSOR_ATTN_GATE, "weight", i), {n_embd, n_embd_k_gqa}, 0);
                layer.time_mix_decay     = create_tensor(tn(LLM_TENSOR_ATTN_GATE, "bias",   i), {n_embd_k_gqa}, 0);
            }
            layer.ssm_norm = create_tensor(tn(LLM_TENSOR_SSM_NORM, "weight", i), {n_embd_head_v}, 0);
        }

        layer.ffn_norm = create_tensor(tn(LLM_TENSOR_FFN_NORM, "weight", i), {n_embd}, 0);
        layer.ffn_gate = create_tensor(tn(LLM_TENSOR_FFN_GATE, "weight", i), {n_embd,   n_ff}, 0);
        layer.ffn_down = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "weight", i), {  n_ff, n_embd}, 0);
        layer.ffn_up   = create_tensor(tn(LLM_TENSOR_FFN_UP,   "weight", i), {n_embd,   n_ff}, 0);
    }
}

std::unique_ptr<llm_graph_context> llama_model_spikingbrain::build_arch_graph(const llm_graph_params & params) const {
    return std::make_unique<graph>(*this, params);
}

// what the operators need to know of a micro-batch: where its sequences lie, and the rotary angles
class llm_graph_input_spikingbrain : public llm_graph_input_i {
public:
    llm_graph_input_spikingbrain(const llama_memory_spikingbrain * mem, float freq_base, float freq_scale) :
        mem(mem), freq_base(freq_base), freq_scale(freq_scale) {}

    void set_input(const llama_ubatch * ubatch) override {
        mem->set_input(*ubatch, (int32_t *) seqs->data, (int64_t *) rows->data);
        std::copy(ubatch->pos, ubatch->pos + ubatch->n_tokens, (int32_t *) pos->data);
        set_rope(*ubatch);
    }

    // angles in double, reduced before they become float: exact at any position
    void set_rope(const llama_ubatch & ubatch) {
        const int64_t half = rope->ne[0]/2;
        float * data = (float *) rope->data;
        for (int64_t i = 0; i < half; ++i) {
            const double freq = freq_scale*std::pow((double) freq_base, -(double) i/half);
            for (uint32_t t = 0; t < ubatch.n_tokens; ++t) {
                data[t*2*half + i]        = (float) std::cos(ubatch.pos[t]*freq);
                data[t*2*half + half + i] = (float) std::sin(ubatch.pos[t]*freq);
            }
        }
    }

    bool can_reuse(const llm_graph_params & params) override {
        mem = static_cast<const llama_memory_spikingbrain_context *>(params.mctx)->get_mem();
        return pos->ne[0] == params.ubatch.n_tokens && seqs->ne[1] == params.ubatch.n_seqs;
    }

    ggml_tensor * seqs; // I32 {4, n_seqs}
    ggml_tensor * rows; // I64 {n_tokens}, rows of the window ring to write
    ggml_tensor * pos;  // I32 {n_tokens}
    ggml_tensor * rope; // F32 {n_embd_head, n_tokens}

    const llama_memory_spikingbrain * mem;

private:
    const float freq_base;
    const float freq_scale;
};

namespace {

// one builder per block kind; cur is {n_embd, n_tokens} in and out
struct spikingbrain_blocks {
    const llm_graph_context        & g;
    const llama_model_spikingbrain & model;
    llm_graph_input_spikingbrain   * inp;

    ggml_context * ctx0 = g.ctx0;
    const int64_t n_embd_head = g.n_embd_head_k;
    const float   kq_scale    = 1.0f/sqrtf(float(n_embd_head));

    ggml_tensor * build_inputs();
    ggml_tensor * build_gate(ggml_tensor * cur, int il) const;
    ggml_tensor * build_gla (ggml_tensor * cur, int il) const;
    ggml_tensor * build_swa (ggml_tensor * cur, int il) const;
    ggml_tensor * build_mlp (ggml_tensor * cur, int il) const;
};

} // namespace

static llm_graph_input_spikingbrain * build_inp(const llm_graph_context & g) {
    const auto * mctx = static_cast<const llama_memory_spikingbrain_context *>(g.mctx);
    auto inp = std::make_unique<llm_graph_input_spikingbrain>(mctx->get_mem(), g.freq_base, g.freq_scale);

    inp->seqs = ggml_new_tensor_2d(g.ctx0, GGML_TYPE_I32, GGML_SPK_SEQ_N_INFO, g.ubatch.n_seqs);
    inp->rows = ggml_new_tensor_1d(g.ctx0, GGML_TYPE_I64, g.n_tokens);
    inp->pos  = ggml_new_tensor_1d(g.ctx0, GGML_TYPE_I32, g.n_tokens);
    inp->rope = ggml_new_tensor_2d(g.ctx0, GGML_TYPE_F32, g.n_embd_head_k, g.n_tokens);
    for (ggml_tensor * t : { inp->seqs, inp->rows, inp->pos, inp->rope }) {
        ggml_set_input(t);
        ggml_build_forward_expand(g.gf, t); // allocated also where no layer reads it
    }
    return (llm_graph_input_spikingbrain *) g.res->add_input(std::move(inp));
}

// w = exp(logsigmoid(W h + b) / gate_norm) in (0, 1], {n_embd_head, n_head_kv, n_tokens}
ggml_tensor * spikingbrain_blocks::build_gate(ggml_tensor * cur, int il) const {
    const auto & layer = model.layers[il];

    if (layer.wqkv_gate) {
        cur = g.build_lora_mm(layer.wqkv_gate, cur);
    } else {
        cur = g.build_lora_mm(layer.time_mix_decay_w2, g.build_lora_mm(layer.time_mix_decay_w1, cur));
    }
    cur = ggml_add(ctx0, cur, layer.time_mix_decay);
    g.cb(cur, "gate", il);

    // logsigmoid(x) = -softplus(-x)
    cur = ggml_softplus(ctx0, ggml_neg(ctx0, cur));
    cur = ggml_exp(ctx0, ggml_scale(ctx0, cur, -1.0f/model.gate_norm));
    g.cb(cur, "decay", il);

    return ggml_reshape_3d(ctx0, cur, n_embd_head, g.n_head_kv, g.n_tokens);
}

// Gated linear attention, per key/value head h and query head r of its group, state S {n_embd_head, n_embd_head}:
//   q = relu(W_q x + b_q)   k = relu(W_k x + b_k)   v = W_v x + b_v   w = exp(logsigmoid(W_g x + b_g) / 16)
//   S_t = diag(w_t) S_{t-1} + k_t^T v_t
//   o_t = (q_t / sqrt(n_embd_head)) S_t
//   y   = W_o concat(RMSNorm(o, g_norm))
ggml_tensor * spikingbrain_blocks::build_gla(ggml_tensor * cur, int il) const {
    const auto & layer = model.layers[il];

    auto [Qcur, Kcur, Vcur] = g.build_qkv(layer, cur, n_embd_head, g.n_head, g.n_head_kv, il);
    Qcur = ggml_relu(ctx0, Qcur);
    Kcur = ggml_relu(ctx0, Kcur);
    g.cb(Qcur, "Qcur", il);
    g.cb(Kcur, "Kcur", il);
    g.cb(Vcur, "Vcur", il);

    ggml_tensor * decay = build_gate(cur, il);

    cur = ggml_spk_gla(ctx0, Qcur, Kcur, Vcur, decay, inp->mem->get_s(il), inp->seqs, kq_scale);
    g.cb(cur, "gla", il);

    cur = g.build_norm(cur, layer.ssm_norm, NULL, LLM_NORM_RMS, il);
    cur = ggml_reshape_2d(ctx0, cur, n_embd_head*g.n_head, g.n_tokens);
    g.cb(cur, "gla_norm", il);

    return g.build_lora_mm(layer.wo, cur);
}

// Sliding-window attention: grouped-query softmax over the last n_window keys, the query's own included
ggml_tensor * spikingbrain_blocks::build_swa(ggml_tensor * cur, int il) const {
    const auto & layer = model.layers[il];
    const auto * mem   = inp->mem;

    auto [Qcur, Kcur, Vcur] = g.build_qkv(layer, cur, n_embd_head, g.n_head, g.n_head_kv, il);
    Qcur = ggml_spk_rope(ctx0, Qcur, inp->rope);
    Kcur = ggml_spk_rope(ctx0, Kcur, inp->rope);
    g.cb(Qcur, "Qcur", il);
    g.cb(Kcur, "Kcur", il);
    g.cb(Vcur, "Vcur", il);

    // the ring keeps each head's rows together: {n_embd_head, n_tokens, n_head_kv} goes in
    ggml_tensor * K = ggml_set_rows(ctx0, mem->get_k(il), ggml_permute(ctx0, Kcur, 0, 2, 1, 3), inp->rows);
    ggml_tensor * V = ggml_set_rows(ctx0, mem->get_v(il), ggml_permute(ctx0, Vcur, 0, 2, 1, 3), inp->rows);

    cur = ggml_spk_swa(ctx0, Qcur, K, V, inp->pos, inp->seqs, mem->get_n_ring(), mem->get_n_window(), kq_scale);
    cur = ggml_reshape_2d(ctx0, cur, n_embd_head*g.n_head, g.n_tokens);
    g.cb(cur, "swa", il);

    return g.build_lora_mm(layer.wo, cur);
}

ggml_tensor * spikingbrain_blocks::build_mlp(ggml_tensor * cur, int il) const {
    const auto & layer = model.layers[il];

    return g.build_ffn(cur,
            layer.ffn_up,   NULL, NULL,
            layer.ffn_gate, NULL, NULL,
            layer.ffn_down, NULL, NULL,
            NULL,
            LLM_FFN_SILU, LLM_FFN_PAR, il);
}

llama_model_spikingbrain::graph::graph(const llama_model & model, const llm_graph_params & params) : llm_graph_context(params) {
    ggml_tensor * inpL = build_inp_embd(model.tok_embd);

    const spikingbrain_blocks blocks = { *this, static_cast<const llama_model_spikingbrain &>(model), build_inp(*this) };

    ggml_tensor * inp_out_ids = build_inp_out_ids();
    ggml_tensor * cur;

    for (int il = 0; il < n_layer; ++il) {
        res->t_layer_inp[il] = inpL;

        cur = build_norm(inpL, model.layers[il].attn_norm, NULL, LLM_NORM_RMS, il);
        cb(cur, "attn_norm", il);

        cur = hparams.is_recr(il) ? blocks.build_gla(cur, il) : blocks.build_swa(cur, il);
        cb(cur, "attn_out", il);

        if (il == n_layer - 1 && inp_out_ids) {
            cur  = ggml_get_rows(ctx0, cur,  inp_out_ids);
            inpL = ggml_get_rows(ctx0, inpL, inp_out_ids);
        }
        ggml_tensor * ffn_inp = ggml_add(ctx0, cur, inpL);
        cb(ffn_inp, "ffn_inp", il);

        cur = build_norm(ffn_inp, model.layers[il].ffn_norm, NULL, LLM_NORM_RMS, il);
        cb(cur, "ffn_norm", il);

        cur = blocks.build_mlp(cur, il);
        cb(cur, "ffn_out", il);

        cur = ggml_add(ctx0, cur, ffn_inp);
        cur = build_cvec(cur, il);
        cb(cur, "l_out", il);

        inpL = cur;
    }

    cur = build_norm(inpL, model.output_norm, NULL, LLM_NORM_RMS, -1);
    cb(cur, "result_norm", -1);
    res->t_embd = cur;

    cur = build_lora_mm(model.output, cur);
    cb(cur, "result_output", -1);
    res->t_logits = cur;

    ggml_build_forward_expand(gf, cur);
}
