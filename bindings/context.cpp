#include "core.h"

#include <cmath>
#include <cstring>

namespace sb {

static void check_cache_type(const char * name, int32_t type) {
    if (type == -1) {
        return;
    }
    if (type < 0 || type >= GGML_TYPE_COUNT || ggml_get_type_traits((ggml_type) type)->blck_size < 1) {
        throw std::invalid_argument(std::string("context: ") + name + ": got " + std::to_string(type) +
            ", expected a ggml type: 0 (F32), 1 (F16) or another that the model's memory supports");
    }
}

static void check_range(const char * name, int64_t got, int64_t lo, int64_t hi) {
    if (got < lo || got > hi) {
        throw std::invalid_argument(std::string("context: ") + name + ": got " + std::to_string(got) + ", expected " +
            std::to_string(lo) + " to " + std::to_string(hi));
    }
}

context::context(std::shared_ptr<model> m, const context_options & o)
    : model_(std::move(m)), n_outputs_max_(o.n_outputs_max), embeddings_(o.embeddings) {
    llama_model * handle = model_->get();
    if (model_->vocab_only()) {
        throw std::invalid_argument("context: got a model loaded with vocab_only, expected one with weights; "
            "load it without vocab_only");
    }
    check_range("n_batch",         o.n_batch,         1, INT32_MAX);
    check_range("n_ubatch",        o.n_ubatch,        1, INT32_MAX);
    check_range("n_seq_max",       o.n_seq_max,       1, llama_max_parallel_sequences());
    check_range("n_threads",       o.n_threads,       1, GGML_MAX_N_THREADS);
    check_range("n_threads_batch", o.n_threads_batch, 1, GGML_MAX_N_THREADS);
    check_range("n_rs_seq",        o.n_rs_seq,        0, INT32_MAX);
    check_range("n_outputs_max",   o.n_outputs_max,   o.n_seq_max, INT32_MAX);
    check_cache_type("type_k", o.type_k);
    check_cache_type("type_v", o.type_v);
    check_range("spike_keep_tokens",  o.spike_keep_tokens,  0, INT32_MAX);
    check_range("spike_keep_neurons", o.spike_keep_neurons, 0, INT32_MAX);
    check_range("flash_attn", o.flash_attn, LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_ENABLED);

    auto params = llama_context_default_params();
    params.n_ctx           = o.n_ctx;
    params.n_batch         = o.n_batch;
    params.n_ubatch        = o.n_ubatch;
    params.n_seq_max       = o.n_seq_max;
    params.n_rs_seq        = o.n_rs_seq;
    params.n_outputs_max   = o.n_outputs_max;
    params.n_threads       = o.n_threads;
    params.n_threads_batch = o.n_threads_batch;
    params.kv_unified      = o.kv_unified;
    params.type_k          = o.type_k == -1 ? params.type_k : (ggml_type) o.type_k;
    params.type_v          = o.type_v == -1 ? params.type_v : (ggml_type) o.type_v;

    params.flash_attn_type = (llama_flash_attn_type) o.flash_attn;
    params.embeddings      = o.embeddings;
    if (o.embeddings) {
        params.pooling_type = LLAMA_POOLING_TYPE_NONE;
    }
    if (o.stop_inside) {
        params.abort_callback      = on_abort;
        params.abort_callback_data = this;
    }

    if (o.spike_stats) {
        spikes_ = std::make_unique<spike_collector>(o.spike_keep_tokens, o.spike_keep_neurons);
        params.cb_eval           = spike_collector::on_node;
        params.cb_eval_user_data = spikes_.get();
    }

    log_scope log(model_->verbose());
    {
        py::gil_scoped_release nogil;
        ctx_ = llama_init_from_model(handle, params);
    }
    if (!ctx_) {
        check_remote(handle);
        throw std::runtime_error(log.reason());
    }
    ++model_->n_contexts;
    if (!memory()) {
        close();
        throw std::runtime_error("context: got a model without a decoder's memory, expected one that generates text");
    }
    n_outputs_max_ = std::min(n_outputs_max_, llama_n_batch(ctx_)); // a small n_ctx lowers n_batch
    n_outputs_max_ = std::max(n_outputs_max_, o.n_seq_max);
    logits_.assign(llama_vocab_n_tokens(model_->vocab()), 0.0f);
}

context::~context() {
    try {
        close();
    } catch (const std::exception &) {
        // busy in another thread, which cannot be: that thread holds a reference
    }
}

void context::close() {
    if (!ctx_) {
        return;
    }
    if (!owner_.foreign()) { // in a forked child the memory is the parent's: left alone
        owned::use use(owner_, "context", true);
        llama_free(ctx_);
    }
    --model_->n_contexts;
    ctx_ = nullptr;
    logits_pos_ = -1;
}

#define SB_USE(what) owned::use use_(owner_, what, ctx_ != nullptr)

uint32_t context::n_ctx()     const { SB_USE("n_ctx");     return llama_n_ctx(ctx_); }
uint32_t context::n_batch()   const { SB_USE("n_batch");   return llama_n_batch(ctx_); }
uint32_t context::n_ubatch()  const { SB_USE("n_ubatch");  return llama_n_ubatch(ctx_); }
uint32_t context::n_seq_max() const { SB_USE("n_seq_max"); return llama_n_seq_max(ctx_); }
uint32_t context::n_rs_seq()  const { SB_USE("n_rs_seq");  return llama_n_rs_seq(ctx_); }

void context::check_seq(llama_seq_id seq) const {
    const int32_t n = llama_n_seq_max(ctx_);
    if (seq < 0 || seq >= n) {
        throw std::invalid_argument("sequence: got " + std::to_string(seq) + ", expected 0 to " +
            std::to_string(n - 1) + "; raise n_seq_max");
    }
}

void context::check_tokens(const tokens_in & tokens) const {
    const int64_t n = tokens.size();
    if (tokens.ndim() != 1 || n < 1 || n > llama_n_batch(ctx_)) {
        throw std::invalid_argument("decode: tokens: got " + std::to_string(n) + ", expected 1 to n_batch=" +
            std::to_string(llama_n_batch(ctx_)) + "; split them");
    }
    for (int64_t i = 0; i < n; ++i) {
        model_->checked(tokens.data()[i]);
    }
}

bool context::on_abort(void * self) {
    const cancel_token * cancel = static_cast<context *>(self)->cancel_;
    return cancel && cancel->cancelled();
}

// llama_decode without the GIL; throws with llama.cpp's own last words
void context::run(llama_batch & batch, const char * what, const cancel_token * cancel) {
    int32_t rc = 2;
    log_scope log(model_->verbose());
    if (!cancel || !cancel->cancelled()) {
        py::gil_scoped_release nogil;
        cancel_ = cancel;
        rc = llama_decode(ctx_, batch);
        llama_synchronize(ctx_);
        cancel_ = nullptr;
    }
    if (rc == 2) {
        throw cancelled(std::string(what) + ": got a cancel, expected none; call again to go on");
    }
    if (spikes_) {
        spikes_->check();
    }
    check_decoded(rc, what, log);
}

void context::decode(const tokens_in & tokens, llama_pos pos0, llama_seq_id seq, const py::object & rows,
                     std::shared_ptr<cancel_token> cancel) {
    SB_USE("decode");
    check_tokens(tokens);
    check_seq(seq);
    const int64_t n       = tokens.size();
    const int64_t n_vocab = logits_.size();
    if (pos0 < 0 || pos0 > INT32_MAX - n) {
        throw std::invalid_argument("decode: position: got " + std::to_string(pos0) + " and " + std::to_string(n) +
            " tokens, expected less than 2^31; reset");
    }

    float * out = nullptr;
    if (!rows.is_none()) {
        if (!py::isinstance<py::array_t<float, py::array::c_style>>(rows)) {
            throw std::invalid_argument("decode: rows: got another type, expected float32 in row order");
        }
        auto array = py::reinterpret_borrow<py::array_t<float, py::array::c_style>>(rows);
        if (array.ndim() != 2 || array.shape(0) != n || array.shape(1) != n_vocab) {
            throw std::invalid_argument("decode: rows: got another shape, expected [" + std::to_string(n) + ", " +
                std::to_string(n_vocab) + "]");
        }
        out = array.mutable_data(); // throws when read-only
    }
    const bool all = out || spikes_; // llama.cpp leaves tokens without output out of the last layer's MLP
    if (all && n > n_outputs_max_) {
        throw std::invalid_argument("decode: rows: got " + std::to_string(n) + ", expected at most n_outputs_max=" +
            std::to_string(n_outputs_max_));
    }

    std::vector<llama_token>    ids(tokens.data(), tokens.data() + n);
    std::vector<llama_pos>      pos(n);
    std::vector<int32_t>        n_seq(n, 1);
    std::vector<llama_seq_id *> seqs(n, &seq);
    std::vector<int8_t>         want(n, all);
    for (int64_t i = 0; i < n; ++i) {
        pos[i] = pos0 + i;
    }
    want.back() = 1;
    llama_batch batch = { (int32_t) n, ids.data(), nullptr, pos.data(), n_seq.data(), seqs.data(), want.data() };

    logits_pos_ = -1;
    run(batch, "decode", cancel.get());
    for (int64_t i = out ? 0 : n - 1; i < n; ++i) {
        const float * row = llama_get_logits_ith(ctx_, i);
        if (!row) {
            throw std::runtime_error("decode: logits: got none for token " + std::to_string(i) + ", expected a row");
        }
        if (out) {
            memcpy(out + i*n_vocab, row, n_vocab*sizeof(float));
        }
        if (i == n - 1) {
            memcpy(logits_.data(), row, n_vocab*sizeof(float));
        }
    }
    logits_pos_ = pos0 + n - 1;
}

sequences_batch context::checked_batch(const char * what, const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq,
                                       const int8_t * want, int64_t n_want) const {
    check_tokens(tokens);
    const int64_t n = tokens.size();
    if (pos.size() != n || seq.size() != n || n_want != n) {
        throw std::invalid_argument(std::string(what) + ": got arrays of different lengths, expected " + std::to_string(n) + " each");
    }
    sequences_batch out;
    out.ids.assign(tokens.data(), tokens.data() + n);
    out.pos.assign(pos.data(), pos.data() + n);
    out.seq.assign(seq.data(), seq.data() + n);
    out.want.assign(want, want + n);
    out.n_seq.assign(n, 1);
    out.seqs.resize(n);
    for (int64_t i = 0; i < n; ++i) {
        check_seq(out.seq[i]);
        if (out.pos[i] < 0) {
            throw std::invalid_argument(std::string(what) + ": position: got " + std::to_string(out.pos[i]) + ", expected >= 0");
        }
        out.seqs[i] = &out.seq[i];
        out.n_out += want[i] != 0;
    }
    if (out.n_out > n_outputs_max_) {
        throw std::invalid_argument(std::string(what) + ": outputs: got " + std::to_string(out.n_out) +
            ", expected at most n_outputs_max=" + std::to_string(n_outputs_max_));
    }
    out.batch = { (int32_t) n, out.ids.data(), nullptr, out.pos.data(), out.n_seq.data(), out.seqs.data(), out.want.data() };
    return out;
}

py::array_t<float> context::decode_batch(const tokens_in & tokens, const tokens_in & pos, const tokens_in & seq,
                                         const py::array_t<int8_t, py::array::c_style> & want,
                                         std::shared_ptr<cancel_token> cancel) {
    SB_USE("decode_batch");
    const int64_t n_vocab = logits_.size();
    sequences_batch batch = checked_batch("decode_batch", tokens, pos, seq, want.data(), want.size());

    py::array_t<float> result({batch.n_out, n_vocab});
    logits_pos_ = -1; // several sequences: there is no one last token
    run(batch.batch, "decode_batch", cancel.get());
    float * out = result.mutable_data();
    for (size_t i = 0; i < batch.want.size(); ++i) {
        if (batch.want[i]) {
            const float * row = llama_get_logits_ith(ctx_, i);
            if (!row) {
                throw std::runtime_error("decode_batch: logits: got none for token " + std::to_string(i) +
                    ", expected a row");
            }
            memcpy(out, row, n_vocab*sizeof(float));
            out += n_vocab;
        }
    }
    return result;
}

py::array_t<float> context::logits(const py::object & self) {
    SB_USE("logits");
    if (logits_pos_ < 0) { // of no token that is there
        std::fill(logits_.begin(), logits_.end(), NAN);
    }
    py::array_t<float> view({(py::ssize_t) logits_.size()}, {(py::ssize_t) sizeof(float)}, logits_.data(), self);
    py::detail::array_proxy(view.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return view;
}

void context::set_logits(const py::array_t<float, py::array::c_style> & row, llama_pos pos) {
    SB_USE("set_logits");
    if (row.size() != (py::ssize_t) logits_.size()) {
        throw std::invalid_argument("set_logits: got " + std::to_string(row.size()) + " values, expected " +
            std::to_string(logits_.size()));
    }
    std::copy(row.data(), row.data() + row.size(), logits_.begin());
    logits_pos_ = pos;
}

void context::clear() {
    SB_USE("clear");
    logits_pos_ = -1;
    llama_memory_clear(memory(), true);
}

bool context::seq_rm(llama_seq_id seq, llama_pos p0, llama_pos p1) {
    SB_USE("seq_rm");
    if (seq != -1) {
        check_seq(seq);
    }
    log_scope log(model_->verbose());
    const bool removed = llama_memory_seq_rm(memory(), seq, p0, p1);
    if (removed) {
        logits_pos_ = -1;
    }
    return removed;
}

void context::seq_cp(llama_seq_id src, llama_seq_id dst) {
    SB_USE("seq_cp");
    check_seq(src);
    check_seq(dst);
    log_scope log(model_->verbose());
    logits_pos_ = -1;
    llama_memory_seq_cp(memory(), src, dst, -1, -1);
}

void context::seq_keep(llama_seq_id seq) {
    SB_USE("seq_keep");
    check_seq(seq);
    log_scope log(model_->verbose());
    logits_pos_ = -1;
    llama_memory_seq_keep(memory(), seq);
}

llama_pos context::seq_pos_min(llama_seq_id seq) const {
    SB_USE("seq_pos_min");
    check_seq(seq);
    return llama_memory_seq_pos_min(memory(), seq);
}

llama_pos context::seq_pos_max(llama_seq_id seq) const {
    SB_USE("seq_pos_max");
    check_seq(seq);
    return llama_memory_seq_pos_max(memory(), seq);
}

spike_collector & context::spikes(const char * what) const {
    if (!spikes_) {
        throw std::runtime_error(std::string(what) + ": got a context that counts no spikes, expected one made with spike_stats");
    }
    return *spikes_;
}

// a dict per input, see _core.pyi
static py::list to_list(const spike_collector & c) {
    using namespace py::literals;
    py::list out;
    for (const auto & [name, in] : c.inputs()) {
        if (in.n_tokens == 0) {
            continue;
        }
        py::array_t<int32_t> kept({ in.n_kept, std::min(in.n, c.keep_neurons()) });
        std::copy(in.kept.begin(), in.kept.end(), kept.mutable_data());
        out.append(py::dict("name"_a = name, "n"_a = in.n, "n_tokens"_a = in.n_tokens, "n_refused"_a = in.n_refused,
            "bins"_a = py::array_t<int64_t>(in.bins.size(), in.bins.data()), "n_over"_a = in.n_over,
            "over_spikes"_a = in.over_spikes, "largest"_a = in.largest, "kept"_a = kept,
            "weights"_a = std::vector<std::string>(in.weights.begin(), in.weights.end())));
    }
    return out;
}

py::list context::spike_stats() const {
    SB_USE("spike_stats");
    return to_list(spikes("spike_stats"));
}

py::list context::expert_stats() const {
    SB_USE("expert_stats");
    using namespace py::literals;
    py::list out;
    for (const auto & [name, layer] : spikes("expert_stats").experts()) {
        out.append(py::dict("name"_a = name, "n"_a = py::array_t<int64_t>(layer.n.size(), layer.n.data()), "kept"_a = py::array_t<int32_t>(layer.kept.size(), layer.kept.data()),
            "silent"_a = py::array_t<int64_t>(layer.silent.size(), layer.silent.data()), "channels"_a = py::array_t<int64_t>(layer.channels.size(), layer.channels.data())));
    }
    return out;
}

void context::reset_spike_stats() {
    SB_USE("reset_spike_stats");
    spikes("reset_spike_stats").reset();
}

std::string context::fingerprint() const {
    SB_USE("fingerprint");
    return sb::fingerprint(ctx_);
}

size_t context::state_bytes() const {
    SB_USE("state_bytes");
    return llama_spikingbrain_state_bytes(ctx_);
}

size_t context::state_size(llama_seq_id seq, uint32_t flags) {
    SB_USE("state_size");
    check_seq(seq);
    log_scope log(model_->verbose());
    return llama_state_seq_get_size_ext(ctx_, seq, flags);
}

py::bytes context::state_get(llama_seq_id seq, uint32_t flags) {
    SB_USE("state_get");
    check_seq(seq);
    log_scope log(model_->verbose());
    const size_t size = llama_state_seq_get_size_ext(ctx_, seq, flags);
    PyObject * data = PyBytes_FromStringAndSize(nullptr, size);
    if (!data) {
        throw py::error_already_set();
    }
    auto bytes = py::reinterpret_steal<py::bytes>(data);
    auto * dst = reinterpret_cast<uint8_t *>(PyBytes_AS_STRING(data));
    size_t written;
    {
        py::gil_scoped_release nogil;
        written = llama_state_seq_get_data_ext(ctx_, dst, size, seq, flags);
    }
    check_remote(llama_get_model(ctx_));
    if (written != size) {
        throw std::runtime_error("state_get: got " + std::to_string(written) + " bytes, expected " +
            std::to_string(size) + "; " + log.errors());
    }
    return bytes;
}

size_t context::state_set(const py::bytes & data, llama_seq_id seq, uint32_t flags) {
    SB_USE("state_set");
    check_seq(seq);
    char *     src  = nullptr;
    Py_ssize_t size = 0;
    PyBytes_AsStringAndSize(data.ptr(), &src, &size);
    log_scope log(model_->verbose());
    size_t n_read;
    logits_pos_ = -1;
    {
        py::gil_scoped_release nogil;
        n_read = llama_state_seq_set_data_ext(ctx_, reinterpret_cast<const uint8_t *>(src), size, seq, flags);
    }
    check_remote(llama_get_model(ctx_));
    if (n_read == 0 || n_read != (size_t) size) {
        throw std::runtime_error("state_set: got " + std::to_string(n_read) + " bytes taken, expected " +
            std::to_string(size) + "; " + log.errors());
    }
    return n_read;
}

} // namespace sb
