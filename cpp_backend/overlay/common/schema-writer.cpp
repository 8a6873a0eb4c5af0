#include "schema-writer.h"

#include "schema-pattern.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace kept {

static const int    MAX_DEPTH = 100;
static const size_t MAX_RULES = 20000;
static const int    MAX_DIVISOR = 100, MAX_LISTED = 500; // multiples without bounds, with bounds

static std::string joined(const std::vector<std::string> & parts, const char * between) {
    std::string out;
    for (const auto & p : parts) {
        out += (out.empty() ? "" : between) + p;
    }
    return out;
}

// --- schemas ----------------------------------------------------------------------------------------------------------------

std::string schema_writer::rule(const common_json & schema, const std::string & path) {
    const deeper level(depth_);
    if (depth_ > 2 * MAX_DEPTH || out.size() > MAX_RULES) { // rule() and body() count
        schema_reader::malformed(path, "schema", schema, "at most " + std::to_string(MAX_DEPTH) + " levels and " + std::to_string(MAX_RULES) + " rules");
    }
    const std::string key = schema.dump_safe();
    if (open_.back().count(key)) {
        schema_reader::malformed(path, "$ref", schema, "none that leads back to itself within the same value");
    }
    if (const auto found = names_.find(key); found != names_.end()) {
        return found->second;
    }
    open_.back().insert(key);
    const std::string name = names_[key] = out.reserve();
    try {
        std::string at = path;
        const auto * target = reader.reference(schema, at);
        out.define(name, target ? rule(*target, at) : body(reader.read(schema, path)));
    } catch (const nothing &) {
        open_.back().erase(key);
        names_.erase(key);
        throw;
    }
    open_.back().erase(key);
    return name;
}

std::string schema_writer::inner_rule(const common_json & schema, const std::string & path) {
    open_.push_back({});
    try {
        const std::string name = rule(schema, path);
        open_.pop_back();
        return name;
    } catch (const nothing &) {
        open_.pop_back();
        throw;
    }
}

std::string schema_writer::body(const wanted & w) {
    const deeper level(depth_);
    if (depth_ > 2 * MAX_DEPTH || out.size() > MAX_RULES) {
        schema_reader::malformed(w.path, "anyOf", common_json("..."), "at most " + std::to_string(MAX_DEPTH) + " levels and " + std::to_string(MAX_RULES) + " rules");
    }
    if (!w.choices.empty()) {
        return choice(w);
    }
    if (w.values) {
        return values(w);
    }
    if (w.says_nothing()) {
        return out.any_value();
    }
    std::vector<std::string> ways;
    std::string why;
    for (const auto & type : w.written_types()) {
        try {
            ways.push_back(typed(w, type));
        } catch (const nothing & error) {
            why = error.what();
        }
    }
    if (ways.empty()) {
        throw nothing(why);
    }
    return joined(ways, " | ");
}

std::string schema_writer::typed(const wanted & w, const std::string & type) {
    if (type == "object")  { return object(w); }
    if (type == "array")   { return array(w); }
    if (type == "string")  { return string(w); }
    if (type == "integer") { return number(w, true); }
    if (type == "number")  { return number(w, false); }
    return type == "boolean" ? R"("true" | "false")" : "\"null\"";
}

std::string schema_writer::choice(const wanted & w) {
    wanted     rest = w;
    const auto group = rest.choices.back();
    rest.choices.pop_back();
    if (group.exclusive) {
        check_exclusive(group);
    }
    std::vector<std::string> ways;
    std::string why;
    size_t i = 0;
    for (const auto & schema : group.schemas) {
        const std::string path = group.path + "/" + std::to_string(i++);
        try {
            ways.push_back(rest.says_nothing() ? rule(schema, path) : out.add(body(reader.merged(reader.read(schema, path), rest))));
        } catch (const nothing & error) {
            why = error.what();
        }
    }
    if (ways.empty()) {
        throw nothing(why);
    }
    return joined(ways, " | ");
}

// --- oneOf: anyOf is the same where no value fits two of them -----------------------------------------------------------------

void schema_writer::check_exclusive(const alternatives & all) {
    std::vector<std::pair<wanted, size_t>> read; // those that some value satisfies
    for (size_t i = 0; i < all.schemas.size(); ++i) {
        try {
            read.emplace_back(reader.read(all.schemas[i], all.path), i);
        } catch (const nothing &) {
        }
    }
    for (const auto & [written, i] : read) {
        for (const auto & [other, j] : read) {
            if (i != j && !apart(written, other)) {
                reader.refuse(all.path, "oneOf", all.schemas[j], "alternatives of which no value fits two (anyOf allows that)");
                return;
            }
        }
    }
}

bool schema_writer::apart(const common_json & written, const common_json & other) {
    const deeper level(depth_);
    if (depth_ > MAX_DEPTH) {
        return false;
    }
    try {
        return apart(reader.read(written, "oneOf"), reader.read(other, "oneOf"));
    } catch (const nothing &) {
        return true;
    }
}

static const char * type_of(const common_json & v) {
    return v.is_object() ? "object" : v.is_array() ? "array" : v.is_string() ? "string" : v.is_boolean() ? "boolean" : v.is_null() ? "null" : "number";
}

static std::set<std::string> types_of(const wanted & w, bool written) {
    std::set<std::string> types = written ? w.written_types() : w.types;
    if (w.values) {
        types.clear();
        for (const auto & v : *w.values) {
            types.insert(type_of(v));
        }
    }
    if (types.erase("integer")) {
        types.insert("number");
    }
    return types; // empty: any
}

static bool bounds_apart(const wanted & a, const wanted & b) {
    const auto below = [](const bound & high, const bound & low) {
        const int c = high.set && low.set ? compare_numbers(high.text, low.text) : 1;
        return c < 0 || (c == 0 && (high.excluded || low.excluded));
    };
    return below(a.highest, b.lowest) || below(b.highest, a.lowest);
}

// can nothing that is written for the one be valid for the other
bool schema_writer::apart(const wanted & a, const wanted & b) {
    const auto of_a = types_of(a, true), of_b = types_of(b, false);
    if (a.values && b.values) {
        for (const auto & v : *a.values) {
            for (const auto & w : *b.values) {
                if (v.dump() == w.dump() || (v.is_number() && w.is_number() && compare_numbers(v.dump(), w.dump()) == 0)) {
                    return false;
                }
            }
        }
        return true;
    }
    std::set<std::string> shared;
    std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(), std::inserter(shared, shared.end()));
    if (of_a.empty() || of_b.empty()) {
        shared = of_a.empty() ? of_b : of_a;
    }
    if (shared.empty()) {
        return !of_a.empty() || !of_b.empty();
    }
    if (shared.size() > 1 || !a.choices.empty() || !b.choices.empty()) {
        return false;
    }
    if (*shared.begin() == "number") {
        return bounds_apart(a, b);
    }
    if (*shared.begin() != "object") {
        return false;
    }
    for (const auto & name : b.required) {
        const auto * mine = a.property(name), * theirs = b.property(name);
        const bool   closed = a.additional ? a.additional->is_boolean() && !a.additional->get<bool>() : a.lists_properties;
        if ((!mine && closed && !a.required.count(name) && a.pattern_properties.empty()) || (mine && theirs && apart(*mine, *theirs))) {
            return true;
        }
    }
    for (const auto & name : a.required) {
        const auto * mine = a.property(name), * theirs = b.property(name);
        const bool   barred = b.additional && b.additional->is_boolean() && !b.additional->get<bool>() && b.pattern_properties.empty();
        if ((!theirs && barred) || (mine && theirs && apart(*mine, *theirs))) {
            return true;
        }
    }
    return false;
}

// --- const, enum ----------------------------------------------------------------------------------------------------------------

bool schema_writer::fits(const common_json & value, const wanted & w) {
    const std::string type = type_of(value);
    const bool whole = value.is_number() && value.get<double>() == std::floor(value.get<double>());
    if (!w.types.empty() && !w.types.count(type) && !(whole && w.types.count("integer"))) {
        return false;
    }
    if (value.is_number()) {
        const std::string text = value.dump();
        const int low = w.lowest.set ? compare_numbers(text, w.lowest.text) : 1, high = w.highest.set ? compare_numbers(text, w.highest.text) : -1;
        if (low < 0 || (low == 0 && w.lowest.excluded) || high > 0 || (high == 0 && w.highest.excluded)) {
            return false;
        }
    }
    if (value.is_string()) {
        const int n = (int) decode_utf8(value.get<std::string>()).size();
        return n >= w.min_length && (w.max_length < 0 || n <= w.max_length);
    }
    return true;
}

std::string schema_writer::values(const wanted & w) {
    std::vector<std::string> ways;
    for (const auto & v : *w.values) {
        const char * beside = v.is_string() && !w.pattern.empty() ? "pattern" : v.is_number() && !w.multiple.empty() ? "multipleOf" :
            v.is_array() && w.about_arrays() ? "items" : v.is_object() && w.about_objects() ? "properties" : nullptr;
        if (beside) {
            reader.refuse(w.path, beside, v, "no such keyword beside const or enum");
        }
        if (fits(v, w)) {
            ways.push_back(literal(v.dump()));
        }
    }
    if (ways.empty()) {
        throw nothing("values that all are excluded");
    }
    return joined(ways, " | ");
}

// --- numbers, strings -------------------------------------------------------------------------------------------------------------

// n of 10^n, or no_power
static const int no_power = 1000;
static int power_of_ten(const std::string & number) {
    const double x = strtod(number.c_str(), nullptr);
    for (int n = -15; n <= 15; ++n) {
        if (compare_numbers(number, "1e" + std::to_string(n)) == 0 && x > 0) {
            return n;
        }
    }
    return no_power;
}

std::string schema_writer::multiple(const wanted & w, bool whole) {
    const int n = power_of_ten(w.multiple);
    if (n != no_power) {
        return number_range(w.lowest, w.highest, whole ? 0 : std::max(-n, 0), std::max(n, 0));
    }
    const double by = strtod(w.multiple.c_str(), nullptr);
    const double low = w.lowest.set ? strtod(w.lowest.text.c_str(), nullptr) : -INFINITY, high = w.highest.set ? strtod(w.highest.text.c_str(), nullptr) : INFINITY;
    if (by != std::floor(by)) {
        throw unheld("a whole number or a power of ten");
    }
    if ((low == -INFINITY || low == 0) && high == INFINITY && by <= MAX_DIVISOR) {
        return multiples(out, (int) by, low != 0 || !w.lowest.excluded, low != 0);
    }
    if (high - low > by * MAX_LISTED || std::abs(low) > 1e15 || std::abs(high) > 1e15) {
        throw unheld("a power of ten, " + std::to_string(MAX_DIVISOR) + " at most without bounds other than 0, or " + std::to_string(MAX_LISTED) + " multiples at most within them");
    }
    std::vector<std::string> ways;
    for (double x = std::ceil(low / by) * by; x <= high; x += by) {
        const std::string text = std::to_string((int64_t) x);
        if (fits(common_json::parse(text), w)) {
            ways.push_back("\"" + text + "\"");
        }
    }
    if (ways.empty()) {
        throw nothing("multiples that all are excluded");
    }
    return joined(ways, " | ");
}

std::string schema_writer::number(const wanted & w, bool whole) {
    try {
        if (!w.multiple.empty()) {
            return multiple(w, whole);
        }
        if (w.lowest.set || w.highest.set) {
            return number_range(w.lowest, w.highest, whole ? 0 : -1, 0);
        }
    } catch (const unheld & why) {
        const bool bounds = w.multiple.empty();
        reader.refuse(w.path, bounds ? w.lowest.set ? "minimum" : "maximum" : "multipleOf",
            common_json::parse(bounds ? w.lowest.set ? w.lowest.text : w.highest.text : w.multiple), why.what());
    }
    return std::string(R"("-"? ("0" | [1-9] [0-9]{0,15}))") + (whole ? "" : R"( ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?)");
}

std::string schema_writer::string(const wanted & w) {
    const char * format = format_pattern(w.format);
    if (format && !w.pattern.empty()) {
        reader.refuse(w.path, "format", common_json(w.format), "none beside a pattern");
        format = nullptr;
    }
    const std::string pattern = format ? format : w.pattern;
    try {
        if (!pattern.empty()) {
            return pattern_string(out, pattern, w.min_length, w.max_length);
        }
        if (w.min_length > 0 || w.max_length >= 0) {
            return "\"\\\"\" " + out.repeat(out.any_char(), w.min_length, w.max_length) + " \"\\\"\"";
        }
    } catch (const unheld & why) {
        reader.refuse(w.path, format ? "format" : pattern.empty() ? "maxLength" : "pattern",
            format || pattern.empty() ? common_json((int64_t) std::max(w.min_length, w.max_length)) : common_json(w.pattern), why.what());
    }
    return out.any_string();
}

// --- arrays -------------------------------------------------------------------------------------------------------------------------

std::string schema_writer::array(const wanted & w) {
    const std::string sp = out.space();
    std::vector<std::string> first;
    for (size_t i = 0; i < w.prefix.size() && (w.max_items < 0 || (int) i < w.max_items); ++i) {
        try {
            first.push_back(inner_rule(w.prefix[i], w.path + "/prefixItems/" + std::to_string(i)));
        } catch (const nothing &) {
            break; // an array may end before
        }
    }
    const bool whole = first.size() == w.prefix.size();
    int min = std::max(w.min_items - (int) first.size(), 0), max = w.is_tuple ? min : w.max_items;
    if (w.max_items >= 0 && w.min_items > w.max_items) {
        throw nothing("minItems above maxItems");
    }
    std::string item;
    if (max != 0) {
        try {
            item = whole ? inner_rule(w.items ? *w.items : common_json(true), w.path + "/items") : throw nothing("items of which one cannot be");
        } catch (const nothing &) {
            if (min > 0) {
                throw;
            }
            max = 0;
        }
    }
    if (w.unique && (max < 0 || (int) first.size() + max > 1)) {
        reader.refuse(w.path, "uniqueItems", common_json(true), "no keyword that a grammar cannot hold");
    }
    const std::string comma = "\",\" " + sp + " ";
    std::string inside = joined(first, (" " + comma).c_str());
    try {
        if (max != 0 && !first.empty()) {
            inside += " " + out.repeat(out.add(comma + item), min, max);
        } else if (max != 0) {
            inside = item + (max == 1 ? "" : " " + out.repeat(out.add(comma + item), std::max(min - 1, 0), max < 0 ? max : max - 1));
        }
    } catch (const unheld & why) {
        reader.refuse(w.path, "maxItems", common_json((int64_t) std::max(w.min_items, w.max_items)), why.what());
        inside = item + " " + out.add(comma + item) + "*";
    }
    if (inside.empty()) {
        return "\"[\" " + sp + " \"]\"";
    }
    const bool may_be_empty = first.empty() && min == 0;
    return "\"[\" " + sp + (may_be_empty ? " (" : " ") + inside + " " + sp + (may_be_empty ? ")? \"]\"" : " \"]\"");
}

} // namespace kept
