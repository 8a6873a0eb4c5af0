// Two schemas of the same value as one: allOf, what stands beside $ref or anyOf.
#include "schema-reader.h"

#include <algorithm>

namespace kept {

void tighten(bound & b, const bound & other, int towards) {
    if (!other.set) {
        return;
    }
    const int c = b.set ? compare_numbers(other.text, b.text) * towards : 1;
    if (c > 0 || (c == 0 && other.excluded)) {
        b = other;
    }
}

std::vector<common_json> shared(const std::vector<common_json> & a, const std::vector<common_json> & b) {
    std::vector<common_json> out;
    for (const auto & v : a) {
        if (std::any_of(b.begin(), b.end(), [&](const common_json & w) { return v.dump() == w.dump(); })) {
            out.push_back(v);
        }
    }
    return out;
}

static common_json both(const common_json & a, const common_json & b) {
    if (a.is_boolean()) {
        return a.get<bool>() ? b : a;
    }
    if (b.is_boolean()) {
        return b.get<bool>() ? a : b;
    }
    return a.dump() == b.dump() ? a : common_json{ { "allOf", common_json::array({ a, b }) } };
}

static std::optional<common_json> both(const std::optional<common_json> & a, const std::optional<common_json> & b) {
    if (a && b) {
        return both(*a, *b);
    }
    return a ? a : b;
}

static int smaller(int a, int b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); }

static std::set<std::string> common_types(const std::set<std::string> & a, const std::set<std::string> & b) {
    if (a.empty() || b.empty()) {
        return a.empty() ? b : a;
    }
    std::set<std::string> out;
    for (const char * t : { "object", "array", "string", "number", "integer", "boolean", "null" }) {
        const auto in = [&](const std::set<std::string> & s) { return s.count(t) || (std::string(t) == "integer" && s.count("number")); };
        if (in(a) && in(b)) {
            out.insert(t);
        }
    }
    if (out.empty()) {
        throw nothing("types that exclude one another");
    }
    if (out.count("number")) {
        out.erase("integer");
    }
    return out;
}

// what the properties of one are to the other, whose additionalProperties speak of its own properties only
void schema_reader::merge_objects(wanted & a, const wanted & b) {
    std::vector<std::pair<std::string, common_json>> all;
    const auto add = [&](const std::string & name, const common_json & schema, const wanted & other) {
        const auto * theirs = other.property(name);
        all.emplace_back(name, theirs ? both(schema, *theirs) : other.additional && other.pattern_properties.empty() ? both(schema, *other.additional) : schema);
    };
    for (const auto & p : a.properties) {
        add(p.first, p.second, b);
    }
    for (const auto & p : b.properties) {
        if (!a.property(p.first)) {
            add(p.first, p.second, a);
        }
    }
    a.properties = std::move(all);
    if (!a.pattern_properties.empty() && !b.pattern_properties.empty()) {
        refuse(a.path, "patternProperties", common_json(b.pattern_properties[0].first), "them once");
    } else if (a.pattern_properties.empty()) {
        a.pattern_properties = b.pattern_properties;
    }
    a.lists_properties = a.lists_properties || b.lists_properties;
    a.required.insert(b.required.begin(), b.required.end());
    a.additional     = both(a.additional, b.additional);
    a.unevaluated    = both(a.unevaluated, b.unevaluated);
    a.names          = both(a.names, b.names);
    a.min_properties = std::max(a.min_properties, b.min_properties);
    a.max_properties = smaller(a.max_properties, b.max_properties);
}

wanted schema_reader::merged(wanted a, const wanted & b) {
    a.types = common_types(a.types, b.types);
    if (b.values) {
        a.values = a.values ? shared(*a.values, *b.values) : *b.values;
    }
    a.choices.insert(a.choices.end(), b.choices.begin(), b.choices.end());
    tighten(a.lowest, b.lowest, 1);
    tighten(a.highest, b.highest, -1);
    for (const auto & [keyword, mine, theirs] : { std::tuple<const char *, std::string *, const std::string *>
             ("multipleOf", &a.multiple, &b.multiple), { "pattern", &a.pattern, &b.pattern }, { "format", &a.format, &b.format } }) {
        if (!mine->empty() && !theirs->empty() && *mine != *theirs) {
            refuse(b.path, keyword, common_json(*theirs), "it once, got " + *mine + " for the same value");
        } else if (mine->empty()) {
            *mine = *theirs;
        }
    }
    a.min_length = std::max(a.min_length, b.min_length);
    a.max_length = smaller(a.max_length, b.max_length);
    if (a.is_tuple && b.is_tuple) {
        refuse(b.path, "prefixItems", common_json((int64_t) b.prefix.size()), "them once for the same value");
    } else if (b.is_tuple || a.is_tuple) {
        const auto & rest = a.is_tuple ? b.items : a.items; // of the other, whose items are all of them
        auto prefix = a.is_tuple ? a.prefix : b.prefix;
        for (auto & p : prefix) {
            p = rest ? both(p, *rest) : p;
        }
        a.prefix   = std::move(prefix);
        a.is_tuple = true;
    }
    a.items     = both(a.items, b.items);
    a.min_items = std::max(a.min_items, b.min_items);
    a.max_items = smaller(a.max_items, b.max_items);
    a.unique    = a.unique || b.unique;
    merge_objects(a, b);
    return a;
}

} // namespace kept
