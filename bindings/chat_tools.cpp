#include "core.h"

#include "chat.h"
#include "json.h"
#include "log.h"
#include "schema-grammar.h"

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

// GBNF, and what was left out of it
static std::pair<std::string, std::vector<std::string>> schema_to_grammar(const std::string & schema_json, bool lenient) {
    py::gil_scoped_release nogil;
    std::vector<std::string> warnings;
    const auto  schema = refusing("json schema", [&] { return common_json::parse(schema_json); });
    std::string text   = schema_grammar(schema, lenient, &warnings);
    return { std::move(text), std::move(warnings) };
}

// --- a template of a model, or one given, ready to be applied -----------------------------------------------------

class chat_templates {
public:
    // source: Jinja, "" for the model's own (upstream's ChatML when it has none), or with jinja = false the name of one
    // of upstream's built-in templates
    chat_templates(std::shared_ptr<model> m, const std::string & source, bool jinja)
        : model_(std::move(m)), jinja_(jinja) {
        templates_ = refusing("chat template", [&] { return common_chat_templates_init(model_->get(), source); });
    }

    py::dict apply(const std::string & request_json, bool lenient) const;

private:
    common_chat_templates_inputs read(const std::string & request_json) const;
    std::vector<llama_token>     tokens(const std::string & text) const { return model_->tokenize(text, false, true); }
    void                         add_triggers(const common_chat_params & p, py::dict & out) const;

    std::shared_ptr<model>    model_;
    bool                      jinja_;
    common_chat_templates_ptr templates_;
};

common_chat_templates_inputs chat_templates::read(const std::string & request_json) const {
    const auto r = common_json::parse(request_json);
    common_chat_templates_inputs in;
    in.messages              = common_chat_msgs_parse_oaicompat(r.at("messages"));
    in.tools                 = common_chat_tools_parse_oaicompat(r.at("tools"));
    in.tool_choice           = common_chat_tool_choice_parse_oaicompat(r.at("tool_choice").get<std::string>());
    in.json_schema           = r.at("json_schema").get<std::string>();
    in.parallel_tool_calls   = r.at("parallel_tool_calls").get<bool>();
    in.add_generation_prompt = r.at("add_generation_prompt").get<bool>();
    in.force_pure_content    = r.at("pure").get<bool>();
    in.use_jinja             = jinja_;
    return in;
}

// upstream's server: a trigger word that is one token is looked for as that token
void chat_templates::add_triggers(const common_chat_params & p, py::dict & out) const {
    std::vector<llama_token> preserved, triggers;
    std::vector<std::string> patterns;
    for (const auto & text : p.preserved_tokens) {
        const auto ids = tokens(text);
        if (ids.size() == 1) {
            preserved.push_back(ids[0]);
        }
    }
    for (const auto & t : p.grammar_triggers) {
        switch (t.type) {
            case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: triggers.push_back(t.token); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: {
                const auto ids = tokens(t.value);
                ids.size() == 1 ? triggers.push_back(ids[0]) : patterns.push_back(regex_escape(t.value));
            } break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      patterns.push_back(t.value); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: patterns.push_back("^" + t.value + "$"); break;
        }
    }
    out["preserved"]        = preserved;
    out["trigger_tokens"]   = triggers;
    out["trigger_patterns"] = patterns;
}

py::dict chat_templates::apply(const std::string & request_json, bool lenient) const {
    common_chat_params p;
    std::vector<std::string> warnings;
    {
        py::gil_scoped_release nogil;
        p = refusing("chat template", [&] { return schema_templates_apply(templates_.get(), read(request_json), lenient, &warnings); });
    }
    py::dict out;
    out["prompt"]            = p.prompt;
    out["grammar"]           = p.grammar;
    out["lazy"]              = p.grammar_lazy;
    out["generation_prompt"] = p.generation_prompt;
    out["stops"]             = p.additional_stops;
    out["format"]            = (int) p.format;
    out["parser"]            = py::bytes(p.parser);
    out["warnings"]          = warnings;
    add_triggers(p, out);
    return out;
}

static std::vector<std::string> builtin_templates() {
    std::vector<const char *> names(llama_chat_builtin_templates(nullptr, 0));
    llama_chat_builtin_templates(names.data(), names.size());
    return { names.begin(), names.end() };
}

// --- an answer that is being written, read by upstream's parser for the template ---------------------------------

class chat_parser {
public:
    chat_parser(int format, const std::string & parser, const std::string & generation_prompt) {
        params_.format            = (common_chat_format) format;
        params_.generation_prompt = generation_prompt;
        if (!parser.empty()) {
            params_.parser.load(parser);
        }
    }

    py::list push(const std::string & text, bool last);
    std::string content() const { return message_.content; }

private:
    common_chat_parser_params params_;
    std::string               text_;
    common_chat_msg           message_;
};

// what the text so far adds to the message; last: nothing follows
py::list chat_parser::push(const std::string & text, bool last) {
    std::vector<common_chat_msg_diff> diffs;
    {
        py::gil_scoped_release nogil;
        text_ += text;
        refusing("chat", [&] {
            auto now = common_chat_parse(text_, !last, params_);
            diffs    = common_chat_msg_diff::compute_diffs(message_, now);
            message_ = std::move(now);
        });
    }
    py::list out;
    for (const auto & d : diffs) {
        py::dict item;
        item["reasoning_content"] = d.reasoning_content_delta;
        item["content"]           = d.content_delta;
        item["index"]             = d.tool_call_index == std::string::npos ? -1 : (int) d.tool_call_index;
        item["name"]              = d.tool_call_delta.name;
        item["arguments"]         = d.tool_call_delta.arguments;
        out.append(item);
    }
    return out;
}

void bind_chat(py::module_ & m) {
    using namespace py::literals;
    common_log_set_verbosity_thold(-1); // of llama-common alone: it prints by itself what its exceptions say
    m.def("json_schema_to_grammar", &schema_to_grammar, "schema_json"_a, "lenient"_a = false);
    m.def("builtin_templates", &builtin_templates);
    py::class_<chat_templates>(m, "ChatTemplates")
        .def(py::init<std::shared_ptr<model>, const std::string &, bool>(), "model"_a, "source"_a = "", "jinja"_a = true)
        .def("apply", &chat_templates::apply, "request_json"_a, "lenient"_a = false);
    py::class_<chat_parser>(m, "ChatParser")
        .def(py::init<int, const std::string &, const std::string &>(), "format"_a, "parser"_a, "generation_prompt"_a)
        .def("push", &chat_parser::push, "text"_a, "last"_a)
        .def("content", &chat_parser::content);
}

} // namespace sb
