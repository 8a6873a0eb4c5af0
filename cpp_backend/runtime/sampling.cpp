#include "runtime.h"

#include <algorithm>
#include <cmath>

namespace sb {

void fill_candidates(std::vector<llama_token_data> & cur, const float * row, int32_t n_vocab) {
    cur.resize(n_vocab);
    for (llama_token id = 0; id < n_vocab; ++id) {
        if (std::isnan(row[id])) {
            throw std::runtime_error("sample: logits: got NaN for token " + std::to_string(id) +
                ", expected numbers; check the model file");
        }
        cur[id] = llama_token_data{ id, row[id], 0.0f };
    }
}

llama_token choose(llama_sampler * chain, std::vector<llama_token_data> & cur) {
    llama_token_data_array array = { cur.data(), cur.size(), -1, false };
    if (std::all_of(cur.begin(), cur.end(), [](const auto & t) { return t.logit == -INFINITY; })) {
        return -1;
    }
    llama_sampler_apply(chain, &array);
    if (array.selected < 0 || array.selected >= (int64_t) array.size) {
        throw std::runtime_error("sample: got a chain that selects nothing, expected one that ends in greedy, dist or "
            "mirostat");
    }
    const auto & chosen = array.data[array.selected];
    return chosen.logit == -INFINITY ? -1 : chosen.id;
}

void check_decoded(int32_t rc, const std::string & what, const log_scope & log) {
    if (rc == 0) {
        return;
    }
    const auto why = log.errors();
    const std::string got = rc == 1 ? "no room in the model's memory" : why.empty() ? "code " + std::to_string(rc) : why;
    throw std::runtime_error(what + ": llama.cpp: got " + got + ", expected success" +
        (rc == 1 ? "; raise n_ctx or reset" : ""));
}

} // namespace sb
