// How an operator's threads share what it has to do: each thing once and in order, something for every thread, less and less at a time.

#include "check.h"

#include "spk-runs.h"

static void test_runs(int64_t n, int64_t n_threads, int64_t least, int64_t most, int64_t n_times) {
    spk_runs run(n, n_threads, least, most, n_times);
    const int64_t count = run.count();
    int64_t at = 0, before = n;
    bool in_order = true, smaller = true, within = true;
    for (int64_t i = 0; i < count; ++i) {
        run.go_to(i);
        const int64_t size = run.end() - run.begin;
        in_order = in_order && run.begin == at && size > 0;
        within   = within && size <= most;
        smaller  = smaller && size <= before;
        at      += size;
        before   = size;
    }
    run.go_to(count/2);
    const std::string name = "runs of " + std::to_string(n) + " x " + std::to_string(n_times) + " in " + std::to_string(least) + " .. " + std::to_string(most) + " for " + std::to_string(n_threads) + " threads";
    check(in_order && at == n,                            name + ": each once, in order");
    spk_runs anew(n, n_threads, least, most, n_times);
    anew.go_to(count/2);
    check(run.begin == anew.begin,                         name + ": and back");
    check(within,                                         name + ": none beyond the most");
    check(smaller,                                        name + ": never larger than the one before");
    check(count*n_times >= std::min(n*n_times, n_threads), name + ": something for every thread");
    check(n == 0 || before <= std::max<int64_t>(1, n*n_times/(3*n_threads)), name + ": the last one is short");
}

int main() {
    for (int64_t n : { 0, 1, 2, 3, 4, 7, 8, 16, 31, 64, 128, 500, 8016 }) {
        for (int64_t n_threads : { 1, 2, 3, 4, 7, 16, 64 }) {
            for (int64_t least : { 0, 1, 2, 9, 100 }) {
                for (int64_t most : { 1, 3, 57, 8016 }) {
                    for (int64_t n_times : { 1, 2, 8 }) {
                        test_runs(n, n_threads, least, most, n_times);
                    }
                }
            }
        }
    }
    return report("spk-runs");
}
