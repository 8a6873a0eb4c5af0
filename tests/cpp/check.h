#pragma once

// The little that the C++ tests share: checks that count and name themselves, a seeded generator.

#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

static int n_failed = 0;
static int n_passed = 0;

static inline bool check(bool ok, const std::string & what) {
    if (ok) {
        ++n_passed;
    } else {
        ++n_failed;
        fprintf(stderr, "FAILED: %s\n", what.c_str());
    }
    return ok;
}

static inline int report(const char * name) {
    printf("%s: %d passed, %d failed\n", name, n_passed, n_failed);
    return n_failed == 0 && n_passed > 0 ? 0 : 1;
}

struct random_floats {
    std::mt19937 rng;

    explicit random_floats(uint32_t seed) : rng(seed) {}

    std::vector<float> normal(size_t n, float scale = 1.0f) {
        std::normal_distribution<float> dist(0.0f, scale);
        std::vector<float> x(n);
        for (auto & v : x) {
            v = dist(rng);
        }
        return x;
    }

    std::vector<float> uniform(size_t n, float lo, float hi) {
        std::uniform_real_distribution<float> dist(lo, hi);
        std::vector<float> x(n);
        for (auto & v : x) {
            v = dist(rng);
        }
        return x;
    }
};

// largest |a - b| over the largest |b|
static inline double max_error(const std::vector<float> & a, const std::vector<double> & b) {
    double err = 0.0;
    double mag = 1e-30;
    for (size_t i = 0; i < b.size(); ++i) {
        err = std::isfinite(a[i]) ? std::max(err, std::fabs(a[i] - b[i])) : INFINITY;
        mag = std::max(mag, std::fabs(b[i]));
    }
    return a.size() == b.size() ? err/mag : INFINITY;
}
