#include "session.h"

#include "affinity.h"
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

llama_model * load_model(const model_file & file, const overrides & o, bool use_mmap, const std::function<bool(float)> & progress) {
    struct told { const std::function<bool(float)> & progress; bool ended; } told = { progress, false };
    auto params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.load_mode    = use_mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.kv_overrides = o.empty() ? nullptr : o.data();
    if (progress) {
        params.progress_callback_user_data = &told;
        params.progress_callback = [](float share, void * data) {
            auto & t = *static_cast<struct told *>(data);
            t.ended = t.ended || !t.progress(share);
            return !t.ended;
        };
    }

    log_scope log(false);
    llama_model * m = file.load(params);
    if (told.ended) { // also where llama.cpp was told so when all was there
        llama_model_free(m);
        throw cancelled("load: got a cancel, expected none; load it again");
    }
    if (!m) {
        throw std::runtime_error(log.reason());
    }
    return m;
}

static int32_t n_step(const session_options & o) {
    const int32_t n = std::min(o.n_batch, o.n_ubatch);
    return o.spike_stats ? std::min(n, STATS_STEP) : n;
}

llama_context_params context_params(const session_options & o) {
    auto params = llama_context_default_params();
    params.n_ctx           = o.n_ctx;
    params.n_batch         = std::max<uint32_t>(o.n_batch, o.n_seq);
    params.n_ubatch        = o.n_ubatch;
    params.n_seq_max       = o.n_seq;
    params.n_outputs_max   = o.spike_stats ? std::max(n_step(o), o.n_seq) : o.n_seq;
    params.n_threads       = o.n_threads;
    params.n_threads_batch = o.n_threads_batch;
    return params;
}

session::session(llama_model * m, const session_options & o) : vocab_(llama_model_get_vocab(m)), slots_(o.n_seq), cpus_(o.cpus) {
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
    for (auto & s : slots_) {
        s.logits.resize(llama_vocab_n_tokens(vocab_));
    }
}

int32_t session::step() const {
    const int32_t n = std::min(llama_n_batch(ctx_.get()), llama_n_ubatch(ctx_.get()));
    return spikes_ ? std::min(n, STATS_STEP) : n;
}

llama_seq_id session::checked(llama_seq_id seq) const {
    if (seq < 0 || seq >= (llama_seq_id) slots_.size()) {
        throw std::invalid_argument("sequence: got " + std::to_string(seq) + ", expected 0 to " + std::to_string(slots_.size() - 1));
    }
    return seq;
}

// --- decoding ------------------------------------------------------------------------------------------------------

bool session::on_abort(void * self) {
    const auto & s = *static_cast<const session *>(self);
    return s.run_ <= s.cancelled_;
}

int32_t session::run(llama_batch & batch) {
    const on_cpus here(cpus_);
    held_cpus_ = here.held();
    const int32_t rc = llama_decode(ctx_.get(), batch);
    llama_synchronize(ctx_.get());
    return rc;
}

void session::decode(const std::vector<llama_seq_id> & seqs, const llama_token * tokens, int32_t n, int64_t run) {
    const int32_t n_all = seqs.size()*n;
    if (n < 1 || seqs.empty() || (n_all > step() && n > 1) || n_all > (int32_t) llama_n_batch(ctx_.get())) {
        throw std::invalid_argument("decode: got " + std::to_string(n_all) + " tokens, expected 1 to " + std::to_string(step()) + "; split them");
    }
    std::vector<llama_token>    ids(tokens, tokens + n_all);
    std::vector<llama_pos>      pos(n_all);
    std::vector<llama_seq_id>   seq(n_all);
    std::vector<int32_t>        n_seq(n_all, 1);
    std::vector<llama_seq_id *> seq_of(n_all);
    std::vector<int8_t>         want(n_all, spikes_ != nullptr); // llama.cpp leaves tokens without output out of the last layer's MLP
    for (int32_t i = 0; i < n_all; ++i) {
        sb::checked(vocab_, ids[i]);
        seq[i]    = seqs[i/n];
        seq_of[i] = &seq[i];
        pos[i]    = i % n == 0 ? last_pos(seq[i]) + 1 : pos[i - 1] + 1;
        want[i]   = want[i] || i % n == n - 1;
        if (pos[i] == INT32_MAX) {
            throw std::invalid_argument("decode: position: got 2^31 - 1, expected less; reset");
        }
    }
    llama_batch batch = { n_all, ids.data(), nullptr, pos.data(), n_seq.data(), seq_of.data(), want.data() };

    for (const auto s : seqs) {
        slots_[s].logits_pos = -1;
    }
    run_ = run;
    log_scope log(false);
    const int32_t rc = on_abort(this) ? 2 : this->run(batch);
    if (rc == 2) {
        throw cancelled("decode: got a cancel, expected none; call again to go on");
    }
    if (spikes_) {
        spikes_->check();
    }
    check_decoded(rc, "decode", log);
    for (size_t i = 0; i < seqs.size(); ++i) {
        const float * row = llama_get_logits_ith(ctx_.get(), (i + 1)*n - 1);
        if (!row) {
            throw std::runtime_error("decode: logits: got none for the last token, expected a row");
        }
        auto & s = slots_[seqs[i]];
        std::copy(row, row + s.logits.size(), s.logits.begin());
        s.logits_pos = pos[(i + 1)*n - 1];
    }
}

bool session::remove_from(llama_seq_id seq, llama_pos pos) {
    log_scope log(false);
    const bool removed = llama_memory_seq_rm(memory(), checked(seq), pos, -1);
    slots_[seq].logits_pos = removed ? -1 : slots_[seq].logits_pos;
    return removed;
}

void session::clear(llama_seq_id seq) {
    slots_[checked(seq)].logits_pos = -1;
    if (slots_.size() == 1) {
        llama_memory_clear(memory(), true);
    } else {
        llama_memory_seq_rm(memory(), seq, -1, -1);
    }
}

void session::copy(llama_seq_id from, llama_seq_id to) {
    log_scope log(false);
    clear(to);
    llama_memory_seq_cp(memory(), checked(from), to, -1, -1);
    slots_[to].logits     = slots_[from].logits;
    slots_[to].logits_pos = slots_[from].logits_pos;
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
    slots_[0].logits_pos = -1;
    const size_t n = llama_state_seq_set_data_ext(ctx_.get(), data, size, 0, 0);
    if (n == 0 || n != size) {
        throw std::runtime_error("got " + std::to_string(n) + " bytes taken, expected " + std::to_string(size) + "; " + log.reason());
    }
}

void session::set_logits(const float * row, size_t n, llama_pos pos) {
    auto & s = slots_[0];
    if (n != s.logits.size()) {
        throw std::invalid_argument("logits: got " + std::to_string(n) + ", expected " + std::to_string(s.logits.size()));
    }
    memcpy(s.logits.data(), row, n*sizeof(float));
    s.logits_pos = pos;
}

spike_collector & session::spikes() const {
    if (!spikes_) {
        throw std::runtime_error("spike_stats: got a session made without them, expected spike_stats; make it so");
    }
    return *spikes_;
}

} // namespace sb
