#include "spikingbrain-remote.h"

#include "llama-spikingbrain.h"

#include "../llama-context.h"
#include "../llama-impl.h"
#include "../llama-model.h"

#include "ggml-spikingbrain-rpc.h"

#include <stdexcept>

static const size_t N_DEVICES = 16; // GGML_SCHED_MAX_BACKENDS, the CPU among them

static bool is_remote(ggml_backend_dev_t dev) {
    return std::string(ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev))) == "RPC";
}

std::string llama_spikingbrain_lost(const llama_model & model) {
    for (const auto & d : model.devices) {
        char why[1024];
        if (is_remote(d.dev) && ggml_spk_rpc_lost(ggml_backend_dev_description(d.dev), why, sizeof(why)) >= std::max<int64_t>(1, model.t_start_us)) {
            return why;
        }
    }
    return "";
}

void llama_spikingbrain_check_loaded(const llama_model & model) {
    if (model.devices.size() >= N_DEVICES) {
        throw std::runtime_error(format("rpc: devices: got %zu, expected at most %zu; name fewer servers", model.devices.size(), N_DEVICES - 1));
    }
    for (const auto & d : model.devices) {
        if (size_t free, total; is_remote(d.dev)) {
            ggml_backend_dev_memory(d.dev, &free, &total); // is answered after all that was sent before
        }
    }
    llama_spikingbrain_throw_if_lost(model);
}

void llama_spikingbrain_throw_if_lost(const llama_model & model) {
    if (const auto why = llama_spikingbrain_lost(model); !why.empty()) {
        throw std::runtime_error(why);
    }
}

bool llama_spikingbrain_answered(llama_context & ctx) {
    const auto & model = ctx.get_model();
    if (model.devices.empty()) {
        return true;
    }
    ctx.synchronize();
    const auto why = llama_spikingbrain_lost(model);
    if (!why.empty()) {
        LLAMA_LOG_ERROR("%s\n", why.c_str());
    }
    return why.empty();
}

bool llama_spikingbrain_why_lost(const llama_model * model, char * why, size_t n) {
    const auto reason = llama_spikingbrain_lost(*model);
    snprintf(why, n, "%s", reason.c_str());
    return !reason.empty();
}
