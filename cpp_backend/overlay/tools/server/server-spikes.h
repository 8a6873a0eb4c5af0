#pragma once

// GET /spikes: the spikes that the projections read while a slot's last answer was written.
//
// Counted only while somebody asks: from a request until KEPT_ON after the last one. Else no graph runs in pieces and a decode costs one
// comparison. A token belongs to an answer from the first one that was sampled and read on; prompts are not counted. Where several slots are
// computed together, each token is its slot's; batches that hold a piece of a prompt, too, or several tokens of several slots (drafts) are left
// out, so that n_tokens says how many were counted. Per slot at most one histogram, and the counts of TOKENS x NEURONS, per encoded input.

#include "server-http.h"

#include "llama.h"

#include <cstdint>
#include <string>
#include <vector>

struct server_spikes {
    static constexpr int64_t KEPT_ON = 10000; // ms
    static constexpr int64_t TOKENS  = 96;    // of the map: the last ones
    static constexpr int64_t NEURONS = 96;    // the first ones
    static constexpr size_t  BINS    = 256;   // of the answer; counts above are in one number

    struct row {
        int32_t     id_slot;
        int32_t     id_task;
        std::string id; // of the answer, as its events have it
    };

    // once a context is made, or none
    static void loaded(const llama_context * ctx);

    // before the n tokens at off are decoded
    template <typename Slots, typename Batch>
    static void before(const Slots & slots, const Batch & batch, int32_t off, int32_t n, llama_context * ctx) {
        std::vector<row> rows; // empty: not counted
        for (int32_t i = off; i < off + n && wanted(); ++i) {
            const auto & token = batch.tokens[i];
            if (token.is_prompt || !token.output) {
                rows.clear();
                break;
            }
            for (const auto & slot : slots) {
                if (slot.id == token.id_slot && slot.task) {
                    rows.push_back({ slot.id, slot.task->id, slot.task->params.oaicompat_cmpl_id });
                }
            }
        }
        begin(rows, n, ctx);
    }

    static server_http_res_ptr get(const server_http_req & req);

private:
    static bool wanted();
    static void begin(const std::vector<row> & rows, int32_t n, llama_context * ctx);
};
