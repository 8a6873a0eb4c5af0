#pragma once

#include "../llama-model-loader.h"

// What each tensor of a SpikingBrain model may be stored as, and which operator reads it. Called by the model, by llama.cpp's loader
// (patch 0003) and by its quantiser (patch 0016).

// A flag of create_tensor beside llama.cpp's: the tensor is read by SPK_MUL_MAT, so that it may lie in the buffer type CPU_SPK.
const int LLAMA_SPIKINGBRAIN_TENSOR_SPK = 1 << 24;

// The operator that a tensor created with these flags is used with, where the loader would take op.
ggml_op llama_spikingbrain_weight_op(int flags, ggml_op op);

// SPK_MUL_MAT over w, to ask a backend about
ggml_tensor * llama_spikingbrain_probe(ggml_context * ctx, ggml_tensor * w);

// Whether a product with a matrix of this type is one in integers: INT8 codes always, others when their input spikes.
bool llama_spikingbrain_in_integers(ggml_type type, bool spiking);

// What is wrong with a tensor of this name and type; "" when nothing is, or the model has no such tensor, which is seen when none reads it.
std::string llama_spikingbrain_type_error(const std::string & name, ggml_type type);
