#include "chat_tools.h"

#include "json.h"
#include "schema-grammar.h"

#include <cctype>

namespace sb {

// everything upstream's chat layer says against a request is about an argument
template <typename F>
static auto refusing(const char * where, F && f) -> decltype(f()) {
    try {
        return f();
    } catch (const std::exception & e) {
        throw std::invalid_argument(std::string(where) + ": " + e.what());
    }
}

std::pair<std::string, std::vector<std::string>> schema_to_grammar(const std::string & schema_json, bool lenient) {
    std::vector<std::string> warnings;
    const auto  schema = refusing("json schema", [&] { return common_json::parse(schema_json); });
    std::string text   = schema_grammar(schema, lenient, &warnings);
    return { std::move(text), std::move(warnings) };
}

std::string normal_json(const char * where, const std::string & text) {
    return refusing(where, [&] { return common_json::parse(text).dump(); });
}

chat_templates::chat_templates(const llama_model * m, const std::string & source, bool jinja) : vocab_(llama_model_get_vocab(m)), jinja_(jinja) {
    templates_ = refusing("chat template", [&] { return common_chat_templates_init(m, source); });
}

// upstream's server: a trigger word that is one token is looked for as that token
void chat_templates::add_triggers(const common_chat_params & p, chat_prompt & out) const {
    const auto single = [&](const std::string & text) { // -1: several
        const auto ids = tokenize(vocab_, text, false, true);
        return ids.size() == 1 ? ids[0] : -1;
    };
    for (const auto & text : p.preserved_tokens) {
        if (const auto id = single(text); id >= 0) {
            out.preserved.push_back(id);
        }
    }
    for (const auto & t : p.grammar_triggers) {
        switch (t.type) {
            case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: out.trigger_tokens.push_back(t.token); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: {
                const auto id = single(t.value);
                id >= 0 ? out.trigger_tokens.push_back(id) : out.trigger_patterns.push_back(regex_escape(t.value));
            } break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      out.trigger_patterns.push_back(t.value); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: out.trigger_patterns.push_back("^" + t.value + "$"); break;
        }
    }
}

// upstream's grammar of a required call lets text come first, for models that think aloud: "root ::= ... until-1? ..."
static void call_alone(std::string & grammar) {
    const size_t root  = grammar.compare(0, 9, "root ::= ") == 0 ? 0 : grammar.find("\nroot ::= ");
    const size_t line  = root == std::string::npos ? root : grammar.find('\n', root + 1);
    size_t       begin = root == std::string::npos ? root : grammar.find("until-", root);
    while (begin < line && std::isalnum((unsigned char) grammar[begin - 1])) { // the end of a longer name
        begin = grammar.find("until-", begin + 1);
    }
    size_t end = begin < line ? begin + 6 : begin;
    while (end < grammar.size() && std::isdigit((unsigned char) grammar[end])) {
        ++end;
    }
    if (begin < line && end > begin + 6 && grammar.compare(end, 2, "? ") == 0) {
        grammar.erase(begin, end + 2 - begin);
    }
}

chat_prompt chat_templates::apply(common_chat_templates_inputs inputs, bool lenient) const {
    chat_prompt out;
    inputs.use_jinja = jinja_;
    const auto p = refusing("chat template", [&] { return schema_templates_apply(templates_.get(), inputs, lenient, &out.warnings); });
    out.text              = p.prompt;
    out.stops             = p.additional_stops;
    out.grammar           = p.grammar;
    out.lazy              = p.grammar_lazy;
    out.generation_prompt = p.generation_prompt;
    out.format            = (int) p.format;
    out.parser            = p.parser;
    if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED) {
        call_alone(out.grammar);
    }
    add_triggers(p, out);
    return out;
}

chat_parser::chat_parser(int format, const std::string & parser, const std::string & generation_prompt) {
    params_.format            = (common_chat_format) format;
    params_.generation_prompt = generation_prompt;
    if (!parser.empty()) {
        params_.parser.load(parser);
    }
}

std::vector<common_chat_msg_diff> chat_parser::push(const std::string & text, bool last) {
    text_ += text;
    return refusing("chat", [&] {
        auto now   = common_chat_parse(text_, !last, params_);
        auto diffs = common_chat_msg_diff::compute_diffs(message_, now);
        message_ = std::move(now);
        return diffs;
    });
}

} // namespace sb
