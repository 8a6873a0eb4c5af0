#include "spikingbrain-loader.h"

#include "ggml-spikingbrain.h"

#include <unordered_set>

namespace {

enum type_set {
    FLOATS,     // F32, F16, BF16 and all that ggml can turn into floats: get_rows and mul_mat take them
    PROJECTION, // the same, or INT8 codes with their scales
    F32, I32, I16,
};

// by the name after "blk.N.", or by its end where the row begins with a mark
const struct { const char * name; type_set types; } TYPES[] = {
    { "token_embd.weight",        FLOATS     },
    { "output.weight",            FLOATS     },
    { "attn_q.weight",            PROJECTION },
    { "attn_k.weight",            PROJECTION },
    { "attn_v.weight",            PROJECTION },
    { "attn_output.weight",       PROJECTION },
    { "attn_gate.weight",         PROJECTION },
    { "ffn_gate.weight",          PROJECTION },
    { "ffn_up.weight",            PROJECTION },
    { "ffn_down.weight",          PROJECTION },
    { "ffn_gate_inp.weight",      F32        }, // the router
    { "_exps.weight",             PROJECTION },
    { "_shexp.weight",            PROJECTION },
    { "time_mix_receptance.weight", PROJECTION },
    { "time_mix_key.weight",      PROJECTION },
    { "time_mix_value.weight",    PROJECTION },
    { "time_mix_decay.weight",    F32        },
    { "time_mix_decay_w1.weight", FLOATS     },
    { "time_mix_decay_w2.weight", FLOATS     },
    { "_norm.weight",             F32        },
    { "rope_freqs.weight",        F32        },
    { ".bias",                    F32        },
    { ".scales",                  F32        },
    { ".sinks",                   F32        },
    { ".state",                   F32        },
    { ".outlier_index",           I32        },
    { ".outlier_value",           I16        },
};

bool is_in(ggml_type type, type_set set) {
    switch (set) {
        case FLOATS:     return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
        case PROJECTION: return type == GGML_TYPE_I8 || is_in(type, FLOATS);
        case F32:        return type == GGML_TYPE_F32;
        case I32:        return type == GGML_TYPE_I32;
        case I16:        return type == GGML_TYPE_I16;
    }
    return false;
}

const char * text_of(type_set set) {
    switch (set) {
        case FLOATS:     return "floats or a quantised type";
        case PROJECTION: return "floats, a quantised type or i8";
        case F32:        return "f32";
        case I32:        return "i32";
        case I16:        return "i16";
    }
    return "";
}

} // namespace

void llama_spikingbrain_require(bool ok, const std::string & what) {
    if (!ok) {
        throw std::runtime_error("spikingbrain: " + what);
    }
}

static const auto * find_row(const std::string & name) {
    const size_t      dot = name.compare(0, 4, "blk.") == 0 ? name.find('.', 4) : std::string::npos;
    const std::string own = dot == std::string::npos ? name : name.substr(dot + 1);
    for (const auto & row : TYPES) {
        const size_t n      = strlen(row.name);
        const bool   by_end = row.name[0] == '.' || row.name[0] == '_';
        if (by_end ? own.size() >= n && own.compare(own.size() - n, n, row.name) == 0 : own == row.name) {
            return &row;
        }
    }
    return (decltype(&TYPES[0])) nullptr;
}

std::string llama_spikingbrain_type_error(const std::string & name, ggml_type type) {
    const auto * row = find_row(name);
    return !row || is_in(type, row->types) ? "" : format("%s: got type %s, expected %s", name.c_str(), ggml_type_name(type), text_of(row->types));
}

void llama_spikingbrain_check_types(const llama_model_loader & ml) {
    for (const auto & [name, weight] : ml.weights_map) {
        const std::string error = llama_spikingbrain_type_error(name, weight.tensor->type);
        llama_spikingbrain_require(error.empty(), error);
    }
}

void llama_spikingbrain_check_all_read(const llama_model_loader & ml) {
    std::unordered_set<std::string> created;
    for (const auto & [key, ctx] : ml.ctx_map) {
        for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
            created.insert(t->name);
        }
    }
    for (const auto & [name, weight] : ml.weights_map) {
        llama_spikingbrain_require(created.count(name), name + ": got a tensor that nothing reads, expected none; use a newer version or convert the checkpoint again");
    }
}

// without vector instructions of ours llama.cpp's product of ordinary activations is the faster one
static bool has_kernels(ggml_type type) {
    static const ggml_spk_has_kernels_t has = [] {
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        return cpu ? (ggml_spk_has_kernels_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_spk_has_kernels") : nullptr;
    }();
    return has && has(type);
}

// superblocks have a product where they are interleaved only: their rows on disk take llama.cpp's
static bool only_interleaved(ggml_type type) {
    return ggml_spk_group(type) == GGML_SPK_SUPERBLOCK;
}

int llama_spikingbrain_weight_flags(const ggml_tensor * meta, bool spiking) {
    if (!meta || ggml_spk_group(meta->type) == 0) {
        return 0;
    }
    const bool always = meta->type == GGML_TYPE_I8 || (spiking && !only_interleaved(meta->type));
    return always || (has_kernels(meta->type) && meta->ne[1] % 16 == 0) ? LLAMA_SPIKINGBRAIN_TENSOR_SPK : 0; // 16 rows: what CPU_SPK interleaves
}

bool llama_spikingbrain_in_integers(const ggml_tensor * w, bool spiking, bool in_file) {
    const bool interleaved = w->buffer && strcmp(ggml_backend_buffer_name(w->buffer), "CPU_SPK") == 0;
    if (only_interleaved(w->type)) {
        return interleaved;
    }
    const bool stays = in_file && (llama_spikingbrain_weight_flags(w, spiking) & LLAMA_SPIKINGBRAIN_TENSOR_SPK);
    return ggml_spk_group(w->type) > 0 && (w->type == GGML_TYPE_I8 || spiking || interleaved || stays);
}

ggml_op llama_spikingbrain_weight_op(int flags, ggml_op op) {
    op = flags & LLAMA_SPIKINGBRAIN_TENSOR_CONSTANT ? GGML_OP_ADD : op;
    return flags & LLAMA_SPIKINGBRAIN_TENSOR_SPK ? GGML_OP_SPK_MUL_MAT : op;
}

ggml_tensor * llama_spikingbrain_probe(ggml_context * ctx, ggml_tensor * w) {
    if (w->type == GGML_TYPE_F32) { // the scales of INT8 codes
        ggml_tensor * codes = ggml_new_tensor_2d(ctx, GGML_TYPE_I8, 128*w->ne[0], w->ne[1]);
        return ggml_spk_mul_mat(ctx, codes, w, nullptr, nullptr, ggml_new_tensor_2d(ctx, GGML_TYPE_I8, ggml_spk_row_size(codes->ne[0]), 512));
    }
    ggml_tensor * act    = ggml_new_tensor_2d(ctx, GGML_TYPE_I8, ggml_spk_row_size(w->ne[0]), 512);
    ggml_tensor * scales = w->type == GGML_TYPE_I8 ? ggml_new_tensor_3d(ctx, GGML_TYPE_F32, w->ne[0]/128, w->ne[1], w->ne[2]) : nullptr;
    if (w->ne[2] > 1) {
        return ggml_spk_mul_mat_id(ctx, w, scales, nullptr, nullptr, act, ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 1, 512));
    }
    return ggml_spk_mul_mat(ctx, w, scales, nullptr, nullptr, act);
}
