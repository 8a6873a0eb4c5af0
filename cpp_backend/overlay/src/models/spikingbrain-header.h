#pragma once

#include "../llama-model-loader.h"

// What the keys of a GGUF file may say, asked by llama.cpp's loader for every program that opens a model (patches header-checks, override-checks, adapter-checks).
// All throw std::runtime_error: "key: got X, expected Y".

// Before the first hyperparameter is read: the keys of architecture "spikingbrain" by one table (type, range, none unknown), what
// llama.cpp aborts on in a file of any architecture, and the types and ranges of overrides. vocab_only: no key is missed.
void llama_spikingbrain_check_header(const llama_model_loader & ml, bool vocab_only);

// Once hyperparameters and vocabulary are read: every override must have been read. One that belongs to another architecture is
// left alone: a draft model is loaded with the overrides of the model it drafts for.
void llama_spikingbrain_check_overrides(const llama_model_loader & ml);

// Of a LoRA adapter's file: the types of the keys that llama.cpp reads, a finite alpha, halves of one rank for matrices that a product reads.
// Warns where the model has sinks, whose constants an adapter does not change.
void llama_spikingbrain_check_adapter(const gguf_context * gguf, const llama_model & model);
void llama_spikingbrain_warn_adapter(const llama_model & model);
