// Grammar rules of a schema, for schema-grammar.cpp and schema-tools.cpp.
#pragma once

#include "schema-reader.h"

namespace kept {

class schema_writer {
public:
    schema_writer(const common_json & root, const std::string & prefix, bool lenient, std::vector<std::string> * warnings)
        : reader(root, lenient, warnings), out(prefix) {}

    // the name of the rule of a schema. Throws schema_refusal, nothing
    std::string rule(const common_json & schema, const std::string & path);
    std::string rule_of(const wanted & w) { return out.add(body(w)); }

    schema_reader reader;
    rules         out;

private:
    std::string inner_rule(const common_json & schema, const std::string & path); // of a value within another
    std::string body(const wanted & w);
    std::string choice(const wanted & w);
    std::string values(const wanted & w);
    std::string typed(const wanted & w, const std::string & type);
    std::string number(const wanted & w, bool whole);
    std::string multiple(const wanted & w, bool whole);
    std::string string(const wanted & w);
    std::string array(const wanted & w);
    std::string object(wanted w);

    void        check_exclusive(const alternatives & all);
    bool        apart(const wanted & written, const wanted & other);
    bool        apart(const common_json & written, const common_json & other);
    bool        fits(const common_json & value, const wanted & w);
    struct member {
        std::string rule; // of the name and the value
        bool        required;
    };
    void                settle_names(wanted & w);
    std::vector<member> members(const wanted & w);
    std::string         others(const wanted & w);
    std::string         key_rule(const wanted & w);
    std::string         other_key(const std::vector<std::string> & names);
    std::string         members_in_order(const std::vector<member> & all, const std::string & others, bool may_be_empty);

    std::map<std::string, std::string> names_; // of rules, by the text of their schema
    std::vector<std::set<std::string>> open_ = { {} }; // schemas being written for the same value, innermost value last
    int                                depth_ = 0;
};

} // namespace kept

// what nothing satisfies and what cannot be held, said as a refusal
template <typename F>
static auto schema_refusing(F && f) -> decltype(f()) {
    try {
        return f();
    } catch (const kept::nothing & error) {
        throw schema_refusal(std::string("json schema: got one that no value satisfies (") + error.what() + "), expected one that some do");
    } catch (const kept::unheld & error) {
        throw schema_refusal(std::string("json schema: got what a grammar cannot hold, expected ") + error.what());
    }
}
