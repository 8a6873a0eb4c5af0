#pragma once

// What every command has: its arguments as JSON, a clock, errors, random numbers. stdin: a JSON object per line with "cmd";
// stdout: one JSON object per command, {"error": "..."} where it failed. Times are in seconds, sizes in bytes.

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

using json = nlohmann::json;

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] inline void fail(const std::string & what) {
    throw std::runtime_error("sb-bench-driver: " + what);
}

// A command's arguments. What no command reads is refused: a misspelt or outdated name would measure something else.
class request {
public:
    explicit request(json all) : all(std::move(all)) {}

    template <typename T>
    T value(const std::string & key, const T & fallback) const { read.insert(key); return all.value(key, fallback); }
    std::string value(const std::string & key, const char * fallback) const { return value(key, std::string(fallback)); }
    const json & at(const std::string & key) const { read.insert(key); return all.at(key); }

    void check_all_read() const {
        for (const auto & [key, value] : all.items()) {
            if (!read.count(key)) {
                fail(key + ": got an argument that the command does not read, expected none");
            }
        }
    }

private:
    const json all;
    mutable std::set<std::string> read;
};

inline uint64_t rng_next(uint64_t & state) { // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state*0x2545F4914F6CDD1DULL;
}
