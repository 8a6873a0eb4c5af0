// Chat requests: upstream writes the grammar of an answer around places that hold a constant of ours, which our rules replace.
#include "schema-grammar.h"

#include "chat.h"
#include "log.h"
#include "schema-writer.h"

namespace {

using kept::wanted;

// a constant in a schema, and what takes its place in the grammar
struct place {
    std::string literal; // as GBNF has it
    std::string rule;
    std::string path;
    bool        demanded; // false: any text will do there
};

class request_rules {
public:
    request_rules(const common_chat_templates_inputs & in, bool lenient, std::vector<std::string> * warnings)
        : in_(in), lenient_(lenient), warnings_(warnings) {
        std::string all = in.json_schema;
        for (const auto & tool : in.tools) {
            all += tool.name + tool.parameters;
        }
        while (all.find(text_) != std::string::npos) {
            text_ += "x";
        }
        while (all.find(std::to_string(number_)) != std::string::npos) {
            ++number_;
        }
    }

    common_chat_templates_inputs rewritten() {
        auto out = in_;
        for (auto & tool : out.tools) {
            tool.parameters = parameters(tool).dump();
        }
        if (!in_.json_schema.empty()) {
            const auto schema = common_json::parse(in_.json_schema);
            kept::schema_writer writer(schema, "sb-answer-", lenient_, warnings_);
            out.json_schema = hold(writer.rule(schema, "#"), "#", false, true).dump();
            text_rules_ += writer.out.text();
        }
        return out;
    }

    // throws where a place is missing: upstream's grammar for this template lets any text stand there
    void put_into(std::string & grammar) {
        if (grammar.empty()) {
            return;
        }
        for (const auto & p : places_) {
            bool found = false;
            for (size_t at = 0; (at = grammar.find(p.literal, at)) != std::string::npos; at += p.rule.size(), found = true) {
                grammar.replace(at, p.literal.size(), p.rule);
            }
            if (!found && p.demanded) {
                kept::schema_reader(none_, lenient_, warnings_).refuse(p.path, "type", common_json("a text that not all satisfy"),
                    "one that all texts satisfy: this model's chat template writes it without quotes, where no grammar reaches it");
            }
        }
        grammar += (grammar.back() == '\n' ? "" : "\n") + text_rules_;
    }

private:
    // a schema with a constant that no other schema of the request has
    common_json hold(const std::string & rule, const std::string & path, bool is_text, bool demanded) {
        const int n = (int) places_.size();
        if (is_text) {
            const std::string value = text_ + "-" + std::to_string(n);
            places_.push_back({ "\"\\\"" + value + "\\\"\"", rule, path, demanded });
            return common_json{ { "type", "string" }, { "const", value } };
        }
        const int64_t value = number_ * 10000 + n;
        places_.push_back({ "\"" + std::to_string(value) + "\"", rule, path, demanded });
        return common_json{ { "type", "integer" }, { "const", value } };
    }

    // arguments that stand one by one in what some templates write: an object without more than properties
    static bool is_plain(const wanted & w) {
        for (const auto & name : w.required) {
            if (!w.property(name)) {
                return false;
            }
        }
        return w.choices.empty() && !w.values && w.pattern_properties.empty() && !w.names && w.min_properties == 0 && w.max_properties < 0 &&
            w.lists_properties && (!w.additional || (w.additional->is_boolean() && !w.additional->get<bool>()));
    }

    common_json parameters(const common_chat_tool & tool) {
        const std::string path   = "tools: " + tool.name + ": #";
        const auto        schema = common_json::parse(tool.parameters);
        if (!schema.is_object()) {
            kept::schema_reader::malformed(path, "parameters", schema, "an object");
        }
        if (schema.empty()) {
            return schema; // no arguments
        }
        kept::schema_writer writer(schema, "sb-tool" + std::to_string(n_tools_++) + "-", lenient_, warnings_);
        const auto object = common_json{ { "type", "object" } };
        const auto w = writer.reader.merged(writer.reader.read(schema, path), writer.reader.read(object, path));
        if (!is_plain(w)) {
            const auto out = hold(writer.rule_of(w), path, false, true);
            text_rules_ += writer.out.text();
            return out;
        }
        auto properties = common_json::object(), required = common_json::array();
        for (const auto & [name, property] : w.properties) {
            const bool is_required = w.required.count(name) > 0;
            try {
                properties[name] = argument(writer, property, path + "/properties/" + name);
            } catch (const kept::nothing &) {
                if (is_required) {
                    throw;
                }
                continue;
            }
            if (is_required) {
                required.push_back(name);
            }
        }
        text_rules_ += writer.out.text();
        return common_json{ { "type", "object" }, { "properties", properties }, { "required", required }, { "additionalProperties", false } };
    }

    common_json argument(kept::schema_writer & writer, const common_json & schema, const std::string & path) {
        const auto w = writer.reader.read(schema, path);
        bool text = false, any_text = false;
        look_for_text(writer, w, text, any_text, 0);
        if (any_text && w.types.size() == 1) {
            return common_json{ { "type", "string" } };
        }
        return hold(writer.rule(schema, path), path, text, !any_text);
    }

    // may it be a text, may it be any
    void look_for_text(kept::schema_writer & writer, const wanted & w, bool & text, bool & any_text, int depth) {
        if (w.values) {
            for (const auto & v : *w.values) {
                text = text || v.is_string();
            }
            return;
        }
        for (const auto & choice : w.choices) {
            for (const auto & schema : choice.schemas) {
                if (depth < 20) {
                    try {
                        look_for_text(writer, writer.reader.read(schema, choice.path), text, any_text, depth + 1);
                    } catch (const kept::nothing &) {
                    }
                }
            }
        }
        if (w.choices.empty() && (w.says_nothing() || w.written_types().count("string"))) {
            text     = true;
            any_text = any_text || !w.about_strings();
        }
    }

    const common_chat_templates_inputs & in_;
    const bool                           lenient_;
    std::vector<std::string> *           warnings_;
    const common_json                    none_;
    std::string                          text_   = "sb-held";
    int64_t                              number_ = -70000000000;
    int                                  n_tools_ = 0;
    std::string                          text_rules_;
    std::vector<place>                   places_;
};

} // namespace

// what the prompt shows is the request as it is. It depends on no grammar; on a schema only where the template asks for one
static std::string shown_prompt(const common_chat_templates * templates, common_chat_templates_inputs in) {
    in.tool_choice = COMMON_CHAT_TOOL_CHOICE_NONE;
    if (common_chat_templates_source(templates).find("response_format") == std::string::npos) {
        in.json_schema.clear();
    }
    return common_chat_templates_apply(templates, in).prompt;
}

common_chat_params schema_templates_apply(const common_chat_templates * templates, const common_chat_templates_inputs & in, bool lenient,
        std::vector<std::string> * warnings) {
    if (in.json_schema.empty() && (in.tools.empty() || in.tool_choice == COMMON_CHAT_TOOL_CHOICE_NONE || in.force_pure_content)) {
        return common_chat_templates_apply(templates, in);
    }
    return schema_refusing([&] {
        request_rules rules(in, lenient, warnings);
        const auto    rewritten = rules.rewritten();
        const auto    prompt    = shown_prompt(templates, in); // also: the template's own refusal of the messages
        auto          out       = common_chat_templates_apply(templates, rewritten);
        out.prompt = prompt;
        rules.put_into(out.grammar);
        return out;
    });
}
