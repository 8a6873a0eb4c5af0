#pragma once

// Which adapters a slot's tokens were computed with. It goes with the tokens (a member of server_tokens: patch server-adapters) to wherever
// they and their state go: slot, checkpoints, prompt cache, slot file. What two texts have in common (get_common_prefix) then ends
// where their adapters begin to differ, so that no state of other weights is ever continued, kept or taken for a copy.

#include "common.h"

#include "llama-spikingbrain.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

struct server_adapters {
    using list = std::vector<common_adapter_lora_info>;

    std::vector<std::pair<uint64_t, float>> used; // print of each and its scale, not 0, sorted
    size_t from = SIZE_MAX;                       // first token they apply to; of an aLoRA its invocation

    // how many first tokens, if equal, have an equal state
    size_t n_common(const server_adapters & other) const {
        return used == other.used && from == other.from ? SIZE_MAX : std::min(from, other.from);
    }

    // whether all of them are loaded here
    bool known() const {
        return std::all_of(used.begin(), used.end(), [](const auto & one) {
            return std::any_of(prints().begin(), prints().end(), [&](const auto & it) { return it.second == one.first; });
        });
    }

    // once they are loaded
    static void loaded(const list & adapters) {
        prints().clear();
        for (const auto & one : adapters) {
            prints()[one.ptr] = llama_spikingbrain_adapter_print(one.ptr);
        }
    }

    // --lora-init-without-apply: at scale 0 until a client asks for them
    static void unapply(common_params & params) {
        for (auto & one : params.lora_adapters) {
            one.scale = params.lora_init_without_apply ? 0.0f : one.scale;
        }
        params.lora_init_without_apply = false; // scales that are set later survive a sleep
    }

    // An empty list in a request is not the same as none: it asks for no adapter.
    static void none(std::map<int, float> & lora) {
        lora.insert({ -1, 0.0f });
    }

    // what a task is to be computed with
    template <typename Task>
    static server_adapters of(const Task & task, const list & base) {
        server_adapters out;
        bool all_alora = true;
        const llama_adapter_lora * alora = nullptr;
        for (const auto & one : scaled(task.params.lora, base)) {
            if (one.scale != 0.0f) {
                out.used.emplace_back(prints()[one.ptr], one.scale);
                alora     = one.ptr;
                all_alora = all_alora && llama_adapter_get_alora_n_invocation_tokens(one.ptr) > 0;
            }
        }
        if (!out.used.empty()) {
            out.from = all_alora ? invocation(alora, task.tokens) : 0;
        }
        if (out.from == SIZE_MAX) {
            out.used.clear();
        }
        std::sort(out.used.begin(), out.used.end());
        return out;
    }

    // At the launch of a task: what its slot is to use, which the task then reports, too.
    template <typename Task>
    static list resolve(Task & task, const list & base) {
        task.tokens.adapters = of(task, base);
        list out = scaled(task.params.lora, base);
        task.params.lora.clear();
        for (size_t i = 0; i < out.size(); ++i) {
            task.params.lora[i] = out[i].scale;
        }
        return out;
    }

private:
    static std::map<const llama_adapter_lora *, uint64_t> & prints() {
        static std::map<const llama_adapter_lora *, uint64_t> all;
        return all;
    }

    static list scaled(const std::map<int, float> & asked, const list & base) {
        list out = base;
        for (size_t i = 0; i < out.size() && !asked.empty(); ++i) {
            const auto it = asked.find(i);
            out[i].scale = it != asked.end() ? it->second : 0.0f;
        }
        return out;
    }

    // An aLoRA applies from one token before the last occurrence of its invocation on; without one not at all. Found as
    // launch_slot_with_task() finds it.
    template <typename Tokens>
    static size_t invocation(const llama_adapter_lora * alora, const Tokens & tokens) {
        const int64_t       n    = llama_adapter_get_alora_n_invocation_tokens(alora);
        const llama_token * want = llama_adapter_get_alora_invocation_tokens(alora);
        int64_t left = n;
        for (int64_t at = (int64_t) tokens.size() - 1; at >= 0; --at) {
            left = tokens[at] == want[left - 1] ? left - 1 : n;
            if (left == 0) {
                return std::max<int64_t>(0, at - 1);
            }
        }
        return SIZE_MAX;
    }
};
