// GBNF rules under construction, for schema-grammar.cpp: literals, classes of characters, repetitions.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kept {

// what no grammar of ours can hold; the words say what of it, the caller says where
struct unheld : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// no value satisfies it
struct nothing : std::runtime_error {
    using std::runtime_error::runtime_error;
};

const int MAX_REPEAT = 20000;

// inclusive ranges of code points, in order, apart from each other
using code_points = std::vector<std::pair<uint32_t, uint32_t>>;

code_points normal(code_points set);
code_points complement(const code_points & set);
code_points intersection(const code_points & a, const code_points & b);

std::vector<uint32_t> decode_utf8(const std::string & text);

// GBNF that matches the text as it stands
std::string literal(const std::string & text);
// GBNF that matches one of these, as it stands
std::string char_class(const code_points & set);

class rules {
public:
    explicit rules(std::string prefix) : prefix_(std::move(prefix)) {}

    // the name of a rule with that body; the same body is one rule
    std::string add(const std::string & body);
    // a name whose body comes later, for rules that contain themselves
    std::string reserve();
    void        define(const std::string & name, const std::string & body) { bodies_[name] = body; }

    // min to max times that rule (literal, class), max < 0: without end. llama.cpp reads a number above 2000 as "without end"
    std::string repeat(const std::string & name, int min, int max);

    // one code point in a JSON string that is one of these: a class, a literal or a rule's name
    std::string string_char(const code_points & set);
    std::string any_char(); // any code point, escapes and pairs of surrogates included
    std::string space();
    std::string any_value();
    std::string any_string();

    std::string text() const; // a rule a line
    size_t      size() const { return bodies_.size(); }

private:
    std::string                        prefix_;
    int                                n_ = 0;
    std::map<std::string, std::string> bodies_; // by name
    std::map<std::string, std::string> names_;  // by body
};

} // namespace kept
