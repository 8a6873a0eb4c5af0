#include "ggml-spikingbrain-rpc.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>

static std::mutex                                             mutex;
static std::map<std::string, std::pair<int64_t, std::string>> losses;

void ggml_spk_rpc_set_lost(const char * endpoint, const char * why) {
    std::lock_guard<std::mutex> lock(mutex);
    losses[endpoint] = { ggml_time_us(), why };
}

int64_t ggml_spk_rpc_lost(const char * endpoint, char * why, size_t n) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto it = losses.find(endpoint);
    if (it == losses.end()) {
        return 0;
    }
    snprintf(why, n, "%s", it->second.second.c_str());
    return it->second.first;
}
