// What a program on libllama needs besides it: a model file by path or descriptor, llama.cpp's log as errors, memory measured
// before load, the vocabulary, sampling, spike counts. Knows no Python and no Java; prints nothing.
// Errors: std::invalid_argument, an argument; std::runtime_error, the file or llama.cpp; `cancelled`.
#pragma once

#include "llama.h"

#include "gguf.h"

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

struct ggml_spk_row;

namespace sb {

// --- log.cpp: llama.cpp's log, kept per thread instead of printed --------------------------------------------

// What this thread logs during the life of one such scope: printed when verbose, else only the errors are kept.
class log_scope {
public:
    explicit log_scope(bool verbose);
    ~log_scope();
    log_scope(const log_scope &) = delete;
    log_scope & operator=(const log_scope &) = delete;

    // the first line logged as an error, "" when there was none
    std::string errors() const;
    // the same, or that there was none
    std::string reason() const;

    void add(ggml_log_level level, const char * text);

private:
    bool                     verbose_;
    ggml_log_level           last_level_ = GGML_LOG_LEVEL_NONE;
    std::vector<std::string> errors_;
    log_scope *              outer_;
};

// Every line to a function from now on, from whatever thread logs it, and none to stderr; nullptr: as before.
void set_log_sink(ggml_log_callback call, void * data);

// Before anything else. backends_dir: where the CPU libraries lie that are loaded at run time, "" when one is linked.
// Throws when none of them runs here.
void init(const std::string & backends_dir);

// --- file.cpp: a model file --------------------------------------------------------------------------------------

using gguf_ptr  = std::unique_ptr<gguf_context, decltype(&gguf_free)>;
using overrides = std::vector<llama_model_kv_override>; // ended by an empty key, or empty

class model_file {
public:
    explicit model_file(std::string path) : path_(std::move(path)) {}
    explicit model_file(int fd); // of a regular file; stays the caller's, its position too. Throws when it is none
    ~model_file();
    model_file(const model_file &) = delete;
    model_file & operator=(const model_file &) = delete;

    gguf_ptr      header() const; // nullptr: not readable; llama.cpp then says why
    llama_model * load(const llama_model_params & params) const; // nullptr: refused, see the log
    uint64_t      size() const;

private:
    std::string path_;
    FILE *      file_     = nullptr; // of a descriptor
    int64_t     position_ = 0;
};

// --- header.cpp ---------------------------------------------------------------------------------------------------

// names of the types that the tensors of a file have
std::vector<std::string> tensor_types(const std::string & path);

// --- estimate.cpp: what a file would take, nothing allocated -----------------------------------------------------------

struct memory_use {
    uint64_t model = 0, state = 0, compute = 0; // bytes
    uint64_t cache = 0;                         // of the state: taken only as texts grow to n_ctx
    int64_t  n_vocab = 0;
};

memory_use  measure(const model_file & file, const overrides & o, const llama_context_params & params);
int64_t     missing_bytes(const model_file & file); // of a file that ends before its tensors do
std::string spike_isa(); // which integer kernels run, "" where the CPU library does not say

// --- remote.cpp: RPC servers -----------------------------------------------------------------------------------------------

// The devices of servers ("host:port"), connected to. Throws where one is malformed, not reached or of another build.
std::vector<ggml_backend_dev_t> remote_devices(const std::vector<std::string> & servers);
// Of a server that has layers of the model: what was computed with it is worth nothing.
struct lost : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// Throws where there is one.
void check_remote(const llama_model * model);

// --- fingerprint.cpp ---------------------------------------------------------------------------------------------------

// What a context's states belong to (llama_spikingbrain_print), 64 hex digits: 16 each of weights, settings, adapters, memory.
// Equal on every machine; a state fits where it is equal
std::string fingerprint(const llama_context * ctx);

// --- vocabulary.cpp ---------------------------------------------------------------------------------------------------

llama_token checked(const llama_vocab * v, llama_token id); // throws when it is none of the vocabulary's
std::vector<llama_token> tokenize(const llama_vocab * v, const std::string & text, bool add_special, bool parse_special);
bool        is_control(const llama_vocab * v, llama_token id);
std::string token_to_piece(const llama_vocab * v, llama_token id, bool special);
std::string vocab_digest_input(const llama_vocab * v); // all that makes one tokenizer differ from another, but for its merges

// tokens that are recognised as a whole before the text is split
struct added_token {
    llama_token id;
    std::string text;
    bool        control;
};
std::vector<added_token> added_tokens(const llama_vocab * v);

std::vector<std::pair<std::string, std::string>> metadata(const llama_model * m);
std::string description(const llama_model * m);

// llama.cpp's recurrent memories are left half updated by a graph that stops; `spikingbrain`'s undoes the micro-batch
bool can_stop_inside(const llama_model * m);

// --- sampling.cpp: a row of logits [n_vocab] through a chain of samplers -----------------------------------------------------

// all tokens as candidates; throws on NaN
void fill_candidates(std::vector<llama_token_data> & cur, const float * row, int32_t n_vocab);
// the chain's choice, -1: none is allowed
llama_token choose(llama_sampler * chain, std::vector<llama_token_data> & cur);

// --- spikes.cpp: counts of the spikes that the projections read -----------------------------------------------------

// One histogram of |s| per encoded input (graph node), and which weights read it. Attached to a context that asks for
// it as llama.cpp's cb_eval, which runs the graph in pieces; a context that does not has none.
class spike_collector {
public:
    static const int64_t N_BINS = 4096;

    struct input {
        std::vector<int64_t>  bins;            // of |s| < N_BINS
        int64_t               n_over      = 0; // counts above, and their set bits
        int64_t               over_spikes = 0;
        int64_t               largest     = 0;
        int64_t               n           = 0; // channels
        int64_t               n_tokens    = 0; // 0: only asked about
        int64_t               n_refused   = 0; // rows that could not be encoded: in no histogram
        int64_t               n_kept      = 0; // with keep_last: all that ever were
        std::vector<int32_t>  kept;            // counts of the first tokens and neurons
        std::set<std::string> weights;
    };

    // which experts the tokens of a layer chose, spikes or not
    struct choices {
        std::vector<int64_t> n;    // of each expert
        std::vector<int32_t> kept; // of the first tokens
        std::vector<int32_t> last; // of the tokens computed now
        std::vector<int64_t> silent, channels; // of the encoded rows of each expert's down projection, where it spikes
    };

    // keep_last: counts of the last tokens instead, the i-th at i % keep_tokens
    spike_collector(int64_t keep_tokens, int64_t keep_neurons, bool keep_last = false);
    spike_collector(const spike_collector &) = delete;

    static bool on_node(ggml_tensor * t, bool ask, void * self);

    void check(); // throws when something was left out since the last call
    void reset();
    const std::map<std::string, input>   & inputs()  const { return inputs_; }
    const std::map<std::string, choices> & experts() const { return experts_; }
    int64_t keep_neurons() const { return keep_neurons_; }

private:
    void add(const ggml_tensor * t);
    void add_choices(const ggml_tensor * t);
    choices * choices_of_rows(const ggml_tensor * t);
    const char * data_of(const ggml_tensor * t);
    void keep(input & in, const char * row, int64_t n);
    static void count(input & in, const ggml_spk_row & row, int64_t n);

    std::map<std::string, input>   inputs_;
    std::map<std::string, choices> experts_;
    std::vector<char>            copy_;
    std::vector<int32_t>         counts_;
    int64_t                      keep_tokens_;
    int64_t                      keep_neurons_;
    bool                         keep_last_;
    bool                         failed_ = false;
};

// --- decoding --------------------------------------------------------------------------------------------------------

struct cancelled : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// of llama_decode's return code: throws unless it is 0
void check_decoded(int32_t rc, const std::string & what, const log_scope & log);

} // namespace sb
