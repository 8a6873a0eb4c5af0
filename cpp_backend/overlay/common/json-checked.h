#pragma once

// Values of a JSON text as C++ types: refused where they are not of the type or do not fit it. The backing library casts
// instead: 2^32 + 1 becomes 1, 2.9 becomes 2, true becomes 1. Also a bound on nesting: trees are copied and destroyed by
// recursion. Included by json.cpp only (patches server-request-values, json-depth).

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

// throws common_json_error; expected: what the value should be
template <typename Json>
[[noreturn]] void json_refuse(const Json & j, const std::string & expected) {
    std::string text = j.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > 60) {
        text = text.substr(0, 60) + "...";
    }
    throw common_json_error("got " + text + ", expected " + expected);
}

template <typename T, typename Json>
T json_integer(const Json & j) {
    const T lo = std::numeric_limits<T>::min();
    const T hi = std::numeric_limits<T>::max();

    bool fits = false;
    if (j.is_number_unsigned()) {
        fits = j.template get<uint64_t>() <= (uint64_t) hi;
    } else if (j.is_number_integer()) {
        const int64_t v = j.template get<int64_t>();
        fits = std::is_signed<T>::value ? v >= (int64_t) lo && v <= (int64_t) hi : v >= 0 && (uint64_t) v <= (uint64_t) hi;
    } else if (j.is_number_float()) {
        // (double) hi may be rounded up to 2^63 or 2^64, which does not fit
        const double v = j.template get<double>();
        fits = v == std::floor(v) && v >= (double) lo && (sizeof(T) < 8 ? v <= (double) hi : v < (double) hi);
    }
    if (!fits) {
        json_refuse(j, "an integer from " + std::to_string(lo) + " to " + std::to_string(hi));
    }
    return j.template get<T>();
}

template <typename T> struct json_is_vector : std::false_type {};
template <typename T, typename A> struct json_is_vector<std::vector<T, A>> : std::true_type {};

// throws common_json_error
template <typename T, typename Json>
T json_checked(const Json & j) {
    if constexpr (std::is_same<T, bool>::value) {
        if (!j.is_boolean()) { json_refuse(j, "true or false"); }
    } else if constexpr (std::is_integral<T>::value) {
        return json_integer<T>(j);
    } else if constexpr (std::is_floating_point<T>::value) {
        if (!j.is_number())  { json_refuse(j, "a number"); }
        const double v = std::fabs(j.template get<double>());
        if (!(v <= (double) std::numeric_limits<T>::max())) { json_refuse(j, "a number up to " + std::to_string(std::numeric_limits<T>::max())); }
    } else if constexpr (std::is_same<T, std::string>::value) {
        if (!j.is_string())  { json_refuse(j, "a text"); }
    } else if constexpr (json_is_vector<T>::value) {
        if (!j.is_array())   { json_refuse(j, "an array"); }
        T out;
        out.reserve(j.size());
        for (const auto & item : j) {
            out.push_back(json_checked<typename T::value_type>(item));
        }
        return out;
    }
    return j.template get<T>();
}

// throws common_json_error
inline void json_check_depth(const std::string & text) {
    constexpr int MAX = 256;

    int  depth  = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') {
            quoted = !quoted;
        } else if (quoted) {
            i += c == '\\';
        } else if (c == '[' || c == '{') {
            if (++depth > MAX) {
                throw common_json_error("got arrays and objects nested more than " + std::to_string(MAX) + " deep, expected fewer");
            }
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
}
