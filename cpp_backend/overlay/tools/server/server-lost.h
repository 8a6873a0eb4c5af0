#pragma once

#include "llama-spikingbrain.h"

#include <stdexcept>
#include <string>

// why a context's results and states are worth nothing, "" where they are not
inline std::string server_lost(const llama_context * ctx) {
    char why[1024];
    return llama_spikingbrain_why_lost(llama_get_model(ctx), why, sizeof(why)) ? why : "";
}

// what a request that could not be computed is told
inline std::string server_compute_error(const llama_context * ctx) {
    const auto why = server_lost(ctx);
    return why.empty() ? "Compute error." : why;
}

inline void server_throw_if_lost(const llama_context * ctx) {
    if (const auto why = server_lost(ctx); !why.empty()) {
        throw std::runtime_error(why);
    }
}
