#pragma once

// Anthropic's /v1/messages: what llama.cpp's conversion to OpenAI's chat leaves out.
// Blocks and tools that it would drop or misread are refused by name; tool_choice is converted whole; an output format
// becomes response_format; fields that are not Anthropic's reach the server as they do in /v1/chat/completions.

#include "server-request.h"

#include <set>
#include <string>

inline void server_messages_blocks(const char * where, const json & blocks, const std::set<std::string> & types) {
    if (blocks.is_string() || blocks.is_null()) {
        return;
    }
    if (!blocks.is_array()) {
        server_refuse(where, blocks, "a text or an array of blocks");
    }
    for (const auto & block : blocks) {
        const std::string type = block.is_object() ? json_value(block, "type", std::string()) : "";
        if (types.count(type) == 0) {
            server_refuse(where, block, "a block of a type that is known here");
        }
        if (type == "text" && !(block.contains("text") && block.at("text").is_string())) {
            server_refuse(where, block, "a text");
        }
        if (type == "tool_result") {
            server_messages_blocks(where, block.value("content", json()), {"text", "image"});
        }
    }
}

inline void server_messages_tools(const json & body) {
    if (!server_has(body, "tools")) {
        return;
    }
    if (!body.at("tools").is_array()) {
        server_refuse("tools", body.at("tools"), "an array");
    }
    for (const auto & tool : body.at("tools")) {
        const std::string type = tool.is_object() ? json_value(tool, "type", std::string("custom")) : "";
        if (type != "custom" || json_value(tool, "name", std::string()).empty() || !server_has(tool, "input_schema")) {
            server_refuse("tools", tool, "a tool of type custom with a name and an input_schema");
        }
    }
}

inline void server_messages_tool_choice(const json & body, json & chat) {
    if (!server_has(body, "tool_choice")) {
        return;
    }
    const json & choice = body.at("tool_choice");
    const std::string type = choice.is_object() ? json_value(choice, "type", std::string()) : "";
    if (type == "tool") {
        chat["tool_choice"] = json {{"type", "function"}, {"name", json_value(choice, "name", std::string())}};
    } else if (type == "any" || type == "auto" || type == "none") {
        chat["tool_choice"] = type == "any" ? "required" : type;
    } else {
        server_refuse("tool_choice", choice, "an object of type auto, any, tool or none");
    }
    if (json_value(choice, "disable_parallel_tool_use", false)) {
        chat["parallel_tool_calls"] = false;
    }
}

inline void server_messages_format(const json & body, json & chat) {
    const json config = json_value(body, "output_config", json::object());
    const json format = server_has(body, "output_format") ? body.at("output_format") : config.is_object() ? config.value("format", json()) : json();
    if (format.is_null()) {
        return;
    }
    if (!format.is_object() || json_value(format, "type", std::string()) != "json_schema" || !server_has(format, "schema")) {
        server_refuse("output_format", format, "an object of type json_schema with a schema");
    }
    chat["response_format"] = json {{"type", "json_schema"}, {"json_schema", json {{"schema", format.at("schema")}}}};
}

// body: Anthropic's; chat: what llama.cpp made of it so far
inline void server_messages_request(const json & body, json & chat) {
    const json & messages = body.at("messages");
    if (!messages.is_array()) {
        server_refuse("messages", messages, "an array");
    }
    server_messages_blocks("system", body.value("system", json()), {"text"});
    for (const auto & message : messages) {
        if (!message.is_object() || !message.contains("content") || message.at("content").is_null()) {
            server_refuse("messages", message, "an object with role and content");
        }
        server_messages_blocks("messages", message.at("content"), {"text", "thinking", "redacted_thinking", "image", "tool_use", "tool_result"});
    }
    for (const char * name : {"container", "mcp_servers"}) {
        if (server_has(body, name) && !body.at(name).empty()) {
            server_refuse(name, body.at(name), "none: this server runs no tools of its own");
        }
    }
    server_check_single(body);
    server_messages_tools(body);
    server_messages_tool_choice(body, chat);
    server_messages_format(body, chat);

    static const std::set<std::string> read = {"messages", "system", "tools", "tool_choice", "stop_sequences", "max_tokens", "thinking",
        "metadata", "output_format", "output_config", "container", "mcp_servers"};
    for (const auto & item : body.items()) {
        if (read.count(item.key()) == 0 && !chat.contains(item.key())) {
            chat[item.key()] = item.value();
        }
    }
}
