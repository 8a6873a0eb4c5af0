#pragma once

// sb-bench-driver: one model, one context, commanded line by line.
// stdin: a JSON object per line with "cmd"; stdout: one JSON object per command, {"error": "..."} where it failed.
// Times are in seconds, sizes in bytes.

#include "engine.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

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

// --- machine.cpp: what is known without a model

std::vector<int> allowed_cpus();               // this process may run on
json   cmd_hello(const request &);             // build, CPU features, instruction set of the spike kernels
json   cmd_memory(const request &);            // resident and peak resident; "reset": the peak restarts here
json   cmd_read(const request &);              // read of one shared buffer: threads, bytes, chunk, huge, repeat -> GB/s of each repetition
json   cmd_spin(const request &);              // fixed arithmetic on every thread: threads, repeat -> seconds of each repetition
uint64_t rng_next(uint64_t & state);           // xorshift64*

// n threads, thread i on the i-th allowed CPU; sleeping until the first graph
struct thread_pool {
    explicit thread_pool(int n_threads);
    ~thread_pool();
    void pause();                              // threads sleep instead of waiting for the next graph in a loop
    engine_threads pool{};
    int            n_threads;
};

// --- session.cpp, fill.cpp: a model and its context

struct session {
    llama_model   * model = nullptr;
    llama_context * ctx   = nullptr;
    thread_pool   * pool  = nullptr;
    int  n_seq  = 1;
    int  n_batch = 1;
    bool unified = false;                      // sequences share one KV buffer
    engine_settings settings;

    ~session();
    void close_context();
    void close_model();
    bool is_spikingbrain() const;
    llama_context * context() const;           // or an error

    json load(const request &);
    json open(const request &);
    json fill(const request &);
    json decode(const request &);
    json verify(const request &);
    json prefill(const request &);
    json position(const request &);
    size_t state_bytes() const;
};

// --- operators.cpp: single operators and products, without a model; of engines with ggml's backends as at the pin

#ifndef SB_BENCH_IK
struct operator_bench {
    struct graph;
    graph * g = nullptr;

    ~operator_bench();
    void close();
    json build(const request &);
    json time(const request &);
};
#endif

// --- events.cpp: event-driven products over a layout by input channel, beside ours

#ifdef SB_BENCH_SPIKINGBRAIN
struct event_bench {
    struct weights;
    weights * w = nullptr;

    ~event_bench();
    void close();
    json build(const request &);
    json time(const request &);
};
#endif
