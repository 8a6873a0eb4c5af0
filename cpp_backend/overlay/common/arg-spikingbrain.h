#pragma once

// What the patches of arg.cpp call, by one line of theirs.

#include "arg.h"
#include "llama-spikingbrain.h"
#include "schema-grammar.h"
#include "whole-file.h"
#include "whole-number.h"

#include <stdexcept>
#include <string>

// patch n-rs-seq
static inline common_arg arg_n_rs_seq() {
    return common_arg(
        {"--n-rs-seq"}, "N",
        "tokens at the end of a sequence that a SpikingBrain model can take back: edits, rejected drafts (default: " + std::to_string(LLAMA_SPIKINGBRAIN_N_RS_SEQ) + ")",
        [](common_params &, int value) {
            if (!llama_spikingbrain_set_n_rs_seq(value)) {
                throw std::invalid_argument("--n-rs-seq: got " + std::to_string(value) + ", expected 1 .. " + std::to_string(LLAMA_SPIKINGBRAIN_N_RS_SEQ_MAX));
            }
        }
    ).set_env("LLAMA_ARG_N_RS_SEQ");
}
