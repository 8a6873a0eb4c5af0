#pragma once

// What a request demands of its answer is kept or refused (HTTP 400): JSON schemas by common/schema-grammar.h, unless the request says
// "lenient_schema": true (what was left out is then a warning in the log), and the fields around them.

#include "chat.h"
#include "llama.h"
#include "schema-grammar.h"
#include "server-common.h"

#include <stdexcept>
#include <string>
#include <vector>

inline bool server_lenient(const json & body) {
    const json lenient = body.value("lenient_schema", json(false));
    if (!lenient.is_boolean()) {
        throw std::invalid_argument("lenient_schema: got " + lenient.dump_safe() + ", expected true or false");
    }
    return lenient.get<bool>();
}

inline void server_warn(const std::vector<std::string> & warnings) {
    for (const auto & w : warnings) {
        SRV_WRN("%s\n", w.c_str());
    }
}

// /completion and all that ends there
inline std::string server_schema_grammar(const json & schema, const json & data) {
    std::vector<std::string> warnings;
    const std::string text = schema_grammar(schema, server_lenient(data), &warnings);
    server_warn(warnings);
    return text;
}

// all that takes chat messages
inline common_chat_params server_schema_apply(const common_chat_templates * templates, const common_chat_templates_inputs & inputs, const json & body) {
    std::vector<std::string> warnings;
    const auto params = schema_templates_apply(templates, inputs, server_lenient(body), &warnings);
    server_warn(warnings);
    return params;
}

// where an answer's format stands: in response_format, or as /v1/responses has it, in text.format
inline json server_answer_format(const json & body) {
    const json text = body.value("text", json());
    if (!text.is_object() || !text.contains("format") || text.at("format").is_null()) {
        return body.value("response_format", json());
    }
    const json format = text.at("format");
    if (format.is_object() && format.value("type", json()) == "json_schema") {
        return json{ { "type", "json_schema" }, { "json_schema", format } };
    }
    return format;
}

// throws where a format is malformed; whether it asks for JSON
inline bool server_asks_for_json(const json & format) {
    if (format.is_null()) {
        return false;
    }
    const json type = format.is_object() ? format.value("type", json()) : json();
    if (type != "text" && type != "json_object" && type != "json_schema") {
        throw std::invalid_argument("response_format: type: got " + type.dump_safe() + ", expected text, json_object or json_schema");
    }
    const json holder = type == "json_schema" ? format.value("json_schema", json()) : format;
    const json schema = holder.is_object() ? holder.value("schema", json()) : json();
    if (!schema.is_object() && (type == "json_schema" || !schema.is_null())) {
        throw std::invalid_argument("response_format: schema: got " + schema.dump_safe() + ", expected an object");
    }
    return type != "text";
}

// a field that is there and says something
inline bool server_says(const json & body, const char * name) {
    const json value = body.value(name, json());
    return !value.is_null() && value != "" && !((value.is_array()) && value.empty());
}

// body: of any endpoint that takes chat messages, after its conversion to OpenAI's chat
inline void server_chat_constraints(json & body) {
    const json format = server_answer_format(body);
    if (!format.is_null()) {
        body["response_format"] = format;
    }
    const bool tools = server_says(body, "tools") && body.value("tool_choice", json("auto")) != "none";
    const bool asks  = server_asks_for_json(format) || server_says(body, "json_schema");
    if ((int) asks + (int) server_says(body, "grammar") + (int) tools > 1) {
        throw std::invalid_argument("response_format: got more than one of JSON, a grammar and tools, expected one; do leave out the others (tool_choice: none)");
    }
    const json choice = body.value("tool_choice", json());
    if (choice.is_object() && choice.value("type", json("function")) == "function" && !server_says(body, "parallel_tool_calls")) {
        body["parallel_tool_calls"] = false; // a function chosen by its name is called once
    }
    if (server_says(body, "max_tool_calls")) {
        throw std::invalid_argument("max_tool_calls: got " + body.at("max_tool_calls").dump_safe() + ", expected none; do use parallel_tool_calls");
    }
}

// data: any completion as the server's own format has it
inline void server_completion_constraints(const json & data) {
    const bool chat = data.contains("chat_format");
    if (!chat && server_says(data, "json_schema") && server_says(data, "grammar")) {
        throw std::invalid_argument("json_schema: got one and a grammar, expected one of them");
    }
}

// why the model cannot rank documents, or "". Of models that only this fork loads none has a rank head, others bring their own
inline std::string server_no_ranking(const llama_model * model) {
    char arch[64] = "";
    llama_model_meta_val_str(model, "general.architecture", arch, sizeof(arch));
    if (std::string(arch) != "spikingbrain") {
        return "";
    }
    return "reranking: got a model without a rank head, expected one that was trained to rank; do use /v1/embeddings";
}
