#include "runtime.h"

#include "../src/llama-ext.h"
#include "ggml-backend.h"
#include "llama-spikingbrain.h"

#include <algorithm>

namespace sb {

memory_use measure(const model_file & file, const overrides & o, const llama_context_params & params) {
    auto mparams = llama_model_default_params();
    mparams.n_gpu_layers = 0;
    mparams.no_alloc     = true;
    mparams.load_mode    = LLAMA_LOAD_MODE_NONE; // no_alloc aborts with mmap
    mparams.kv_overrides = o.empty() ? nullptr : o.data();

    log_scope log(false);
    std::unique_ptr<llama_model, decltype(&llama_model_free)> m(file.load(mparams), llama_model_free);
    std::unique_ptr<llama_context, decltype(&llama_free)> ctx(m ? llama_init_from_model(m.get(), params) : nullptr, llama_free);
    if (!ctx) {
        throw std::runtime_error(log.reason());
    }
    memory_use sum;
    for (const auto & [buft, one] : llama_get_memory_breakdown(ctx.get())) {
        sum.model   += one.model;
        sum.state   += one.context;
        sum.compute += one.compute;
    }
    sum.cache   = llama_spikingbrain_cache_bytes(ctx.get());
    sum.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m.get()));
    return sum;
}

int64_t missing_bytes(const model_file & file) {
    const auto gguf = file.header();
    if (!gguf) {
        return 0; // llama.cpp will say why
    }
    uint64_t end = gguf_get_data_offset(gguf.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
        end = std::max<uint64_t>(end, gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), i) + gguf_get_tensor_size(gguf.get(), i));
    }
    const uint64_t size = file.size();
    return end > size ? end - size : 0;
}

std::string spike_isa() {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    void * f = dev ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_spk_isa") : nullptr;
    return f ? reinterpret_cast<const char * (*)()>(f)() : "";
}

} // namespace sb
