#pragma once

// What a state belongs to (llama_spikingbrain_print), for models of every architecture.
//
// weights: name, type, shape and content of every tensor, in whatever files they lie, as they were when the model was loaded.
// Of a model of at most 256 MiB every byte counts. Of a larger one every byte of the tensors of at most 64 KiB, and of each
// other tensor its share of 256 MiB, but at least 64 KiB, in blocks of 16 KiB spread evenly from its first byte to its last.
// So a tensor that was trained, merged or quantised anew is always noticed; a few bytes patched inside a large one may not be.
//
// settings: the architecture's own keys, overrides applied, so that an override by the file's own value changes nothing; of
// `spikingbrain`'s spikes what the model made of them. What only names or describes the model, or tokenizes, does not count.

#include "llama-spikingbrain.h"

class llama_io_read_i;
class llama_io_write_i;
struct llama_context;
struct llama_model;
struct llama_model_loader;

struct llama_spikingbrain_prints {
    static void set_model(const llama_model & model, llama_model_loader & ml); // of one that was just loaded
    static llama_spikingbrain_print of(const llama_context & ctx);

    // before the memory in llama_state_get_data and in session files; read throws where the state is another computation's
    static void write(const llama_context & ctx, llama_io_write_i & io);
    static void read (const llama_context & ctx, llama_io_read_i & io);
};
