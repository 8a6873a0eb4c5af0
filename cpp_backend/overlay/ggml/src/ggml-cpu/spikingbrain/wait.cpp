#include "spikingbrain.h"

#include <thread>

namespace {

constexpr uint64_t LOOKS       = 304; // some microseconds of a processor whose pause is long; most waits at a barrier are shorter
constexpr uint64_t EVERY       = 16;  // looks between two yields, which leave a core's other thread alone as a system call does not
constexpr uint64_t YIELD_LOOKS = 48;  // in whose time a yield returns when nobody else wants the CPU

}

// Where threads are more than CPUs (two processes, a container's CPUs, another program), the thread that is waited for may be the one
// that has no CPU: looking on would keep it away until the time slice ends, at every barrier.
uint64_t ggml_spikingbrain_wait(uint64_t n_looks) {
    if (n_looks < LOOKS || n_looks % EVERY != 0) {
        return 0;
    }
    std::this_thread::yield();
    return YIELD_LOOKS;
}
