#pragma once

// What we add to the checkpoints of a slot. Both are called by patch 0009.
//
// server_checkpoint_limits: a bound in bytes beside llama.cpp's bound in number. SPIKINGBRAIN_CHECKPOINT_RAM (MiB per slot)
// is what a slot's checkpoints may hold together; which of them go is llama.cpp's choice: those close to an earlier one,
// then the oldest. The newest stays even if it is larger, since a slot without any reads every prompt from its beginning.
//
// server_prompt_end: one more checkpoint at the very end of a prompt, with the row of logits that was computed there. Where
// the same prompt is asked for again (after an answer, a restored slot file, from the prompt cache), that state is restored
// and the first token is sampled from that row: no token is evaluated. The row lies in data_spec, which only a draft uses;
// with a draft, several answers per prompt, media or sampling in the backend it is left to llama.cpp (4 tokens).
// Before that it drops the checkpoints that hold more tokens than the slot and the new prompt have in common: llama.cpp
// compares positions, by which one whose very last token differs stays, to be restored for another text later.

#include "server-task.h"

#include "llama-spikingbrain.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

struct server_checkpoint_limits {
    static constexpr uint64_t MIB_DEFAULT = 512;
    static constexpr uint64_t MIB_MAX     = 1 << 30;

    int32_t n_ctx_checkpoints;
    int32_t checkpoint_min_step;

    // Of the checkpoint to be added to the slot: pos_min, how far its state can be taken back, becomes what a saved one can. If it
    // does not fit, n_ctx_checkpoints is the number of newest that do.
    template <typename Slot>
    server_checkpoint_limits(const common_params & params, const Slot & slot, llama_pos & pos_min, llama_pos pos_max) :
        server_checkpoint_limits(params, slot.prompt.checkpoints, n_bytes(slot)) {
        if (llama_spikingbrain_remembers(slot.ctx_tgt)) {
            pos_min = pos_max;
        }
    }

    // n_new: bytes of the checkpoint to be added
    server_checkpoint_limits(const common_params & params, const std::list<common_prompt_checkpoint> & checkpoints, size_t n_new) :
        n_ctx_checkpoints(params.n_ctx_checkpoints), checkpoint_min_step(params.checkpoint_min_step) {
        const uint64_t budget = mib()*1024*1024;

        uint64_t n_bytes = n_new;
        int32_t  n_fit   = 1;
        for (auto it = checkpoints.rbegin(); it != checkpoints.rend(); ++it, ++n_fit) {
            n_bytes += it->size();
            if (n_bytes > budget) {
                n_ctx_checkpoints = std::min(n_ctx_checkpoints, n_fit);
                break;
            }
        }
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
    // as arguments of post_decode(): a range of batch indices that only slots at a kept prompt end have
    static constexpr int32_t OFF     = 1 << 28;
    static constexpr int32_t N_BATCH = 1 << 29;

    static constexpr int32_t I_BATCH = OFF + LLAMA_SPIKINGBRAIN_ROW; // + the slot's id

    // Whether a checkpoint is to be made now that the prompt is read. It must not push out one of the same prompt.
    template <typename Slot>
    static bool wanted(const Slot & slot, const common_params & params) {
        if (slot.i_batch >= I_BATCH || params.n_ctx_checkpoints <= 0 || slot.task->is_child() || !possible(slot) ||
            llama_memory_seq_pos_max(llama_get_memory(slot.ctx_tgt), slot.id) != slot.prompt.n_tokens() - 1) {
            return false;
        }
        const auto & all = slot.prompt.checkpoints;
        const int n_mine = std::count_if(all.begin(), all.end(), [&](const auto & cur) { return cur.id_task == slot.task->id; });
        return n_mine < server_checkpoint_limits(params, all, server_checkpoint_limits::n_bytes(slot)).n_ctx_checkpoints;
    }

    // i_row: index, in the batch just decoded, of the prompt's last token
    template <typename Slot>
    static void keep(Slot & slot, int32_t i_row) {
        const auto * row = reinterpret_cast<const uint8_t *>(llama_get_logits_ith(slot.ctx_tgt, i_row));
        if (row != nullptr) {
            slot.prompt.checkpoints.back().data_spec.assign(row, row + server_checkpoint_limits::n_row(slot.ctx_tgt));
        }
    }

    // n_past: how many tokens the slot has in common with its task; checkpoints beyond them are dropped. If that is the whole
    // prompt and its end was kept, the slot is brought there, ready to be sampled by post_decode(N_BATCH, OFF).
    template <typename Slot, typename State>
    static bool resume(Slot & slot, int32_t n_past, State done) {
        auto & all = slot.prompt.checkpoints;
        all.remove_if([&](const auto & cur) { return cur.n_tokens > n_past; });
        if (all.empty() || n_past != slot.task->n_tokens() || slot.task->is_parent() || !possible(slot)) {
            return false;
        }
        const auto & end = all.back();
        if (end.n_tokens != n_past || end.data_spec.size() != server_checkpoint_limits::n_row(slot.ctx_tgt)) {
            return false;
        }

        end.load_tgt(slot.ctx_tgt, slot.id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
        llama_spikingbrain_set_row(slot.ctx_tgt, slot.id, reinterpret_cast<const float *>(end.data_spec.data()));

        slot.prompt.tokens.adapters = slot.task->tokens.adapters;
        slot.prompt.tokens.keep_first(n_past);
        slot.stats.n_prompt_cached = n_past;
        slot.i_batch = I_BATCH + slot.id;
        slot.state   = done;
        slot.init_sampler();
        return true;
    }

    template <typename Slots>
    static bool reached(const Slots & slots) {
        return std::any_of(slots.begin(), slots.end(), [](const auto & slot) { return slot.i_batch >= I_BATCH && slot.is_processing(); });
    }

private:
    template <typename Slot>
    static bool possible(const Slot & slot) {
        return slot.task->type == SERVER_TASK_TYPE_COMPLETION && !slot.task->params.sampling.backend_sampling &&
            !slot.can_speculate() && slot.alora_invocation_start <= 0 && !slot.prompt.tokens.has_mtmd &&
            llama_spikingbrain_remembers(slot.ctx_tgt);
    }
};
