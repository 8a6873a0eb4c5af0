#include "machine.h"

#include "engine.h"
#include "threads.h"

#ifdef SB_BENCH_SPIKINGBRAIN
#include "ggml-spikingbrain.h"
#endif

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

json cmd_hello(const request &) {
    json out = {
        { "system_info", llama_print_system_info() },
        { "cpus", allowed_cpus() },
#ifdef SB_BENCH_SPIKINGBRAIN
        { "spikingbrain", true },
#else
        { "spikingbrain", false },
#endif
    };
#ifdef SB_BENCH_SPIKINGBRAIN
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    if (auto isa = (ggml_spk_isa_t) ggml_backend_reg_get_proc_address(reg, "ggml_spk_isa")) {
        out["spk_isa"] = isa();
    }
#endif
    return out;
}

static size_t status_bytes(const char * key) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line); ) {
        if (line.rfind(key, 0) == 0) {
            return 1024*std::stoull(line.substr(strlen(key)));
        }
    }
    fail(std::string("/proc/self/status: got no ") + key + ", expected Linux");
}

json cmd_memory(const request & r) {
    if (r.value("reset", false)) {
        std::ofstream("/proc/self/clear_refs") << "5"; // the peak restarts at what is resident now
    }
    return {
        { "resident",  status_bytes("VmRSS:") }, { "peak", status_bytes("VmHWM:") },
        { "anonymous", status_bytes("RssAnon:") }, // without the mapped model file
    };
}

// fn(i) on thread i, each on its own CPU; returns the seconds from the common start to the last end
static double on_threads(int n, const std::function<void(int)> & fn) {
    const auto cpus = allowed_cpus();
    if (n < 1 || n > (int) cpus.size()) {
        fail("threads: got " + std::to_string(n) + ", expected 1 .. " + std::to_string(cpus.size()));
    }
    pthread_barrier_t start;
    pthread_barrier_init(&start, nullptr, n);
    std::vector<double> t0(n), t1(n);
    std::vector<std::thread> threads;
    for (int i = 0; i < n; ++i) {
        threads.emplace_back([&, i] {
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(cpus[i], &set);
            pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
            pthread_barrier_wait(&start);
            t0[i] = now();
            fn(i);
            t1[i] = now();
        });
    }
    for (auto & t : threads) {
        t.join();
    }
    pthread_barrier_destroy(&start);
    return *std::max_element(t1.begin(), t1.end()) - *std::min_element(t0.begin(), t0.end());
}

static volatile uint64_t sink;

// eight sums, so that additions do not wait for each other; the compiler makes vectors of them
static uint64_t read_sum(const uint64_t * data, size_t n) {
    uint64_t sum[64] = {};
    for (size_t i = 0; i + 64 <= n; i += 64) {
        __builtin_prefetch(data + i + 512); // also ahead of the chunk's end, where the next one lies or nobody minds
        for (int j = 0; j < 64; ++j) {
            sum[j] += data[i + j];
        }
    }
    uint64_t all = 0;
    for (uint64_t s : sum) {
        all += s;
    }
    return all;
}

// one buffer for all threads, in pages of 4 KiB or huge ones
struct shared_buffer {
    char * map; size_t size;
    char * data;

    shared_buffer(size_t bytes, bool huge) : size(bytes + HUGE_PAGE) {
        map = (char *) mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) {
            fail("read: got no memory, expected " + std::to_string(bytes) + " bytes");
        }
        madvise(map, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        data = (char *) (((uintptr_t) map + HUGE_PAGE - 1)/HUGE_PAGE*HUGE_PAGE);
    }
    ~shared_buffer() { munmap(map, size); }
    static constexpr size_t HUGE_PAGE = 2 << 20;
};

// as the kernels read weights (spikingbrain/mul-mat.cpp): threads take chunks of one buffer from a shared counter; again until `seconds` are over
json cmd_read(const request & r) {
    const int    n_threads = r.at("threads");
    const double seconds   = r.at("seconds");
    const size_t chunk = r.value("chunk", 128*1024), n_chunks = std::max<size_t>(1, r.at("bytes").get<size_t>()/chunk);
    shared_buffer buffer(chunk*n_chunks, r.value("huge", false));

    const auto each_chunk = [&](const std::function<void(char *)> & fn) {
        std::atomic<size_t> next{ 0 };
        return on_threads(n_threads, [&](int) {
            for (size_t c = next++; c < n_chunks; c = next++) {
                fn(buffer.data + c*chunk);
            }
        });
    };
    each_chunk([&](char * data) { std::fill_n((uint64_t *) data, chunk/8, 1); });
    std::vector<double> times;
    for (double sum = 0; times.empty() || sum < seconds; sum += times.back()) {
        times.push_back(each_chunk([&](char * data) { sink = sink + read_sum((const uint64_t *) data, chunk/8); }));
    }
    return { { "bytes", chunk*n_chunks }, { "seconds", times } };
}

json cmd_spin(const request & r) {
    std::vector<double> seconds;
    for (int k = 0; k < r.at("repeat").get<int>(); ++k) {
        seconds.push_back(on_threads(r.at("threads"), [](int i) {
            uint64_t state = i + 1, sum = 0;
            for (int j = 0; j < 5000000; ++j) { // about 10 ms
                sum += rng_next(state);
            }
            sink = sum;
        }));
    }
    return { { "seconds", seconds } };
}
