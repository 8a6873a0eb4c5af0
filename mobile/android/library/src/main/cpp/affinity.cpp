#include "affinity.h"

namespace sb {

// sched_setaffinity(0, ...) is of the calling thread, needs no rights, and is what Android has of it; the system's own limits (a cpuset for
// apps in the background) stay in force
on_cpus::on_cpus(const std::vector<int> & cpus) {
    if (cpus.empty() || sched_getaffinity(0, sizeof(before_), &before_) != 0) {
        return;
    }
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (const int cpu : cpus) {
        if (cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &before_)) {
            CPU_SET(cpu, &wanted);
            held_.push_back(cpu);
        }
    }
    if (!held_.empty() && sched_setaffinity(0, sizeof(wanted), &wanted) != 0) {
        held_.clear();
    }
}

on_cpus::~on_cpus() {
    if (!held_.empty()) {
        sched_setaffinity(0, sizeof(before_), &before_);
    }
}

} // namespace sb
