// What llama.cpp answers with an abort when it reads a damaged GGUF header, found before and said as an error.
#include "runtime.h"

#include <cmath>
#include <unordered_set>

namespace sb {

// the limits of src/llama-hparams.h
static const int64_t MAX_LAYERS  = 512;
static const int64_t MAX_EXPERTS = 1024;

namespace {

class header {
public:
    header(const gguf_context * gguf, const overrides & given) : gguf(gguf), given(given) {}

    void check() const {
        check_overrides();
        const int64_t n_layer = number("block_count", 0);
        require(n_layer >= 1 && n_layer <= MAX_LAYERS, "block_count", n_layer, "1 to 512");
        require_at_most("nextn_predict_layers", n_layer);
        require_at_most("posnet.block_count",   n_layer);
        require_at_most("convnext.block_count", n_layer);
        check_experts();
        check_epsilon("attention.layer_norm_rms_epsilon");
        check_epsilon("attention.layer_norm_epsilon");

        const std::string scaling = text(key("rope.scaling.type"), "linear");
        if (scaling != "none" && scaling != "linear" && scaling != "yarn" && scaling != "longrope") {
            throw std::runtime_error(key("rope.scaling.type") + ": got " + scaling + ", expected none, linear, yarn or longrope");
        }
        check_array("tokenizer.ggml.scores",     { GGUF_TYPE_FLOAT32, GGUF_TYPE_INT32 });
        check_array("tokenizer.ggml.token_type", { GGUF_TYPE_INT32, GGUF_TYPE_UINT32 });
        check_array("tokenizer.ggml.merges",     { GGUF_TYPE_STRING });
        check_array("tokenizer.ggml.tokens",     { GGUF_TYPE_STRING });
        check_tokens();
    }

private:
    const gguf_context * gguf;
    const overrides &    given;

    std::string key(const char * name) const { return text("general.architecture", "") + "." + name; }

    std::string text(const std::string & k, const char * otherwise) const {
        for (const auto & o : given) {
            if (k == o.key && o.tag == LLAMA_KV_OVERRIDE_TYPE_STR) {
                return o.val_str;
            }
        }
        const int64_t id = gguf_find_key(gguf, k.c_str());
        return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_STRING ? gguf_get_val_str(gguf, id) : otherwise;
    }

    // wrong types are left to llama.cpp, which says so itself
    int64_t number(const char * name, int64_t otherwise) const {
        const std::string k = key(name);
        for (const auto & o : given) {
            if (k == o.key && o.tag == LLAMA_KV_OVERRIDE_TYPE_INT) {
                return (uint32_t) o.val_i64;
            }
        }
        const int64_t id = gguf_find_key(gguf, k.c_str());
        return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_UINT32 ? gguf_get_val_u32(gguf, id) : otherwise;
    }

    // llama.cpp would warn and go on without the override
    void check_overrides() const {
        for (const auto & o : given) {
            const int64_t id = o.key[0] ? gguf_find_key(gguf, o.key) : -1;
            if (id < 0) {
                continue;
            }
            const gguf_type type = gguf_get_kv_type(gguf, id);
            const bool is_float = type == GGUF_TYPE_FLOAT32 || type == GGUF_TYPE_FLOAT64;
            const bool ok =
                o.tag == LLAMA_KV_OVERRIDE_TYPE_STR   ? type == GGUF_TYPE_STRING :
                o.tag == LLAMA_KV_OVERRIDE_TYPE_BOOL  ? type == GGUF_TYPE_BOOL :
                o.tag == LLAMA_KV_OVERRIDE_TYPE_FLOAT ? is_float :
                !is_float && type != GGUF_TYPE_STRING && type != GGUF_TYPE_BOOL && type != GGUF_TYPE_ARRAY;
            if (!ok) {
                throw std::runtime_error(std::string("kv_overrides: ") + o.key + ": got a value of another type, expected " +
                    gguf_type_name(type));
            }
        }
    }

    void require(bool ok, const char * name, int64_t got, const std::string & expected) const {
        if (!ok) {
            throw std::runtime_error(key(name) + ": got " + std::to_string(got) + ", expected " + expected);
        }
    }

    void require_at_most(const char * name, int64_t most) const {
        const int64_t n = number(name, 0);
        require(n <= most, name, n, "at most " + std::to_string(most));
    }

    void check_experts() const {
        const int64_t n = number("expert_count", 0), n_used = number("expert_used_count", n > 0 ? 1 : 0);
        const int64_t groups = number("expert_group_count", 0), used = number("expert_group_used_count", 0);
        require(n <= MAX_EXPERTS, "expert_count", n, "at most 1024");
        require(n > 0 ? n_used >= 1 && n_used <= n : n_used == 0, "expert_used_count", n_used, "1 to expert_count");
        require(groups == 0 || groups < n, "expert_group_count", groups, "less than expert_count");
        require(groups <= 1 || (n % groups == 0 && used > 0 && used < groups), "expert_group_used_count", used,
            "1 to less than expert_group_count, a divisor of expert_count");
    }

    void check_epsilon(const char * name) const {
        const std::string k = key(name);
        const int64_t id = gguf_find_key(gguf, k.c_str());
        double eps = id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_FLOAT32 ? gguf_get_val_f32(gguf, id) : 0.0;
        for (const auto & o : given) {
            eps = k == o.key && o.tag == LLAMA_KV_OVERRIDE_TYPE_FLOAT ? o.val_f64 : eps;
        }
        if (!(eps >= 0.0) || !std::isfinite(eps)) {
            throw std::runtime_error(k + ": got " + std::to_string(eps) + ", expected a number of 0 or more");
        }
    }

    void check_array(const char * k, std::initializer_list<gguf_type> types) const {
        const int64_t id = gguf_find_key(gguf, k);
        if (id < 0) {
            return;
        }
        bool ok = false;
        if (gguf_get_kv_type(gguf, id) == GGUF_TYPE_ARRAY) {
            for (gguf_type t : types) {
                ok = ok || gguf_get_arr_type(gguf, id) == t;
            }
        }
        if (!ok) {
            throw std::runtime_error(std::string(k) + ": got another type, expected an array of " +
                gguf_type_name(*types.begin()));
        }
    }

    void check_tokens() const {
        const int64_t id = gguf_find_key(gguf, "tokenizer.ggml.tokens");
        if (id < 0) {
            return;
        }
        std::unordered_set<std::string> seen;
        const size_t n = gguf_get_arr_n(gguf, id);
        seen.reserve(n);
        for (size_t i = 0; i < n; ++i) {
            std::string token = gguf_get_arr_str(gguf, id, i);
            if (token.empty()) {
                token = "[EMPTY_" + std::to_string(i) + "]"; // as llama.cpp calls it
            }
            if (!seen.insert(token).second) {
                throw std::runtime_error("tokenizer.ggml.tokens: got token " + std::to_string(i) +
                    " twice, expected different ones");
            }
        }
    }
};

} // namespace

std::vector<std::string> tensor_types(const std::string & path) {
    log_scope log(false);
    const auto gguf = model_file(path).header();
    if (!gguf) {
        throw std::runtime_error(path + ": got no GGUF file, expected one; check the path");
    }
    std::set<std::string> found;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
        found.insert(ggml_type_name(gguf_get_tensor_type(gguf.get(), i)));
    }
    return { found.begin(), found.end() };
}

void check_header(const model_file & file, const overrides & o) {
    if (const auto gguf = file.header()) { // else llama.cpp says what is wrong
        header(gguf.get(), o).check();
    }
}

} // namespace sb
