#include "core.h"
#include "grammar.h"

#include <cmath>

namespace sb {

sampler::sampler(std::shared_ptr<model> m)
    : model_(std::move(m)), chain_(llama_sampler_chain_init(llama_sampler_chain_default_params())) {
    model_->get();
}

sampler::~sampler() {
    if (chain_ && !owner_.foreign()) {
        llama_sampler_free(chain_);
    }
}

void sampler::add(llama_sampler * s, const char * what) {
    if (!s) {
        throw std::invalid_argument(std::string("sampler: ") + what + ": got values llama.cpp refuses, expected others");
    }
    llama_sampler_chain_add(chain_, s);
}

void sampler::add_logit_bias(const std::vector<std::pair<llama_token, float>> & bias) {
    std::vector<llama_logit_bias> list;
    for (const auto & b : bias) {
        list.push_back({ model_->checked(b.first), b.second });
    }
    add(llama_sampler_init_logit_bias(llama_vocab_n_tokens(model_->vocab()), list.size(), list.data()), "logit_bias");
}

void sampler::add_penalties(int32_t last_n, float repeat, float freq, float present) {
    if (!(repeat > 0.0f) || !std::isfinite(repeat) || !std::isfinite(freq) || !std::isfinite(present)) {
        throw std::invalid_argument("sampler: penalties: got a repeat penalty <= 0 or a value that is not finite, "
            "expected finite numbers and repeat > 0");
    }
    add(llama_sampler_init_penalties(llama_vocab_n_tokens(model_->vocab()), last_n, repeat, freq, present), "penalties");
}

void sampler::add_mirostat(uint32_t seed, float tau, float eta, int32_t m) {
    add(llama_sampler_init_mirostat(llama_vocab_n_tokens(model_->vocab()), seed, tau, eta, m), "mirostat");
}

std::vector<std::string> sampler::names() const {
    owned::use use(owner_, "sampler", true);
    std::vector<std::string> out;
    for (int32_t i = 0; i < llama_sampler_chain_n(chain_); ++i) {
        out.emplace_back(llama_sampler_name(llama_sampler_chain_get(chain_, i)));
    }
    return out;
}

void sampler::set_grammar(const grammar_options & o) {
    owned::use use(owner_, "sampler", true);
    for (const auto * list : { &o.trigger_tokens, &o.preserved, &o.prefill }) {
        for (const llama_token id : *list) {
            model_->checked(id);
        }
    }
    const auto * vocab = model_->vocab();
    const auto   held  = model_->in_use("set_grammar");
    py::gil_scoped_release nogil;
    grammar_ = std::make_unique<grammar>(vocab, o);
}

void sampler::accept_grammar(llama_token id) {
    owned::use use(owner_, "sampler", true);
    if (grammar_) {
        grammar_->accept(model_->checked(id));
    }
}

void sampler::accept(const tokens_in & tokens) {
    owned::use use(owner_, "sampler", true);
    for (py::ssize_t i = 0; i < tokens.size(); ++i) {
        llama_sampler_accept(chain_, model_->checked(tokens.data()[i]));
    }
}

void sampler::reset() {
    owned::use use(owner_, "sampler", true);
    llama_sampler_reset(chain_);
    if (grammar_) {
        grammar_->reset();
    }
}

llama_token sampler::sample(const py::array_t<float, py::array::c_style> & logits) {
    owned::use use(owner_, "sampler", true);
    const int32_t n_vocab = llama_vocab_n_tokens(model_->vocab());
    if (logits.size() != n_vocab) {
        throw std::invalid_argument("sample: logits: got " + std::to_string(logits.size()) + ", expected n_vocab=" +
            std::to_string(n_vocab));
    }
    log_scope log(model_->verbose());
    const auto held = model_->in_use("sample");
    py::gil_scoped_release nogil;
    return draw(chain_, grammar_.get(), cur_, logits.data(), n_vocab);
}

} // namespace sb
