#include "schema-reader.h"

#include "schema-keywords.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace kept {

static const int MAX_DEPTH = 100;
static const int MAX_READ  = 100000; // schemas, those read again for each combination of alternatives among them
static const int MANY      = 1000000000; // counts beyond are the same to a grammar

static const std::set<std::string> TYPES = { "object", "array", "string", "number", "integer", "boolean", "null" };

static std::string shown(const common_json & value) {
    const std::string text = value.dump_safe();
    return text.size() > 80 ? text.substr(0, 77) + "..." : text;
}

static std::string said(const std::string & path, const std::string & keyword, const common_json & got, const std::string & expected) {
    const std::string where = path.size() > 200 ? path.substr(0, 100) + "..." + path.substr(path.size() - 100) : path;
    return "json schema: " + where + ": " + keyword + ": got " + shown(got) + ", expected " + expected;
}

bool is_schema(const common_json & value) { return value.is_object() || value.is_boolean(); }

std::set<std::string> wanted::written_types() const {
    if (!types.empty()) {
        return types;
    }
    std::set<std::string> about;
    if (about_objects()) { about.insert("object"); }
    if (about_arrays())  { about.insert("array"); }
    if (about_strings()) { about.insert("string"); }
    if (about_numbers()) { about.insert("number"); }
    return about;
}

const common_json * wanted::property(const std::string & name) const {
    for (const auto & p : properties) {
        if (p.first == name) {
            return &p.second;
        }
    }
    return nullptr;
}

void schema_reader::malformed(const std::string & path, const std::string & keyword, const common_json & got, const std::string & expected) {
    throw schema_refusal(said(path, keyword, got, expected));
}

void schema_reader::refuse(const std::string & path, const std::string & keyword, const common_json & got, const std::string & expected) {
    const std::string text = said(path, keyword, got, expected);
    if (!lenient_) {
        throw schema_refusal(text + "; do leave it out, or ask for lenient_schema to have it ignored");
    }
    if (warnings_ && std::find(warnings_->begin(), warnings_->end(), text + "; ignored") == warnings_->end()) {
        warnings_->push_back(text + "; ignored");
    }
}

// --- values of keywords -------------------------------------------------------------------------------------------------

static int count(const std::string & keyword, const common_json & value, const std::string & path) {
    const double n = value.is_number() ? value.get<double>() : -1;
    if (n < 0 || n != std::floor(n)) {
        schema_reader::malformed(path, keyword, value, "a whole number from 0 on");
    }
    return n > MANY ? MANY : (int) n;
}

static const common_json & schema_of(const std::string & keyword, const common_json & value, const std::string & path) {
    if (!is_schema(value)) {
        schema_reader::malformed(path, keyword, value, "a schema");
    }
    return value;
}

static std::vector<common_json> schemas_of(const std::string & keyword, const common_json & value, const std::string & path, bool may_be_empty) {
    std::vector<common_json> out;
    if (value.is_array()) {
        for (const auto & item : value) {
            out.push_back(schema_of(keyword, item, path));
        }
    }
    if (!value.is_array() || (out.empty() && !may_be_empty)) {
        schema_reader::malformed(path, keyword, value, "a list of schemas");
    }
    return out;
}

static std::vector<std::pair<std::string, common_json>> members_of(const std::string & keyword, const common_json & value, const std::string & path) {
    if (!value.is_object()) {
        schema_reader::malformed(path, keyword, value, "an object of schemas");
    }
    std::vector<std::pair<std::string, common_json>> out;
    for (const auto & [name, schema] : value.items()) {
        out.emplace_back(name, schema_of(name, schema, path + "/" + keyword));
    }
    return out;
}

static void add_type(wanted & into, const common_json & type) {
    if (!type.is_string() || !TYPES.count(type.get<std::string>())) {
        schema_reader::malformed(into.path, "type", type, "object, array, string, number, integer, boolean or null");
    }
    into.types.insert(type.get<std::string>());
}

// --- references -----------------------------------------------------------------------------------------------------------

static std::string decoded(const std::string & token) {
    std::string out;
    for (size_t i = 0; i < token.size(); ++i) {
        if (token[i] == '%' && i + 2 < token.size()) {
            out += (char) strtol(token.substr(i + 1, 2).c_str(), nullptr, 16);
            i += 2;
        } else {
            out += token[i];
        }
    }
    for (const auto & [from, to] : { std::pair<const char *, const char *>("~1", "/"), { "~0", "~" } }) {
        for (size_t at = 0; (at = out.find(from, at)) != std::string::npos; ++at) {
            out.replace(at, 2, to);
        }
    }
    return out;
}

const common_json & schema_reader::target(const common_json & ref, const std::string & path) const {
    const std::string text = ref.is_string() ? ref.get<std::string>() : "";
    if (text != "#" && text.compare(0, 2, "#/") != 0) {
        malformed(path, "$ref", ref, "a place in the same schema, as #/$defs/NAME");
    }
    const common_json * at = &root_;
    for (size_t begin = 2; begin <= text.size(); ) {
        const size_t      end = std::min(text.find('/', begin), text.size());
        const std::string key = decoded(text.substr(begin, end - begin));
        if (at->is_object() && at->contains(key)) {
            at = &at->at(key);
        } else if (at->is_array() && !key.empty() && key.size() < 7 && key.find_first_not_of("0123456789") == std::string::npos &&
                (size_t) atoi(key.c_str()) < at->size()) {
            at = &at->at((size_t) atoi(key.c_str()));
        } else {
            malformed(path, "$ref", ref, "a place that is there");
        }
        begin = end + 1;
    }
    if (!is_schema(*at)) {
        malformed(path, "$ref", ref, "the place of a schema");
    }
    return *at;
}

const common_json * schema_reader::reference(const common_json & schema, std::string & path) const {
    if (!schema.is_object() || !schema.contains("$ref")) {
        return nullptr;
    }
    for (const auto & [keyword, value] : schema.items()) {
        const auto found = keywords().find(keyword);
        if (keyword != "$ref" && found != keywords().end() && found->second != keyword::NOTE) {
            return nullptr;
        }
    }
    const common_json * found = &target(schema.at("$ref"), path);
    path = schema.at("$ref").get<std::string>();
    return found;
}

// --- keywords ---------------------------------------------------------------------------------------------------------------

static std::string plain_letters(const std::string & s) {
    std::string out;
    for (const char c : s) {
        if (c != '_' && c != '-') {
            out += (char) tolower((unsigned char) c);
        }
    }
    return out;
}

// unknown keywords are notes, but for those that are known ones written differently
void schema_reader::check_known(const common_json & schema, const std::string & path) {
    for (const auto & [keyword, value] : schema.items()) {
        const auto found = keywords().find(keyword);
        if (found != keywords().end()) {
            if (found->second == keyword::REFUSED) {
                refuse(path, keyword, value, "no keyword that a grammar cannot hold");
            }
            continue;
        }
        for (const auto & [name, what] : keywords()) {
            if (what != keyword::NOTE && plain_letters(name) == plain_letters(keyword)) {
                refuse(path, keyword, value, "'" + name + "'");
            }
        }
    }
}

void schema_reader::read_general(const std::string & keyword, const common_json & value, wanted & into) {
    if (keyword == "type") {
        if (value.is_array() && value.size() > 0) {
            for (const auto & type : value) {
                add_type(into, type);
            }
        } else {
            add_type(into, value);
        }
    } else if (keyword == "const" || keyword == "enum") {
        if (keyword == "enum" && (!value.is_array() || value.size() == 0)) {
            malformed(into.path, keyword, value, "a list of values");
        }
        std::vector<common_json> values;
        if (keyword == "const") {
            values.push_back(value);
        } else {
            for (const auto & v : value) {
                values.push_back(v);
            }
        }
        into.values = into.values ? shared(*into.values, values) : values;
    } else if (keyword == "anyOf" || keyword == "oneOf") {
        into.choices.push_back({ keyword == "oneOf", schemas_of(keyword, value, into.path, false), into.path + "/" + keyword });
    }
}

void schema_reader::read_number(const std::string & keyword, const common_json & value, wanted & into) {
    if (keyword == "multipleOf") {
        if (!value.is_number() || value.get<double>() <= 0) {
            malformed(into.path, keyword, value, "a number above 0");
        }
        into.multiple = value.dump();
    }
}

// together, for draft 4's exclusiveMinimum: true
void schema_reader::read_bounds(const common_json & schema, wanted & into) {
    for (const char * side : { "inimum", "aximum" }) {
        const bool        low = side[0] == 'i';
        const std::string bare = (low ? "m" : "m") + std::string(side), excluding = std::string("exclusiveM") + side;
        bound &           b = low ? into.lowest : into.highest;
        const bool        flag = schema.contains(excluding) && schema.at(excluding).is_boolean();
        if (schema.contains(bare)) {
            if (!schema.at(bare).is_number()) {
                malformed(into.path, bare, schema.at(bare), "a number");
            }
            tighten(b, { true, flag && schema.at(excluding).get<bool>(), schema.at(bare).dump() }, low ? 1 : -1);
        }
        if (schema.contains(excluding) && !flag) {
            if (!schema.at(excluding).is_number()) {
                malformed(into.path, excluding, schema.at(excluding), "a number");
            }
            tighten(b, { true, true, schema.at(excluding).dump() }, low ? 1 : -1);
        }
    }
}

void schema_reader::read_string(const std::string & keyword, const common_json & value, wanted & into) {
    if (keyword == "minLength") {
        into.min_length = count(keyword, value, into.path);
    } else if (keyword == "maxLength") {
        into.max_length = count(keyword, value, into.path);
    } else if (keyword == "pattern" || keyword == "format") {
        if (!value.is_string()) {
            malformed(into.path, keyword, value, "a text");
        }
        (keyword == "pattern" ? into.pattern : into.format) = value.get<std::string>();
    }
}

void schema_reader::read_array(const std::string & keyword, const common_json & value, wanted & into) {
    if (keyword == "minItems") {
        into.min_items = count(keyword, value, into.path);
    } else if (keyword == "maxItems") {
        into.max_items = count(keyword, value, into.path);
    } else if (keyword == "uniqueItems") {
        if (!value.is_boolean()) {
            malformed(into.path, keyword, value, "true or false");
        }
        into.unique = value.get<bool>();
    } else if (keyword == "prefixItems" || (keyword == "items" && value.is_array())) {
        into.prefix   = schemas_of(keyword, value, into.path, true);
        into.is_tuple = !into.prefix.empty();
    } else if (keyword == "items") {
        into.items = schema_of(keyword, value, into.path);
    }
}

void schema_reader::read_object(const std::string & keyword, const common_json & value, wanted & into) {
    if (keyword == "minProperties") {
        into.min_properties = count(keyword, value, into.path);
    } else if (keyword == "maxProperties") {
        into.max_properties = count(keyword, value, into.path);
    } else if (keyword == "properties") {
        into.properties       = members_of(keyword, value, into.path);
        into.lists_properties = true;
    } else if (keyword == "patternProperties") {
        into.pattern_properties = members_of(keyword, value, into.path);
    } else if (keyword == "additionalProperties") {
        into.additional = schema_of(keyword, value, into.path);
    } else if (keyword == "unevaluatedProperties") {
        into.unevaluated = schema_of(keyword, value, into.path);
    } else if (keyword == "propertyNames") {
        into.names = schema_of(keyword, value, into.path);
    } else if (keyword == "required") {
        if (!value.is_array()) {
            malformed(into.path, keyword, value, "a list of names");
        }
        for (const auto & name : value) {
            if (!name.is_string()) {
                malformed(into.path, keyword, name, "a name");
            }
            into.required.insert(name.get<std::string>());
        }
    }
}

void schema_reader::read_keyword(const std::string & keyword, const common_json & value, wanted & into) {
    read_general(keyword, value, into);
    read_number(keyword, value, into);
    read_string(keyword, value, into);
    read_array(keyword, value, into);
    read_object(keyword, value, into);
}

// keywords that only together say what they mean
void schema_reader::read_together(const common_json & schema, wanted & into) {
    read_bounds(schema, into);
    const auto is_true = [&](const char * key) { return schema.contains(key) && schema.at(key).is_boolean() && schema.at(key).get<bool>(); };
    if (is_true("nullable") && !into.types.empty()) {
        into.types.insert("null");
    }
    if (into.is_tuple && !schema.contains("prefixItems") && schema.contains("additionalItems")) {
        into.items = schema_of("additionalItems", schema.at("additionalItems"), into.path); // draft 7
    }
    if (!into.items && schema.contains("unevaluatedItems")) {
        into.items = schema_of("unevaluatedItems", schema.at("unevaluatedItems"), into.path);
    }
    if (schema.contains("if") && (schema.contains("then") || schema.contains("else"))) {
        refuse(into.path, "if", schema.at("if"), "no keyword that a grammar cannot hold");
    }
}

wanted schema_reader::read(const common_json & schema, const std::string & path) {
    const deeper level(depth_);
    if (depth_ > MAX_DEPTH || ++n_read_ > MAX_READ) {
        malformed(path, "schema", schema, "at most " + std::to_string(MAX_DEPTH) + " references and allOf within one another, and " +
            std::to_string(MAX_READ) + " combinations in all");
    }
    wanted out;
    out.path = path;
    if (schema.is_boolean()) {
        if (!schema.get<bool>()) {
            throw nothing("the schema false");
        }
        return out;
    }
    check_known(schema, path);
    for (const auto & [keyword, value] : schema.items()) {
        read_keyword(keyword, value, out);
    }
    read_together(schema, out);
    if (schema.contains("$ref")) {
        out = merged(std::move(out), read(target(schema.at("$ref"), path), schema.at("$ref").get<std::string>()));
    }
    if (schema.contains("allOf")) {
        size_t i = 0;
        for (const auto & part : schemas_of("allOf", schema.at("allOf"), path, false)) {
            out = merged(std::move(out), read(part, path + "/allOf/" + std::to_string(i++)));
        }
    }
    return out;
}

} // namespace kept
