#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of memory allocated for the state of all sequences of a context: window rings and linear-attention
// states. Fixed when the context is made; independent of n_ctx and of the tokens processed.
LLAMA_API size_t llama_spikingbrain_state_bytes(const struct llama_context * ctx);

#ifdef __cplusplus
}
#endif
