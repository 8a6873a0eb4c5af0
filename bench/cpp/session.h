#pragma once

// A model and its context: session.cpp, and fill.cpp for fill().

#include "engine.h"
#include "request.h"
#include "threads.h"

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
