#pragma once

// An option's value as an int, all of it: std::stoi stops at the first character that belongs to no number, so that "-c 4k"
// would be a context of 4 tokens and "-n 1.5" one token.

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <stdexcept>
#include <string>

// throws std::invalid_argument
inline int whole_number(const std::string & text) {
    char * end = nullptr;
    errno = 0;
    const long long n = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || errno != 0 || n < INT_MIN || n > INT_MAX) {
        throw std::invalid_argument("got '" + text + "', expected an integer from " + std::to_string(INT_MIN) + " to " + std::to_string(INT_MAX));
    }
    return (int) n;
}
