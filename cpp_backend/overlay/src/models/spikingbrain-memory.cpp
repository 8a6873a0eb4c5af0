#include "models.h"
#include "spikingbrain-memory.h"

#include "../llama-impl.h"
#include "../llama-io.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <atomic>

static const uint32_t STATE_MAGIC   = 0x54534253; // "SBST"
static const uint32_t STATE_VERSION = 1;

// the largest window of all layers that have one; 0: none
static uint32_t window_of(const spikingbrain_storage_params & params) {
    uint32_t window = 0;
    for (const auto & layer : params.layers) {
        window = layer.window == spikingbrain_layer_memory::ALL ? window : std::max(window, layer.window);
    }
    return window;
}

// what layers that see everything have room for; 0: none does
static uint32_t positions_of(const spikingbrain_storage_params & params) {
    const bool all = std::any_of(params.layers.begin(), params.layers.end(), [](const auto & layer) { return layer.window == spikingbrain_layer_memory::ALL; });
    return all ? params.n_positions : 0;
}

llama_memory_spikingbrain::llama_memory_spikingbrain(const spikingbrain_storage_params & params, uint32_t n_seq_max, uint32_t n_back, bool pooled) :
    pooled(pooled), seqs(n_seq_max, n_back, positions_of(params), params.n_sinks > 0), storage(seqs, params),
    shape { STATE_MAGIC, STATE_VERSION, (uint32_t) params.layers.size(), (uint32_t) params.d, (uint32_t) params.n_kv, window_of(params),
        (uint32_t) params.type_k, (uint32_t) params.type_v }, rows(n_seq_max) {
    size_t size = 0;
    for (const auto & [buft, n] : memory_breakdown()) {
        size += n;
    }
    const uint32_t n_positions = positions_of(params);
    LLAMA_LOG_INFO("%s: size = %7.2f MiB (%u sequences, window %u + %u rows, K (%s), V (%s))%s\n", __func__,
            size/1024.0/1024.0, n_seq_max, window_of(params), params.n_ubatch, ggml_type_name(params.type_k), ggml_type_name(params.type_v),
            n_positions > 0 ? "" : ", independent of n_ctx");
    if (n_positions > 0) {
        LLAMA_LOG_INFO("%s: of it %7.2f MiB are for layers that see all of n_ctx = %u positions; the system gives them as positions come, %.2f KiB each\n", __func__,
                storage.bytes_of_caches()/1024.0/1024.0, n_positions, storage.bytes_of_caches()/1024.0/n_positions/n_seq_max);
    }
    LLAMA_LOG_INFO("%s: the last %u tokens of a sequence can be taken back (n_rs_seq), %.1f KiB each\n", __func__, n_back, storage.bytes_per_entry()/1024.0);
}

//
// batches
//

// The groups of a micro-batch: tokens side by side of the same sequences, in whatever order these are named. Throws what is wrong.
static spikingbrain_groups groups_of(const llama_ubatch & ubatch) {
    const auto seqs_of = [&](uint32_t i) {
        std::vector<llama_seq_id> seqs(ubatch.seq_id[i], ubatch.seq_id[i] + ubatch.n_seq_id[i]);
        std::sort(seqs.begin(), seqs.end());
        seqs.erase(std::unique(seqs.begin(), seqs.end()), seqs.end());
        return seqs;
    };
    spikingbrain_groups groups;
    for (uint32_t i = 0; i < ubatch.n_tokens; i += ubatch.n_seq_tokens) {
        spikingbrain_group group = { seqs_of(i), ubatch.pos[i], (int32_t) ubatch.n_seq_tokens };
        for (uint32_t j = 1; j < ubatch.n_seq_tokens; ++j) {
            if (seqs_of(i + j) != group.seqs) {
                throw std::runtime_error(format("token of sequence %d: got one that is shared by others, expected none beside pooled embeddings; embed the sequences separately", group.seqs[0]));
            }
            if (ubatch.pos[i + j] != group.pos + (llama_pos) j) {
                throw std::runtime_error(format("position of a token of sequence %d: got %d after %d, expected the next; decode positions in order, each once",
                    group.seqs[0], ubatch.pos[i + j], ubatch.pos[i + j - 1]));
            }
        }
        groups.push_back(std::move(group));
    }
    return groups;
}

// Pooled embeddings are made of one micro-batch, so that all tokens of a sequence must be in it.
static void check_pooled(const std::vector<spikingbrain_groups> & ubatches, uint32_t n_ubatch) {
    std::vector<llama_seq_id> seen;
    for (const auto & groups : ubatches) {
        for (const auto & group : groups) {
            for (llama_seq_id s : group.seqs) {
                if (std::count(seen.begin(), seen.end(), s)) {
                    throw std::runtime_error(format("pooled embedding of sequence %d: got tokens in several micro-batches, expected one; "
                        "give at most n_ubatch %u tokens, shared by no other sequence", s, n_ubatch));
                }
                seen.push_back(s);
            }
        }
    }
}

llama_memory_context_ptr llama_memory_spikingbrain::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) {
    roll_back();
    balloc.split_reset();

    const bool whole = embd_all && pooled;
    std::vector<llama_ubatch> ubatches;
    std::vector<spikingbrain_groups> groups;
    std::string error;
    try {
        while (true) {
            // split_equal keeps tokens of one set of sequences together, so that a micro-batch ends where it changes
            llama_ubatch ubatch = whole ? balloc.split_seq(n_ubatch) : balloc.split_equal(n_ubatch, false, 0);
            if (ubatch.n_tokens == 0) {
                break;
            }
            groups.push_back(groups_of(ubatch));
            ubatches.push_back(std::move(ubatch));
        }
        if (whole) {
            check_pooled(groups, n_ubatch);
        }
        error = seqs.check(groups);
    } catch (const std::exception & e) {
        error = e.what();
    }
    if (!error.empty() || balloc.get_n_used() < balloc.get_n_tokens()) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, error.c_str());
        return std::make_unique<llama_memory_spikingbrain_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }
    return std::make_unique<llama_memory_spikingbrain_context>(this, std::move(ubatches), std::move(groups));
}

llama_memory_context_ptr llama_memory_spikingbrain::init_full() {
    return std::make_unique<llama_memory_spikingbrain_context>(this);
}

llama_memory_context_ptr llama_memory_spikingbrain::init_update(llama_context * lctx, bool optimize) {
    GGML_UNUSED(lctx);
    GGML_UNUSED(optimize);
    return std::make_unique<llama_memory_spikingbrain_context>(LLAMA_MEMORY_STATUS_NO_UPDATE);
}

// False, and the sequences are empty, if a device did not do it.
bool llama_memory_spikingbrain::compute(const std::vector<spikingbrain_advance> & todo) {
    try {
        storage.run(todo);
        return true;
    } catch (const std::exception & e) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, e.what());
        for (const auto & advance : todo) {
            seqs.clear(advance.seq);
        }
        return false;
    }
}

bool llama_memory_spikingbrain::apply(const spikingbrain_groups & ubatch) {
    roll_back();
    std::vector<spikingbrain_advance> first;
    in_flight = seqs.begin(ubatch, first);
    for (const auto & group : ubatch) {
        storage.reach(group.seqs.front(), group.pos + group.n - 1);
    }
    if (compute(first)) {
        return true;
    }
    roll_back();
    for (const auto & advance : first) {
        seqs.clear(advance.seq);
    }
    return false;
}

void llama_memory_spikingbrain::commit() {
    for (const auto & [from, to] : seqs.end()) {
        storage.copy(from, to);
    }
    in_flight.clear();
}

void llama_memory_spikingbrain::roll_back() {
    in_flight.clear();
    compute(seqs.cancel());
}

void llama_memory_spikingbrain::set_seqs(const llama_ubatch & ubatch, int32_t * info, ggml_spk_plan * plan) const {
    for (uint32_t i = 0; i < ubatch.n_tokens/ubatch.n_seq_tokens; ++i) {
        const spikingbrain_advance & advance = in_flight[i];
        info[GGML_SPK_SEQ_STATE]     = advance.read;
        info[GGML_SPK_SEQ_SLOT]      = advance.seq;
        info[GGML_SPK_SEQ_POS_FIRST] = advance.pos_first;
        info += GGML_SPK_SEQ_N_INFO;
        *plan++ = storage.plan(advance);
    }
}

void llama_memory_spikingbrain::set_rows(const llama_ubatch & ubatch, int32_t n_ring, int64_t * rows) const {
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        rows[i] = (int64_t) in_flight[i/ubatch.n_seq_tokens].seq*n_ring + ubatch.pos[i] % n_ring;
    }
}

//
// sequences
//

void llama_memory_spikingbrain::clear(bool data) {
    seqs.cancel(); // what would restore a state is not needed
    in_flight.clear();
    for (size_t s = 0; s < seqs.size(); ++s) {
        seqs.clear(s);
    }
    if (data) {
        storage.clear();
    }
}

bool llama_memory_spikingbrain::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    roll_back();
    if (seq_id < 0) {
        bool ok = true;
        for (size_t s = 0; s < seqs.size(); ++s) {
            ok = seq_rm(s, p0, p1) && ok;
        }
        return ok;
    }
    std::vector<spikingbrain_advance> todo;
    return seqs.is_seq(seq_id) && seqs.remove(seq_id, p0, p1, todo) && compute(todo);
}

void llama_memory_spikingbrain::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    roll_back();
    if (seq_id_src == seq_id_dst) {
        return;
    }
    if (!seqs.is_seq(seq_id_src) || !seqs.is_seq(seq_id_dst)) {
        LLAMA_LOG_ERROR("%s: sequence id: got %d -> %d, expected 0 .. %zu; nothing copied\n", __func__, seq_id_src, seq_id_dst, seqs.size() - 1);
        return;
    }
    if (!seqs.covers(seq_id_src, p0, p1)) {
        LLAMA_LOG_ERROR("%s: positions: got [%d, %d), expected all of [%d, %d]; sequence %d is left empty\n", __func__,
                p0, p1, seqs.first(seq_id_src), seqs.last(seq_id_src), seq_id_dst);
        seqs.clear(seq_id_dst);
        return;
    }
    seqs.copy(seq_id_src, seq_id_dst);
    storage.copy(seq_id_src, seq_id_dst);
}

void llama_memory_spikingbrain::seq_keep(llama_seq_id seq_id) {
    roll_back();
    for (size_t s = 0; s < seqs.size(); ++s) {
        if ((llama_seq_id) s != seq_id) {
            seqs.clear(s);
        }
    }
}

void llama_memory_spikingbrain::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    if (shift != 0) {
        LLAMA_LOG_ERROR("%s: sequence %d, positions [%d, %d): shifting is not supported; no position was changed\n", __func__, seq_id, p0, p1);
    }
}

void llama_memory_spikingbrain::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    if (d != 1) {
        LLAMA_LOG_ERROR("%s: sequence %d, positions [%d, %d): dividing is not supported; no position was changed\n", __func__, seq_id, p0, p1);
    }
}

llama_pos llama_memory_spikingbrain::seq_pos_min(llama_seq_id seq_id) const {
    return seqs.is_seq(seq_id) && !seqs.empty(seq_id) ? seqs.fixed(seq_id) : -1;
}

llama_pos llama_memory_spikingbrain::seq_pos_max(llama_seq_id seq_id) const {
    return seqs.is_seq(seq_id) ? seqs.last(seq_id) : -1;
}

bool llama_memory_spikingbrain::set_row(llama_seq_id seq_id, const float * logits, size_t n) {
    if (!seqs.is_seq(seq_id)) {
        return false;
    }
    rows[seq_id].logits.assign(logits, logits + n);
    rows[seq_id].content = seqs.content(seq_id);
    return true;
}

float * llama_memory_spikingbrain::get_row(llama_seq_id seq_id) {
    const bool is_there = seqs.is_seq(seq_id) && !rows[seq_id].logits.empty() && rows[seq_id].content == seqs.content(seq_id);
    return is_there ? rows[seq_id].logits.data() : nullptr;
}

//
// save and restore
//

void llama_memory_spikingbrain::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const {
    GGML_UNUSED(flags);
    io.write(shape.data(), shape.size()*sizeof(shape[0]));

    std::vector<llama_seq_id> ids;
    for (size_t s = 0; s < seqs.size(); ++s) {
        if (seq_id < 0 ? !seqs.empty(s) : seq_id == (llama_seq_id) s) {
            ids.push_back(s);
        }
    }
    const uint32_t n_ids = ids.size();
    io.write(&n_ids, sizeof(n_ids));

    for (llama_seq_id s : ids) {
        const int32_t meta[] = { s, seqs.first(s), seqs.last(s) };
        io.write(meta, sizeof(meta));
        if (!seqs.empty(s)) {
            storage.for_each_part(s, [&](ggml_tensor * t, size_t offset, size_t size) { io.write_tensor(t, offset, size); });
        }
    }
}

void llama_memory_spikingbrain::read_header(llama_io_read_i & io) const {
    static const char * names[] = { "magic", "version", "layers", "head size", "key/value heads", "window", "type of K", "type of V" };
    std::vector<uint32_t> got(shape.size());
    io.read(got.data(), got.size()*sizeof(got[0]));
    for (size_t i = 0; i < shape.size(); ++i) {
        if (got[i] != shape[i]) {
            throw std::runtime_error(format("spikingbrain: saved state: %s: got %u, expected %u; it belongs to another model or type", names[i], got[i], shape[i]));
        }
    }
}

void llama_memory_spikingbrain::read_sequence(llama_io_read_i & io, llama_seq_id seq_id, std::vector<llama_seq_id> & touched) {
    int32_t meta[3];
    io.read(meta, sizeof(meta));
    const auto [saved, first, last] = meta;

    const llama_seq_id s = seq_id < 0 ? saved : seq_id;
    if (!seqs.is_seq(s) || first > last || first < -1 || (first < 0 && last >= 0)) {
        throw std::runtime_error(format("spikingbrain: saved state: sequence %d: got positions %d .. %d; the state is damaged", s, first, last));
    }
    touched.push_back(s);
    seqs.clear(s);
    if (!seqs.fits(last)) {
        throw std::runtime_error(format("spikingbrain: saved state: sequence %d: got position %d, expected less than n_ctx %d; raise n_ctx (-c)", s, last, seqs.n_fit()));
    }
    if (last >= 0) {
        storage.reach(s, last);
        seqs.restore(s, first, last);
        storage.for_each_part(s, [&](ggml_tensor * t, size_t offset, size_t size) { io.read_tensor(t, offset, size); });
    }
}

// A state that does not fit or is cut short throws; the sequences it would have replaced are then empty.
void llama_memory_spikingbrain::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) {
    GGML_UNUSED(flags);
    roll_back();
    read_header(io);

    uint32_t n_ids;
    io.read(&n_ids, sizeof(n_ids));
    if (seq_id >= 0 ? (n_ids != 1 || !seqs.is_seq(seq_id)) : n_ids > seqs.size()) {
        throw std::runtime_error(format("spikingbrain: saved state: got %u sequences for sequence id %d of %zu; raise n_seq_max", n_ids, seq_id, seqs.size()));
    }
    if (seq_id < 0) {
        clear(false);
    }
    std::vector<llama_seq_id> touched;
    try {
        for (uint32_t i = 0; i < n_ids; ++i) {
            read_sequence(io, seq_id, touched);
        }
    } catch (...) {
        for (llama_seq_id s : touched) {
            seqs.clear(s);
        }
        throw;
    }
}

//
// llama_memory_spikingbrain_context
//

bool llama_memory_spikingbrain_context::next() {
    mem->commit();
    return ++i_cur < ubatches.size();
}

bool llama_memory_spikingbrain_context::apply() {
    return ubatches.empty() || mem->apply(groups[i_cur]);
}

//
// entry points
//

// llama.cpp's default window type is F16. It stands for the model's own: INT8 in the spiking variant, else as the matrices. Q8_0 is INT8, too.
static ggml_type window_type(const char * what, ggml_type type, const llama_model_spikingbrain & model) {
    if (type == GGML_TYPE_Q8_0 || type == GGML_TYPE_I8) {
        return GGML_TYPE_I8;
    }
    if (model.spike) {
        if (type != GGML_TYPE_F16) {
            throw std::runtime_error(format("spikingbrain: %s: got %s, expected the default: a spiking model keeps its window in int8", what, ggml_type_name(type)));
        }
        return GGML_TYPE_I8;
    }
    if (type != GGML_TYPE_F16 && type != GGML_TYPE_F32) {
        throw std::runtime_error(format("spikingbrain: %s: got %s, expected f16, f32 or q8_0", what, ggml_type_name(type)));
    }
    return model.layers[0].wq->type == GGML_TYPE_F32 ? GGML_TYPE_F32 : type;
}

static spikingbrain_storage_params storage_params(const llama_model_spikingbrain & model, const llama_memory_params & params, const llama_cparams & cparams) {
    const llama_hparams & hparams = model.hparams;
    spikingbrain_storage_params result = {};
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        ggml_backend_buffer_type_t buft = cparams.offload_kqv ? ggml_backend_dev_buffer_type(model.dev_layer(il)) : ggml_backend_cpu_buffer_type();
        const uint32_t window = model.has_window(il) ? model.sees_all(il) ? spikingbrain_layer_memory::ALL : model.n_window : 0;
        result.layers.push_back({ hparams.is_recr(il), window, buft, model.n_head_state(il) });
    }
    result.d           = hparams.n_embd_head_k();
    result.n_kv        = hparams.n_head_kv();
    result.type_k      = window_type("type_k", params.type_k, model);
    result.type_v      = window_type("type_v", params.type_v, model);
    if ((result.type_k == GGML_TYPE_I8) != (result.type_v == GGML_TYPE_I8)) {
        throw std::runtime_error(format("spikingbrain: type_v: got %s with type_k %s, expected both q8_0 or neither", ggml_type_name(params.type_v), ggml_type_name(params.type_k)));
    }
    result.n_ubatch    = cparams.n_ubatch;
    result.n_positions = cparams.n_ctx_seq;
    result.n_threads   = 1; // milliseconds at most: threads made for that take as long, and share one CPU where this thread is bound to it
    result.no_alloc    = hparams.no_alloc;
    result.n_sinks     = model.n_sinks;
    return result;
}

llama_memory_i * llama_spikingbrain_create_memory(
        const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams) {
    const auto & sb = static_cast<const llama_model_spikingbrain &>(model);
    sb.check_int8();

    if (cparams.yarn_ext_factor != 0.0f) {
        throw std::runtime_error("spikingbrain: rope scaling: got yarn, expected none or linear; the window is relative and needs no extension");
    }
    if (!cparams.causal_attn) {
        throw std::runtime_error("spikingbrain: attention: got non-causal, expected causal");
    }
    if (sb.n_sinks > 0 && (cparams.rope_freq_base != sb.hparams.rope_freq_base_train || cparams.rope_freq_scale != sb.hparams.rope_freq_scale_train)) {
        throw std::runtime_error(format("spikingbrain: rope: got base %g and scale %g, expected %g and %g: the constants of the sinks were computed with these",
            cparams.rope_freq_base, cparams.rope_freq_scale, sb.hparams.rope_freq_base_train, sb.hparams.rope_freq_scale_train));
    }
    const bool pooled = cparams.pooling_type == LLAMA_POOLING_TYPE_MEAN || cparams.pooling_type == LLAMA_POOLING_TYPE_CLS || cparams.pooling_type == LLAMA_POOLING_TYPE_RANK;
    auto mem = std::make_unique<llama_memory_spikingbrain>(storage_params(sb, params, cparams), cparams.n_seq_max, cparams.n_rs_seq, pooled);
    if (!sb.hparams.no_alloc) {
        sb.set_sinks(mem->get_storage());
    }
    return mem.release();
}

static std::atomic<uint32_t> n_rs_seq_default { LLAMA_SPIKINGBRAIN_N_RS_SEQ };

bool llama_spikingbrain_set_n_rs_seq(int64_t n) {
    if (n < 1 || n > LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX) {
        return false;
    }
    n_rs_seq_default = n;
    return true;
}

uint32_t llama_spikingbrain_n_rs_seq(const llama_model * model, uint32_t n, uint32_t n_others) {
    if (model->arch != LLM_ARCH_SPIKINGBRAIN) {
        return n_others;
    }
    if (n > LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX) {
        throw std::runtime_error(format("spikingbrain: n_rs_seq: got %u, expected at most %u tokens that can be taken back", n, LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX));
    }
    return n > 0 ? n : n_rs_seq_default.load();
}

size_t llama_spikingbrain_state_bytes(const llama_context * ctx) {
    size_t n = 0;
    if (const llama_memory_i * mem = llama_get_memory(ctx)) {
        for (const auto & [buft, size] : mem->memory_breakdown()) {
            n += size;
        }
    }
    return n;
}

static llama_memory_spikingbrain * memory_of(const llama_context * ctx) {
    return dynamic_cast<llama_memory_spikingbrain *>(llama_get_memory(ctx));
}

size_t llama_spikingbrain_cache_bytes(const llama_context * ctx) {
    const llama_memory_spikingbrain * mem = memory_of(ctx);
    return mem ? mem->get_storage().bytes_of_caches() : 0;
}

bool llama_spikingbrain_remembers(const llama_context * ctx) {
    return memory_of(ctx) != nullptr;
}

bool llama_spikingbrain_set_row(llama_context * ctx, llama_seq_id seq_id, const float * logits) {
    llama_memory_spikingbrain * mem = memory_of(ctx);
    const size_t n = logits ? llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx))) : 0;
    return mem && mem->set_row(seq_id, logits, n);
}

float * llama_spikingbrain_get_row(const llama_context * ctx, llama_seq_id seq_id) {
    llama_memory_spikingbrain * mem = memory_of(ctx);
    return mem ? mem->get_row(seq_id) : nullptr;
}
