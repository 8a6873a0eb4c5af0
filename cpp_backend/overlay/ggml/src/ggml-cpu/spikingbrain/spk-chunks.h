#pragma once

// Numbers 0 .. n - 1 of an operator's chunks, which its threads take from a shared counter, so that slow cores take fewer. It is ggml's own
// of a threadpool, but no barrier stands before the first one: it costs another turn of each thread where they are more than free cores. Between our operators
// the counter stands at FIRST; whoever takes the last number of all puts it back. llama.cpp's operators leave small ones: then, and in
// a threadpool's first operator, every thread sees that by its first number, and they set it together.

#include "spk-ops.h"

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
