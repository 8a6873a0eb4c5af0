#pragma once

// A tool that told an error ends with 1: llama.cpp's perplexity tells it, returns from the middle of its work, and ends with 0.
// Included once by such a tool, after log.h (patch tools-exit-code).

#include "log.h"

inline bool tool_failed = false;

#undef  LOG_ERR
#define LOG_ERR(...) do { tool_failed = true; LOG_TMPL(GGML_LOG_LEVEL_ERROR, LOG_LEVEL_ERROR, __VA_ARGS__); } while (0)
