#pragma once

// Numbers 0 .. n - 1 of an operator's chunks, which its threads take from a shared counter, so that slow cores take fewer. It is ggml's own
// of a threadpool, but no barrier stands before the first one: it costs milliseconds where threads are more than free cores. Between our operators
// the counter stands at FIRST; whoever takes the last number of all puts it back. llama.cpp's operators leave small ones: then, and in
// a threadpool's first operator, every thread sees that by its first number, and they set it together.

#include "spk-ops.h"

#include <algorithm>
#include <cstdint>

class spk_chunks {
public:
    // all threads of the operator make one, and take until they get n or more
    spk_chunks(const ggml_compute_params * params, int64_t n) : params(params), n(n) {}

    int64_t take() const {
        int64_t i = number();
        if (i < 0) {
            ggml_barrier(params->threadpool);
            if (params->ith == 0) {
                ggml_threadpool_chunk_set(params->threadpool, FIRST);
            }
            ggml_barrier(params->threadpool);
            i = number();
        }
        if (i == n + params->nth - 1) { // nobody takes any more; the barrier after the operator orders this
            ggml_threadpool_chunk_set(params->threadpool, FIRST);
        }
        return i;
    }

private:
    static constexpr int FIRST = 1 << 30;

    const ggml_compute_params * params;
    const int64_t n;

    int64_t number() const { return (int64_t) ggml_threadpool_chunk_add(params->threadpool, 1) - FIRST; }
};

// Runs of n things for n_threads, one after the other: large first, since memory is waited for where one begins, and small at last, so that
// threads end together. A run is a third of a thread's share of what is left, in least .. most. n_times: how often each is handed out.
struct spk_runs {
    static constexpr int64_t OF_LEFT = 3;

    const int64_t n, n_threads, least, most, n_times;
    int64_t index = 0, begin = 0; // of the run

    spk_runs(int64_t n, int64_t n_threads, int64_t least, int64_t most, int64_t n_times = 1)
        : n(n), n_threads(n_threads), least(std::max<int64_t>(1, least)), most(most), n_times(n_times) {}

    int64_t end() const {
        const int64_t left = n - begin;
        return begin + std::min({ left, most, std::max(least, left*n_times/(OF_LEFT*n_threads)) });
    }
    void go_to(int64_t i) {
        for (; index < i; ++index) {
            begin = end();
        }
    }
    int64_t count() const {
        spk_runs last = *this;
        while (last.begin < n) {
            last.go_to(last.index + 1);
        }
        return last.index;
    }
};
