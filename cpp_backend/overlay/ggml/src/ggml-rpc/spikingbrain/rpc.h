#pragma once

// Included before ggml-rpc.cpp (cpp_backend/patched-includes.cmake): what an unreachable, foreign or lost server does there.

#include "ggml.h"
#include "../transport.h"

struct ggml_cgraph;
struct ggml_backend_buffer;

// What ggml-rpc.cpp aborts with is thrown: it happens where a connection is made, which is when a server is named, a model loaded
// or a context made; all of them catch.
#undef  GGML_ABORT
#define GGML_ABORT(...) spk_rpc_throw(__VA_ARGS__)

[[noreturn]] void spk_rpc_throw(const char * format, ...);

// throws unless it is "host:port" with a port of 1 to 65535, and where a lost connection to it is still held by a model
void spk_rpc_check_endpoint(const char * endpoint);

#define SPK_RPC_MALFORMED "another answer than was asked for"

// Once lost, a socket sends and receives nothing more; the loss is noted (ggml-spikingbrain-rpc.h) with its reason.
void spk_rpc_lose(const socket_ptr & sock, const char * what); // unless it is lost already
void spk_rpc_throw_if_lost(const socket_ptr & sock);

// whether a graph that a server keeps reads or writes a buffer
bool spk_rpc_graph_uses(const ggml_cgraph * graph, const ggml_backend_buffer * buffer);
