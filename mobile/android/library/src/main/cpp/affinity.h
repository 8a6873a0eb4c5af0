// The thread that computes, and those it starts, on some CPUs: ggml's threads live for one graph and inherit them.
#pragma once

#include <vector>

#include <sched.h>

namespace sb {

class on_cpus {
public:
    // cpus: asked for; of them those that the thread may use count. None of them, or none asked for: it stays where it was
    explicit on_cpus(const std::vector<int> & cpus);
    ~on_cpus(); // as it was
    on_cpus(const on_cpus &) = delete;
    on_cpus & operator=(const on_cpus &) = delete;

    const std::vector<int> & held() const { return held_; }

private:
    cpu_set_t        before_;
    std::vector<int> held_;
};

} // namespace sb
