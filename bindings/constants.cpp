#include "core.h"

#include "ggml-cpu.h"

namespace sb {

// llama.cpp's public constants by their names; CMakeLists.txt reads these from its headers
py::dict constants() {
    static const std::pair<const char *, int64_t> all[] = {
#include "constants.inc"
    };
    py::dict found;
    for (const auto & [name, value] : all) {
        found[name] = value;
    }
    return found;
}

// once for the process, before its first model; false: no such strategy
bool numa_init(int32_t strategy) {
    if (strategy < GGML_NUMA_STRATEGY_DISABLED || strategy >= GGML_NUMA_STRATEGY_COUNT) {
        return false;
    }
    log_scope log(false);
    llama_numa_init((ggml_numa_strategy) strategy);
    return true;
}

} // namespace sb
