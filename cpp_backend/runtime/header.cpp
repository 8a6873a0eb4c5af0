// What can be asked of a GGUF header without loading the model.
#include "runtime.h"

namespace sb {

std::vector<std::string> tensor_types(const std::string & path) {
    log_scope log(false);
    const auto gguf = model_file(path).header();
    if (!gguf) {
        throw std::runtime_error(path + ": got no GGUF file, expected one; check the path");
    }
    std::set<std::string> found;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
        found.insert(ggml_type_name(gguf_get_tensor_type(gguf.get(), i)));
    }
    return { found.begin(), found.end() };
}

} // namespace sb
