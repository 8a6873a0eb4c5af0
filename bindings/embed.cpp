#include "core.h"

#include <cstring>

namespace sb {

py::array_t<float> context::embed(const tokens_in & tokens, llama_pos pos0, std::shared_ptr<cancel_token> cancel) {
    owned::use use(owner_, "embed", ctx_ != nullptr);
    check_tokens(tokens);
    const int64_t n = tokens.size(), n_embd = llama_model_n_embd_out(model_->get());
    if (!embeddings_ || n > n_outputs_max_ || pos0 < 0 || pos0 > INT32_MAX - n) {
        throw std::invalid_argument("embed: got " + std::to_string(n) + " tokens at " + std::to_string(pos0) +
            ", expected a context made with embeddings and at most n_outputs_max=" + std::to_string(n_outputs_max_) + " tokens");
    }
    std::vector<llama_token>    ids(tokens.data(), tokens.data() + n);
    std::vector<llama_pos>      pos(n);
    std::vector<int32_t>        n_seq(n, 1);
    llama_seq_id                seq = 0;
    std::vector<llama_seq_id *> seqs(n, &seq);
    std::vector<int8_t>         want(n, 1);
    for (int64_t i = 0; i < n; ++i) {
        pos[i] = pos0 + i;
    }
    llama_batch batch = { (int32_t) n, ids.data(), nullptr, pos.data(), n_seq.data(), seqs.data(), want.data() };
    py::array_t<float> result({n, n_embd});
    run(batch, "embed", cancel.get());
    for (int64_t i = 0; i < n; ++i) {
        const float * row = llama_get_embeddings_ith(ctx_, i);
        if (!row) {
            throw std::runtime_error("embed: got no row for token " + std::to_string(i) + ", expected one");
        }
        memcpy(result.mutable_data(i), row, n_embd*sizeof(float));
    }
    return result;
}

} // namespace sb
