// Objects: names that are known, in the order of the schema, then others where it lets them.
#include "schema-writer.h"

#include "schema-pattern.h"

#include <algorithm>
#include <memory>

namespace kept {

static bool is_false(const std::optional<common_json> & schema) { return schema && schema->is_boolean() && !schema->get<bool>(); }

// a list of properties is closed unless additionalProperties opens it: what a model adds is rarely wanted
static bool is_open(const wanted & w) {
    return w.additional ? !is_false(w.additional) : !w.lists_properties && w.pattern_properties.empty();
}

// propertyNames that lists the names: those are the properties
void schema_writer::settle_names(wanted & w) {
    if (!w.names) {
        return;
    }
    const wanted names = reader.read(*w.names, w.path + "/propertyNames");
    if (!names.values || !names.choices.empty() || names.about_strings()) {
        if (!w.properties.empty() || !w.pattern_properties.empty()) {
            reader.refuse(w.path, "propertyNames", *w.names, "an enum beside other properties");
            w.names.reset();
        }
        return;
    }
    const common_json rest = w.additional ? *w.additional : common_json(!w.lists_properties);
    std::vector<std::pair<std::string, common_json>> all;
    for (const auto & v : *names.values) {
        if (v.is_string()) {
            const auto * known = w.property(v.get<std::string>());
            all.emplace_back(v.get<std::string>(), known ? *known : rest);
        }
    }
    w.properties = std::move(all);
    w.additional = common_json(false);
    w.names.reset();
}

std::vector<schema_writer::member> schema_writer::members(const wanted & w) {
    std::vector<member> all;
    for (const auto & [name, schema] : w.properties) {
        const bool required = w.required.count(name) > 0;
        try {
            const std::string value = inner_rule(schema, w.path + "/properties/" + name);
            all.push_back({ out.add(literal(common_json(name).dump()) + " \":\" " + out.space() + " " + value), required });
        } catch (const nothing &) {
            if (required) {
                throw;
            }
        }
    }
    return all;
}

// the rule of members that no property names, or ""
std::string schema_writer::others(const wanted & w) {
    if (!w.pattern_properties.empty()) {
        if (w.pattern_properties.size() > 1 || !w.properties.empty() || w.names) {
            reader.refuse(w.path, "patternProperties", common_json(w.pattern_properties[0].first), "one alone, without properties beside it");
            return "";
        }
        const auto & [pattern, schema] = w.pattern_properties[0];
        try {
            const std::string key = out.add(pattern_string(out, pattern, 0, -1));
            return out.add(key + " \":\" " + out.space() + " " + inner_rule(schema, w.path + "/patternProperties/" + pattern));
        } catch (const unheld & why) {
            reader.refuse(w.path, "patternProperties", common_json(pattern), why.what());
            return "";
        }
    }
    if (!is_open(w)) {
        return "";
    }
    try {
        return out.add(key_rule(w) + " \":\" " + out.space() + " " + inner_rule(w.additional ? *w.additional : common_json(true), w.path + "/additionalProperties"));
    } catch (const nothing &) {
        return "";
    }
}

std::string schema_writer::key_rule(const wanted & w) {
    if (w.names) {
        return rule_of(reader.merged(reader.read(*w.names, w.path + "/propertyNames"), reader.read(common_json{ { "type", "string" } }, w.path)));
    }
    std::vector<std::string> names;
    for (const auto & p : w.properties) {
        names.push_back(p.first);
    }
    return names.empty() ? out.any_string() : other_key(names);
}

// names told apart by the first letter that differs, which then stands as it is, not as an escape
struct name_tree {
    std::map<uint32_t, std::unique_ptr<name_tree>> next;
    bool                                           ends = false;
};

static std::string other_ends(rules & out, const name_tree & node, const std::string & end) {
    static const code_points plain = complement({ { 0, 0x1F }, { '"', '"' }, { '\\', '\\' }, { 0x7F, 0x7F }, { 0xD800, 0xDFFF } });
    std::vector<std::string> ways;
    code_points taken;
    for (const auto & [c, child] : node.next) {
        taken.push_back({ c, c });
        if (!intersection(plain, { { c, c } }).empty()) {
            ways.push_back(char_class({ { c, c } }) + " " + out.add(other_ends(out, *child, end)));
        }
    }
    ways.push_back(char_class(intersection(plain, complement(normal(taken)))) + " " + out.any_char() + "* " + end);
    if (!node.ends) {
        ways.push_back(end);
    }
    std::string text;
    for (const auto & way : ways) {
        text += (text.empty() ? "" : " | ") + way;
    }
    return text;
}

std::string schema_writer::other_key(const std::vector<std::string> & names) {
    name_tree root;
    for (const auto & name : names) {
        name_tree * at = &root;
        for (const uint32_t c : decode_utf8(name)) {
            auto & child = at->next[c];
            if (!child) {
                child = std::make_unique<name_tree>();
            }
            at = child.get();
        }
        at->ends = true;
    }
    return out.add("\"\\\"\" " + out.add(other_ends(out, root, "\"\\\"\"")));
}

std::string schema_writer::members_in_order(const std::vector<member> & all, const std::string & others, bool may_be_empty) {
    const std::string comma = "\",\" " + out.space() + " ";
    std::vector<std::string> after(all.size() + 1); // rules of what may follow a member
    after[all.size()] = others.empty() ? "" : out.add("(" + comma + others + ")*");
    for (size_t i = all.size(); i-- > 0;) {
        const std::string this_one = "(" + comma + all[i].rule + ")" + (all[i].required ? "" : "?");
        after[i] = out.add(this_one + (after[i + 1].empty() ? "" : " " + after[i + 1]));
    }
    std::vector<std::string> ways; // by the first member
    size_t i = 0;
    for (; i < all.size() && (i == 0 || !all[i - 1].required); ++i) {
        ways.push_back(all[i].rule + (after[i + 1].empty() ? "" : " " + after[i + 1]));
    }
    const bool none_required = i == 0 || (i == all.size() && !all[i - 1].required);
    if (none_required && !others.empty()) {
        ways.push_back(others + " " + after[all.size()]);
    }
    if (none_required && !may_be_empty && ways.empty()) {
        throw nothing("minProperties of an object without properties");
    }
    std::string text;
    for (const auto & way : ways) {
        text += (text.empty() ? "" : " | ") + way;
    }
    const std::string sp = out.space();
    if (text.empty()) {
        return "\"{\" " + sp + " \"}\"";
    }
    const bool optional = none_required && may_be_empty;
    return "\"{\" " + sp + (optional ? " ((" : " (") + text + ") " + sp + (optional ? ")? \"}\"" : " \"}\"");
}

// names that are required and not among the properties
static void add_required(wanted & w, const common_json & schema) {
    for (const auto & name : w.required) {
        if (!w.property(name)) {
            w.properties.emplace_back(name, schema);
        }
    }
}

std::string schema_writer::object(wanted w) {
    if (!w.additional && w.unevaluated) {
        w.additional = w.unevaluated;
    }
    if (!w.pattern_properties.empty() && !w.required.empty()) {
        reader.refuse(w.path, "required", common_json(*w.required.begin()), "none beside patternProperties");
    }
    settle_names(w);
    const common_json unsaid = w.additional ? *w.additional : common_json(true);
    w.additional = w.additional ? *w.additional : common_json(is_open(w));
    add_required(w, unsaid);
    auto         all = members(w);
    std::string  other = others(w);
    const int    n = (int) all.size(), sure = (int) std::count_if(all.begin(), all.end(), [](const member & m) { return m.required; });
    if (w.max_properties >= 0 && (sure > w.max_properties || w.min_properties > w.max_properties)) {
        throw nothing("more properties than maxProperties");
    }
    if (w.min_properties > std::max(sure, 1)) {
        reader.refuse(w.path, "minProperties", common_json((int64_t) w.min_properties), "at most 1, or the number of the required ones");
    }
    if (w.max_properties >= 0 && sure == w.max_properties) {
        all.erase(std::remove_if(all.begin(), all.end(), [](const member & m) { return !m.required; }), all.end());
        other.clear();
    } else if (w.max_properties >= 0 && (!other.empty() || n > w.max_properties)) {
        if (n > 0) {
            reader.refuse(w.path, "maxProperties", common_json((int64_t) w.max_properties), "at least the number of properties, without additional ones");
        } else {
            const std::string sp = out.space();
            const std::string more = out.repeat(out.add("\",\" " + sp + " " + other), 0, w.max_properties - 1);
            return "\"{\" " + sp + " (" + other + " " + more + " " + sp + ")" + (w.min_properties > 0 ? " \"}\"" : "? \"}\"");
        }
    }
    return members_in_order(all, other, w.min_properties == 0 || sure > 0);
}

} // namespace kept
