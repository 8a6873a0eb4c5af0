#pragma once

// What we add to the checkpoints of a slot.
//
// server_checkpoints: a bound in bytes beside llama.cpp's bound in number. SPIKINGBRAIN_CHECKPOINT_RAM (MiB per slot)
// is what a slot's checkpoints may hold together; which of them go is llama.cpp's choice: those close to an earlier one,
// then the oldest. The newest stays even if it is larger, since a slot without any reads every prompt from its beginning.
// And those that hold another token than the new prompt are dropped: llama.cpp compares positions, by which one whose very last
// token differs stays, to be restored for another text later.
//
// server_prompt_end: one more checkpoint at the very end of a prompt, with the row of logits that was computed there. Where
// the same prompt is asked for again (after an answer, a restored slot file, from the prompt cache), that state is restored
// and the first token is sampled from that row: no token is evaluated. The row lies in data_spec, which only a draft uses;
// with a draft, several answers per prompt, media or sampling in the backend it is left to llama.cpp (4 tokens).

#include "server-task.h"

#include "llama-spikingbrain.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

struct server_checkpoints {
    static constexpr uint64_t MIB_DEFAULT = 512;
    static constexpr uint64_t MIB_MAX     = 1 << 30;

    // how many checkpoints a slot may have, now that one more is to be made
    template <typename Slot>
    static size_t n_max(const common_params & params, const Slot & slot) {
        const uint64_t budget = mib()*1024*1024;
        const auto & all = slot.prompt.checkpoints;

        const size_t n_max = std::max(params.n_ctx_checkpoints, 0);
        uint64_t n_all = n_bytes(slot);
        size_t   n_fit = 1; // the new one, then the newest
        for (auto it = all.rbegin(); it != all.rend(); ++it, ++n_fit) {
            n_all += it->size();
            if (n_all > budget) {
                return std::min(n_max, n_fit);
            }
        }
        return n_max;
    }

    // n_past: how many tokens the slot has in common with its new prompt
    template <typename Prompt>
    static void drop_stale(Prompt & prompt, int32_t n_past) {
        prompt.checkpoints.remove_if([&](const auto & cur) { return cur.n_tokens > n_past; });
    }

    // bytes of a checkpoint of the slot, its row of logits included
    template <typename Slot>
    static size_t n_bytes(const Slot & slot) {
        return llama_state_seq_get_size_ext(slot.ctx_tgt, slot.id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) + n_row(slot.ctx_tgt);
    }

    static size_t n_row(const llama_context * ctx) {
        return sizeof(float)*llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    }

    // throws std::runtime_error
    static uint64_t mib() {
        const char * text = std::getenv("SPIKINGBRAIN_CHECKPOINT_RAM");
        if (text == nullptr) {
            return MIB_DEFAULT;
        }
        const bool digits = *text != 0 && std::strspn(text, "0123456789") == std::strlen(text);
        errno = 0;
        const uint64_t value = digits ? std::strtoull(text, nullptr, 10) : 0;
        if (value == 0 || value > MIB_MAX || errno != 0) {
            throw std::runtime_error(std::string("server: SPIKINGBRAIN_CHECKPOINT_RAM: got '") + text +
                "', expected MiB per slot from 1 to " + std::to_string(MIB_MAX) + "; do set such a number or unset it");
        }
        return value;
    }
};

struct server_prompt_end {
    // Whether a checkpoint is to be made now that the prompt is read. It must not push out one of the same prompt.
    template <typename Slot>
    static bool wanted(const Slot & slot, const common_params & params) {
        const bool kept = slot.stats.n_prompt_cached == (uint64_t) slot.task->n_tokens(); // resumed there
        if (kept || params.n_ctx_checkpoints <= 0 || slot.task->is_child() || !possible(slot) ||
            llama_memory_seq_pos_max(llama_get_memory(slot.ctx_tgt), slot.id) != slot.prompt.n_tokens() - 1) {
            return false;
        }
        const auto & all = slot.prompt.checkpoints;
        const size_t n_mine = std::count_if(all.begin(), all.end(), [&](const auto & cur) { return cur.id_task == slot.task->id; });
        return n_mine < server_checkpoints::n_max(params, slot);
    }

    // i_row: index, in the batch just decoded, of the prompt's last token
    template <typename Slot>
    static void keep(Slot & slot, int32_t i_row) {
        const auto * row = reinterpret_cast<const uint8_t *>(llama_get_logits_ith(slot.ctx_tgt, i_row));
        if (row != nullptr) {
            slot.prompt.checkpoints.back().data_spec.assign(row, row + server_checkpoints::n_row(slot.ctx_tgt));
        }
    }

    // n_past: how many tokens the slot has in common with its task, as its checkpoints have. If that is the whole prompt and its
    // end was kept, the slot is brought there: its prompt is done, but has no token in the batch.
    template <typename Slot, typename State>
    static bool resume(Slot & slot, int32_t n_past, State done) {
        const auto & all = slot.prompt.checkpoints;
        if (all.empty() || n_past != slot.task->n_tokens() || slot.task->is_parent() || !possible(slot)) {
            return false;
        }
        const auto & end = all.back();
        if (end.n_tokens != n_past || end.data_spec.size() != server_checkpoints::n_row(slot.ctx_tgt)) {
            return false;
        }

        end.load_tgt(slot.ctx_tgt, slot.id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);

        slot.prompt.tokens.adapters = slot.task->tokens.adapters;
        slot.prompt.tokens.keep_first(n_past);
        slot.stats.n_prompt_cached = n_past;
        slot.i_batch = -1;
        slot.state   = done;
        slot.init_sampler();
        return true;
    }

    // Once the batch is made, before it is decoded: gives slots that were resumed indices behind its n_batch tokens, and the context
    // their rows of logits, as if it had just decoded those. How many they are, for post_decode().
    template <typename Slots, typename State>
    static int32_t give_rows(Slots & slots, int32_t n_batch, State done) {
        std::vector<const float *> rows;
        llama_context * ctx = nullptr;
        for (auto & slot : slots) {
            if (slot.state == done && slot.i_batch < 0) {
                slot.i_batch = n_batch + (int32_t) rows.size();
                rows.push_back(reinterpret_cast<const float *>(slot.prompt.checkpoints.back().data_spec.data()));
                ctx = slot.ctx_tgt;
            }
        }
        if (!rows.empty() && !llama_spikingbrain_set_logits(ctx, rows.data(), rows.size())) {
            throw std::runtime_error("server: kept logits: got no memory for " + std::to_string(rows.size()) + " rows, expected some");
        }
        return rows.size();
    }

private:
    template <typename Slot>
    static bool possible(const Slot & slot) {
        return slot.task->type == SERVER_TASK_TYPE_COMPLETION && !slot.task->params.sampling.backend_sampling &&
            !slot.can_speculate() && slot.alora_invocation_start <= 0 && !slot.prompt.tokens.has_mtmd &&
            llama_spikingbrain_remembers(slot.ctx_tgt);
    }
};
