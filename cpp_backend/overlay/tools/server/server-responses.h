#pragma once

// OpenAI's /v1/responses: what llama.cpp's conversions to and from its chat leave out.

#include "server-echo.h"
#include "server-messages.h"
#include "server-token-rows.h"

#include <string>
#include <vector>

// body: the request; chat: what llama.cpp made of it. Throws std::invalid_argument.
inline void server_responses_request(const json & body, json & chat) {
    for (const char * name : {"conversation", "prompt"}) {
        if (server_has(body, name)) {
            server_refuse(name, body.at(name), "none: this server keeps nothing between requests; do send the input");
        }
    }
    if (json_value(body, "background", false)) {
        server_refuse("background", body.at("background"), "false");
    }
    server_check_single(body);
    if (server_has(body, "tools")) {
        for (const auto & tool : body.at("tools")) { // of another type than function: not offered to the model, as upstream does
            if (!tool.is_object() || json_value(tool, "type", std::string()).empty()) {
                server_refuse("tools", tool, "an object with a type");
            }
        }
    }
    if (body.contains("instructions") && body.at("instructions").is_null()) {
        chat.at("messages").erase((size_t) 0); // an empty system message
    }

    const auto include = json_value(body, "include", std::vector<std::string>());
    for (const auto & name : include) {
        if (name == "message.output_text.logprobs") {
            chat["logprobs"] = true;
            chat["top_logprobs"] = json_value(body, "top_logprobs", 0);
        }
    }
}

// rows: log probabilities, an array
inline void server_responses_rows(json & message, const json & rows) {
    if (json_value(message, "type", std::string()) == "message" && !message.at("content").empty()) {
        message["content"][0]["logprobs"] = rows;
    }
}

// an answer that the limit cut is incomplete, and so is the item it was cut in
inline void server_responses_end(json & response, stop_type stop, const json & rows) {
    const bool cut = stop == STOP_TYPE_LIMIT;
    response["status"]             = cut ? "incomplete" : "completed";
    response["incomplete_details"] = cut ? json {{"reason", "max_output_tokens"}} : json(nullptr);
    response["error"]              = nullptr;
    if (cut && response.contains("completed_at")) {
        response["completed_at"] = nullptr;
    }
    response["usage"]["output_tokens_details"] = json {{"reasoning_tokens", 0}}; // not counted apart
    for (auto & item : response.at("output")) {
        server_responses_rows(item, rows);
    }
    if (cut && !response.at("output").empty()) {
        response["output"].back()["status"] = "incomplete";
    }
}

// events: those that end a streamed answer, the last of which has the whole response
inline void server_responses_end(std::vector<json> & events, stop_type stop, const json & rows) {
    json & data = events.back().at("data");
    server_responses_end(data.at("response"), stop, rows);
    const json & output = data.at("response").at("output");
    if (stop == STOP_TYPE_LIMIT) {
        data["type"] = "response.incomplete";
        events.back()["event"] = data.at("type");
    }
    size_t i = 0;
    for (auto & event : events) {
        if (&event == &events.back()) {
            break;
        }
        event["data"]["output_index"]  = i;
        event["data"]["content_index"] = 0;
        if (event.at("event") == "response.output_item.done" && i < output.size()) {
            event["data"]["item"] = output.at(i++);
        } else if (event.at("event") == "response.content_part.done") {
            event["data"]["part"]["logprobs"] = rows;
        } else if (event.at("event") == "response.output_text.done") {
            event["data"]["logprobs"] = rows;
        }
    }
}

// events: of one streamed token. Its rows go with its text; each event says which item of the output it is about, as OpenAI's
// client wants to know: reasoning, then the message, then the calls.
inline void server_responses_events(std::vector<json> & events, const std::vector<common_chat_msg_diff> & diffs, bool reasoning, bool text, const json & rows) {
    size_t i = 0;
    bool told = false;
    for (auto & event : events) {
        json & data = event["data"];
        const std::string kind = event.at("event").get<std::string>();
        const std::string id = data.contains("item") ? json_value(data.at("item"), "id", std::string()) : json_value(data, "item_id", std::string());
        if (kind == "response.output_text.delta" && !told) {
            data["logprobs"] = rows;
            told = true;
        }
        if (id.rfind("fc_", 0) == 0) {
            const bool added = kind == "response.output_item.added";
            while (i + 1 < diffs.size() && (added ? diffs[i].tool_call_delta.name : diffs[i].tool_call_delta.arguments).empty()) {
                ++i;
            }
            data["output_index"] = reasoning + text + diffs[i].tool_call_index;
            i += !added;
        } else if (!id.empty()) {
            data["output_index"]  = (int) (id.rfind("rs_", 0) != 0 && reasoning);
            data["content_index"] = 0;
        }
    }
}
