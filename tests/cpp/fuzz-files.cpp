// fuzz-files: loads each model file named on standard input as the binding does, evaluates tokens, saves and restores the sequence,
// whole, cut short and changed. For builds with sanitizers (`make sanitize`), which report; a file may be refused, nothing may crash.
// Usage: fuzz-files < LIST. Prints how many files were taken and refused.

#include "runtime.h"

#include <cstdio>
#include <iostream>
#include <string>

using model_ptr   = std::unique_ptr<llama_model,   decltype(&llama_model_free)>;
using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

static context_ptr context_of(llama_model * model) {
    auto p = llama_context_default_params();
    p.n_ctx = 64;
    p.n_batch = p.n_ubatch = 16;
    p.n_threads = p.n_threads_batch = 1;
    return { llama_init_from_model(model, p), llama_free };
}

static bool evaluate(llama_context * ctx, const llama_vocab * vocab, int n) {
    std::vector<llama_token> tokens;
    for (int i = 0; i < n; ++i) {
        tokens.push_back(i % llama_vocab_n_tokens(vocab));
    }
    return llama_decode(ctx, llama_batch_get_one(tokens.data(), n)) == 0 && llama_get_logits_ith(ctx, -1) != nullptr;
}

// the state of a sequence, restored whole, then damaged in ways that move over it
static void try_states(llama_context * ctx, const llama_vocab * vocab) {
    std::vector<uint8_t> state(llama_state_seq_get_size(ctx, 0));
    const size_t n = llama_state_seq_get_data(ctx, state.data(), state.size(), 0);
    for (size_t i = 0; i < 64; ++i) {
        auto changed = state;
        changed[i*7 % n] ^= 1 << i % 8;
        llama_state_seq_set_data(ctx, changed.data(), i % 2 ? n : n*i/64, 0);
        evaluate(ctx, vocab, 1);
    }
    llama_state_seq_set_data(ctx, state.data(), n, 0);
    evaluate(ctx, vocab, 2);
}

static bool try_file(const std::string & path) {
    const sb::model_file file(path);
    sb::log_scope log(false);
    auto params = llama_model_default_params();
    params.n_gpu_layers = 0;
    model_ptr model(file.load(params), llama_model_free);
    if (!model) {
        return false;
    }
    const auto ctx = context_of(model.get());
    const auto * vocab = llama_model_get_vocab(model.get());
    if (!ctx || !evaluate(ctx.get(), vocab, 3)) {
        return false;
    }
    try_states(ctx.get(), vocab);
    return true;
}

int main() {
    sb::init("");
    int n_taken = 0, n_refused = 0;
    for (std::string path; std::getline(std::cin, path);) {
        fprintf(stderr, "%s\n", path.c_str()); // whose report follows
        (try_file(path) ? n_taken : n_refused)++;
    }
    printf("%d taken, %d refused\n", n_taken, n_refused);
    return 0;
}
