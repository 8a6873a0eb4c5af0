#pragma once

#include "models/spikingbrain-loader.h"

#include <algorithm>
#include <regex>

// What llama.cpp's quantiser is asked beyond its own checks, before it opens its output. Included by llama-quant.cpp (patch quantize-checks).

static void llama_spikingbrain_refuse(bool wrong, const std::string & what) {
    if (wrong) {
        throw std::runtime_error(what);
    }
}

// Per-layer arrays of the keys follow the layers that are left: those with a bool per layer are the ones SpikingBrain has.
static void llama_spikingbrain_prune(gguf_context * out, const std::string & arch, const std::vector<int> & pruned, uint32_t n_layer) {
    for (int il : pruned) {
        llama_spikingbrain_refuse(il < 0 || (uint32_t) il >= n_layer, format("--prune-layers: got %d, expected layers 0 to %u", il, n_layer - 1));
    }
    llama_spikingbrain_refuse(pruned.size() >= n_layer, format("--prune-layers: got all %u layers, expected some to be left", n_layer));

    const int64_t id = arch == "spikingbrain" ? gguf_find_key(out, "spikingbrain.attention.recurrent_layers") : -1;
    if (id < 0) {
        return;
    }
    const auto * old = (const uint8_t *) gguf_get_arr_data(out, id);
    std::vector<uint8_t> kept;
    for (uint32_t il = 0; il < n_layer; ++il) {
        if (std::find(pruned.begin(), pruned.end(), (int) il) == pruned.end()) {
            kept.push_back(old[il]);
        }
    }
    gguf_set_arr_data(out, "spikingbrain.attention.recurrent_layers", GGUF_TYPE_BOOL, kept.data(), kept.size());
}

// options that this file and this type leave without a meaning
template <typename Metadata>
static void llama_spikingbrain_check_options(const llama_model_quantize_params & params, const std::vector<Metadata> & metadata, ggml_type default_type) {
    const auto is_output  = [](const Metadata & m) { return m.name == "output.weight"; };
    const bool has_output = std::any_of(metadata.begin(), metadata.end(), is_output);
    const bool output_set = params.output_tensor_type < GGML_TYPE_COUNT, embedding_set = params.token_embedding_type < GGML_TYPE_COUNT;

    llama_spikingbrain_refuse(params.only_copy && (params.pure || output_set || embedding_set || params.tt_overrides || params.imatrix || !params.quantize_output_tensor),
        "COPY: got options that choose types, expected none: it changes no tensor");
    llama_spikingbrain_refuse(output_set && !params.quantize_output_tensor, "--leave-output-tensor: got --output-tensor-type, too, expected one of them");
    llama_spikingbrain_refuse(!has_output && (output_set || !params.quantize_output_tensor),
        "output.weight: got a model that has none, expected one for --output-tensor-type and --leave-output-tensor; do use --token-embedding-type, its output is the embedding");
    llama_spikingbrain_refuse(params.tt_overrides && !ggml_is_quantized(default_type),
        format("--tensor-type: got it beside the type %s, expected a quantised one: no other type uses it", ggml_type_name(default_type)));
    for (const auto * p = params.tt_overrides; p && p->pattern; ++p) {
        const std::regex pattern(p->pattern);
        const auto fits = [&](const Metadata & m) { return m.allows_quantization && std::regex_search(m.name, pattern); };
        llama_spikingbrain_refuse(std::none_of(metadata.begin(), metadata.end(), fits),
            format("--tensor-type %s: got no tensor that is quantised and has such a name, expected one; check the spelling", p->pattern));
    }
}

// metadata[i] says what becomes of tensors[i]: each must be readable as floats, its new type must be writable and readable again.
// out: the keys of the output, pruned: the layers that were left out of it.
template <typename Metadata, typename Weights>
static void llama_spikingbrain_before_quantize(const llama_model_quantize_params & params, const std::vector<Metadata> & metadata, const Weights & tensors,
        ggml_type default_type, gguf_context * out, const std::string & arch, const std::vector<int> & pruned, uint32_t n_layer) {
    llama_spikingbrain_check_options(params, metadata, default_type);
    if (!pruned.empty()) {
        llama_spikingbrain_prune(out, arch, pruned, n_layer);
    }
    for (size_t i = 0; i < metadata.size(); ++i) {
        const ggml_tensor * t = tensors[i]->tensor;
        const ggml_type from = t->type, to = metadata[i].target_type;
        const char * name = metadata[i].name.c_str();
        const auto is_float = [](ggml_type type) { return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr; };
        if (from != to) {
            llama_spikingbrain_refuse(!is_float(from), format("%s: got type %s, expected floats to quantise", name, ggml_type_name(from)));
            llama_spikingbrain_refuse(!is_float(to), format("%s: got %s to quantise to, expected a type of weights, such as q8_0", name, ggml_type_name(to)));
            llama_spikingbrain_refuse(t->ne[0] % ggml_blck_size(to) != 0,
                format("%s: got rows of %lld, expected a multiple of %lld for %s", name, (long long) t->ne[0], (long long) ggml_blck_size(to), ggml_type_name(to)));
            llama_spikingbrain_refuse(ggml_is_quantized(from) && !params.allow_requantize,
                format("%s: got type %s, expected floats; do take the file of floats, or --allow-requantize", name, ggml_type_name(from)));
        }
        const std::string error = arch == "spikingbrain" ? llama_spikingbrain_type_error(name, to) : "";
        llama_spikingbrain_refuse(!error.empty(), error);
    }
}
