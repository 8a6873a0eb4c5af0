#include "core.h"

#include "../src/llama-ext.h"
#include "gguf.h"

#include <algorithm>
#include <filesystem>

namespace sb {

py::dict measure(const std::string & path, const py::dict & kv_overrides, uint32_t n_ctx, uint32_t n_batch, uint32_t n_ubatch,
                 uint32_t n_seq_max, uint32_t n_outputs_max, int32_t type_k, int32_t type_v) {
    const auto overrides = read_overrides(kv_overrides);
    auto mparams = llama_model_default_params();
    mparams.n_gpu_layers = 0;
    mparams.no_alloc     = true;
    mparams.load_mode    = LLAMA_LOAD_MODE_NONE; // no_alloc aborts with mmap
    mparams.kv_overrides = overrides.empty() ? nullptr : overrides.data();

    auto cparams = llama_context_default_params();
    cparams.n_ctx         = n_ctx;
    cparams.n_batch       = n_batch;
    cparams.n_ubatch      = n_ubatch;
    cparams.n_seq_max     = n_seq_max;
    cparams.n_outputs_max = n_outputs_max;
    cparams.type_k        = type_k == -1 ? cparams.type_k : (ggml_type) type_k;
    cparams.type_v        = type_v == -1 ? cparams.type_v : (ggml_type) type_v;

    log_scope log(false);
    llama_memory_breakdown_data sum;
    int64_t n_vocab = 0;
    bool ok = false;
    {
        py::gil_scoped_release nogil;
        check_header(path, overrides);
        if (llama_model * m = llama_model_load_from_file(path.c_str(), mparams)) {
            if (llama_context * ctx = llama_init_from_model(m, cparams)) {
                for (const auto & [buft, one] : llama_get_memory_breakdown(ctx)) {
                    sum.model   += one.model;
                    sum.context += one.context;
                    sum.compute += one.compute;
                }
                n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m));
                llama_free(ctx);
                ok = true;
            }
            llama_model_free(m);
        }
    }
    if (!ok) {
        const auto why = log.errors();
        throw std::runtime_error(why.empty() ? "llama.cpp gave no reason" : why);
    }
    using namespace py::literals;
    return py::dict("model"_a = sum.model, "state"_a = sum.context, "compute"_a = sum.compute, "n_vocab"_a = n_vocab);
}

int64_t missing_bytes(const std::string & path) {
    std::unique_ptr<gguf_context, decltype(&gguf_free)> file(gguf_init_from_file(path.c_str(), { true, nullptr }), gguf_free);
    if (!file) {
        return 0; // llama.cpp will say why
    }
    uint64_t end = gguf_get_data_offset(file.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(file.get()); ++i) {
        end = std::max<uint64_t>(end, gguf_get_data_offset(file.get()) + gguf_get_tensor_offset(file.get(), i) + gguf_get_tensor_size(file.get(), i));
    }
    const uint64_t size = std::filesystem::file_size(path);
    return end > size ? end - size : 0;
}

std::string spike_isa() {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    void * f = dev ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_spk_isa") : nullptr;
    return f ? reinterpret_cast<const char * (*)()>(f)() : "";
}

// all that makes one tokenizer differ from another, but for its merges
py::bytes vocab_digest_input(const model & m) {
    const auto * v = m.vocab();
    std::string  out = std::to_string(llama_vocab_type(v));
    for (llama_token t : { llama_vocab_bos(v), llama_vocab_eos(v), llama_vocab_eot(v), llama_vocab_nl(v) }) {
        out += " " + std::to_string(t);
    }
    out += llama_vocab_get_add_bos(v) ? " bos" : "";
    out += llama_vocab_get_add_eos(v) ? " eos" : "";
    const int32_t n = llama_vocab_n_tokens(v);
    const bool  any = llama_vocab_type(v) != LLAMA_VOCAB_TYPE_NONE;
    for (llama_token id = 0; any && id < n; ++id) {
        out += '\n' + std::to_string(llama_vocab_get_attr(v, id)) + ' ' + llama_vocab_get_text(v, id);
    }
    return py::bytes(out);
}

} // namespace sb
