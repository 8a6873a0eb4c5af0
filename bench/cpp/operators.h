#pragma once

// Single operators and products, without a model; of engines with ggml's backends as at the pin.

#include "request.h"

struct operator_bench {
    struct graph;
    graph * g = nullptr;

    ~operator_bench();
    void close();
    json build(const request &);
    json time(const request &);
};
