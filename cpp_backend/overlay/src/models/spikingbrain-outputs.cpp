#include "llama-spikingbrain.h"

#include "../llama-context.h"

#include <algorithm>

void llama_spikingbrain_allow_outputs(llama_context * ctx, uint32_t n) {
    auto & cparams = const_cast<llama_cparams &>(ctx->get_cparams()); // upstream sets it once, and asks it before each decode
    cparams.n_outputs_max = std::max(cparams.n_outputs_max, std::min(n, cparams.n_batch));
}
