#include "core.h"

#include "log-sum-exp.h"

#include <cmath>

namespace sb {

py::tuple context::score(const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq, const tokens_in & rows,
                         const tokens_in & targets, std::shared_ptr<cancel_token> cancel) {
    owned::use use(owner_, "score", ctx_ != nullptr);
    const int64_t n = tokens.size();
    const int64_t n_targets = targets.size();
    if (rows.size() != n_targets) {
        throw std::invalid_argument("score: rows: got " + std::to_string(rows.size()) + ", expected one for each of " +
            std::to_string(n_targets) + " targets");
    }
    std::vector<int8_t> want(std::max<int64_t>(n, 0), 0);
    for (int64_t i = 0; i < n_targets; ++i) {
        const llama_token row = rows.data()[i];
        if (row < 0 || row >= n) {
            throw std::invalid_argument("score: rows: got " + std::to_string(row) + ", expected 0 to " + std::to_string(n - 1));
        }
        model_->checked(targets.data()[i]);
        want[row] = 1;
    }
    sequences_batch batch = checked_batch("score", tokens, pos, seq, want.data(), n);

    py::array_t<double>      logprobs(n_targets);
    py::array_t<llama_token> best(n_targets);
    logits_pos_ = -1; // several sequences: there is no one last token
    run(batch.batch, "score", cancel.get());

    double *      out     = logprobs.mutable_data();
    llama_token * largest = best.mutable_data();
    const int32_t * row_of = rows.data();
    const int32_t * target = targets.data();
    {
        py::gil_scoped_release nogil;
        std::vector<log_sum_exp_result> known(n, { NAN, -1 });
        for (int64_t i = 0; i < n_targets; ++i) {
            const float * row = llama_get_logits_ith(ctx_, row_of[i]);
            if (!row) {
                throw std::runtime_error("score: logits: got none for token " + std::to_string(row_of[i]) + ", expected a row");
            }
            auto & [log_z, argmax] = known[row_of[i]];
            if (argmax < 0) {
                known[row_of[i]] = log_sum_exp(row, logits_.size());
            }
            out[i]     = row[target[i]] - log_z;
            largest[i] = argmax;
        }
    }
    return py::make_tuple(logprobs, best);
}

} // namespace sb
