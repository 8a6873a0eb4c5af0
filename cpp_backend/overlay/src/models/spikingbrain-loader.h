#pragma once

#include "../llama-model-loader.h"

// What each tensor of a SpikingBrain model may be stored as, and which operator reads it. Called by the model, by llama.cpp's loader
// (patch spk-weights) and by its quantiser (patch quantize-checks).

// A flag of create_tensor beside llama.cpp's: the tensor, a matrix or its INT8 scales, is read by SPK_MUL_MAT, so that it may lie in the buffer type CPU_SPK.
const int LLAMA_SPIKINGBRAIN_TENSOR_SPK = 1 << 24;
// Another: the tensor is a constant that no product reads, whatever its name stands for, and lies in a plain buffer.
const int LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT = 1 << 25;

// The operator that a tensor created with these flags is used with, where the loader would take op.
ggml_op llama_spikingbrain_weight_op(int flags, ggml_op op);

// SPK_MUL_MAT over w, or SPK_MUL_MAT_ID over a stack, to ask a backend about; F32: over INT8 codes with w as their scales
ggml_tensor * llama_spikingbrain_probe(ggml_context * ctx, ggml_tensor * w);

// The flag above, or 0, for a matrix of the file (NULL: it has none) whose input spikes or does not: INT8 codes always, types with a scale per
// 32 columns when their input spikes or this CPU has kernels of ours, superblocks (ggml_spk_group) when it has.
int llama_spikingbrain_weight_flags(const ggml_tensor * meta, bool spiking);

// Whether the product with a matrix, as it was loaded, is one in integers: INT8 codes always, types with a scale per 32 columns when their input
// spikes or they lie in CPU_SPK, superblocks there only. So ordinary activations take llama.cpp's own product with --no-repack and on other machines.
// in_file: experts that stay in the mapped file, where CPU_SPK would have them else.
bool llama_spikingbrain_in_integers(const ggml_tensor * w, bool spiking, bool in_file);

// Throws what is wrong.
void llama_spikingbrain_require(bool ok, const std::string & what);

// What is wrong with a tensor of this name and type; "" when nothing is, or the model has no such tensor, which is seen when none reads it.
std::string llama_spikingbrain_type_error(const std::string & name, ggml_type type);

// Both throw what is wrong. The type of each tensor of the files: llama.cpp asks shapes only, and reads some tensors by itself that the graph does not.
void llama_spikingbrain_check_types(const llama_model_loader & ml);
// Once the model has created its tensors: those of the files that nothing reads.
void llama_spikingbrain_check_all_read(const llama_model_loader & ml);
