#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

struct log_sum_exp_result {
    double  value;  // log of the sum of exp over the row: a logit less this is its token's log probability
    int64_t argmax; // the first largest entry
};

// row: n logits, n > 0
inline log_sum_exp_result log_sum_exp(const float * row, int64_t n) {
    const float * largest = std::max_element(row, row + n);
    double sum = 0.0;
    for (int64_t i = 0; i < n; ++i) {
        sum += expf(row[i] - *largest);
    }
    return { *largest + std::log(sum), largest - row };
}
