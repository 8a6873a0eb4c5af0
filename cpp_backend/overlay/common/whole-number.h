#pragma once

// Numbers on the command line, all of their text: std::stoi stops at the first character that belongs to no number, so that "-c 4k" would
// be a context of 4 tokens and "-n 1.5" one token.

#include "llama.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <stdexcept>
#include <string>

// an option's value; throws std::invalid_argument
inline int whole_number(const std::string & text) {
    char * end = nullptr;
    errno = 0;
    const long long n = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || errno != 0 || n < INT_MIN || n > INT_MAX) {
        throw std::invalid_argument("got '" + text + "', expected an integer from " + std::to_string(INT_MIN) + " to " + std::to_string(INT_MAX));
    }
    return (int) n;
}

// whether the value of an override is one of its type's: an integer, a number, or of another type
inline bool is_override(llama_model_kv_override_type type, const char * value) {
    char * end = const_cast<char *>(value);
    if (type == LLAMA_KV_OVERRIDE_TYPE_INT) {
        (void) std::strtoll(value, &end, 10);
    } else if (type == LLAMA_KV_OVERRIDE_TYPE_FLOAT) {
        (void) std::strtod(value, &end);
    } else {
        return true;
    }
    return end != value && *end == '\0';
}
