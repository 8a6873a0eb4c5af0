#pragma once

// Event-driven products over a layout by input channel, beside ours.

#include "request.h"

struct event_bench {
    struct weights;
    weights * w = nullptr;

    ~event_bench();
    void close();
    json build(const request &);
    json time(const request &);
};
