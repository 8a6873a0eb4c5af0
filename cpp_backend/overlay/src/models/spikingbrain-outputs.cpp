#include "llama-spikingbrain.h"

#include "../llama-context.h"

#include <algorithm>

void llama_spikingbrain_allow_outputs(llama_context * ctx, uint32_t n) {
    auto & cparams = const_cast<llama_cparams &>(ctx->get_cparams()); // upstream sets it once, and asks it before each decode
    cparams.n_outputs_max = std::max(cparams.n_outputs_max, std::min(n, cparams.n_batch));
}

void llama_spikingbrain_set_eval_callback(llama_context * ctx, ggml_backend_sched_eval_callback callback, void * data) {
    auto & cparams = const_cast<llama_cparams &>(ctx->get_cparams()); // read when a graph is built
    cparams.cb_eval           = callback;
    cparams.cb_eval_user_data = data;
    ggml_backend_sched_set_eval_callback(ctx->get_sched(), callback, data); // of the graph that is there
}
