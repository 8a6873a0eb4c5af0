#include "runtime.h"

#include "llama-spikingbrain.h"

namespace sb {

std::string fingerprint(const llama_context * ctx) {
    const auto print = llama_spikingbrain_print_of(ctx);
    char text[4*16 + 1];
    snprintf(text, sizeof(text), "%016llx%016llx%016llx%016llx", (unsigned long long) print.weights, (unsigned long long) print.settings,
             (unsigned long long) print.adapters, (unsigned long long) print.memory);
    return text;
}

} // namespace sb
