#pragma once

#include "../llama-batch.h"
#include "../llama-graph.h"
#include "../llama-memory.h"

#include "ggml-spikingbrain.h"

#include <vector>

struct llama_model_spikingbrain;

// What a sequence remembers, in a slot of its own:
//  - sliding-window layers: a ring of keys and values, position p in row p % n_ring. n_ring = window + n_ubatch,
//    so that writing a micro-batch never overwrites a row that the state before it still needs. INT8 rows (the
//    spiking variant) hold d codes and their float scale
//  - gated linear attention layers: the state S[n_head_kv][d][d], twice: a micro-batch reads one copy and
//    leaves the other, so that an interrupted or removed last micro-batch costs nothing to undo
// Allocated once; neither n_ctx nor the number of tokens changes it.

class llama_memory_spikingbrain : public llama_memory_i {
public:
    llama_memory_spikingbrain(const llama_model & model, uint32_t n_window, ggml_type type_k, ggml_type type_v,
            uint32_t n_seq_max, uint32_t n_ubatch);

    //
    // llama_memory_i
    //

    llama_memory_context_ptr init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) override;
    llama_memory_context_ptr init_full() override;
    llama_memory_context_ptr init_update(llama_context * lctx, bool optimize) override;

    // positions are not shifted: nothing of this memory ends at n_ctx
    bool get_can_shift() const override { return false; }

    void clear(bool data) override;

    // removes a whole sequence, or exactly its last micro-batch; everything else is refused and changes nothing
    bool seq_rm  (llama_seq_id seq_id, llama_pos p0, llama_pos p1) override;
    // copies a whole sequence; a part of one is refused, which leaves the destination empty
    void seq_cp  (llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) override;
    void seq_keep(llama_seq_id seq_id) override;
    // refused with an error in the log
    void seq_add (llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) override;
    void seq_div (llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) override;

    // both the last position: no earlier state can be returned to
    llama_pos seq_pos_min(llama_seq_id seq_id) const override;
    llama_pos seq_pos_max(llama_seq_id seq_id) const override;

    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const override;

    // whole in every mode (flags), since a checkpoint without its window rows would be wrong
    void state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const override;
    void state_read (llama_io_read_i  & io, llama_seq_id seq_id, llama_state_seq_flags flags) override;

    //
    // for the memory context and the graph
    //

    void apply (const llama_ubatch & ubatch); // advance the sequences of a micro-batch about to be computed
    void commit(const llama_ubatch & ubatch); // it was computed
    void set_input(const llama_ubatch & ubatch, int32_t * seqs, int64_t * rows) const;

    ggml_tensor * get_k(int il) const { return k_l[il]; }
    ggml_tensor * get_v(int il) const { return v_l[il]; }
    ggml_tensor * get_s(int il) const { return s_l[il]; }

    int32_t get_n_window() const { return n_window; }
    int32_t get_n_ring()   const { return n_ring; }

    ggml_type get_type_k() const { return type_k; }
    ggml_type get_type_v() const { return type_v; }

    // per sequence, empty: none (llama_spikingbrain_set_row)
    std::vector<std::vector<float>> rows;

private:
    struct sequence {
        llama_pos pos_first = -1; // positions pos_first .. pos_last went into the state, -1 = empty
        llama_pos pos_last  = -1;
        llama_pos pos_prev  = -1; // pos_last before the last micro-batch
        uint32_t  cur       = 0;  // which of the two states is the current one
        bool      can_undo  = false;
        uint64_t  content      = 0; // equal numbers, equal content
        uint64_t  content_prev = 0;

        bool empty() const { return pos_last < 0; }
    };

    bool is_seq(llama_seq_id seq_id) const { return seq_id >= 0 && (size_t) seq_id < seqs.size(); }

    void alloc();
    bool check(const std::vector<llama_ubatch> & ubatches) const;
    void undo(sequence & seq);
    void roll_back(); // an applied micro-batch that was never committed
    void copy(llama_seq_id src, llama_seq_id dst);

    // calls fn(tensor, offset, size) for the state and the live ring rows of one sequence, in the saved order
    template <typename F>
    void for_each_part(llama_seq_id seq_id, const sequence & seq, F && fn) const;

    uint32_t n_rows(const sequence & seq) const;

    const llama_hparams & hparams;

    const int32_t n_window;
    const int32_t n_ring;
    const ggml_type type_k;
    const ggml_type type_v;

    std::vector<sequence> seqs;
    std::vector<llama_seq_id> in_flight; // owners of the applied, not yet committed micro-batch
    uint64_t n_content = 0;

    // per layer, nullptr where the layer has none
    std::vector<ggml_tensor *> k_l; // {d, n_ring*n_seq_max, n_head_kv}, INT8: {GGML_SPK_KV_ROW(d), ..}
    std::vector<ggml_tensor *> v_l;
    std::vector<ggml_tensor *> s_l; // {d*d*n_head_kv, 2*n_seq_max}

    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buf;
};

class llama_memory_spikingbrain_context : public llama_memory_context_i {
public:
    llama_memory_spikingbrain_context(llama_memory_status status) : status(status) {}

    llama_memory_spikingbrain_context(llama_memory_spikingbrain * mem, std::vector<llama_ubatch> ubatches = {}) :
        status(LLAMA_MEMORY_STATUS_SUCCESS), mem(mem), ubatches(std::move(ubatches)) {}

    bool next()  override;
    bool apply() override;

    llama_memory_status  get_status() const override { return status; }
    const llama_ubatch & get_ubatch() const override { return ubatches[i_cur]; }

    llama_memory_spikingbrain * get_mem() const { return mem; }

private:
    const llama_memory_status status;

    llama_memory_spikingbrain * mem = nullptr;
    std::vector<llama_ubatch> ubatches;
    size_t i_cur = 0;
};
