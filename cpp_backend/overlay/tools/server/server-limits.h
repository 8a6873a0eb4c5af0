#pragma once

// Bounds that nobody named: how many tokens a request may generate, how much the prompt cache may hold. And what a request
// says of its own limit.

#include "server-checkpoints.h"
#include "server-schema.h"
#include "server-task.h"

#include "llama-spikingbrain.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>

struct server_limits {
    static constexpr int32_t  CACHE_AUTO   = -2;         // --cache-ram that nobody gave
    static constexpr uint64_t CACHE_STATES = 8;          // slot states that the prompt cache holds by default
    static constexpr int32_t  CHECKPOINTS  = 4;          // that a request leaves in its slot, at most
    static constexpr uint64_t CACHE_OTHERS = 2ull << 30; // bytes; of models whose state grows with the text
    static constexpr uint64_t MIB          = 1024*1024;

    // --- a request's limit --------------------------------------------------------------------------------------------

    // n_predict by its three names: all limits that are named hold, so the smallest; a negative one names none
    static void read(server_schema::field_eval_context & ctx, const json & data) {
        int32_t least = -1;
        for (const char * name : { "n_predict", "max_completion_tokens", "max_tokens" }) {
            if (!data.contains(name) || data.at(name).is_null()) {
                continue;
            }
            const json & value = data.at(name);
            if (!value.is_number()) {
                throw std::invalid_argument(std::string(name) + ": got " + value.dump() + ", expected an integer");
            }
            if (value.get<double>() >= 0) {
                const int32_t n = value.get<int32_t>();
                least = least < 0 ? n : std::min(least, n);
            }
        }
        ctx.params.n_predict = least;
    }

    // once the model is loaded: what /props tells while it sleeps, too
    static void loaded(const llama_context * ctx) {
        end() = llama_spikingbrain_default_end(llama_get_model(ctx));
        state_bytes() = llama_spikingbrain_remembers(ctx) ? llama_spikingbrain_state_bytes(ctx) : 0;
    }

    // new tokens of a task, -1: up to the end of the context, which was named (-c) and does not move
    static int32_t n_predict(const server_task & task, const common_params & params, const llama_model * model) {
        const int32_t named = task.params.n_predict >= 0 ? task.params.n_predict : params.n_predict;
        if (named >= 0) {
            return named;
        }
        return ends_with_context(params) ? -1 : llama_spikingbrain_default_limit(model, task.n_tokens());
    }

    // Whether the prompt, which is read now, is all that was asked for (n_predict 0); the slot is then at its end. Streams of
    // events begin with the first token's (role, response.created, message_start): open sends one as if there were a token.
    template <typename Slot, typename Open>
    static bool evaluates_only(Slot & slot, Open open) {
        if (slot.n_predict_max != 0) {
            return false;
        }
        const auto type = slot.task->params.res_type;
        if (slot.task->params.stream && type != TASK_RESPONSE_TYPE_NONE && type != TASK_RESPONSE_TYPE_OAI_CMPL) {
            slot.stats.n_gen = 1;
            open();
            slot.stats.n_gen = 0;
        }
        slot.i_batch        = -1;
        slot.stop           = STOP_TYPE_LIMIT;
        slot.has_next_token = false;
        slot.stats.update_prompt_last();
        return true;
    }

    // in /props: the limit of a request that names none, what the states of all slots take
    static void tell(json & props, const common_params & params, int32_t n_ctx_slot) {
        json limit = json::object();
        if (params.n_predict >= 0) {
            limit["n_predict"] = params.n_predict;
        } else if (ends_with_context(params)) {
            limit["n_total"] = n_ctx_slot;
        } else {
            limit["n_total"]       = params.ctx_shift ? end() : std::min(end(), n_ctx_slot);
            limit["n_predict_min"] = LLAMA_SPIKINGBRAIN_DEFAULT_NEW;
        }
        props["default_limit"] = limit;
        if (state_bytes() > 0) {
            props["memory"] = json{ { "state_bytes", state_bytes() } };
        }
        for (const char * name : { "n_predict", "max_tokens" }) {
            props["default_generation_settings"]["params"][name] = std::max(-1, params.n_predict);
        }
    }

    // --- the prompt cache ---------------------------------------------------------------------------------------------

    // the size that nobody gave, once the model is loaded
    static void size_cache(common_params & params, const llama_context * ctx) {
        if (params.cache_ram_mib == CACHE_AUTO) {
            const uint64_t n_available = available_memory();
            params.cache_ram_mib = (cache_bytes(params, ctx, n_available) + MIB - 1)/MIB;
            SRV_INF("prompt cache: at most %d MiB: %d slot states or a tenth of the %d MiB available, at least one state (--cache-ram)\n",
                params.cache_ram_mib, (int) CACHE_STATES, (int) (n_available/MIB));
        }
    }

    static uint64_t cache_bytes(const common_params & params, const llama_context * ctx, uint64_t n_available) {
        if (!llama_spikingbrain_remembers(ctx)) {
            return std::min(n_available/10, CACHE_OTHERS);
        }
        const uint64_t n_state = slot_state(params, ctx);
        return std::max(std::min(n_available/10, CACHE_STATES*n_state), n_state);
    }

    // bytes of a slot's state with the checkpoints that a request leaves and the row of logits at its prompt's end
    static uint64_t slot_state(const common_params & params, const llama_context * ctx) {
        const uint64_t n_one = llama_spikingbrain_state_bytes(ctx)/llama_n_seq_max(ctx);
        const uint64_t n_row = sizeof(float)*llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
        const uint64_t n_checkpoints = std::clamp(params.n_ctx_checkpoints, 0, CHECKPOINTS)*n_one;
        return n_one + n_row + std::min(n_checkpoints, checkpoint_bytes());
    }

    // of the machine, or of its control group where that allows less
    static uint64_t available_memory() {
        size_t n_free = 0, n_total = 0;
        ggml_backend_dev_memory(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), &n_free, &n_total);
        uint64_t n = n_total, value = 0;
#ifdef _WIN32
        n = n_free; // elsewhere it is the same number
#endif

        std::ifstream meminfo("/proc/meminfo"); // absent elsewhere
        for (std::string word; meminfo >> word;) {
            if (word == "MemAvailable:" && meminfo >> value) {
                n = std::min(n, value*1024);
                break;
            }
        }
        for (const char * limit : { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes" }) {
            if (std::ifstream(limit) >> value) {
                n = std::min(n, value);
            }
        }
        return n;
    }

private:
    static bool ends_with_context(const common_params & params) {
        return params.n_ctx > 0 && !params.ctx_shift;
    }

    static uint64_t & state_bytes() {
        static uint64_t n = 0;
        return n;
    }

    // prompt + answer of a request that names no limit; kept for /props, which is answered while the model sleeps, too
    static int32_t & end() {
        static int32_t n = 0;
        return n;
    }

    static uint64_t checkpoint_bytes() {
        try {
            return server_checkpoints::mib()*MIB;
        } catch (const std::runtime_error &) {
            return server_checkpoints::MIB_DEFAULT*MIB; // the first request is told
        }
    }
};
