#pragma once

#include "server-common.h"

#include "llama.h"

#include <algorithm>

// In times of a decoded token: what verifying a drafted token takes, and verifying at all, with graphs of other sizes before and after it
// (a small model, where both weigh most; `python -m bench run --only verify rollback` measures them)
#define SERVER_DRAFT_TOKEN 0.5
#define SERVER_DRAFT_STEP  1.0
// what drafts may waste of a text where nothing comes of them: so many tokens, and a part of those that it has
#define SERVER_DRAFT_START 6.0
#define SERVER_DRAFT_WASTE 0.02
// the length of a text's first draft; shorter ones do not pay
#define SERVER_DRAFT_LEAST 4

// Tokens that an n-gram draft may have by what drafts of this text have been good for so far: they never cost more than they saved and
// what may be wasted. Else a repetition without end would be drafted, refused and drafted again.
static inline int server_draft_budget(const server_slot_stats & stats) {
    const double saved = SERVER_DRAFT_START + SERVER_DRAFT_WASTE*stats.n_gen + stats.n_draft_accepted;
    const double spent = SERVER_DRAFT_TOKEN*stats.n_draft_tokens + SERVER_DRAFT_STEP*(stats.n_draft_verif_steps + 1);
    const double n_draft = std::min((saved - spent)/SERVER_DRAFT_TOKEN, SERVER_DRAFT_LEAST + 2.0*stats.n_draft_accepted);
    return n_draft < SERVER_DRAFT_LEAST ? 0 : (int) n_draft;
}

// Of a draft n_draft tokens long, how many can be verified: what is not accepted is taken back from the target's memory, and the
// draft's model has read the token before it, too. Where a memory takes back any tail, all (llama_n_rs_seq is 0).
static inline int server_draft_limit(int n_draft, const llama_context * ctx_tgt, const llama_context * ctx_dft, const server_slot_stats & stats) {
    if (llama_n_rs_seq(ctx_tgt) > 0) {
        n_draft = std::min(n_draft, (int) llama_n_rs_seq(ctx_tgt));
        n_draft = ctx_dft ? n_draft : std::min(n_draft, server_draft_budget(stats));
    }
    if (ctx_dft && llama_n_rs_seq(ctx_dft) > 0) {
        n_draft = std::min(n_draft, (int) llama_n_rs_seq(ctx_dft) - 1);
    }
    return n_draft;
}

// Drafting, and what a draft's model does beside a batch: while the queue answers, in its threads. Without such a model nothing of it is
// worth the change of threads.
template <typename Queue, typename Work>
static void server_draft_work(const llama_context * ctx_dft, Queue & queue, Work work) {
    if (ctx_dft) {
        queue.yield_to_queue(work);
    } else {
        work();
    }
}
