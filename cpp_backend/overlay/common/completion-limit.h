#pragma once

// llama-completion: where an answer ends for which no limit was named. An answer, not a session: each turn of the user's begins anew.

#include "common.h"
#include "llama-spikingbrain.h"

class completion_limit {
    common_params & params;

    const llama_model * model;
    bool unnamed;

public:
    // Named are -n N, -c N of a context that is not shifted, and "until the context is filled" (-n -2) where that is before the default.
    completion_limit(common_params & params, const llama_context * ctx) : params(params), model(llama_get_model(ctx)) {
        const bool filled = params.n_predict == -2 && (int64_t) llama_n_ctx(ctx) <= llama_spikingbrain_default_end(model);
        unnamed = params.n_predict < 0 && (params.n_ctx <= 0 || params.ctx_shift) && !filled;
    }

    // n_prompt: tokens before the answer
    void begin_turn(int64_t n_prompt, int & n_remain) const {
        if (unnamed) {
            n_remain = params.n_predict = llama_spikingbrain_default_limit(model, n_prompt);
        }
    }
};
