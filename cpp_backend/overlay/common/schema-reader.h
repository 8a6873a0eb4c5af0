// A JSON schema read into what it asks for, with $ref and allOf merged: for schema-grammar.cpp and schema-tools.cpp.
#pragma once

#include "json.h"
#include "schema-grammar.h"
#include "schema-range.h"

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kept {

struct alternatives {
    bool                     exclusive; // oneOf
    std::vector<common_json> schemas;
    std::string              path;
};

struct wanted {
    std::string path;

    std::set<std::string>                   types; // empty: not said
    std::optional<std::vector<common_json>> values;
    std::vector<alternatives>               choices;

    bound       lowest, highest;
    std::string multiple; // a JSON number

    std::string pattern, format;
    int         min_length = 0, max_length = -1;

    std::vector<common_json>   prefix; // items by their place
    std::optional<common_json> items;  // the others
    int                        min_items = 0, max_items = -1;
    bool                       unique = false, is_tuple = false;

    std::vector<std::pair<std::string, common_json>> properties, pattern_properties;
    std::set<std::string>                            required;
    bool                                             lists_properties = false; // if only none
    std::optional<common_json>                       additional, names, unevaluated; // properties
    int                                              min_properties = 0, max_properties = -1;

    bool about_numbers() const { return lowest.set || highest.set || !multiple.empty(); }
    bool about_strings() const { return !pattern.empty() || !format.empty() || min_length > 0 || max_length >= 0; }
    bool about_arrays() const { return is_tuple || items || min_items > 0 || max_items >= 0 || unique; }
    bool about_objects() const {
        return lists_properties || !pattern_properties.empty() || !required.empty() || additional || names || unevaluated ||
            min_properties > 0 || max_properties >= 0;
    }
    bool says_nothing() const {
        return types.empty() && !values && choices.empty() && !about_numbers() && !about_strings() && !about_arrays() && !about_objects();
    }
    // the types of what is written: said, or those its keywords are about
    std::set<std::string> written_types() const;

    const common_json * property(const std::string & name) const;
};

class schema_reader {
public:
    schema_reader(const common_json & root, bool lenient, std::vector<std::string> * warnings)
        : root_(root), lenient_(lenient), warnings_(warnings) {}

    // throws schema_refusal, nothing
    wanted read(const common_json & schema, const std::string & path);
    wanted merged(wanted a, const wanted & b);

    // the target of a schema that is a reference and says nothing else, or nullptr
    const common_json * reference(const common_json & schema, std::string & path) const;

    // a keyword that cannot be held: thrown, or said and left out
    void refuse(const std::string & path, const std::string & keyword, const common_json & got, const std::string & expected);
    [[noreturn]] static void malformed(const std::string & path, const std::string & keyword, const common_json & got, const std::string & expected);

private:
    void read_keyword(const std::string & keyword, const common_json & value, wanted & into);
    void read_general(const std::string & keyword, const common_json & value, wanted & into);
    void read_number(const std::string & keyword, const common_json & value, wanted & into);
    void read_string(const std::string & keyword, const common_json & value, wanted & into);
    void read_array(const std::string & keyword, const common_json & value, wanted & into);
    void read_object(const std::string & keyword, const common_json & value, wanted & into);
    void read_bounds(const common_json & schema, wanted & into);
    void read_together(const common_json & schema, wanted & into);
    void check_known(const common_json & schema, const std::string & path);
    void merge_objects(wanted & a, const wanted & b);

    const common_json & target(const common_json & ref, const std::string & path) const;

    const common_json &        root_;
    bool                       lenient_;
    std::vector<std::string> * warnings_;
    int                        depth_ = 0, n_read_ = 0;
};

bool is_schema(const common_json & value);

// the one of two bounds that excludes more; towards: 1 for lowest ones, -1 for highest
void tighten(bound & b, const bound & other, int towards);
// the values that both lists have
std::vector<common_json> shared(const std::vector<common_json> & a, const std::vector<common_json> & b);

// counts a level of recursion as long as it lives
struct deeper {
    explicit deeper(int & depth) : depth(depth) { ++depth; }
    ~deeper() { --depth; }
    deeper(const deeper &) = delete;
    int & depth;
};

} // namespace kept
