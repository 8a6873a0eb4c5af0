#pragma once

// The engines' C interface as llama.cpp has it at the pin. Where an engine's differs, its words are translated here, and the
// driver knows of no engine: SB_BENCH_IK is ik_llama.cpp's, whose memory is the context, whose threads are OpenMP's
// (bound by OMP_PLACES, ../sides.py).

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include <cstdlib>
#include <cstring>
#include <string>

// settings that an engine may have, as its side names them (../sides.py); one that it has not is refused
struct engine_settings {
    bool flash_attn = false, repack = false, huge_pages = false, merge_qkv = false, rope_cache = false;
    ggml_type kv    = GGML_TYPE_F16;
};

#ifdef SB_BENCH_IK

using llama_memory_t = llama_context *;

inline llama_memory_t llama_get_memory(llama_context * ctx) { return ctx; }
inline llama_pos llama_memory_seq_pos_max(llama_memory_t m, llama_seq_id s) {
    return llama_kv_cache_seq_pos_min(m, s) < 0 ? -1 : llama_kv_cache_seq_pos_max(m, s); // the latter is 0 of an empty sequence, too
}
inline bool llama_memory_seq_rm(llama_memory_t m, llama_seq_id s, llama_pos a, llama_pos b) { return llama_kv_cache_seq_rm(m, s, a, b); }
inline void llama_memory_seq_cp(llama_memory_t m, llama_seq_id from, llama_seq_id to, llama_pos a, llama_pos b) {
    llama_kv_cache_seq_cp(m, from, to, a, b);
}
inline void llama_model_free(llama_model * model) { llama_free_model(model); }
inline size_t llama_state_seq_get_size(llama_context * ctx, llama_seq_id s) { return llama_state_seq_get_size(ctx, s, 0); }
inline size_t llama_state_seq_get_data(llama_context * ctx, uint8_t * out, size_t n, llama_seq_id s) {
    return llama_state_seq_get_data(ctx, out, n, s, 0);
}
inline size_t llama_state_seq_set_data(llama_context * ctx, const uint8_t * in, size_t n, llama_seq_id s) {
    return llama_state_seq_set_data(ctx, in, n, s, 0);
}
inline uint32_t llama_n_rs_seq(const llama_context *) { return 0; }
inline void ggml_backend_load_all() {}

inline int32_t engine_key(const llama_model * model, const char * name) {
    char arch[64] = "", value[64] = "0";
    llama_model_meta_val_str(model, "general.architecture", arch, sizeof(arch));
    llama_model_meta_val_str(model, (std::string(arch) + name).c_str(), value, sizeof(value));
    return std::atoi(value);
}
inline int32_t llama_model_n_layer(const llama_model * m)   { return llama_n_layer(m); }
inline int32_t llama_model_n_head(const llama_model * m)    { return engine_key(m, ".attention.head_count"); }
inline int32_t llama_model_n_head_kv(const llama_model * m) { return engine_key(m, ".attention.head_count_kv"); }

using engine_threads = bool;

inline engine_threads engine_threads_new(const int *, int) { return true; }
inline void engine_threads_free(engine_threads) {}
inline void engine_threads_pause(engine_threads) {} // OpenMP's fall asleep by themselves
inline void engine_threads_use(llama_context *, engine_threads) {}

inline llama_model_params engine_model(const engine_settings & s) {
    llama_model_params p = llama_model_default_params();
    p.repack_tensors = s.repack;
    p.use_thp        = s.huge_pages;
    p.merge_qkv      = s.merge_qkv;
    p.flash_attn     = s.flash_attn;
    p.type_k = p.type_v = s.kv;
    return p;
}

inline void engine_context(llama_context_params & p, const engine_settings & s, bool) {
    p.flash_attn = s.flash_attn;
    p.rope_cache = s.rope_cache;
}

constexpr bool engine_has_ik_settings = true;

// a saved sequence: no header, cells without sequences, a word for a model of another kind at the end
constexpr size_t engine_state_header = 0, engine_state_tail = sizeof(uint32_t);
constexpr bool   engine_state_streams = false;

#else

#include "ggml-cpu.h"

using engine_threads = ggml_threadpool_t;

// thread i on cpus[i]; null where they could not be made
inline engine_threads engine_threads_new(const int * cpus, int n) {
    ggml_threadpool_params params = ggml_threadpool_params_default(n);
    for (int i = 0; i < n; ++i) {
        params.cpumask[cpus[i]] = true;
    }
    params.strict_cpu = true; // one thread on each of them
    params.paused     = true;
    return ggml_threadpool_new(&params);
}
inline void engine_threads_free(engine_threads t)  { ggml_threadpool_free(t); }
inline void engine_threads_pause(engine_threads t) { ggml_threadpool_pause(t); }
inline void engine_threads_use(llama_context * ctx, engine_threads t) { llama_attach_threadpool(ctx, t, t); }

inline llama_model_params engine_model(const engine_settings &) { return llama_model_default_params(); }

inline void engine_context(llama_context_params & p, const engine_settings & s, bool unified) {
    p.kv_unified      = unified;
    p.flash_attn_type = s.flash_attn ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

constexpr bool engine_has_ik_settings = false;

// a saved sequence: {magic, sequence}, then streams of cells that name their sequences
constexpr size_t engine_state_header = sizeof(uint32_t) + sizeof(llama_seq_id), engine_state_tail = 0;
constexpr bool   engine_state_streams = true;

#endif
