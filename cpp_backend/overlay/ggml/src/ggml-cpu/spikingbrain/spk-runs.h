#pragma once

#include <algorithm>
#include <cstdint>

// Runs of n things, one after the other, which n_threads take from a counter (spk-chunks.h), each n_times: large first, since memory is waited
// for where one begins, and small at last, so that threads end together. A run is a third of a thread's share of what is left, no less than
// `least`, or an eighth of a thread's share of all where that is less, and no more than `most`.
struct spk_runs {
    static constexpr int64_t OF_LEFT = 3, OF_ALL = 8;

    const int64_t n, n_threads, least, most, n_times;
    int64_t index = 0, begin = 0; // of the run

    spk_runs(int64_t n, int64_t n_threads, int64_t least, int64_t most, int64_t n_times)
        : n(n), n_threads(n_threads), least(std::max<int64_t>(1, std::min(least, n*n_times/(OF_ALL*n_threads)))), most(most), n_times(n_times) {}

    int64_t end() const {
        const int64_t left = n - begin;
        return begin + std::min({ left, most, std::max(least, left*n_times/(OF_LEFT*n_threads)) });
    }
    void go_to(int64_t i) {
        if (i < index) {
            index = begin = 0;
        }
        for (; index < i; ++index) {
            begin = end();
        }
    }
    int64_t count() const {
        spk_runs last = *this;
        while (last.begin < n) {
            last.go_to(last.index + 1);
        }
        return last.index;
    }
};
