// What the JNI offers, without JNI: loading, chat templates, and a session, one sequence with its sampler chain.
// Errors: std::invalid_argument, std::runtime_error, cancelled. A session is used by one thread at a time, but for cancel().
#pragma once

#include "runtime.h"

#include <atomic>

namespace sb {

// spike: 1 on, 0 off, -1 as the file says; k: NaN as the file says
overrides spike_overrides(int spike, double k);

llama_model * load_model(const model_file & file, const overrides & o, bool use_mmap);

// messages: roles and contents in turn. The prompt, then the stop strings that the template asks for
std::vector<std::string> apply_chat_template(const llama_model * m, const std::vector<std::string> & messages, bool add_generation_prompt);

struct session_options {
    uint32_t n_ctx; // 0: the model's own
    uint32_t n_batch;
    uint32_t n_ubatch;
    int32_t  n_threads;
    int32_t  n_threads_batch;
    bool     spike_stats;
};

struct sampling_options {
    uint32_t seed;
    int32_t  top_k;
    float    top_p;
    float    min_p;
    float    temperature;
    float    repeat_penalty;
    int32_t  last_n;
};

llama_context_params context_params(const session_options & o);

class session {
public:
    session(llama_model * m, const session_options & o); // the model outlives it
    session(const session &) = delete;
    session & operator=(const session &) = delete;

    int32_t n_ctx() const { return llama_n_ctx(ctx_.get()); }
    int32_t step()  const; // most tokens of one decode

    // tokens [n] at positions pos0, ...; run: a number that grows, for cancel. A micro-batch that is cancelled is undone
    void      decode(const llama_token * tokens, int32_t n, llama_pos pos0, int64_t run);
    void      cancel(int64_t run) { cancelled_ = run; } // from any thread: ends runs up to this one
    llama_pos last_pos()   const { return llama_memory_seq_pos_max(memory(), 0); } // -1: none
    llama_pos logits_pos() const { return logits_pos_; }                           // -1: none
    bool      remove_from(llama_pos pos);
    void      clear();

    void        new_chain(const sampling_options & o);
    void        accept(const std::vector<llama_token> & tokens);
    llama_token choose_token();

    std::string fingerprint() const { return sb::fingerprint(ctx_.get()); }
    size_t state_bytes() const;
    size_t state_size();
    void   get_state(uint8_t * data, size_t size);
    void   set_state(const uint8_t * data, size_t size);
    std::vector<float> & logits() { return logits_; } // [n_vocab], of position logits_pos
    void   set_logits(const float * row, size_t n, llama_pos pos);

    spike_collector & spikes() const; // throws when there is none

private:
    static bool    on_abort(void * self);
    llama_memory_t memory() const { return llama_get_memory(ctx_.get()); }

    const llama_vocab *              vocab_;
    std::unique_ptr<spike_collector> spikes_;
    std::unique_ptr<llama_context, decltype(&llama_free)>         ctx_{nullptr, llama_free};
    std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)> chain_{nullptr, llama_sampler_free};
    std::vector<float>               logits_;
    llama_pos                        logits_pos_ = -1;
    std::vector<llama_token_data>    candidates_;
    std::atomic<int64_t>             run_{0};
    std::atomic<int64_t>             cancelled_{0};
};

} // namespace sb
