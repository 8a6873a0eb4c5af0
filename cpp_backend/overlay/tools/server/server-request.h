#pragma once

// What a request must not say: llama.cpp's server takes it in silence for something else, or fails later as if the fault
// were its own. Each check stands at one door and throws std::invalid_argument (HTTP 400): "field: got X, expected Y".
// Numbers and types are checked where they are read (common/json-checked.h).

#include "server-common.h"
#include "server-constraints.h"
#include "server-limits.h"
#include "server-tool-choice.h"

#include "common.h"
#include "sampling.h"

#include <cmath>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

// a router starts processes: what fails there is not the client's fault
inline bool server_is_router = false;

// What an exception of a handler says of whose fault it was. Handlers only read the request and wait for results: failures
// of the work itself come back as results. So what they throw, memory and system aside, is about the request.
inline error_type server_error_type(const std::exception & e) {
    const bool system = dynamic_cast<const std::runtime_error *>(&e) == nullptr || dynamic_cast<const std::system_error *>(&e) != nullptr;
    return system || server_is_router ? ERROR_TYPE_SERVER : ERROR_TYPE_INVALID_REQUEST;
}

[[noreturn]] inline void server_refuse(const std::string & where, const json & got, const std::string & expected) {
    std::string text = got.dump_safe();
    if (text.size() > 60) {
        text = text.substr(0, 60) + "...";
    }
    throw std::invalid_argument(where + ": got " + text + ", expected " + expected);
}

inline bool server_has(const json & data, const char * name) {
    return data.is_object() && data.contains(name) && !data.at(name).is_null();
}

inline void server_check_range(const json & data, const char * name, double lo, double hi, bool lo_itself = true) {
    if (!server_has(data, name) || !data.at(name).is_number()) {
        return; // another type is refused where it is read
    }
    const double v = data.at(name).get<double>();
    if (!(lo_itself ? v >= lo : v > lo) || v > hi) {
        server_refuse(name, data.at(name), string_format("a number %s %g%s", lo_itself ? "from" : "above", lo,
            std::isinf(hi) ? "" : string_format(" to %g", hi).c_str()));
    }
}

// where one answer is all that the format can hold
inline void server_check_single(const json & body) {
    server_check_range(body, "n",      1, 1);
    server_check_range(body, "n_cmpl", 1, 1);
}

// ids: a list of token ids; texts: whether texts may stand among them
inline void server_check_tokens(const char * where, const json & ids, const llama_vocab * vocab, bool texts) {
    const int n_vocab = llama_vocab_n_tokens(vocab);
    const std::string expected = std::string("an array of token ids from 0 to ") + std::to_string(n_vocab - 1) + (texts ? ", or a text" : "");
    if (!ids.is_array()) {
        server_refuse(where, ids, expected);
    }
    for (const auto & id : ids) {
        const bool known = id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() < n_vocab;
        if (!known && !(texts && id.is_string())) {
            server_refuse(where, id, expected);
        }
    }
}

// the body of /tokenize ("content") or /detokenize ("tokens")
inline void server_check_vocab_request(const json & body, const char * name, const llama_vocab * vocab, bool texts) {
    const json value = body.is_object() ? body.value(name, json()) : json();
    if (!texts || !value.is_string()) {
        server_check_tokens(name, value, vocab, texts);
    }
}

// a list of {"id", "scale"} of adapters that this server loaded
inline void server_check_lora(const json & list, size_t n_adapters) {
    if (!list.is_array()) {
        server_refuse("lora", list, "an array of objects with id and scale");
    }
    for (const auto & entry : list) {
        const std::string expected = n_adapters == 0 ? "none: the server was started without --lora" :
            "an id from 0 to " + std::to_string(n_adapters - 1) + " and a scale";
        if (!server_has(entry, "id") || !server_has(entry, "scale") || !entry.at("scale").is_number()) {
            server_refuse("lora", entry, expected);
        }
        const int id = json_value(entry, "id", -1);
        if (id < 0 || (size_t) id >= n_adapters) {
            server_refuse("lora", entry, expected);
        }
    }
}

inline void server_check_stop(const char * where, const json & stop) {
    const json words = stop.is_array() ? stop : json::array({stop});
    for (const auto & word : words) {
        if (!word.is_string() || word.get<std::string>().empty()) {
            server_refuse(where, stop, "texts that are not empty");
        }
    }
}

inline void server_check_logit_bias(const json & bias, const llama_vocab * vocab) {
    const int n_vocab = llama_vocab_n_tokens(vocab);
    const auto check = [&](const json & id, const json & value) {
        const bool numeric = id.is_number();
        if (numeric && (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= n_vocab)) {
            server_refuse("logit_bias", id, "a token id from 0 to " + std::to_string(n_vocab - 1));
        }
        if ((!numeric && !id.is_string()) || !(value.is_number() || (value.is_boolean() && !value.get<bool>()))) {
            server_refuse("logit_bias", bias, "pairs of a token (id or text) and a number or false");
        }
    };
    if (bias.is_array()) {
        for (const auto & pair : bias) {
            if (!pair.is_array() || pair.size() != 2) {
                server_refuse("logit_bias", pair, "a pair of a token and a number or false");
            }
            check(pair[0], pair[1]);
        }
    } else if (bias.is_object()) {
        for (const auto & pair : bias.items()) {
            const std::string key = pair.key();
            const bool digits = !key.empty() && key.find_first_not_of("0123456789", key[0] == '-') == std::string::npos && key != "-";
            check(digits ? json::parse_no_throw(key.substr(0, 18)) : json(key), pair.value());
        }
    } else {
        server_refuse("logit_bias", bias, "an object or an array of pairs");
    }
}

inline void server_check_samplers(const json & samplers) {
    if (samplers.is_string()) {
        for (const char c : samplers.get<std::string>()) {
            if (common_sampler_types_from_chars(std::string(1, c)).empty()) {
                server_refuse("samplers", samplers, "letters that name samplers");
            }
        }
        return;
    }
    for (const auto & name : samplers.get<std::vector<std::string>>()) {
        if (common_sampler_types_from_names({name}).empty()) {
            server_refuse("samplers", json(name), "the name of a sampler");
        }
    }
}

// upstream's recursive functions take a stack frame per rule or bracket: the bounds of the Python package's grammars
inline void server_check_grammar(const json & grammar) {
    constexpr int    MAX       = 256;
    constexpr size_t MAX_BYTES = 256*1024;
    if (!grammar.is_string()) {
        return;
    }
    int  depth = 0;
    char quote = 0;
    const std::string text = grammar.get<std::string>();
    if (text.size() > MAX_BYTES) {
        throw std::invalid_argument("grammar: got " + std::to_string(text.size()) + " bytes, expected at most " + std::to_string(MAX_BYTES));
    }
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '\\') {
            ++i;
        } else if (quote != 0) {
            quote = c == quote ? 0 : quote;
        } else if (c == '"' || c == '[') {
            quote = c == '[' ? ']' : c;
        } else if (c == '(' && ++depth > MAX) {
            throw std::invalid_argument("grammar: got brackets nested more than " + std::to_string(MAX) + " deep, expected fewer");
        } else if (c == ')') {
            --depth;
        }
    }
}

// data: any completion as the server's own format has it, OpenAI's fields among it
inline void server_check_completion(const json & data, const common_params & params, const llama_vocab * vocab) {
    server_completion_constraints(data);
    const double n_vocab = llama_vocab_n_tokens(vocab);
    server_check_range(data, "n_probs",        0, n_vocab);
    server_check_range(data, "logprobs",       0, n_vocab);
    server_check_range(data, "top_logprobs",   0, n_vocab);
    server_check_range(data, "seed",          -1, UINT32_MAX);
    server_check_range(data, "id_slot",       -1, params.n_parallel - 1);
    server_check_range(data, "typical_p",      0, 1);
    server_check_range(data, "repeat_penalty", 0, INFINITY, false);
    server_check_range(data, "mirostat_tau",   0, INFINITY);
    server_check_range(data, "mirostat_eta",   0, INFINITY);
    server_check_range(data, "best_of",        1, 1);

    if (server_has(data, "suffix") && data.at("suffix") != "") { server_refuse("suffix", data.at("suffix"), "none: /infill takes input_suffix"); }
    if (server_has(data, "stop"))       { server_check_stop("stop", data.at("stop")); }
    if (server_has(data, "lora"))       { server_check_lora(data.at("lora"), params.lora_adapters.size()); }
    if (server_has(data, "logit_bias")) { server_check_logit_bias(data.at("logit_bias"), vocab); }
    if (server_has(data, "samplers"))   { server_check_samplers(data.at("samplers")); }
    if (server_has(data, "grammar"))    { server_check_grammar(data.at("grammar")); }
}

// -1 is "any" here, as in the command line; the field is unsigned
inline uint32_t server_seed(const json & seed) {
    return seed.is_number() && seed.get<double>() == -1 ? LLAMA_DEFAULT_SEED : seed.get<uint32_t>();
}

// body: of any endpoint that takes chat messages, after its conversion to OpenAI's chat
inline void server_chat_request(json & body) {
    server_chat_constraints(body); // before a tool_choice is read: a function that it names is called once
    for (const char * name : {"functions", "function_call"}) {
        if (server_has(body, name)) {
            server_refuse(name, body.at(name), "none; do use tools and tool_choice");
        }
    }
    if (server_has(body, "chat_template_kwargs") && !body.at("chat_template_kwargs").is_object()) {
        server_refuse("chat_template_kwargs", body.at("chat_template_kwargs"), "an object");
    }
    if (server_has(body, "stop")) {
        server_check_stop("stop", body.at("stop"));
    }
    if (server_has(body, "messages") && body.at("messages").is_array() && body.at("messages").empty()) {
        server_refuse("messages", body.at("messages"), "at least one message");
    }
    if (server_has(body, "messages")) {
        for (const auto & message : body.at("messages")) {
            if (!server_has(message, "role") || !message.at("role").is_string()) {
                server_refuse("messages", message, "an object with a role");
            }
            if (message.contains("content") && message.at("content").is_null() && message.at("role") != "assistant") {
                server_refuse("messages", message, "a content that is not null");
            }
        }
    }
    // true asks for n_probs, which is read first; false is no number of alternatives
    if (server_has(body, "logprobs") && body.at("logprobs").is_boolean() && !body.at("logprobs").get<bool>()) {
        body.erase("logprobs");
    }
    // 0 alternatives would be no rows at all
    if (json_value(body, "logprobs", false) && server_has(body, "top_logprobs") && json_value(body, "top_logprobs", 0) == 0) {
        body["top_logprobs"] = 1;
    }
    server_tool_choice(body);
}

// body: of /v1/embeddings and its kin
inline void server_check_embeddings(const json & body, int n_embd) {
    server_check_range(body, "dimensions",     n_embd, n_embd);
    server_check_range(body, "embd_normalize", -1, INT32_MAX);
}
