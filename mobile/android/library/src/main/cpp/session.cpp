#include "session.h"

#include "chat.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sb {

static const int32_t STATS_STEP = 64; // tokens per decode while spikes are counted: each then has a row of logits in llama.cpp's buffer

static llama_model_kv_override override_of(const char * key, llama_model_kv_override_type tag) {
    llama_model_kv_override o = {};
    strncpy(o.key, key, sizeof(o.key) - 1);
    o.tag = tag;
    return o;
}

overrides spike_overrides(int spike, double k) {
    overrides out;
    if (spike >= 0) {
        out.push_back(override_of("spikingbrain.spike.enable", LLAMA_KV_OVERRIDE_TYPE_BOOL));
        out.back().val_bool = spike > 0;
    }
    if (!std::isnan(k)) {
        out.push_back(override_of("spikingbrain.spike.k", LLAMA_KV_OVERRIDE_TYPE_FLOAT));
        out.back().val_f64 = k;
    }
    if (!out.empty()) {
        out.push_back({}); // the empty key ends the list
    }
    return out;
}

llama_model * load_model(const model_file & file, const overrides & o, bool use_mmap) {
    auto params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.load_mode    = use_mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.kv_overrides = o.empty() ? nullptr : o.data();

    log_scope log(false);
    llama_model * m = file.load(params);
    if (!m) {
        throw std::runtime_error(log.reason());
    }
    return m;
}

std::vector<std::string> apply_chat_template(const llama_model * m, const std::vector<std::string> & messages, bool add_generation_prompt) {
    if (!llama_model_chat_template(m, nullptr)) {
        throw std::runtime_error("chat template: got none in the model file, expected tokenizer.chat_template; convert the model again");
    }
    common_chat_templates_inputs in;
    for (size_t i = 0; i + 1 < messages.size(); i += 2) {
        common_chat_msg message;
        message.role    = messages[i];
        message.content = messages[i + 1];
        in.messages.push_back(std::move(message));
    }
    in.add_generation_prompt = add_generation_prompt;
    in.force_pure_content    = true;
    in.use_jinja             = true;
    try {
        const auto templates = common_chat_templates_init(m, "");
        const auto p = common_chat_templates_apply(templates.get(), in);
        std::vector<std::string> out = { p.prompt };
        out.insert(out.end(), p.additional_stops.begin(), p.additional_stops.end());
        return out;
    } catch (const std::exception & e) { // all it says is about the messages
        throw std::invalid_argument(std::string("chat template: ") + e.what());
    }
}

static int32_t n_step(const session_options & o) {
    const int32_t n = std::min(o.n_batch, o.n_ubatch);
    return o.spike_stats ? std::min(n, STATS_STEP) : n;
}

llama_context_params context_params(const session_options & o) {
    auto params = llama_context_default_params();
    params.n_ctx           = o.n_ctx;
    params.n_batch         = o.n_batch;
    params.n_ubatch        = o.n_ubatch;
    params.n_seq_max       = 1;
    params.n_outputs_max   = o.spike_stats ? n_step(o) : 1;
    params.n_threads       = o.n_threads;
    params.n_threads_batch = o.n_threads_batch;
    return params;
}

session::session(llama_model * m, const session_options & o) : vocab_(llama_model_get_vocab(m)) {
    auto params = context_params(o);
    if (can_stop_inside(m)) {
        params.abort_callback      = on_abort;
        params.abort_callback_data = this;
    }
    if (o.spike_stats) {
        spikes_ = std::make_unique<spike_collector>(0, 0);
        params.cb_eval           = spike_collector::on_node;
        params.cb_eval_user_data = spikes_.get();
    }
    log_scope log(false);
    ctx_.reset(llama_init_from_model(m, params));
    if (!ctx_) {
        throw std::runtime_error("session: got a refusal from llama.cpp: " + log.reason() + "; change the options");
    }
    if (!memory()) {
        throw std::runtime_error("session: got a model without a decoder's memory, expected one that generates text");
    }
    logits_.resize(llama_vocab_n_tokens(vocab_));
}

int32_t session::step() const {
    const int32_t n = std::min(llama_n_batch(ctx_.get()), llama_n_ubatch(ctx_.get()));
    return spikes_ ? std::min(n, STATS_STEP) : n;
}

bool session::on_abort(void * self) {
    const auto & s = *static_cast<const session *>(self);
    return s.run_ <= s.cancelled_;
}

void session::decode(const llama_token * tokens, int32_t n, llama_pos pos0, int64_t run) {
    if (n < 1 || n > step() || pos0 < 0 || pos0 > INT32_MAX - n) {
        throw std::invalid_argument("decode: got " + std::to_string(n) + " tokens at " + std::to_string(pos0) + ", expected 1 to " +
            std::to_string(step()) + " at less than 2^31; split them");
    }
    std::vector<llama_token>    ids(tokens, tokens + n);
    std::vector<llama_pos>      pos(n);
    llama_seq_id                seq = 0;
    std::vector<int32_t>        n_seq(n, 1);
    std::vector<llama_seq_id *> seqs(n, &seq);
    std::vector<int8_t>         want(n, spikes_ != nullptr); // llama.cpp leaves tokens without output out of the last layer's MLP
    for (int32_t i = 0; i < n; ++i) {
        checked(vocab_, ids[i]);
        pos[i] = pos0 + i;
    }
    want.back() = 1;
    llama_batch batch = { n, ids.data(), nullptr, pos.data(), n_seq.data(), seqs.data(), want.data() };

    logits_pos_ = -1;
    run_ = run;
    log_scope log(false);
    int32_t rc = 2;
    if (!on_abort(this)) {
        rc = llama_decode(ctx_.get(), batch);
        llama_synchronize(ctx_.get());
    }
    if (rc == 2) {
        throw cancelled("decode: got a cancel, expected none; call again to go on");
    }
    if (spikes_) {
        spikes_->check();
    }
    check_decoded(rc, "decode", log);
    const float * row = llama_get_logits_ith(ctx_.get(), n - 1);
    if (!row) {
        throw std::runtime_error("decode: logits: got none for the last token, expected a row");
    }
    std::copy(row, row + logits_.size(), logits_.begin());
    logits_pos_ = pos0 + n - 1;
}

bool session::remove_from(llama_pos pos) {
    log_scope log(false);
    const bool removed = llama_memory_seq_rm(memory(), 0, pos, -1);
    logits_pos_ = removed ? -1 : logits_pos_;
    return removed;
}

void session::clear() {
    logits_pos_ = -1;
    llama_memory_clear(memory(), true);
}

// --- choosing a token: as build_chain() of bindings/spikingbrain_cpp/sampling.py ------------------------------------

void session::new_chain(const sampling_options & o) {
    chain_.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    const auto add = [&](llama_sampler * s) {
        if (!s) {
            throw std::invalid_argument("sampler: got values llama.cpp refuses, expected others");
        }
        llama_sampler_chain_add(chain_.get(), s);
    };
    add(llama_sampler_init_penalties(llama_vocab_n_tokens(vocab_), o.last_n, o.repeat_penalty, 0.0f, 0.0f));
    if (o.temperature == 0.0f) {
        add(llama_sampler_init_greedy());
        return;
    }
    if (o.temperature > 0.0f) { // below, the field's meaning is the untouched distribution
        add(llama_sampler_init_top_k(o.top_k));
        add(llama_sampler_init_top_p(o.top_p, 1));
        add(llama_sampler_init_min_p(o.min_p, 1));
        add(llama_sampler_init_temp(o.temperature));
    }
    add(llama_sampler_init_dist(o.seed));
}

void session::accept(const std::vector<llama_token> & tokens) {
    for (const llama_token t : tokens) {
        llama_sampler_accept(chain_.get(), checked(vocab_, t));
    }
}

llama_token session::choose_token() {
    if (!chain_ || logits_pos_ < 0 || logits_pos_ != last_pos()) {
        throw std::runtime_error("sample: logits: got none for the last token, expected a row; eval a token");
    }
    log_scope log(false);
    fill_candidates(candidates_, logits_.data(), logits_.size());
    const llama_token id = choose(chain_.get(), candidates_);
    if (id < 0) {
        throw std::runtime_error("sample: logits: got -inf for every token, expected one that is allowed");
    }
    return id;
}

// --- state ---------------------------------------------------------------------------------------------------------

size_t session::state_bytes() const { return llama_spikingbrain_state_bytes(ctx_.get()); }

size_t session::state_size() {
    log_scope log(false);
    return llama_state_seq_get_size_ext(ctx_.get(), 0, 0);
}

void session::get_state(uint8_t * data, size_t size) {
    log_scope log(false);
    const size_t n = llama_state_seq_get_data_ext(ctx_.get(), data, size, 0, 0);
    if (n != size) {
        throw std::runtime_error("snapshot: got " + std::to_string(n) + " bytes of state, expected " + std::to_string(size) + "; " + log.reason());
    }
}

void session::set_state(const uint8_t * data, size_t size) {
    log_scope log(false);
    logits_pos_ = -1;
    const size_t n = llama_state_seq_set_data_ext(ctx_.get(), data, size, 0, 0);
    if (n == 0 || n != size) {
        throw std::runtime_error("got " + std::to_string(n) + " bytes taken, expected " + std::to_string(size) + "; " + log.reason());
    }
}

void session::set_logits(const float * row, size_t n, llama_pos pos) {
    if (n != logits_.size()) {
        throw std::invalid_argument("logits: got " + std::to_string(n) + ", expected " + std::to_string(logits_.size()));
    }
    memcpy(logits_.data(), row, n*sizeof(float));
    logits_pos_ = pos;
}

spike_collector & session::spikes() const {
    if (!spikes_) {
        throw std::runtime_error("spike_stats: got a session made without them, expected spike_stats; make it so");
    }
    return *spikes_;
}

} // namespace sb
