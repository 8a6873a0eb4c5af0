#include "threads.h"

#include "request.h"

#include <sched.h>

#include <cstdlib>
#include <sstream>

std::vector<int> allowed_cpus() {
    // asked once: the main thread is bound to one CPU later on, by OpenMP even before. Those named come first to last, cores before
    // the second threads of cores (../measure/machine.py)
    static const std::vector<int> cpus = [] {
        std::vector<int> out;
        std::istringstream named(getenv("SPIKINGBRAIN_BENCH_CPUS") ? getenv("SPIKINGBRAIN_BENCH_CPUS") : "");
        for (std::string cpu; std::getline(named, cpu, ','); ) {
            out.push_back(std::stoi(cpu));
        }
        if (!out.empty()) {
            return out;
        }
        cpu_set_t set;
        CPU_ZERO(&set);
        sched_getaffinity(0, sizeof(set), &set);
        for (int i = 0; i < CPU_SETSIZE; ++i) {
            if (CPU_ISSET(i, &set)) {
                out.push_back(i);
            }
        }
        return out;
    }();
    return cpus;
}

thread_pool::thread_pool(int n_threads) : n_threads(n_threads) {
    const auto cpus = allowed_cpus();
    if (n_threads < 1 || n_threads > (int) cpus.size()) {
        fail("n_threads: got " + std::to_string(n_threads) + ", expected 1 .. " + std::to_string(cpus.size()) + ", the CPUs this process may use");
    }
    pool = engine_threads_new(cpus.data(), n_threads);
    if (!pool) {
        fail("thread pool: could not be made");
    }
}

thread_pool::~thread_pool() { engine_threads_free(pool); }

void thread_pool::pause() { engine_threads_pause(pool); }
