// spikingbrain_cpp._core: handles on llama.cpp's model, context and sampler chain.
//
// Thin by rule: no policy, no printing; what knows no Python lies in cpp_backend/runtime. Everything llama.cpp would answer with an
// abort is checked here or there and becomes a C++ exception; everything long runs with the GIL released.
// Errors: std::invalid_argument -> ValueError, std::out_of_range -> IndexError, std::runtime_error -> RuntimeError.
#pragma once

#include "llama-spikingbrain.h"
#include "runtime.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif

namespace py = pybind11;

namespace sb {

// --- owned.cpp: a handle is usable by one thread at a time, in the process that made it ---------------

#ifdef _WIN32
inline int process() { return _getpid(); }
#else
inline int process() { return getpid(); }
#endif

class owned {
public:
    bool foreign() const { return process() != pid_; }

    // held for the length of one call; refuses a closed handle, a forked child and a second thread
    class use {
    public:
        use(const owned & o, const char * what, bool open);
        ~use();
        use(const use &) = delete;
        use & operator=(const use &) = delete;
    private:
        const owned & o_;
    };

private:
    int                       pid_ = process();
    mutable std::atomic<bool> busy_{false};
};

// --- model.cpp: a model and its vocabulary -------------------------------------------------------------------

using tokens_in = py::array_t<llama_token, py::array::c_style>; // int32 [n]

class model {
public:
    model(const std::string & path, bool vocab_only, bool use_mmap, bool use_mlock, bool check_tensors,
          const py::dict & kv_overrides, bool verbose, const std::vector<std::string> & rpc_servers, int32_t n_gpu_layers);
    ~model();

    void close(); // refused while a context is open, or a call without the GIL uses it
    bool closed() const { return !model_; }
    owned::use in_use(const char * what) const { return owned::use(owner_, what, model_ != nullptr); } // held by such a call
    const llama_model * get() const;   // throws when closed or forked
    llama_model *       get();
    const llama_vocab * vocab() const;

    bool vocab_only() const { return vocab_only_; }
    bool verbose()    const { return verbose_; }

    py::dict               metadata() const;
    std::string            desc() const;
    py::object             chat_template(const py::object & name) const;
    py::bytes              token_text(llama_token id) const;
    py::bytes              token_to_piece(llama_token id, bool special) const;
    std::vector<llama_token> tokenize(const std::string & text, bool add_special, bool parse_special) const;
    py::bytes              detokenize(const tokens_in & tokens, bool remove_special, bool unparse_special) const;
    // (id, text, is control) of all tokens that are recognised as a whole before the text is split
    py::list               added_tokens() const;
    llama_token            checked(llama_token id) const;

private:
    llama_model * model_ = nullptr;
    bool          vocab_only_;
    bool          verbose_;
    owned         owner_;

public:
    std::atomic<int> n_contexts{0}; // open ones
};

// --- adapter.cpp: LoRA ------------------------------------------------------------------------------------------

class adapter {
public:
    adapter(std::shared_ptr<model> m, const std::string & path);
    ~adapter();
    adapter(const adapter &) = delete;

    llama_adapter_lora * get() const { return adapter_; }

private:
    std::shared_ptr<model> model_;
    llama_adapter_lora *   adapter_ = nullptr;
    owned                  owner_;
};

// --- context.cpp: a context: sequences, decoding, state -------------------------------------------------------

// asked for in any thread, seen between two nodes of a graph that is being computed
class cancel_token {
public:
    void cancel()          { set_ = true; }
    bool cancelled() const { return set_; }
private:
    std::atomic<bool> set_{false};
};

struct context_options {
    uint32_t n_ctx;          // 0: the model's own
    uint32_t n_batch;
    uint32_t n_ubatch;
    uint32_t n_seq_max;
    uint32_t n_rs_seq;       // tokens at the end of a sequence that can be taken back; 0: the memory's own
    uint32_t n_outputs_max;  // rows of logits one call may ask for
    int32_t  n_threads;
    int32_t  n_threads_batch;
    bool     kv_unified;
    int32_t  type_k;         // ggml_type, -1: llama.cpp's default
    int32_t  type_v;
    bool     spike_stats;    // count spikes; every token is then computed to the last layer's end
    int64_t  spike_keep_tokens;  // counts to keep: of the first tokens
    int64_t  spike_keep_neurons; // and the first neurons of each
    bool     embeddings;     // embed() instead of decode(): the last norm's output of every token
    int32_t  flash_attn;     // llama_flash_attn_type
    bool     stop_inside;    // a cancel may stop a graph half way: the memory can undo a micro-batch
};

// arrays of one length, and the llama_batch of them
struct sequences_batch {
    std::vector<llama_token>    ids;
    std::vector<llama_pos>      pos;
    std::vector<llama_seq_id>   seq;
    std::vector<int8_t>         want;  // rows of logits
    std::vector<int32_t>        n_seq;
    std::vector<llama_seq_id *> seqs;
    int64_t                     n_out = 0;
    llama_batch                 batch = {};

    sequences_batch() = default;
    sequences_batch(sequences_batch &&) = default; // the arrays stay where they are
};

class context {
public:
    context(std::shared_ptr<model> m, const context_options & o);
    ~context();

    void close();
    bool closed() const { return !ctx_; }

    uint32_t n_ctx()   const;
    uint32_t n_batch() const;
    uint32_t n_ubatch() const;
    uint32_t n_seq_max() const;
    uint32_t n_rs_seq() const; // 0: the memory bounds nothing, or can take back nothing

    // tokens of one sequence at positions pos0, pos0 + 1, ...; logits of all of them into rows [n, n_vocab] or, when
    // rows is None, of the last one only. Afterwards logits() is the last token's row.
    // cancel: a token that stops it, by throwing `cancelled`; micro-batches that were finished stay
    void decode(const tokens_in & tokens, llama_pos pos0, llama_seq_id seq, const py::object & rows,
                std::shared_ptr<cancel_token> cancel);
    // any batch: arrays of the same length n; returns the logits of the tokens with want != 0, [n_want, n_vocab]
    py::array_t<float> decode_batch(const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq,
                                    const py::array_t<int8_t, py::array::c_style> & want,
                                    std::shared_ptr<cancel_token> cancel);
    // any batch, as decode_batch; of each target the log probability in the row of logits of token rows[i] of the batch (the token
    // before it), and the likeliest token there: (float64 [n_targets], int32 [n_targets]). No row is copied
    py::tuple score(const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq, const tokens_in & rows,
                    const tokens_in & targets, std::shared_ptr<cancel_token> cancel);
    // tokens of sequence 0 -> [n, n_embd]; needs `embeddings`
    py::array_t<float> embed(const tokens_in & tokens, llama_pos pos0, std::shared_ptr<cancel_token> cancel);
    void set_adapters(const std::vector<std::pair<std::shared_ptr<adapter>, float>> & adapters);

    // float32 [n_vocab], a view: logits of the last token that decode() finished; NaN when something else happened since
    py::array_t<float> logits(const py::object & self);
    llama_pos          logits_pos() const { return logits_pos_; } // its position, -1: there are none
    void               set_logits(const py::array_t<float, py::array::c_style> & row, llama_pos pos);

    void      clear();
    bool      seq_rm  (llama_seq_id seq, llama_pos p0, llama_pos p1);
    void      seq_cp  (llama_seq_id src, llama_seq_id dst);
    void      seq_keep(llama_seq_id seq);
    llama_pos seq_pos_min(llama_seq_id seq) const;
    llama_pos seq_pos_max(llama_seq_id seq) const;

    py::list  spike_stats() const;
    py::list  expert_stats() const;
    void      reset_spike_stats();

    std::string fingerprint() const; // of what its states belong to, see runtime.h
    size_t    state_bytes() const; // allocated for the memory of all sequences
    size_t    state_size(llama_seq_id seq, uint32_t flags);
    py::bytes state_get (llama_seq_id seq, uint32_t flags);
    size_t    state_set (const py::bytes & data, llama_seq_id seq, uint32_t flags);

private:
    spike_collector & spikes(const char * what) const;
    void check_seq(llama_seq_id seq) const;
    void check_tokens(const tokens_in & tokens) const;
    sequences_batch checked_batch(const char * what, const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq,
                                  const int8_t * want, int64_t n_want) const;
    void run(llama_batch & batch, const char * what, const cancel_token * cancel = nullptr);
    static bool on_abort(void * self);
    llama_memory_t memory() const { return llama_get_memory(ctx_); }

    std::shared_ptr<model> model_;
    llama_context *        ctx_ = nullptr;
    uint32_t               n_outputs_max_;
    bool                   embeddings_;
    std::vector<std::shared_ptr<adapter>> adapters_;
    std::atomic<const cancel_token *>     cancel_{nullptr}; // of the call that runs
    std::vector<float>     logits_;
    std::unique_ptr<spike_collector> spikes_;
    llama_pos              logits_pos_ = -1;
    owned                  owner_;
};

overrides read_overrides(const py::dict & dict); // model.cpp

// --- sampler.cpp: upstream's sampler chain ----------------------------------------------------------------------

class grammar; // grammar.h
struct grammar_options;

class sampler {
public:
    explicit sampler(std::shared_ptr<model> m);
    ~sampler();

    void add(llama_sampler * s, const char * what); // takes ownership
    void add_logit_bias(const std::vector<std::pair<llama_token, float>> & bias);
    void add_penalties(int32_t last_n, float repeat, float freq, float present);
    void add_mirostat(uint32_t seed, float tau, float eta, int32_t m);
    void set_grammar(const grammar_options & o);
    void accept_grammar(llama_token id); // a token that was chosen

    std::vector<std::string> names() const;
    void        accept(const tokens_in & tokens);
    void        reset();
    llama_token sample(const py::array_t<float, py::array::c_style> & logits);

private:
    std::shared_ptr<model>        model_;
    llama_sampler *               chain_;
    std::unique_ptr<grammar>      grammar_; // beside the chain: see sample()
    std::vector<llama_token_data> cur_;
    owned                         owner_;
};

// --- constants.cpp --------------------------------------------------------------------------------------------------

py::dict constants();
bool numa_init(int32_t strategy);

// --- chat.cpp: upstream's Jinja engine ----------------------------------------------------------------------------

std::string render_template(const std::string & source, const std::string & variables_json);

void bind_chat(py::module_ & m); // chat_tools.cpp: chat templates with tools, parsing of answers, schemas to grammars

} // namespace sb
