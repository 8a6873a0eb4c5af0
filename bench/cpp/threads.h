#pragma once

// CPUs of this process, and threads bound to them.

#include "engine.h"

#include <vector>

std::vector<int> allowed_cpus();               // this process may run on

// n threads, thread i on the i-th allowed CPU; sleeping until the first graph
struct thread_pool {
    explicit thread_pool(int n_threads);
    ~thread_pool();
    void pause();                              // threads sleep instead of waiting for the next graph in a loop
    engine_threads pool{};
    int            n_threads;
};
