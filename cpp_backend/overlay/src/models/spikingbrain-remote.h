#pragma once

#include <string>

struct llama_context;
struct llama_model;

// Models with layers on RPC servers: a server that is lost makes no call fail (ggml-spikingbrain-rpc.h), so that what depends on
// it asks here. Called by llama.cpp where a batch or a state ends, and by what saves and restores.

// Why the model is of no use any more: a server that it was loaded to was lost since. "" where it is not.
std::string llama_spikingbrain_lost(const llama_model & model);
void        llama_spikingbrain_throw_if_lost(const llama_model & model);

// Once the tensors were sent: waits until they are there, throws where they are not.
void llama_spikingbrain_check_loaded(const llama_model & model);

// Waits for what was asked of servers; false, and an error in the log, where the results are none. Without servers it does nothing.
bool llama_spikingbrain_answered(llama_context & ctx);
