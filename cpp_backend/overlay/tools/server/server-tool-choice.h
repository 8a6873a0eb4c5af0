#pragma once

// tool_choice as the clients of three endpoints write it, read as one: a tool that is named, or a list of those allowed,
// leaves these tools in the request and "auto" or "required" beside them. llama.cpp reads such an object as "auto".
//
//   /v1/chat/completions  {"type": "function", "function": {"name"}}
//                         {"type": "allowed_tools", "allowed_tools": {"mode", "tools": [{"type": "function", "function": {"name"}}]}}
//   /v1/responses         {"type": "function", "name"}; {"type": "allowed_tools", "mode", "tools": [{"type": "function", "name"}]}
//   /v1/messages          {"type": "tool", "name"}, "any", "auto", "none"; each with disable_parallel_tool_use

#include "server-common.h"

#include <stdexcept>
#include <string>
#include <vector>

// the name of a function in either of OpenAI's shapes
inline std::string server_tool_name(const json & tool) {
    if (!tool.is_object() || json_value(tool, "type", std::string()) != "function") {
        return "";
    }
    const json & holder = tool.contains("function") ? tool.at("function") : tool;
    return holder.is_object() ? json_value(holder, "name", std::string()) : "";
}

// leaves the tools of these names only; throws std::invalid_argument (HTTP 400) if one of them is no tool's
inline void server_tools_keep(json & body, const std::vector<std::string> & names) {
    json chosen = json::array();
    const json tools = json_value(body, "tools", json::array());
    for (const auto & name : names) {
        const size_t before = chosen.size();
        for (const auto & tool : tools) {
            if (!name.empty() && server_tool_name(tool) == name) {
                chosen.push_back(tool);
                break;
            }
        }
        if (chosen.size() == before) {
            throw std::invalid_argument("tool_choice: got the function '" + name + "', expected one of tools; do name one of them");
        }
    }
    body["tools"] = chosen;
}

// throws std::invalid_argument
inline void server_tool_choice(json & body) {
    if (!body.contains("tool_choice") || body.at("tool_choice").is_null()) {
        return;
    }
    const json choice = body.at("tool_choice");
    const std::string type = choice.is_object() ? json_value(choice, "type", std::string()) : "";

    if (type == "function") {
        server_tools_keep(body, {server_tool_name(choice)});
        body["tool_choice"] = "required";
    } else if (type == "allowed_tools") {
        const json & allowed = choice.contains("allowed_tools") ? choice.at("allowed_tools") : choice;
        std::vector<std::string> names;
        for (const auto & tool : allowed.at("tools")) {
            names.push_back(server_tool_name(tool));
        }
        server_tools_keep(body, names);
        body["tool_choice"] = json_value(allowed, "mode", std::string("auto"));
    } else if (!choice.is_string()) {
        throw std::invalid_argument("tool_choice: got " + choice.dump_safe() + ", expected auto, none, required, a function or allowed_tools");
    }

    const json tools = json_value(body, "tools", json::array());
    if (body.at("tool_choice") == "required" && tools.empty()) {
        throw std::invalid_argument("tool_choice: got " + choice.dump_safe() + " without tools, expected at least one; do give tools");
    }
}
