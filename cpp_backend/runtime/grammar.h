// A grammar that constrains sampling: upstream's sampler, checked so that it neither prints nor aborts.
#pragma once

#include "runtime.h"

namespace sb {

struct grammar_options {
    std::string              text; // GBNF
    std::string              root;
    bool                     lazy; // constrains only from a trigger on
    std::vector<std::string> trigger_patterns;
    std::vector<llama_token> trigger_tokens;
    std::vector<llama_token> preserved; // control tokens it may choose, besides those its text names
    std::vector<llama_token> prefill;   // tokens the prompt already holds of what it describes
};

// throws when upstream would refuse the text; token names in it are only known with a vocabulary, and refused here
void check_grammar(const std::string & text, const std::string & root);

// is it a whole answer that the grammar allows; throws as check_grammar does, and where it recurs on the left
bool grammar_matches(const std::string & text, const std::string & root, const std::string & answer);

class grammar {
public:
    grammar(const llama_vocab * vocab, const grammar_options & o);
    ~grammar() { llama_sampler_free(sampler_); }
    grammar(const grammar &) = delete;
    grammar & operator=(const grammar &) = delete;

    void reset();
    bool allows(llama_token id) const;
    void forbid(std::vector<llama_token_data> & all) const; // -inf to all it does not allow
    void accept(llama_token id);                            // throws when it is not allowed

private:
    const llama_vocab *      vocab_;
    llama_sampler *          sampler_ = nullptr;
    std::vector<bool>        banned_;  // control tokens, which have no text
    std::vector<llama_token> prefill_;
    bool                     lazy_;
};

// the chain's choice of a row of logits [n_vocab] among what a grammar (nullptr: none) allows; throws where there is nothing to choose.
// cur: room to work in, kept by the caller
llama_token draw(llama_sampler * chain, const grammar * g, std::vector<llama_token_data> & cur, const float * row, int32_t n_vocab);

} // namespace sb
