#pragma once

#include "../llama-adapter.h"

#include <cstdint>

struct llama_context;
struct llama_cparams;

// What our files read and write of a context beyond its interface: its friend (patch context-friend).
struct llama_spikingbrain_context {
    static const llama_adapter_cvec  * cvec (const llama_context & ctx); // NULL: no control vectors
    static const llama_adapter_loras & loras(const llama_context & ctx);
    static llama_cparams & cparams(llama_context & ctx);

    static bool set_logits(llama_context & ctx, const float * const * rows, uint32_t n_rows); // llama_spikingbrain_set_logits
};
