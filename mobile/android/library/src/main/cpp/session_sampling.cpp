// Choosing a token.
#include "session.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sb {

// as build_chain() of bindings/spikingbrain_cpp/sampling.py
void session::new_chain(llama_seq_id seq, const sampling_options & o, const grammar_options * g) {
    auto & s = slots_[checked(seq)];
    s.grammar = g ? std::make_unique<sb::grammar>(vocab_, *g) : nullptr;
    s.chain.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    const auto add = [&](llama_sampler * one) {
        if (!one) {
            throw std::invalid_argument("sampler: got values llama.cpp refuses, expected others");
        }
        llama_sampler_chain_add(s.chain.get(), one);
    };
    const int32_t n_vocab = llama_vocab_n_tokens(vocab_);
    if (!o.bias.empty()) {
        for (const auto & b : o.bias) {
            sb::checked(vocab_, b.token);
        }
        add(llama_sampler_init_logit_bias(n_vocab, o.bias.size(), o.bias.data()));
    }
    add(llama_sampler_init_penalties(n_vocab, o.last_n, o.repeat, o.frequency, o.presence));
    if (o.temperature == 0.0f) {
        add(llama_sampler_init_greedy());
        return;
    }
    if (o.temperature > 0.0f) { // below, the field's meaning is the untouched distribution
        add(llama_sampler_init_top_k(o.top_k));
        add(llama_sampler_init_typical(o.typical_p, 1));
        add(llama_sampler_init_top_p(o.top_p, 1));
        add(llama_sampler_init_min_p(o.min_p, 1));
        add(llama_sampler_init_temp(o.temperature));
    }
    add(llama_sampler_init_dist(o.seed));
}

void session::accept(llama_seq_id seq, const std::vector<llama_token> & tokens) {
    for (const llama_token t : tokens) {
        llama_sampler_accept(slots_[checked(seq)].chain.get(), sb::checked(vocab_, t));
    }
}

const std::vector<float> & session::last_row(llama_seq_id seq) const {
    const auto & s = slots_[checked(seq)];
    if (s.logits_pos < 0 || s.logits_pos != last_pos(seq)) {
        throw std::runtime_error("sample: logits: got none for the last token, expected a row; eval a token");
    }
    return s.logits;
}

llama_token session::choose_token(llama_seq_id seq) {
    const auto & row = last_row(seq);
    auto & s = slots_[seq];
    if (!s.chain) {
        throw std::runtime_error("sample: got no chain, expected one; make one first");
    }
    log_scope log(false);
    const llama_token id = draw(s.chain.get(), s.grammar.get(), candidates_, row.data(), row.size());
    if (s.grammar) {
        s.grammar->accept(id);
    }
    return id;
}

token_logprobs session::logprobs(llama_seq_id seq, llama_token token, int32_t n_top) {
    const auto & row = last_row(seq);
    const float largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) {
        sum += std::exp(double(x) - largest);
    }
    const float log_sum = std::log(sum);
    const auto logprob = [&](llama_token id) { return row[id] - largest - log_sum; };

    std::vector<llama_token> ids(row.size());
    std::iota(ids.begin(), ids.end(), 0);
    const size_t n = std::min<size_t>(std::max(n_top, 0), ids.size());
    std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](auto a, auto b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    token_logprobs out = { logprob(sb::checked(vocab_, token)), {} };
    for (size_t i = 0; i < n; ++i) {
        out.top.emplace_back(ids[i], logprob(ids[i]));
    }
    return out;
}

} // namespace sb
