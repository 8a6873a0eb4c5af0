#include "spikingbrain-memory.h"

#include "../llama-impl.h"
#include "../llama-io.h"

#include <algorithm>
#include <stdexcept>

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
        (uint32_t) params.type_k, (uint32_t) params.type_v } {
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
