#include "grammar.h"

#include "../src/llama-grammar.h" // relative to upstream's include folder, as its own tests have it

#include "schema-rules.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sb {

using kept::decode_utf8;

// upstream's recursive functions take a stack frame per rule or bracket
static const size_t MAX_BYTES = 256 * 1024;
static const int    MAX_DEPTH = 256;

static void check_size(const std::string & text) {
    if (text.size() > MAX_BYTES) {
        throw std::invalid_argument("grammar: text: got " + std::to_string(text.size()) + " bytes, expected at most " +
            std::to_string(MAX_BYTES));
    }
    int depth = 0;
    for (const char c : text) {
        depth += c == '(' ? 1 : c == ')' && depth > 0 ? -1 : 0;
        if (depth > MAX_DEPTH) {
            throw std::invalid_argument("grammar: text: got brackets in brackets, expected at most " +
                std::to_string(MAX_DEPTH) + " deep");
        }
    }
    if (text.find('\0') != std::string::npos) {
        throw std::invalid_argument("grammar: text: got a NUL, expected GBNF");
    }
}

static void check_names(const llama_grammar_parser & parser, const std::string & root) {
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw std::invalid_argument("grammar: got no rule '" + name + "', expected each that is used to be defined");
        }
    }
    if (!parser.symbol_ids.count(root)) {
        throw std::invalid_argument("grammar: got no rule '" + root + "', expected the root rule to be defined");
    }
}

// Optional parts of one character in a row: where a character fits all of them, upstream makes the stacks of what may follow from
// each anew and compares them with one another; its time grows with the cube of their number (100: tenths of a second a token,
// 400: 15 s), and nothing interrupts it.
static const int MAX_OPTIONAL = 100;

struct optional_parts {
    const llama_grammar_rules & rules;
    std::vector<int8_t> empty; // per rule: may it match nothing; -1 not known yet
    std::vector<int>    most;  // per rule: of them in a row, at most; -1 not known yet

    explicit optional_parts(const llama_grammar_rules & rules) : rules(rules), empty(rules.size(), -1), most(rules.size(), -1) {}

    bool is_optional(const llama_grammar_element & e) { return e.type == LLAMA_GRETYPE_RULE_REF && can_be_empty(e.value); }

    // has the rule an alternative of n characters and optional parts
    bool has_length(size_t id, int n) {
        int length = 0;
        for (const auto & e : rules[id]) {
            if (e.type == LLAMA_GRETYPE_END || e.type == LLAMA_GRETYPE_ALT) {
                if (length == n) {
                    return true;
                }
                length = 0;
            } else if (e.type != LLAMA_GRETYPE_CHAR_ALT && e.type != LLAMA_GRETYPE_CHAR_RNG_UPPER && !is_optional(e)) {
                length += e.type == LLAMA_GRETYPE_RULE_REF ? 2 : 1; // a rule that must come: as good as several
            }
        }
        return false;
    }

    bool can_be_empty(size_t id) {
        if (empty[id] < 0) {
            empty[id] = 0; // a rule inside of itself: decided by its other alternatives
            empty[id] = has_length(id, 0);
        }
        return empty[id];
    }

    int in_a_row(size_t id) {
        if (most[id] < 0) {
            most[id] = 0;
            int run = 0, found = 0;
            for (const auto & e : rules[id]) {
                run   = is_optional(e) ? std::min(run + std::max(in_a_row(e.value), (int) has_length(e.value, 1)), MAX_OPTIONAL + 1) : 0;
                found = std::max(found, run);
            }
            most[id] = found;
        }
        return most[id];
    }
};

static void check_optional_parts(const llama_grammar_rules & rules) {
    optional_parts parts(rules);
    for (size_t id = 0; id < rules.size(); ++id) {
        if (parts.in_a_row(id) > MAX_OPTIONAL) {
            throw std::invalid_argument("grammar: got more than " + std::to_string(MAX_OPTIONAL) + " optional characters in a row, expected "
                "fewer: llama.cpp's time for a token grows with their cube; use one part with a number of times, as [a-z]{0,400}");
        }
    }
}

// upstream prints what is wrong instead of returning it, so its parser is asked rule by rule
static llama_grammar_parser parse(const llama_vocab * vocab, const std::string & text, const std::string & root) {
    check_size(text);
    llama_grammar_parser parser(vocab);
    try {
        const char * at = text.c_str();
        while (*at) {
            if (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n') {
                ++at;
            } else if (*at == '#') {
                at += strcspn(at, "\r\n");
            } else {
                at = parser.parse_rule(at);
            }
        }
    } catch (const std::exception & e) {
        throw std::invalid_argument("grammar: got text that is not GBNF: " + std::string(e.what()).substr(0, 200));
    }
    check_names(parser, root);
    check_optional_parts(parser.rules);
    return parser;
}

void check_grammar(const std::string & text, const std::string & root) { parse(nullptr, text, root); }

bool grammar_matches(const std::string & text, const std::string & root, const std::string & answer) {
    parse(nullptr, text, root);
    log_scope log(false);
    const std::unique_ptr<llama_grammar, void (*)(llama_grammar *)> g(
        llama_grammar_init_impl(nullptr, text.c_str(), root.c_str(), false, nullptr, 0, nullptr, 0), llama_grammar_free_impl);
    if (!g) {
        throw std::invalid_argument("grammar: got a refusal from llama.cpp: " + log.errors());
    }
    const auto & stacks = llama_grammar_get_stacks(g.get());
    for (const uint32_t c : decode_utf8(answer)) {
        llama_grammar_accept(g.get(), c);
        if (stacks.empty()) {
            return false;
        }
    }
    return std::any_of(stacks.begin(), stacks.end(), [](const auto & s) { return s.empty(); });
}

grammar::grammar(const llama_vocab * vocab, const grammar_options & o) : vocab_(vocab), prefill_(o.prefill), lazy_(o.lazy) {
    const auto parser = parse(vocab, o.text, o.root);
    const int32_t n = llama_vocab_n_tokens(vocab);
    banned_.resize(n);
    for (llama_token id = 0; id < n; ++id) {
        banned_[id] = llama_vocab_is_control(vocab, id) && !llama_vocab_is_eog(vocab, id);
    }
    for (const auto & rule : parser.rules) {
        for (const auto & e : rule) {
            if (e.type == LLAMA_GRETYPE_TOKEN && e.value < (uint32_t) n) {
                banned_[e.value] = false;
            }
        }
    }
    for (const auto * list : { &o.preserved, &o.trigger_tokens }) {
        for (const llama_token id : *list) {
            banned_.at(id) = false;
        }
    }

    std::vector<const char *> patterns;
    for (const auto & p : o.trigger_patterns) {
        patterns.push_back(p.c_str());
    }
    log_scope log(false);
    sampler_ = o.lazy
        ? llama_sampler_init_grammar_lazy_patterns(vocab, o.text.c_str(), o.root.c_str(), patterns.data(), patterns.size(),
              o.trigger_tokens.data(), o.trigger_tokens.size())
        : llama_sampler_init_grammar(vocab, o.text.c_str(), o.root.c_str());
    if (!sampler_) {
        throw std::invalid_argument("grammar: got a refusal from llama.cpp: " + log.errors());
    }
    try {
        reset();
    } catch (...) {
        llama_sampler_free(sampler_);
        throw;
    }
}

void grammar::reset() {
    llama_sampler_reset(sampler_);
    if (!lazy_) {
        for (const llama_token id : prefill_) {
            llama_sampler_accept(sampler_, id);
        }
    }
}

bool grammar::allows(llama_token id) const {
    if (banned_[id] && !lazy_) {
        return false;
    }
    llama_token_data       one  = { id, 1.0f, 0.0f };
    llama_token_data_array only = { &one, 1, -1, false };
    llama_sampler_apply(sampler_, &only);
    return one.logit != -INFINITY;
}

void grammar::forbid(std::vector<llama_token_data> & all) const {
    if (!lazy_) {
        for (auto & t : all) {
            t.logit = banned_[t.id] ? -INFINITY : t.logit;
        }
    }
    llama_token_data_array array = { all.data(), all.size(), -1, false };
    llama_sampler_apply(sampler_, &array);
}

void grammar::accept(llama_token id) {
    if (!allows(id)) { // upstream would abort
        throw std::runtime_error("grammar: got token " + std::to_string(id) + ", which it does not allow here");
    }
    llama_sampler_accept(sampler_, id);
}

llama_token draw(llama_sampler * chain, const grammar * g, std::vector<llama_token_data> & cur, const float * row, int32_t n_vocab) {
    fill_candidates(cur, row, n_vocab);
    llama_token id = choose(chain, cur);
    if (g && (id < 0 || !g->allows(id))) { // a grammar is slow on all tokens: first the likely case that this one fits
        fill_candidates(cur, row, n_vocab);
        g->forbid(cur);
        id = choose(chain, cur);
        if (id < 0 || !g->allows(id)) {
            throw std::runtime_error("sample: grammar: got no token that it and the logits allow, expected one; "
                "change the grammar, logit_bias or logits_processor");
        }
    }
    if (id < 0) {
        throw std::runtime_error("sample: logits: got -inf for every token, expected one that is allowed");
    }
    return id;
}

} // namespace sb
