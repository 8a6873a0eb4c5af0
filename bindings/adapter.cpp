#include "core.h"

namespace sb {

adapter::adapter(std::shared_ptr<model> m, const std::string & path) : model_(std::move(m)) {
    llama_model * handle = model_->get();
    log_scope log(model_->verbose());
    {
        py::gil_scoped_release nogil;
        adapter_ = llama_adapter_lora_init(handle, path.c_str());
    }
    if (!adapter_) {
        const auto why = log.errors();
        throw std::runtime_error("adapter: " + path + ": got " + (why.empty() ? "a refusal of llama.cpp" : why) +
            ", expected a LoRA adapter of this model");
    }
}

adapter::~adapter() {
    if (!owner_.foreign() && !model_->closed()) { // a closed model has freed its adapters
        llama_adapter_lora_free(adapter_);
    }
}

void context::set_adapters(const std::vector<std::pair<std::shared_ptr<adapter>, float>> & adapters) {
    owned::use use(owner_, "set_adapters", ctx_ != nullptr);
    std::vector<llama_adapter_lora *>     handles;
    std::vector<float>                    scales;
    std::vector<std::shared_ptr<adapter>> kept;
    for (const auto & [one, scale] : adapters) {
        handles.push_back(one->get());
        scales.push_back(scale);
        kept.push_back(one);
    }
    log_scope log(model_->verbose());
    if (llama_set_adapters_lora(ctx_, handles.data(), handles.size(), scales.data()) != 0) {
        throw std::runtime_error("set_adapters: llama.cpp: got a refusal, expected success; " + log.errors());
    }
    adapters_ = std::move(kept);
}

} // namespace sb
