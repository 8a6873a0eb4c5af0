#include "models.h"
#include "spikingbrain-memory.h"

#include "../llama-impl.h"
#include "../llama-io.h"
#include "llama-spikingbrain.h"

#include <algorithm>
#include <limits>

static const uint32_t STATE_MAGIC   = 0x54534253; // "SBST"
static const uint32_t STATE_VERSION = 1;

//
// allocation
//

llama_memory_spikingbrain::llama_memory_spikingbrain(const llama_model & model, uint32_t n_window,
        ggml_type type_k, ggml_type type_v, uint32_t n_seq_max, uint32_t n_ubatch) :
    rows(n_seq_max), hparams(model.hparams), n_window(n_window), n_ring(n_window + n_ubatch), type_k(type_k), type_v(type_v),
    seqs(n_seq_max), k_l(hparams.n_layer()), v_l(hparams.n_layer()), s_l(hparams.n_layer()) {
    alloc();

    LLAMA_LOG_INFO("%s: size = %7.2f MiB (%u sequences, window %d + %u rows, K (%s), V (%s)), independent of n_ctx\n", __func__,
            memory_breakdown().begin()->second/1024.0/1024.0, n_seq_max, n_window, n_ubatch, ggml_type_name(type_k), ggml_type_name(type_v));
}

void llama_memory_spikingbrain::alloc() {
    const int64_t d       = hparams.n_embd_head_k();
    const int64_t n_kv    = hparams.n_head_kv();
    const int64_t n_slots = seqs.size();

    ctx.reset(ggml_init({ 2*k_l.size()*ggml_tensor_overhead(), nullptr, true }));
    for (size_t il = 0; il < k_l.size(); ++il) {
        if (hparams.is_recr(il)) {
            s_l[il] = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, d*d*n_kv, 2*n_slots);
            ggml_format_name(s_l[il], "cache_s_l%zu", il);
        } else {
            const auto width = [d](ggml_type type) { return type == GGML_TYPE_I8 ? GGML_SPK_KV_ROW(d) : d; };
            k_l[il] = ggml_new_tensor_3d(ctx.get(), type_k, width(type_k), n_ring*n_slots, n_kv);
            v_l[il] = ggml_new_tensor_3d(ctx.get(), type_v, width(type_v), n_ring*n_slots, n_kv);
            ggml_format_name(k_l[il], "cache_k_l%zu", il);
            ggml_format_name(v_l[il], "cache_v_l%zu", il);
        }
    }

    ggml_backend_buffer_type_t buft = ggml_backend_cpu_buffer_type();
    if (hparams.no_alloc) {
        buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));
        for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
            t->buffer = buf.get();
        }
    } else {
        buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft));
    }
    if (!buf) {
        throw std::runtime_error(format("spikingbrain: memory: could not allocate %.2f MiB for %zu sequences; use fewer sequences or a smaller n_ubatch",
            ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft)/1024.0/1024.0, seqs.size()));
    }
    ggml_backend_buffer_clear(buf.get(), 0);
}

std::map<ggml_backend_buffer_type_t, size_t> llama_memory_spikingbrain::memory_breakdown() const {
    ggml_backend_buffer_type_t buft = ggml_backend_buffer_get_type(buf.get());
    return { { buft, hparams.no_alloc ?
        ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft) : ggml_backend_buffer_get_size(buf.get()) } };
}

//
// batches
//

llama_memory_context_ptr llama_memory_spikingbrain::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) {
    roll_back();
    balloc.split_reset();

    std::vector<llama_ubatch> ubatches;
    while (true) {
        // pooled embeddings need all tokens of a sequence in one micro-batch
        llama_ubatch ubatch = embd_all ? balloc.split_seq(n_ubatch) : balloc.split_equal(n_ubatch, false, 0);
        if (ubatch.n_tokens == 0) {
            break;
        }
        ubatches.push_back(std::move(ubatch));
    }

    if (balloc.get_n_used() < balloc.get_n_tokens() || !check(ubatches)) {
        return std::make_unique<llama_memory_spikingbrain_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }
    return std::make_unique<llama_memory_spikingbrain_context>(this, std::move(ubatches));
}

llama_memory_context_ptr llama_memory_spikingbrain::init_full() {
    return std::make_unique<llama_memory_spikingbrain_context>(this);
}

llama_memory_context_ptr llama_memory_spikingbrain::init_update(llama_context * lctx, bool optimize) {
    GGML_UNUSED(lctx);
    GGML_UNUSED(optimize);
    return std::make_unique<llama_memory_spikingbrain_context>(LLAMA_MEMORY_STATUS_NO_UPDATE);
}

// A token given to several sequences is computed once and copied, which is right only while they hold the same.
bool llama_memory_spikingbrain::check(const std::vector<llama_ubatch> & ubatches) const {
    std::vector<uint64_t> content(seqs.size());
    for (size_t s = 0; s < seqs.size(); ++s) {
        content[s] = seqs[s].content;
    }
    uint64_t n = n_content;

    for (const auto & ubatch : ubatches) {
        for (uint32_t i = 0; i < ubatch.n_tokens; i += ubatch.n_seq_tokens) {
            const llama_seq_id owner = ubatch.seq_id[i][0];
            ++n;
            for (int32_t j = 0; j < ubatch.n_seq_id[i]; ++j) {
                const llama_seq_id s = ubatch.seq_id[i][j];
                if (!is_seq(s)) {
                    LLAMA_LOG_ERROR("%s: sequence id: got %d, expected 0 .. %zu; raise n_seq_max (--parallel)\n", __func__, s, seqs.size() - 1);
                    return false;
                }
                if (content[s] != content[owner]) {
                    LLAMA_LOG_ERROR("%s: token shared by sequences %d and %d: got different histories, expected the same; decode them separately\n",
                            __func__, owner, s);
                    return false;
                }
            }
            for (int32_t j = 0; j < ubatch.n_seq_id[i]; ++j) {
                content[ubatch.seq_id[i][j]] = n;
            }
        }
    }
    return true;
}

void llama_memory_spikingbrain::apply(const llama_ubatch & ubatch) {
    roll_back();
    for (uint32_t i = 0; i < ubatch.n_tokens; i += ubatch.n_seq_tokens) {
        const llama_seq_id owner = ubatch.seq_id[i][0];
        sequence & seq = seqs[owner];

        if (seq.empty()) {
            seq.pos_first = ubatch.pos[i];
        }
        seq.pos_prev     = seq.pos_last;
        seq.pos_last     = ubatch.pos[i + ubatch.n_seq_tokens - 1];
        seq.cur         ^= 1;
        seq.can_undo     = true;
        seq.content_prev = seq.content;
        seq.content      = ++n_content;
        in_flight.push_back(owner);
    }
}

void llama_memory_spikingbrain::commit(const llama_ubatch & ubatch) {
    in_flight.clear();
    for (uint32_t i = 0; i < ubatch.n_tokens; i += ubatch.n_seq_tokens) {
        for (int32_t j = 1; j < ubatch.n_seq_id[i]; ++j) {
            copy(ubatch.seq_id[i][0], ubatch.seq_id[i][j]);
        }
    }
}

void llama_memory_spikingbrain::undo(sequence & seq) {
    if (seq.pos_prev < 0) {
        seq = {};
        return;
    }
    seq.pos_last = seq.pos_prev;
    seq.cur     ^= 1;
    seq.can_undo = false;
    seq.content  = seq.content_prev;
}

void llama_memory_spikingbrain::roll_back() {
    for (llama_seq_id s : in_flight) {
        undo(seqs[s]);
    }
    in_flight.clear();
}

// seqs {4, n_seqs} and rows {n_tokens}: see ggml-spikingbrain.h
void llama_memory_spikingbrain::set_input(const llama_ubatch & ubatch, int32_t * info, int64_t * rows) const {
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        const llama_seq_id s = ubatch.seq_id[i][0];
        rows[i] = (int64_t) s*n_ring + ubatch.pos[i] % n_ring;

        if (i % ubatch.n_seq_tokens == 0) {
            const sequence & seq = seqs[s];
            info[GGML_SPK_SEQ_STATE_SRC] = seq.pos_prev < 0 ? -1 : 2*s + (seq.cur ^ 1);
            info[GGML_SPK_SEQ_STATE_DST] = 2*s + seq.cur;
            info[GGML_SPK_SEQ_SLOT]      = s;
            info[GGML_SPK_SEQ_POS_FIRST] = seq.pos_first;
            info += GGML_SPK_SEQ_N_INFO;
        }
    }
}

//
// sequences
//

void llama_memory_spikingbrain::clear(bool data) {
    in_flight.clear();
    std::fill(seqs.begin(), seqs.end(), sequence());
    if (data) {
        ggml_backend_buffer_clear(buf.get(), 0);
    }
}

bool llama_memory_spikingbrain::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    roll_back();
    p0 = std::max(p0, 0);
    p1 = p1 < 0 ? std::numeric_limits<llama_pos>::max() : p1;

    if (seq_id < 0) {
        bool ok = true;
        for (size_t s = 0; s < seqs.size(); ++s) {
            ok = seq_rm(s, p0, p1) && ok;
        }
        return ok;
    }
    if (!is_seq(seq_id)) {
        return false;
    }

    sequence & seq = seqs[seq_id];
    if (seq.empty() || p0 >= p1 || p0 > seq.pos_last || p1 <= seq.pos_first) {
        return true; // nothing there
    }
    if (p1 <= seq.pos_last) {
        return false; // the middle of a state
    }
    if (p0 <= seq.pos_first) {
        seq = {};
        return true;
    }
    if (seq.can_undo && p0 == seq.pos_prev + 1) {
        undo(seq);
        return true;
    }
    return false;
}

void llama_memory_spikingbrain::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    roll_back();
    if (seq_id_src == seq_id_dst) {
        return;
    }
    if (!is_seq(seq_id_src) || !is_seq(seq_id_dst)) {
        LLAMA_LOG_ERROR("%s: sequence id: got %d -> %d, expected 0 .. %zu; nothing copied\n", __func__, seq_id_src, seq_id_dst, seqs.size() - 1);
        return;
    }
    const sequence & src = seqs[seq_id_src];
    if (!src.empty() && (p0 > src.pos_first || (p1 >= 0 && p1 <= src.pos_last))) {
        LLAMA_LOG_ERROR("%s: positions: got [%d, %d), expected all of [%d, %d]; sequence %d is left empty\n", __func__,
                p0, p1, src.pos_first, src.pos_last, seq_id_dst);
        seqs[seq_id_dst] = {};
        return;
    }
    copy(seq_id_src, seq_id_dst);
}

void llama_memory_spikingbrain::seq_keep(llama_seq_id seq_id) {
    roll_back();
    for (size_t s = 0; s < seqs.size(); ++s) {
        if ((llama_seq_id) s != seq_id) {
            seqs[s] = {};
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
    return seq_pos_max(seq_id);
}

llama_pos llama_memory_spikingbrain::seq_pos_max(llama_seq_id seq_id) const {
    return is_seq(seq_id) ? seqs[seq_id].pos_last : -1;
}

//
// copies, save and restore
//

uint32_t llama_memory_spikingbrain::n_rows(const sequence & seq) const {
    return seq.empty() ? 0 : std::min<int64_t>(n_window, (int64_t) seq.pos_last - seq.pos_first + 1);
}

template <typename F>
void llama_memory_spikingbrain::for_each_part(llama_seq_id seq_id, const sequence & seq, F && fn) const {
    const int64_t n     = n_rows(seq);
    const int64_t begin = seq.empty() ? 0 : (seq.pos_last - n + 1) % n_ring; // ring row of the oldest live key
    const int64_t n1    = std::min<int64_t>(n, n_ring - begin);              // rows before the ring wraps

    for (size_t il = 0; il < k_l.size(); ++il) {
        if (s_l[il]) {
            fn(s_l[il], (2*seq_id + seq.cur)*s_l[il]->nb[1], s_l[il]->nb[1]);
            continue;
        }
        for (ggml_tensor * t : { k_l[il], v_l[il] }) {
            for (int64_t h = 0; h < t->ne[2]; ++h) {
                const size_t base = h*t->nb[2] + (size_t) seq_id*n_ring*t->nb[1];
                if (n1 > 0) {
                    fn(t, base + begin*t->nb[1], n1*t->nb[1]);
                }
                if (n > n1) {
                    fn(t, base, (n - n1)*t->nb[1]);
                }
            }
        }
    }
}

void llama_memory_spikingbrain::copy(llama_seq_id src, llama_seq_id dst) {
    seqs[dst]          = seqs[src];
    seqs[dst].can_undo = false; // the other state is not copied
    if (seqs[src].empty()) {
        return;
    }

    std::vector<uint8_t> tmp;
    for_each_part(src, seqs[src], [&](ggml_tensor * t, size_t offset, size_t size) {
        const size_t slot = s_l.end() != std::find(s_l.begin(), s_l.end(), t) ? 2*t->nb[1] : n_ring*t->nb[1];
        tmp.resize(size);
        ggml_backend_tensor_get(t, tmp.data(), offset, size);
        ggml_backend_tensor_set(t, tmp.data(), offset + (dst - src)*(int64_t) slot, size);
    });
}

void llama_memory_spikingbrain::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const {
    GGML_UNUSED(flags);

    const uint32_t header[] = {
        STATE_MAGIC, STATE_VERSION, (uint32_t) k_l.size(), (uint32_t) hparams.n_embd_head_k(), (uint32_t) hparams.n_head_kv(),
        (uint32_t) n_window, (uint32_t) type_k, (uint32_t) type_v,
    };
    io.write(header, sizeof(header));

    std::vector<llama_seq_id> ids;
    for (size_t s = 0; s < seqs.size(); ++s) {
        if (seq_id < 0 ? !seqs[s].empty() : seq_id == (llama_seq_id) s) {
            ids.push_back(s);
        }
    }
    const uint32_t n_ids = ids.size();
    io.write(&n_ids, sizeof(n_ids));

    for (llama_seq_id s : ids) {
        const sequence & seq = seqs[s];
        const int32_t meta[] = { s, seq.pos_first, seq.pos_last };
        io.write(meta, sizeof(meta));
        if (!seq.empty()) {
            for_each_part(s, seq, [&](ggml_tensor * t, size_t offset, size_t size) { io.write_tensor(t, offset, size); });
        }
    }
}

// A state that does not fit or is cut short throws; the sequences it would have replaced are then empty.
void llama_memory_spikingbrain::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) {
    GGML_UNUSED(flags);
    roll_back();

    static const char * names[] = { "magic", "version", "layers", "head size", "key/value heads", "window", "type of K", "type of V" };
    const uint32_t expected[] = {
        STATE_MAGIC, STATE_VERSION, (uint32_t) k_l.size(), (uint32_t) hparams.n_embd_head_k(), (uint32_t) hparams.n_head_kv(),
        (uint32_t) n_window, (uint32_t) type_k, (uint32_t) type_v,
    };
    uint32_t header[8];
    io.read(header, sizeof(header));
    for (int i = 0; i < 8; ++i) {
        if (header[i] != expected[i]) {
            throw std::runtime_error(format("spikingbrain: saved state: %s: got %u, expected %u; it belongs to another model or type", names[i], header[i], expected[i]));
        }
    }

    uint32_t n_ids;
    io.read(&n_ids, sizeof(n_ids));
    if (seq_id >= 0 ? (n_ids != 1 || !is_seq(seq_id)) : n_ids > seqs.size()) {
        throw std::runtime_error(format("spikingbrain: saved state: got %u sequences for sequence id %d of %zu; raise n_seq_max", n_ids, seq_id, seqs.size()));
    }

    if (seq_id < 0) {
        clear(false);
    }
    std::vector<std::pair<llama_seq_id, sequence>> restored;
    for (uint32_t i = 0; i < n_ids; ++i) {
        int32_t meta[3];
        io.read(meta, sizeof(meta));

        const llama_seq_id s = seq_id < 0 ? meta[0] : seq_id;
        sequence seq;
        seq.pos_first = meta[1];
        seq.pos_last  = meta[2];
        if (!is_seq(s) || seq.pos_first > seq.pos_last || seq.pos_first < -1 || (seq.pos_first < 0 && !seq.empty())) {
            throw std::runtime_error(format("spikingbrain: saved state: sequence %d: got positions %d .. %d; the state is damaged", s, seq.pos_first, seq.pos_last));
        }
        seqs[s] = {}; // stays empty if the rest cannot be read
        if (!seq.empty()) {
            seq.content = ++n_content;
            for_each_part(s, seq, [&](ggml_tensor * t, size_t offset, size_t size) { io.read_tensor(t, offset, size); });
        }
        restored.emplace_back(s, seq);
    }
    for (const auto & [s, seq] : restored) {
        seqs[s] = seq;
    }
}

//
// llama_memory_spikingbrain_context
//

bool llama_memory_spikingbrain_context::next() {
    mem->commit(ubatches[i_cur]);
    return ++i_cur < ubatches.size();
}

bool llama_memory_spikingbrain_context::apply() {
    if (!ubatches.empty()) {
        mem->apply(ubatches[i_cur]);
    }
    return true;
}

//
// entry points
//

// llama.cpp's default window type is F16. It stands for the model's own: INT8 in the spiking variant, else as the matrices.
static ggml_type window_type(const char * what, ggml_type type, const llama_model_spikingbrain & model) {
    if (model.spike) {
        if (type != GGML_TYPE_F16 && type != GGML_TYPE_I8) {
            throw std::runtime_error(format("spikingbrain: %s: got %s, expected the default: a spiking model keeps its window in int8", what, ggml_type_name(type)));
        }
        return GGML_TYPE_I8;
    }
    if (type != GGML_TYPE_F16 && type != GGML_TYPE_F32) {
        throw std::runtime_error(format("spikingbrain: %s: got %s, expected f16 or f32", what, ggml_type_name(type)));
    }
    return model.layers[0].wq->type == GGML_TYPE_F32 ? GGML_TYPE_F32 : type;
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
    return new llama_memory_spikingbrain(model, sb.n_window,
            window_type("type_k", params.type_k, sb), window_type("type_v", params.type_v, sb), cparams.n_seq_max, cparams.n_ubatch);
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

static std::vector<float> * row_of(const llama_context * ctx, llama_seq_id seq_id) {
    auto * mem = dynamic_cast<llama_memory_spikingbrain *>(llama_get_memory(ctx));
    return mem && seq_id >= 0 && (size_t) seq_id < mem->rows.size() ? &mem->rows[seq_id] : nullptr;
}

bool llama_spikingbrain_set_row(llama_context * ctx, llama_seq_id seq_id, const float * logits) {
    std::vector<float> * row = row_of(ctx, seq_id);
    if (row == nullptr) {
        return false;
    }
    row->clear();
    if (logits) {
        row->assign(logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx))));
    }
    return true;
}

float * llama_spikingbrain_get_row(const llama_context * ctx, llama_seq_id seq_id) {
    std::vector<float> * row = row_of(ctx, seq_id);
    return row && !row->empty() ? row->data() : nullptr;
}
