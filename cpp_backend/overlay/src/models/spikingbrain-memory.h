#pragma once

#include "spikingbrain-storage.h"

#include "../llama-batch.h"
#include "../llama-graph.h"
#include "../llama-memory.h"

#include <map>
#include <vector>

struct llama_model_spikingbrain;

// What sequences remember, as llama.cpp asks for it. What may be done is decided by spikingbrain-sequences.h, what is done to
// tensors lies in spikingbrain-storage.h; here are the batches, the saved form and the words.
class llama_memory_spikingbrain : public llama_memory_i {
public:
    // pooled: outputs are one per sequence, of all its tokens, which must then be in one micro-batch
    llama_memory_spikingbrain(const spikingbrain_storage_params & params, uint32_t n_seq_max, uint32_t n_back, bool pooled);

    //
    // llama_memory_i
    //

    llama_memory_context_ptr init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) override;
    llama_memory_context_ptr init_full() override;
    llama_memory_context_ptr init_update(llama_context * lctx, bool optimize) override;

    // positions are not shifted: nothing of this memory ends at n_ctx
    bool get_can_shift() const override { return false; }

    void clear(bool data) override;

    // removes a whole sequence, or a tail that can be taken back; everything else is refused and changes nothing
    bool seq_rm  (llama_seq_id seq_id, llama_pos p0, llama_pos p1) override;
    // copies a whole sequence; a part of one is refused, which leaves the destination empty
    void seq_cp  (llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) override;
    void seq_keep(llama_seq_id seq_id) override;
    // refused with an error in the log
    void seq_add (llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) override;
    void seq_div (llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) override;

    // the first is the last position that cannot be taken back: positions after it can be removed
    llama_pos seq_pos_min(llama_seq_id seq_id) const override;
    llama_pos seq_pos_max(llama_seq_id seq_id) const override;

    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const override { return storage.memory_breakdown(); }

    // whole in every mode (flags), since a checkpoint without its window rows would be wrong; without what can be taken back
    void state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const override;
    void state_read (llama_io_read_i  & io, llama_seq_id seq_id, llama_state_seq_flags flags) override;

    //
    // for the memory context and the graph
    //

    bool apply(const spikingbrain_groups & ubatch); // it is about to be computed; false: its states could not be prepared
    void commit();                                  // it was computed
    void set_seqs(const llama_ubatch & ubatch, int32_t * seqs, ggml_spk_plan * plan) const;
    void set_rows(const llama_ubatch & ubatch, int32_t n_ring, int64_t * rows) const;

    const spikingbrain_storage & get_storage() const { return storage; }
    spikingbrain_storage       & get_storage()       { return storage; }

private:
    void roll_back(); // an applied micro-batch that was never committed
    bool compute(const std::vector<spikingbrain_advance> & todo);
    void read_header(llama_io_read_i & io) const;
    void read_sequence(llama_io_read_i & io, llama_seq_id seq_id, std::vector<llama_seq_id> & touched);

    const bool pooled;

    spikingbrain_sequences seqs;
    spikingbrain_storage   storage;
    const std::vector<uint32_t> shape; // what a saved state must agree with

    std::vector<spikingbrain_advance> in_flight;
};

class llama_memory_spikingbrain_context : public llama_memory_context_i {
public:
    llama_memory_spikingbrain_context(llama_memory_status status) : status(status) {}

    llama_memory_spikingbrain_context(llama_memory_spikingbrain * mem, std::vector<llama_ubatch> ubatches = {}, std::vector<spikingbrain_groups> groups = {}) :
        status(LLAMA_MEMORY_STATUS_SUCCESS), mem(mem), ubatches(std::move(ubatches)), groups(std::move(groups)) {}

    bool next()  override;
    bool apply() override;

    llama_memory_status  get_status() const override { return status; }
    const llama_ubatch & get_ubatch() const override { return ubatches[i_cur]; }

    llama_memory_spikingbrain * get_mem() const { return mem; }

private:
    const llama_memory_status status;

    llama_memory_spikingbrain * mem = nullptr;
    std::vector<llama_ubatch> ubatches;
    std::vector<spikingbrain_groups> groups; // of each
    size_t i_cur = 0;
};
