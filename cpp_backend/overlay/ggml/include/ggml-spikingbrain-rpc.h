#pragma once

#include "ggml.h"

// Which RPC servers were lost, and why: ggml-rpc writes it, which may be a module, and who computes with them asks. In ggml-base.

#ifdef __cplusplus
extern "C" {
#endif

// The connection to endpoint ("host:port", as the device's description has it) is no more; why is a sentence that begins with
// "rpc: ". What was sent to it has no effect and what is read from it is zeros, until a new connection is made.
GGML_API void ggml_spk_rpc_set_lost(const char * endpoint, const char * why);

// When a connection to endpoint was lost the last time (ggml_time_us), 0: never. The reason into why, which has n bytes.
GGML_API int64_t ggml_spk_rpc_lost(const char * endpoint, char * why, size_t n);

#ifdef __cplusplus
}
#endif
