#include "core.h"

#include "chat_tools.h"
#include "json.h"
#include "log.h"

namespace sb {

static common_chat_templates_inputs read(const std::string & request_json) {
    const auto r = common_json::parse(request_json);
    common_chat_templates_inputs in;
    in.messages              = common_chat_msgs_parse_oaicompat(r.at("messages"));
    in.tools                 = common_chat_tools_parse_oaicompat(r.at("tools"));
    in.tool_choice           = common_chat_tool_choice_parse_oaicompat(r.at("tool_choice").get<std::string>());
    in.json_schema           = r.at("json_schema").get<std::string>();
    in.parallel_tool_calls   = r.at("parallel_tool_calls").get<bool>();
    in.add_generation_prompt = r.at("add_generation_prompt").get<bool>();
    in.force_pure_content    = r.at("pure").get<bool>();
    return in;
}

// chat_templates with the model that they belong to
struct templates_of_model {
    std::shared_ptr<model> owner;
    chat_templates         templates;

    templates_of_model(std::shared_ptr<model> m, const std::string & source, bool jinja) : owner(m), templates(m->get(), source, jinja) {}

    py::dict apply(const std::string & request_json, bool lenient) const {
        owner->vocab(); // refuses a closed one
        chat_prompt p;
        {
            py::gil_scoped_release nogil;
            try {
                p = templates.apply(read(request_json), lenient);
            } catch (const std::invalid_argument &) {
                throw;
            } catch (const std::exception & e) { // read's
                throw std::invalid_argument(std::string("chat template: ") + e.what());
            }
        }
        using namespace py::literals;
        return py::dict("prompt"_a = p.text, "grammar"_a = p.grammar, "lazy"_a = p.lazy, "generation_prompt"_a = p.generation_prompt, "stops"_a = p.stops,
            "format"_a = p.format, "parser"_a = py::bytes(p.parser), "warnings"_a = p.warnings, "preserved"_a = p.preserved,
            "trigger_tokens"_a = p.trigger_tokens, "trigger_patterns"_a = p.trigger_patterns);
    }
};

static std::vector<std::string> builtin_templates() {
    std::vector<const char *> names(llama_chat_builtin_templates(nullptr, 0));
    llama_chat_builtin_templates(names.data(), names.size());
    return { names.begin(), names.end() };
}

static py::list push(chat_parser & parser, const std::string & text, bool last) {
    std::vector<common_chat_msg_diff> diffs;
    {
        py::gil_scoped_release nogil;
        diffs = parser.push(text, last);
    }
    using namespace py::literals;
    py::list out;
    for (const auto & d : diffs) {
        out.append(py::dict("reasoning_content"_a = d.reasoning_content_delta, "content"_a = d.content_delta,
            "index"_a = d.tool_call_index == std::string::npos ? -1 : (int) d.tool_call_index, "name"_a = d.tool_call_delta.name,
            "arguments"_a = d.tool_call_delta.arguments));
    }
    return out;
}

void bind_chat(py::module_ & m) {
    using namespace py::literals;
    common_log_set_verbosity_thold(-1); // of llama-common alone: it prints by itself what its exceptions say
    m.def("json_schema_to_grammar", &schema_to_grammar, "schema_json"_a, "lenient"_a = false, py::call_guard<py::gil_scoped_release>());
    m.def("builtin_templates", &builtin_templates);
    py::class_<templates_of_model>(m, "ChatTemplates")
        .def(py::init<std::shared_ptr<model>, const std::string &, bool>(), "model"_a, "source"_a = "", "jinja"_a = true)
        .def("apply", &templates_of_model::apply, "request_json"_a, "lenient"_a = false);
    py::class_<chat_parser>(m, "ChatParser")
        .def(py::init<int, const std::string &, const std::string &>(), "format"_a, "parser"_a, "generation_prompt"_a)
        .def("push", &push, "text"_a, "last"_a)
        .def("content", [](const chat_parser & p) { return p.message().content; });
}

} // namespace sb
