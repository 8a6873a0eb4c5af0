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

} // namespace sb
