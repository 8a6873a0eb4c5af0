// What the JNI offers, without JNI: loading, and a session, sequences of one context, each with its sampler chain.
// Errors: std::invalid_argument, std::runtime_error, cancelled. A session is used by one thread at a time, but for cancel().
#pragma once

#include "grammar.h"
#include "runtime.h"

#include <atomic>
#include <functional>

namespace sb {

// spike: 1 on, 0 off, -1 as the file says; k: NaN as the file says
overrides spike_overrides(int spike, double k);

// progress: told the share that is loaded, by this thread; false ends it, and all is freed. Throws `cancelled` then
llama_model * load_model(const model_file & file, const overrides & o, bool use_mmap, const std::function<bool(float)> & progress);

struct session_options {
    uint32_t         n_ctx; // 0: the model's own
    uint32_t         n_batch;
    uint32_t         n_ubatch;
    int32_t          n_threads;
    int32_t          n_threads_batch;
    bool             spike_stats;
    int32_t          n_seq = 1;
    std::vector<int> cpus = {}; // that computing threads stay on, of those they may use; none: anywhere
};

struct sampling_options {
    uint32_t seed;
    int32_t  top_k;
    int32_t  last_n; // tokens that the penalties look back
    float    top_p, min_p, typical_p, temperature;
    float    repeat, frequency, presence; // penalties
    std::vector<llama_logit_bias> bias;
};

// what the model thought of one token, and of the likeliest ones, falling
struct token_logprobs {
    float logprob;
    std::vector<std::pair<llama_token, float>> top;
};

llama_context_params context_params(const session_options & o);

class session {
public:
    session(llama_model * m, const session_options & o); // the model outlives it
    session(const session &) = delete;
    session & operator=(const session &) = delete;

    int32_t n_ctx() const { return llama_n_ctx(ctx_.get()); }
    int32_t step()  const; // most tokens of one decode
    const std::vector<int> & cpus() const { return held_cpus_; } // that the last decode stayed on; none: anywhere

    // n tokens of each of the sequences behind what they hold, tokens [n_seqs, n]; run: a number that grows, for cancel. A micro-batch that is
    // cancelled is undone
    void      decode(const std::vector<llama_seq_id> & seqs, const llama_token * tokens, int32_t n, int64_t run);
    void      cancel(int64_t run) { cancelled_ = run; } // from any thread: ends runs up to this one
    llama_pos last_pos(llama_seq_id seq)   const { return llama_memory_seq_pos_max(memory(), checked(seq)); } // -1: none
    llama_pos logits_pos(llama_seq_id seq) const { return slots_[checked(seq)].logits_pos; }                  // -1: none
    bool      remove_from(llama_seq_id seq, llama_pos pos);
    void      clear(llama_seq_id seq);
    void      copy(llama_seq_id from, llama_seq_id to);

    void           new_chain(llama_seq_id seq, const sampling_options & o, const grammar_options * g); // g nullptr: none
    void           accept(llama_seq_id seq, const std::vector<llama_token> & tokens);
    llama_token    choose_token(llama_seq_id seq); // and tells the grammar of it
    token_logprobs logprobs(llama_seq_id seq, llama_token token, int32_t n_top);

    std::string fingerprint() const { return sb::fingerprint(ctx_.get()); }
    size_t state_bytes() const;
    // of the first sequence
    size_t state_size();
    void   get_state(uint8_t * data, size_t size);
    void   set_state(const uint8_t * data, size_t size);
    std::vector<float> & logits() { return slots_[0].logits; } // [n_vocab], of position logits_pos
    void   set_logits(const float * row, size_t n, llama_pos pos);

    spike_collector & spikes() const; // throws when there is none

private:
    struct slot {
        std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)> chain{nullptr, llama_sampler_free};
        std::unique_ptr<sb::grammar> grammar; // beside the chain: see draw()
        std::vector<float>           logits;
        llama_pos                    logits_pos = -1;
    };

    static bool    on_abort(void * self);
    llama_memory_t memory() const { return llama_get_memory(ctx_.get()); }
    llama_seq_id   checked(llama_seq_id seq) const;
    const std::vector<float> & last_row(llama_seq_id seq) const; // throws when it is not of the last token
    int32_t        run(llama_batch & batch);

    const llama_vocab *              vocab_;
    std::unique_ptr<spike_collector> spikes_;
    std::unique_ptr<llama_context, decltype(&llama_free)> ctx_{nullptr, llama_free};
    std::vector<slot>                slots_;
    std::vector<int>                 cpus_, held_cpus_;
    std::vector<llama_token_data>    candidates_;
    std::atomic<int64_t>             run_{0};
    std::atomic<int64_t>             cancelled_{0};
};

} // namespace sb
