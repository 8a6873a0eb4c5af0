#pragma once

#include "llama.h"

#include <algorithm>

// Of a draft n_draft tokens long, how many can be verified: what is not accepted is taken back from the target's memory, and the
// draft's model has read the token before it, too. Where a memory takes back any tail, all (llama_n_rs_seq is 0).
static inline int server_draft_limit(int n_draft, const llama_context * ctx_tgt, const llama_context * ctx_dft) {
    if (llama_n_rs_seq(ctx_tgt) > 0) {
        n_draft = std::min(n_draft, (int) llama_n_rs_seq(ctx_tgt));
    }
    if (ctx_dft && llama_n_rs_seq(ctx_dft) > 0) {
        n_draft = std::min(n_draft, (int) llama_n_rs_seq(ctx_dft) - 1);
    }
    return n_draft;
}
