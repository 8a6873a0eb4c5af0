// What the layers' products read, and the products

#include "spikingbrain-graph.h"

using graph = llama_model_spikingbrain::graph;

//
// inputs
//

ggml_tensor * graph::encoded_input::codes() {
    if (!act) {
        const float k = g.model.spike_k;
        const ggml_spk_encoding encoding = spiking ? GGML_SPK_SPIKE : GGML_SPK_Q8;
        act = norm ? ggml_spk_encode_norm(g.ctx0, x, norm, g.hparams.f_norm_rms_eps, k, encoding) : ggml_spk_encode(g.ctx0, x, k, encoding);
        g.cb(act, name, il);
    }
    return act;
}

ggml_tensor * graph::encoded_input::decoded() {
    if (!dec) {
        ggml_tensor * encoded = codes();
        dec = ggml_spk_decode(g.ctx0, encoded, x->ne[0]);
    }
    return dec;
}

graph::encoded_input graph::build_input(ggml_tensor * x, const char * name, int il, llm_tensor projection) const {
    return { *this, x, name, il, model.spikes(projection) };
}

// RMSNorm of x over rows or over each head, for products with the weights; NULL: there is none. By the encoder where nobody reads floats:
// neither somebody else nor the products
graph::encoded_input graph::build_normed_input(ggml_tensor * x, ggml_tensor * norm, normed_names names, int il, bool spiking, bool floats, std::initializer_list<ggml_tensor *> weights) const {
    const int64_t n = x->ne[0], width = norm->ne[0];
    floats = floats || width % 16 != 0 || std::any_of(weights.begin(), weights.end(), [&](ggml_tensor * w) { return w && reads_floats(w, spiking); });
    if (!floats) {
        return { *this, x, names.encoded, il, spiking, norm };
    }
    x = width == n ? x : ggml_reshape_3d(ctx0, x, width, n/width, x->ne[1]);
    x = build_norm(x, norm, NULL, LLM_NORM_RMS, il);
    x = width == n ? x : ggml_reshape_2d(ctx0, x, n, x->ne[2]);
    cb(x, names.floats, il);
    return { *this, x, names.encoded, il, spiking };
}

//
// products
//

// what build_lora_mm adds, here to a product that it did not make: adapters read the floats
ggml_tensor * graph::build_lora(ggml_tensor * w, ggml_tensor * x, ggml_tensor * cur) const {
    for (const auto & [adapter, adapter_scale] : *loras) {
        if (llama_adapter_lora_weight * lw = adapter->get_weight(w)) {
            ggml_tensor * ab = ggml_mul_mat(ctx0, lw->b, ggml_mul_mat(ctx0, lw->a, x));
            cur = ggml_add(ctx0, cur, ggml_scale(ctx0, ab, lw->get_scale(adapter->alpha, adapter_scale)));
        }
    }
    return cur;
}

bool graph::has_lora(ggml_tensor * w) const {
    return std::any_of(loras->begin(), loras->end(), [w](const auto & lora) { return lora.first->get_weight(w) != nullptr; });
}

// the product with w reads the floats of its input: w times them, or an adapter does
bool graph::reads_floats(ggml_tensor * w, bool spiking) const {
    return has_lora(w) || (!spiking && !model.in_integers(w, spiking));
}

ggml_tensor * graph::build_then(ggml_tensor * cur, const product_then & then) const {
    cur = then.bias     ? ggml_add (ctx0, cur, then.bias)     : cur;
    cur = then.relu     ? ggml_relu(ctx0, cur)                : cur;
    cur = then.residual ? ggml_add (ctx0, cur, then.residual) : cur;
    return then.gate    ? ggml_swiglu_split(ctx0, then.gate, cur) : cur;
}

// W x, or V_th (W s), and what follows it: an integer product where the type of W has one, else W times the floats V_th s
ggml_tensor * graph::build_proj(ggml_tensor * w, encoded_input & in, const product_then & then) const {
    const bool in_integers = model.in_integers(w, in.spiking);
    if (!in.spiking && !in_integers) {
        return build_then(build_lora_mm(w, in.floats()), then);
    }
    if (!in_integers) {
        return build_then(build_lora(w, in.floats(), ggml_mul_mat(ctx0, w, in.decoded())), then);
    }
    const auto parts = model.int8_parts_of(w);
    ggml_tensor * cur = ggml_spk_mul_mat(ctx0, w, parts.scales, parts.out_index, parts.out_value, in.codes());
    if (has_lora(w)) {
        return build_then(build_lora(w, in.floats(), cur), then);
    }
    ggml_spk_mul_mat_then(cur, then.bias, then.relu, then.residual);
    if (then.gate) {
        ggml_spk_mul_mat_gate(cur, then.gate);
    }
    return cur;
}
