#include "runtime.h"

#include "ggml-backend.h"
#include "llama-spikingbrain.h"

namespace sb {

std::vector<ggml_backend_dev_t> remote_devices(const std::vector<std::string> & servers) {
    using add_server = ggml_backend_reg_t (*)(const char * endpoint);
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    const auto add = rpc ? reinterpret_cast<add_server>(ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server")) : nullptr;
    if (!add) {
        throw std::runtime_error("rpc: got a library without it, expected one with the tools; do make build");
    }
    std::vector<ggml_backend_dev_t> devices;
    for (const auto & server : servers) {
        ggml_backend_reg_t reg = add(server.c_str()); // throws where it cannot be reached
        for (size_t i = 0; reg && i < ggml_backend_reg_dev_count(reg); ++i) {
            devices.push_back(ggml_backend_reg_dev_get(reg, i));
        }
    }
    return devices;
}

void check_remote(const llama_model * model) {
    char why[1024];
    if (llama_spikingbrain_why_lost(model, why, sizeof(why))) {
        throw lost(why);
    }
}

} // namespace sb
