#pragma once

// tool_choice as OpenAI's clients name a function, {"type": "function", "function": {"name": ...}}: the request becomes one
// with this tool only, which is required. llama.cpp reads such an object as "auto". Called by patch 0012.

#include "server-common.h"

#include <stdexcept>
#include <string>

// throws std::invalid_argument (HTTP 400) if no tool has that name
inline void server_tool_choice(json & body) {
    if (!body.contains("tool_choice") || !body.at("tool_choice").is_object()) {
        return;
    }
    const std::string name = body.at("tool_choice").value("function", json::object()).value("name", "");

    json chosen = json::array();
    const json tools = json_value(body, "tools", json::array());
    for (const auto & tool : tools) {
        if (tool.is_object() && tool.value("function", json::object()).value("name", "") == name) {
            chosen.push_back(tool);
        }
    }
    if (chosen.empty()) {
        throw std::invalid_argument("tool_choice: got the function '" + name + "', expected one of tools; do name one of them");
    }
    body["tools"]       = chosen;
    body["tool_choice"] = "required";
}
