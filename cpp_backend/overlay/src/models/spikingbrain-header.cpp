#include "spikingbrain-header.h"

#include "../llama-model.h"

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <optional>
#include <unordered_set>

namespace {

// the limits of llama-hparams.h
const double MAX_EXPERTS = 1024;
const double MAX_DUMMIES = 1 << 24; // tokens of a vocabulary that has no texts
const double MAX_SINKS   = 1 << 20;

struct key_rule {
    const char * name; // after "spikingbrain."
    gguf_type    type; // GGUF_TYPE_ARRAY: one bool per layer
    bool         required;
    double       least;
    double       most;
    const char * expected; // of a string: all it may be
};

const double ANY = UINT32_MAX;

const key_rule RULES[] = {
    { "vocab_size",                       GGUF_TYPE_UINT32,  false, 1,       ANY,             "1 or more"                  },
    { "context_length",                   GGUF_TYPE_UINT32,  true,  1,       ANY,             "1 or more"                  },
    { "embedding_length",                 GGUF_TYPE_UINT32,  true,  1,       INT32_MAX,       "a positive int"             },
    { "block_count",                      GGUF_TYPE_UINT32,  true,  1,       LLAMA_MAX_LAYERS, "1 to 512"                  },
    { "feed_forward_length",              GGUF_TYPE_UINT32,  true,  1,       INT32_MAX,       "a positive int"             },
    { "attention.head_count",             GGUF_TYPE_UINT32,  true,  1,       INT32_MAX,       "a positive int"             },
    { "attention.head_count_kv",          GGUF_TYPE_UINT32,  false, 1,       INT32_MAX,       "a positive int"             },
    { "attention.key_length",             GGUF_TYPE_UINT32,  false, 1,       INT32_MAX,       "a positive int"             },
    { "attention.value_length",           GGUF_TYPE_UINT32,  false, 1,       INT32_MAX,       "a positive int"             },
    { "attention.layer_norm_rms_epsilon", GGUF_TYPE_FLOAT32, true,  0,       FLT_MAX,         "a number of 0 or more"      },
    { "attention.sliding_window",         GGUF_TYPE_UINT32,  true,  1,       (1u << 30) - 1,  "1 to 2^30 - 1"              },
    { "attention.recurrent_layers",       GGUF_TYPE_ARRAY,   true,  0,       0,               "an array of bool, one per layer" },
    { "attention.sliding_window_pattern", GGUF_TYPE_ARRAY,   false, 0,       0,               "an array of bool, one per layer" },
    { "rope.dimension_count",             GGUF_TYPE_UINT32,  false, 1,       INT32_MAX,       "a positive int"             },
    { "rope.freq_base",                   GGUF_TYPE_FLOAT32, false, FLT_MIN, FLT_MAX,         "a positive number"          },
    { "rope.scaling.type",                GGUF_TYPE_STRING,  false, 0,       0,               "none or linear"             },
    { "rope.scaling.factor",              GGUF_TYPE_FLOAT32, false, FLT_MIN, FLT_MAX,         "a positive number"          },
    { "pooling_type",                     GGUF_TYPE_UINT32,  false, 0,       3,               "0 to 3: none, mean, cls or last" },
    { "gla.gate_logit_normalizer",        GGUF_TYPE_FLOAT32, false, FLT_MIN, FLT_MAX,         "a positive number"          },
    { "gla.gate_low_rank_dim",            GGUF_TYPE_UINT32,  false, 0,       INT32_MAX,       "0 (a full gate) or its rank" },
    { "gla.q_activation",                 GGUF_TYPE_STRING,  false, 0,       0,               "relu or sigmoid"            },
    { "gla.k_max",                        GGUF_TYPE_FLOAT32, false, FLT_MIN, 1,               "a number above 0, at most 1" },
    { "hybrid",                           GGUF_TYPE_STRING,  false, 0,       0,               "alternate or parallel"      },
    { "sink_count",                       GGUF_TYPE_UINT32,  false, 0,       MAX_SINKS,       "0 to 1048576"               },
    { "sink_spike_k",                     GGUF_TYPE_FLOAT32, false, 0,       FLT_MAX,         "0 (no spikes) or a positive number" },
    { "sink_spike_scope",                 GGUF_TYPE_STRING,  false, 0,       0,               "paper or released"          },
    { "expert_count",                     GGUF_TYPE_UINT32,  false, 0,       MAX_EXPERTS,     "0 to 1024"                  },
    { "expert_used_count",                GGUF_TYPE_UINT32,  false, 1,       1,               "1: no other was published"  },
    { "expert_feed_forward_length",       GGUF_TYPE_UINT32,  false, 1,       INT32_MAX,       "a positive int"             },
    { "expert_shared_count",              GGUF_TYPE_UINT32,  false, 0,       1,               "0 or 1"                     },
    { "expert_shared_feed_forward_length", GGUF_TYPE_UINT32, false, 1,       INT32_MAX,       "a positive int"             },
    { "expert_gating_func",               GGUF_TYPE_UINT32,  false, 1,       1,               "1: a softmax over all experts" },
    { "expert_weights_norm",              GGUF_TYPE_BOOL,    false, 0,       1,               "true or false"              },
    { "spike.enable",                     GGUF_TYPE_BOOL,    false, 0,       1,               "true or false"              },
    { "spike.k",                          GGUF_TYPE_FLOAT32, false, FLT_MIN, FLT_MAX,         "a positive number"          },
    { "spike.scope",                      GGUF_TYPE_STRING,  false, 0,       0,               "paper or released"          },
};

[[noreturn]] void refuse(const std::string & key, const std::string & got, const std::string & expected) {
    throw std::runtime_error(key + ": got " + got + ", expected " + expected);
}

std::string text_of(double x) { return format(x == std::floor(x) && std::fabs(x) < 1e15 ? "%.0f" : "%g", x); }

bool starts_with(const std::string & s, const std::string & with) { return s.compare(0, with.size(), with) == 0; }
bool ends_with  (const std::string & s, const std::string & with) { return s.size() >= with.size() && s.compare(s.size() - with.size(), with.size(), with) == 0; }

bool is_float(gguf_type t) { return t == GGUF_TYPE_FLOAT32 || t == GGUF_TYPE_FLOAT64; }
bool is_signed(gguf_type t) { return t == GGUF_TYPE_INT8 || t == GGUF_TYPE_INT16 || t == GGUF_TYPE_INT32 || t == GGUF_TYPE_INT64; }

const char * tag_name(llama_model_kv_override_type tag) {
    switch (tag) {
        case LLAMA_KV_OVERRIDE_TYPE_INT:   return "int";
        case LLAMA_KV_OVERRIDE_TYPE_FLOAT: return "float";
        case LLAMA_KV_OVERRIDE_TYPE_BOOL:  return "bool";
        case LLAMA_KV_OVERRIDE_TYPE_STR:   return "str";
    }
    return "unknown";
}

bool tag_fits(llama_model_kv_override_type tag, gguf_type type) {
    switch (tag) {
        case LLAMA_KV_OVERRIDE_TYPE_STR:   return type == GGUF_TYPE_STRING;
        case LLAMA_KV_OVERRIDE_TYPE_BOOL:  return type == GGUF_TYPE_BOOL;
        case LLAMA_KV_OVERRIDE_TYPE_FLOAT: return is_float(type);
        case LLAMA_KV_OVERRIDE_TYPE_INT:   return !is_float(type) && type != GGUF_TYPE_STRING && type != GGUF_TYPE_BOOL && type != GGUF_TYPE_ARRAY;
    }
    return false;
}

class header_check {
public:
    header_check(const llama_model_loader & ml, bool vocab_only) :
        gguf(ml.metadata), ml(ml), arch(ml.arch_name), ours(arch == "spikingbrain"), vocab_only(vocab_only) {}

    void run() const {
        for (const auto & [key, o] : ml.kv_overrides) {
            check_override(key, o);
        }
        if (ours) {
            check_known();
            for (const key_rule & rule : RULES) {
                check_rule(rule);
            }
        } else if (!vocab_only) {
            check_other();
        }
        if (!vocab_only) {
            check_experts();
        }
        const int64_t normalizer = find("tokenizer.ggml.normalizer"); // ours alone (converter/README.md)
        if (normalizer >= 0 && (gguf_get_kv_type(gguf, normalizer) != GGUF_TYPE_STRING || text("tokenizer.ggml.normalizer", "") != "nfc")) {
            refuse("tokenizer.ggml.normalizer", gguf_kv_to_str(gguf, normalizer), "nfc or no such key");
        }
        check_tokens();
        check_vocab_size();
        check_special_ids();
    }

private:
    const gguf_context       * gguf;
    const llama_model_loader & ml;
    const std::string          arch;
    const bool                 ours;
    const bool                 vocab_only;

    std::string key(const char * name) const { return arch + "." + name; }
    int64_t     find(const std::string & k) const { return gguf_find_key(gguf, k.c_str()); }

    const key_rule * rule_of(const std::string & k) const {
        for (const key_rule & rule : RULES) {
            if (ours && k == key(rule.name)) {
                return &rule;
            }
        }
        return nullptr;
    }

    const llama_model_kv_override * override_of(const std::string & k) const {
        const auto it = ml.kv_overrides.find(k);
        return it == ml.kv_overrides.end() ? nullptr : &it->second;
    }

    // of a key in 32 bits or a flag; none where it is absent or of another type, which llama.cpp says itself
    std::optional<double> number(const std::string & k) const {
        if (const auto * o = override_of(k)) {
            return o->tag == LLAMA_KV_OVERRIDE_TYPE_FLOAT ? o->val_f64 : o->tag == LLAMA_KV_OVERRIDE_TYPE_BOOL ? o->val_bool : o->val_i64;
        }
        const int64_t id = find(k);
        switch (id < 0 ? GGUF_TYPE_COUNT : gguf_get_kv_type(gguf, id)) {
            case GGUF_TYPE_UINT32:  return gguf_get_val_u32 (gguf, id);
            case GGUF_TYPE_FLOAT32: return gguf_get_val_f32 (gguf, id);
            case GGUF_TYPE_BOOL:    return gguf_get_val_bool(gguf, id);
            default:                return std::nullopt;
        }
    }

    std::string text(const std::string & k, const std::string & otherwise) const {
        if (const auto * o = override_of(k)) {
            return o->tag == LLAMA_KV_OVERRIDE_TYPE_STR ? o->val_str : otherwise;
        }
        const int64_t id = find(k);
        return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_STRING ? gguf_get_val_str(gguf, id) : otherwise;
    }

    void require(bool ok, const std::string & k, double got, const std::string & expected) const {
        if (!ok) {
            refuse(k, text_of(got), expected);
        }
    }

    // llama.cpp would warn and go on without it, or cut the value down to 32 bits
    void check_override(const std::string & k, const llama_model_kv_override & o) const {
        const int64_t    id   = find(k);
        const key_rule * rule = rule_of(k);
        const gguf_type  type = rule ? rule->type : id >= 0 ? gguf_get_kv_type(gguf, id) : GGUF_TYPE_COUNT;
        if (type != GGUF_TYPE_COUNT && !tag_fits(o.tag, type)) {
            refuse("override of " + k, std::string("type ") + tag_name(o.tag), type == GGUF_TYPE_ARRAY ? "none: it is an array" : gguf_type_name(type));
        }
        if (ours && !rule && starts_with(k, arch + ".")) {
            refuse("override of " + k, "a key that the architecture does not have", "one of its own; check the spelling");
        }
        if (o.tag == LLAMA_KV_OVERRIDE_TYPE_INT && !is_signed(type)) {
            require(o.val_i64 >= 0 && o.val_i64 <= UINT32_MAX, "override of " + k, o.val_i64, "0 to 4294967295");
        }
        if (o.tag == LLAMA_KV_OVERRIDE_TYPE_FLOAT && !rule) {
            require(std::isfinite(o.val_f64) && std::fabs(o.val_f64) <= FLT_MAX, "override of " + k, o.val_f64, "a finite number");
        }
    }

    void check_known() const {
        for (int64_t i = 0; i < gguf_get_n_kv(gguf); ++i) {
            const std::string k = gguf_get_key(gguf, i);
            if (starts_with(k, arch + ".") && !rule_of(k)) {
                refuse(k, "a key that is not known here", "none such; use a newer version or convert the checkpoint again");
            }
        }
    }

    void check_rule(const key_rule & rule) const {
        const std::string k  = key(rule.name);
        const int64_t     id = find(k);
        if (id < 0 && !override_of(k)) {
            if (rule.required && !vocab_only) {
                refuse(k, "no such key", rule.expected);
            }
            return;
        }
        if (id >= 0 && gguf_get_kv_type(gguf, id) != rule.type) {
            refuse(k, std::string("type ") + gguf_type_name(gguf_get_kv_type(gguf, id)), gguf_type_name(rule.type));
        }
        switch (rule.type) {
            case GGUF_TYPE_ARRAY:  check_per_layer(k, id, rule); break;
            case GGUF_TYPE_STRING: check_choice(k, rule);        break;
            default: {
                const double got = number(k).value_or(NAN);
                require(got >= rule.least && got <= rule.most, k, got, rule.expected);
            }
        }
    }

    void check_per_layer(const std::string & k, int64_t id, const key_rule & rule) const {
        if (gguf_get_arr_type(gguf, id) != GGUF_TYPE_BOOL) {
            refuse(k, std::string("an array of ") + gguf_type_name(gguf_get_arr_type(gguf, id)), rule.expected);
        }
        const double n = gguf_get_arr_n(gguf, id), n_layer = number(key("block_count")).value_or(n);
        if (n != n_layer) {
            refuse(k, text_of(n) + " values", text_of(n_layer) + ", one per layer");
        }
    }

    void check_choice(const std::string & k, const key_rule & rule) const {
        const std::string got = text(k, ""), all = std::string(" or ") + rule.expected + " or ";
        if (got.empty() || all.find(" or " + got + " or ") == std::string::npos) {
            refuse(k, got, rule.expected);
        }
    }

    //
    // any architecture: what llama.cpp asserts
    //

    double count(const char * name, double otherwise) const { return number(key(name)).value_or(otherwise); }

    void check_other() const {
        const double n_layer = count("block_count", 1);
        require(n_layer >= 1 && n_layer <= LLAMA_MAX_LAYERS, key("block_count"), n_layer, "1 to 512");
        for (const char * name : { "nextn_predict_layers", "posnet.block_count", "convnext.block_count" }) {
            require(count(name, 0) <= n_layer, key(name), count(name, 0), "at most " + text_of(n_layer));
        }
        for (const char * name : { "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon" }) {
            require(count(name, 0) >= 0 && std::isfinite(count(name, 0)), key(name), count(name, 0), "a number of 0 or more");
        }
        const std::string scaling = text(key("rope.scaling.type"), "linear");
        if (scaling != "none" && scaling != "linear" && scaling != "yarn" && scaling != "longrope") {
            refuse(key("rope.scaling.type"), scaling, "none, linear, yarn or longrope");
        }
    }

    void check_experts() const {
        const double n = count("expert_count", 0), used = count("expert_used_count", ours ? 0 : n > 0), groups = count("expert_group_count", 0);
        const double groups_used = count("expert_group_used_count", 0);
        require(n <= MAX_EXPERTS, key("expert_count"), n, "at most 1024");
        require(n > 0 ? used >= 1 && used <= n : used == 0, key("expert_used_count"), used, n > 0 ? "1 to expert_count" : "no such key without expert_count");
        require(groups == 0 || groups < n, key("expert_group_count"), groups, "less than expert_count");
        require(groups <= 1 || (std::fmod(n, groups) == 0 && groups_used > 0 && groups_used < groups), key("expert_group_used_count"), groups_used,
            "1 to less than expert_group_count, a divisor of expert_count");
    }

    //
    // the vocabulary
    //

    // number of entries, -1: no such key
    int64_t check_array(const std::string & k, std::initializer_list<gguf_type> types) const {
        const int64_t id = find(k);
        if (id < 0) {
            return -1;
        }
        bool ok = false;
        for (gguf_type t : types) {
            ok = ok || (gguf_get_kv_type(gguf, id) == GGUF_TYPE_ARRAY && gguf_get_arr_type(gguf, id) == t);
        }
        if (!ok) {
            refuse(k, "another type", std::string("an array of ") + gguf_type_name(*types.begin()));
        }
        return gguf_get_arr_n(gguf, id);
    }

    void check_tokens() const {
        check_array("tokenizer.ggml.merges", { GGUF_TYPE_STRING });
        const int64_t n = check_array("tokenizer.ggml.tokens", { GGUF_TYPE_STRING });
        for (const char * name : { "scores", "token_type" }) {
            const std::string k     = std::string("tokenizer.ggml.") + name;
            const int64_t     n_one = check_array(k, { name[0] == 's' ? GGUF_TYPE_FLOAT32 : GGUF_TYPE_INT32, GGUF_TYPE_INT32 });
            require(!ours || n < 0 || n_one < 0 || n_one == n, k, n_one, text_of(n) + ", one per token");
        }
        const int64_t id = find("tokenizer.ggml.tokens");
        std::unordered_set<std::string> seen;
        seen.reserve(std::max<int64_t>(n, 0));
        for (int64_t i = 0; i < n; ++i) {
            std::string token = gguf_get_arr_str(gguf, id, i);
            if (token.empty()) {
                token = "[EMPTY_" + std::to_string(i) + "]"; // as llama.cpp calls it
            }
            if (!seen.insert(token).second) {
                refuse("tokenizer.ggml.tokens", "token " + std::to_string(i) + " twice", "different ones");
            }
        }
    }

    // a size that no list of tokens bears out is rows of the embedding
    void check_vocab_size() const {
        const std::string   k   = key("vocab_size");
        const auto          got = number(k);
        const ggml_tensor * rows = ml.get_tensor_meta("token_embd.weight");
        const int64_t       id   = find("tokenizer.ggml.tokens");
        const std::string   kind = text("tokenizer.ggml.model", "");
        const bool          none = kind == "none" || kind == "no_vocab";
        if (!got || (!ours && !none)) {
            return;
        }
        if (!none && id >= 0) {
            const double n = gguf_get_arr_n(gguf, id);
            require(*got == n, k, *got, text_of(n) + ", the number of tokens");
        } else if (rows) {
            require(*got == rows->ne[1], k, *got, text_of(rows->ne[1]) + ", the rows of token_embd.weight");
        } else {
            require(*got <= MAX_DUMMIES, k, *got, "at most 2^24 where no tokens are listed");
        }
    }

    // llama.cpp would warn and take a token of its own
    void check_special_ids() const {
        const int64_t id = find("tokenizer.ggml.tokens");
        if (!ours || id < 0) {
            return;
        }
        std::vector<std::string> keys;
        for (int64_t i = 0; i < gguf_get_n_kv(gguf); ++i) {
            keys.push_back(gguf_get_key(gguf, i));
        }
        for (const auto & [k, o] : ml.kv_overrides) {
            keys.push_back(k);
        }
        for (const std::string & k : keys) {
            if (starts_with(k, "tokenizer.ggml.") && ends_with(k, "_token_id")) {
                const double got = number(k).value_or(0), n = gguf_get_arr_n(gguf, id);
                require(got < n, k, got, "a token below " + text_of(n));
            }
        }
    }
};

} // namespace

void llama_spikingbrain_check_header(const llama_model_loader & ml, bool vocab_only) {
    header_check(ml, vocab_only).run();
}

void llama_spikingbrain_check_overrides(const llama_model_loader & ml) {
    for (const auto & [key, o] : ml.kv_overrides) {
        const llm_arch arch = llm_arch_from_string(key.substr(0, key.find('.')));
        if (!ml.overrides_read.count(key) && (arch == LLM_ARCH_UNKNOWN || arch == ml.get_arch())) {
            refuse("override of " + key, "a key that nothing reads from an override", "one that the model reads; check the spelling");
        }
    }
}

// llama.cpp looks at two dimensions of a matrix that is there; what else is wrong would abort in the graph, or do nothing
static void check_adapter_half(const gguf_context * gguf, int64_t i, const llama_model & model) {
    const std::string name = gguf_get_tensor_name(gguf, i);
    const bool ours = model.arch == LLM_ARCH_SPIKINGBRAIN, is_a = ends_with(name, ".lora_a");
    if (!is_a && !ends_with(name, ".lora_b")) {
        if (ours) {
            refuse(name, "no half of a low-rank adapter", "names that end in .lora_a or .lora_b");
        }
        return; // llama.cpp skips norms
    }
    const std::string   base  = name.substr(0, name.size() - strlen(".lora_a"));
    const ggml_tensor * w     = model.get_tensor(base.c_str());
    const int64_t       other = gguf_find_tensor(gguf, (base + (is_a ? ".lora_b" : ".lora_a")).c_str());
    if (!w || other < 0) {
        return; // llama.cpp names it
    }
    if (ours && (!ends_with(base, ".weight") || ends_with(base, "_norm.weight") || base == "rope_freqs.weight" || ends_with(base, "time_mix_decay.weight"))) {
        refuse(name, "an adapter of a tensor that is not a matrix", "those of the products and of token_embd alone");
    }
    const bool look_up = base == "token_embd.weight";
    if (look_up && model.output && base == model.output->name) {
        refuse(name, "an adapter of it", "none where one matrix is embedding and output");
    }
    const int64_t * ne = gguf_get_tensor_ne(gguf, i);
    const int64_t rank = ne[is_a && !look_up], of_other = gguf_get_tensor_ne(gguf, other)[!is_a && !look_up];
    if (rank < 1 || rank != of_other) {
        refuse(name, "rank " + std::to_string(rank), rank < 1 ? "1 or more" : "rank " + std::to_string(of_other) + ", as the other half has");
    }
    if (ne[2] != w->ne[2] || ne[3] != w->ne[3]) {
        refuse(name, std::to_string(ne[2]*ne[3]) + " matrices", std::to_string(w->ne[2]*w->ne[3]) + ", as " + base + " has");
    }
}

void llama_spikingbrain_check_adapter(const gguf_context * gguf, const llama_model & model) {
    const std::pair<const char *, gguf_type> keys[] = {
        { "general.type", GGUF_TYPE_STRING }, { "general.architecture", GGUF_TYPE_STRING }, { "adapter.type", GGUF_TYPE_STRING }, { "adapter.lora.alpha", GGUF_TYPE_FLOAT32 },
    };
    for (const auto & [key, type] : keys) {
        const int64_t id = gguf_find_key(gguf, key);
        if (id >= 0 && gguf_get_kv_type(gguf, id) != type) {
            refuse(key, std::string("type ") + gguf_type_name(gguf_get_kv_type(gguf, id)), gguf_type_name(type));
        }
        if (id >= 0 && type == GGUF_TYPE_FLOAT32 && !std::isfinite(gguf_get_val_f32(gguf, id))) {
            refuse(key, text_of(gguf_get_val_f32(gguf, id)), "a finite number");
        }
    }
    const int64_t architecture = gguf_find_key(gguf, "general.architecture"), kind = gguf_find_key(gguf, "general.type");
    if (architecture < 0 || kind < 0 || gguf_get_val_str(gguf, architecture) != std::string(llm_arch_name(model.arch)) || gguf_get_val_str(gguf, kind) != std::string("adapter")) {
        return; // llama.cpp names it
    }
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
        const ggml_type type = gguf_get_tensor_type(gguf, i);
        if (type != GGML_TYPE_F32 && ggml_get_type_traits(type)->to_float == nullptr) {
            refuse(gguf_get_tensor_name(gguf, i), std::string("type ") + ggml_type_name(type), "floats or a quantised type");
        }
        check_adapter_half(gguf, i, model);
    }
    llama_spikingbrain_warn_adapter(model);
}
