#pragma once

#include "spikingbrain-sequences.h"

#include "ggml-cpp.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <map>
#include <vector>

class llama_io_write_i;
class llama_io_read_i;

// What a layer keeps of every sequence, in tensors of the layer's own buffer type. Both kinds may be in one layer.
struct spikingbrain_layer_memory {
    static constexpr uint32_t ALL = UINT32_MAX; // every position: a cache that grows

    bool     state  = false; // of gated linear attention
    uint32_t window = 0;     // keys and values of that many positions; 0: none
    ggml_backend_buffer_type_t buft = nullptr;
    int64_t  n_head = 0;     // of the state; 0: as many as key/value heads
};

struct spikingbrain_storage_params {
    std::vector<spikingbrain_layer_memory> layers;

    int64_t   d, n_kv;       // size and number of key/value heads
    ggml_type type_k, type_v;
    uint32_t  n_ubatch;
    uint32_t  n_positions;   // rows of a cache that grows
    int       n_threads;     // of what it computes itself
    bool      no_alloc;      // to measure
    uint32_t  n_sinks = 0;   // rows that every query sees, the same for all sequences
};

// Tensors of all sequences, and what is done to them: it decides nothing (spikingbrain-sequences.h does).
//  - keys and values: a ring per sequence, position p in row p % n_ring. n_ring = window + n_back + n_ubatch, so that a micro-batch
//    never overwrites a row that a state before it still needs; or every position. INT8 rows hold d codes and their float scale.
//    Behind the rings of all sequences lie the rows of the sinks, which no operation on sequences touches
//  - linear attention: states and journal (ggml_spk_gla_update)
// Allocated once; the number of tokens changes nothing. But a cache of every position is address space: the system gives it pages
// (of 2 MiB where it can) as positions come, since nothing touches the rows before.
class spikingbrain_storage {
public:
    // throws std::runtime_error
    spikingbrain_storage(const spikingbrain_sequences & seqs, const spikingbrain_storage_params & params);

    ggml_tensor * get_k(int il) const { return layers[il].k; } // {d, n_ring*n_seq_max + n_sinks, n_kv}, INT8: {GGML_SPK_KV_ROW(d), ..}
    ggml_tensor * get_v(int il) const { return layers[il].v; }
    ggml_tensor * get_s(int il) const { return layers[il].s; } // {d, ggml_spk_gla_rows}

    int32_t n_ring  (int il) const { return layers[il].n_ring; }
    int32_t n_window(int il) const { return layers[il].window; } // of a cache that grows: n_ring

    int32_t n_states()  const { return seqs.n_rows(); }
    int32_t n_journal() const { return seqs.n_journal(); }
    int64_t n_head(int il) const { return layers[il].n_head; } // of the state
    int32_t n_sinks()   const { return params.n_sinks; }

    ggml_type type_k() const { return params.type_k; }
    ggml_type type_v() const { return params.type_v; }

    // what a micro-batch does, as ggml_spk_gla_update reads it
    static ggml_spk_plan plan(const spikingbrain_advance & advance);

    // computes steps of the journal, on the device of each layer; throws std::runtime_error
    void run(const std::vector<spikingbrain_advance> & todo);

    // the state before any token, S[n_head][d][d], where it has a row; zeros until set
    void set_initial(int il, const float * state);
    // keys and values of the sinks, {d, n_sinks, n_kv}, stored as those of tokens are
    void set_sinks(int il, const float * k, const float * v);

    // positions of a sequence up to the last one are about to be written
    void reach(llama_seq_id seq, llama_pos last) { reached[seq] = std::max(reached[seq], last + 1); }

    void clear(); // all bytes, but the initial states and the sinks

    // the whole slot: states, journal and rows in reach
    void copy(llama_seq_id src, llama_seq_id dst);

    // calls fn(tensor, offset, size) for the current state and the window of a sequence, in the saved order
    template <typename F>
    void for_each_part(llama_seq_id seq, F && fn) const {
        for (const auto & layer : layers) {
            if (layer.s) {
                fn(layer.s, seqs.row(seq)*state_bytes(layer), state_bytes(layer));
            }
            for_each_row(layer, seq, 0, fn);
        }
    }

    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const;

    size_t bytes_per_entry() const; // of one position that can be taken back: its rows and its two entries, of all layers
    size_t bytes_of_caches() const; // of every position: what it takes when all sequences are as long as they can be

private:
    struct layer {
        ggml_tensor * k = nullptr, * v = nullptr, * s = nullptr;
        int32_t n_ring = 0, window = 0;
        int64_t n_head = 0;
        bool    grows  = false;
    };

    // tensors of one buffer type; those of every position lie by themselves
    struct device {
        ggml_context_ptr        ctx, ctx_caches;
        ggml_backend_buffer_ptr buf, buf_caches;
        ggml_backend_ptr        backend; // made when something is computed there
        ggml_tensor           * plans = nullptr;
    };

    size_t state_bytes(const layer & l) const { return params.d*params.d*l.n_head*sizeof(float); }
    size_t entry_bytes(const layer & l) const { return 3*params.d*l.n_head*sizeof(float); }

    device & device_of(ggml_backend_buffer_type_t buft);
    void make_layer(int il, const spikingbrain_layer_memory & what);
    ggml_backend_buffer_ptr allocate(ggml_backend_buffer_type_t buft, ggml_context * ctx) const;
    void set_sink_rows(ggml_tensor * ring, const float * x) const;
    ggml_backend_t backend_of(ggml_backend_buffer_type_t buft, device & dev);
    void run_on(ggml_backend_buffer_type_t buft, device & dev, const std::vector<ggml_spk_plan> & plans);
    static void copy_bytes(ggml_tensor * t, size_t from, size_t to, size_t size);

    // the last rows of a sequence, `more` beyond its window; a ring that wraps: in two parts
    template <typename F>
    void for_each_row(const layer & l, llama_seq_id seq, int64_t more, F && fn) const {
        if (!l.k || seqs.empty(seq)) {
            return;
        }
        const int64_t n     = std::min<int64_t>((int64_t) l.window + more, (int64_t) seqs.last(seq) - seqs.first(seq) + 1);
        const int64_t begin = (seqs.last(seq) - n + 1) % l.n_ring; // ring row of the oldest one
        const int64_t n1    = std::min<int64_t>(n, l.n_ring - begin);
        for (ggml_tensor * t : { l.k, l.v }) {
            for (int64_t h = 0; h < t->ne[2]; ++h) {
                const size_t base = h*t->nb[2] + (size_t) seq*l.n_ring*t->nb[1];
                fn(t, base + begin*t->nb[1], n1*t->nb[1]);
                if (n > n1) {
                    fn(t, base, (n - n1)*t->nb[1]);
                }
            }
        }
    }

    const spikingbrain_sequences    & seqs;
    const spikingbrain_storage_params params;

    std::vector<layer> layers;
    std::vector<llama_pos> reached; // of each slot since the last clear()
    std::map<ggml_backend_buffer_type_t, device> devices;
};
