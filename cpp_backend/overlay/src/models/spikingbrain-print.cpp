#include "spikingbrain-print.h"

#include "models.h"
#include "spikingbrain-context.h"
#include "spikingbrain-memory.h"
#include "spikingbrain-remote.h"

#include "../llama-adapter.h"
#include "../llama-context.h"
#include "../llama-io.h"
#include "../llama-kv-cache-iswa.h"
#include "../llama-kv-cache.h"
#include "../llama-memory-hybrid-iswa.h"
#include "../llama-memory-hybrid.h"
#include "../llama-model-loader.h"

#include <algorithm>
#include <cstring>
#include <mutex>

static const uint32_t MAGIC   = 0x50534253; // "SBSP"
static const uint32_t VERSION = 1;

//
// hash
//

namespace {

// 64 bits of whatever is added, in order; little-endian words, four at a time, since each waits for the product before it
class hasher {
    uint64_t h = 0x5350494b494e4742ull;

    static void mix(uint64_t & h, uint64_t word) {
        h  = (h ^ word)*0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    void mix(uint64_t word) { mix(h, word); }

public:
    void add(const void * data, size_t n) {
        const char * p = static_cast<const char *>(data);
        uint64_t lanes[4] = { h, h + 1, h + 2, h + 3 }, words[4];
        size_t i = 0;
        for (; i + sizeof(words) <= n; i += sizeof(words)) {
            memcpy(words, p + i, sizeof(words));
            for (int j = 0; j < 4; ++j) {
                mix(lanes[j], words[j]);
            }
        }
        for (const uint64_t lane : lanes) {
            mix(lane);
        }
        for (; i < n; i += 8) {
            uint64_t word = 0;
            memcpy(&word, p + i, std::min<size_t>(8, n - i));
            mix(word);
        }
        mix(n);
    }
    void add(const std::string & text) { add(text.data(), text.size()); }
    void add(uint64_t word) { mix(word); }

    uint64_t get() const { return h; }
};

//
// weights
//

const size_t N_READ  = 256 << 20; // in all
const size_t N_SMALL = 64 << 10;  // of a tensor at least
const size_t N_BLOCK = 16 << 10;
const size_t N_WHOLE = 1 << 20;   // at once

void add_info(hasher & out, const std::string & name, const ggml_tensor & t) {
    out.add(name);
    out.add(ggml_type_name(t.type), strlen(ggml_type_name(t.type)));
    for (const int64_t ne : t.ne) {
        out.add(ne);
    }
}

// n_total: bytes of all tensors
void add_content(hasher & out, llama_file & file, size_t offs, size_t n, size_t n_total) {
    const size_t share = n_total <= N_READ ? n : std::max<size_t>(N_SMALL, (double) N_READ/n_total*n);
    const bool   whole = share >= n;
    const size_t block = whole ? std::min(n, N_WHOLE) : N_BLOCK;
    const size_t n_blocks = block == 0 ? 0 : whole ? (n + block - 1)/block : share/block;

    std::vector<char> buf(block);
    for (size_t i = 0; i < n_blocks; ++i) {
        const size_t at  = whole ? i*block : (n - block)*i/(n_blocks - 1);
        const size_t len = std::min(block, n - at);
        file.seek(offs + at, SEEK_SET);
        file.read_raw(buf.data(), len);
        out.add(buf.data(), len);
    }
}

uint64_t weights_of(llama_model_loader & ml) {
    hasher out;
    for (const auto & [name, w] : ml.weights_map) {
        add_info(out, name, *w.tensor);
        if (w.idx < ml.files.size()) {
            add_content(out, *ml.files[w.idx], w.offs, ggml_nbytes(w.tensor), ml.n_bytes);
        }
    }
    return out.get();
}

//
// settings
//

std::string real(double value) { return "real " + format("%.9g", (float) value); } // the model computes with float

std::string value_of(const llama_model_kv_override & o) {
    switch (o.tag) {
        case LLAMA_KV_OVERRIDE_TYPE_INT:   return "int " + std::to_string(o.val_i64);
        case LLAMA_KV_OVERRIDE_TYPE_FLOAT: return real(o.val_f64);
        case LLAMA_KV_OVERRIDE_TYPE_BOOL:  return std::string("bool ") + (o.val_bool ? "1" : "0");
        case LLAMA_KV_OVERRIDE_TYPE_STR:   return std::string("text ") + o.val_str;
    }
    return "";
}

std::string array_of(const gguf_context * gguf, int64_t id) {
    hasher all;
    const gguf_type type = gguf_get_arr_type(gguf, id);
    const size_t    n    = gguf_get_arr_n(gguf, id);
    if (type == GGUF_TYPE_STRING) {
        for (size_t i = 0; i < n; ++i) {
            all.add(std::string(gguf_get_arr_str(gguf, id, i)));
        }
    } else {
        static const size_t sizes[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
        all.add(gguf_get_arr_data(gguf, id), n*sizes[type]);
    }
    return format("array %d %zu %016llx", type, n, (unsigned long long) all.get());
}

std::string value_of(const gguf_context * gguf, int64_t id) {
    switch (gguf_get_kv_type(gguf, id)) {
        case GGUF_TYPE_UINT8:   return "int " + std::to_string(gguf_get_val_u8 (gguf, id));
        case GGUF_TYPE_INT8:    return "int " + std::to_string(gguf_get_val_i8 (gguf, id));
        case GGUF_TYPE_UINT16:  return "int " + std::to_string(gguf_get_val_u16(gguf, id));
        case GGUF_TYPE_INT16:   return "int " + std::to_string(gguf_get_val_i16(gguf, id));
        case GGUF_TYPE_UINT32:  return "int " + std::to_string(gguf_get_val_u32(gguf, id));
        case GGUF_TYPE_INT32:   return "int " + std::to_string(gguf_get_val_i32(gguf, id));
        case GGUF_TYPE_UINT64:  return "int " + std::to_string((int64_t) gguf_get_val_u64(gguf, id));
        case GGUF_TYPE_INT64:   return "int " + std::to_string(gguf_get_val_i64(gguf, id));
        case GGUF_TYPE_FLOAT32: return real(gguf_get_val_f32(gguf, id));
        case GGUF_TYPE_FLOAT64: return real(gguf_get_val_f64(gguf, id));
        case GGUF_TYPE_BOOL:    return std::string("bool ") + (gguf_get_val_bool(gguf, id) ? "1" : "0");
        case GGUF_TYPE_STRING:  return std::string("text ") + gguf_get_val_str(gguf, id);
        default:                return array_of(gguf, id);
    }
}

uint64_t settings_of(const llama_model & model, const llama_model_loader & ml) {
    const std::string prefix = ml.arch_name + ".", spikes = "spikingbrain.spike.";
    std::map<std::string, std::string> values;
    for (int64_t id = 0; id < gguf_get_n_kv(ml.metadata); ++id) {
        values[gguf_get_key(ml.metadata, id)] = value_of(ml.metadata, id);
    }
    for (const auto & [key, o] : ml.kv_overrides) {
        values[key] = value_of(o);
    }

    hasher out;
    out.add(ml.arch_name);
    for (const auto & [key, value] : values) {
        if (key.compare(0, prefix.size(), prefix) == 0 && key.compare(0, spikes.size(), spikes) != 0) {
            out.add(key + " " + value);
        }
    }
    if (const auto * own = dynamic_cast<const llama_model_spikingbrain *>(&model)) {
        out.add(own->spike ? format("spikes %.9g %d", own->spike_k, own->spike_down) : "no spikes");
    }
    return out.get();
}

//
// models that are loaded
//

struct model_print { uint64_t weights, settings; };

std::mutex                                           mutex;
std::unordered_map<const llama_model *, model_print> models; // an entry stays until a model is loaded at its address again

model_print print_of(const llama_model & model) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto it = models.find(&model);
    return it != models.end() ? it->second : model_print{};
}

//
// a context
//

void add_tensor(hasher & out, const std::string & name, const ggml_tensor & t) {
    add_info(out, name, t);
    std::vector<char> data(ggml_nbytes(&t));
    ggml_backend_tensor_get(&t, data.data(), 0, data.size());
    out.add(data.data(), data.size());
}

uint64_t adapters_of(const llama_adapter_loras & loras) {
    std::vector<std::pair<uint64_t, float>> used;
    for (const auto & [adapter, scale] : loras) {
        if (scale != 0.0f) {
            used.emplace_back(llama_spikingbrain_adapter_print(adapter), scale);
        }
    }
    if (used.empty()) {
        return 0;
    }
    std::sort(used.begin(), used.end());
    hasher out;
    for (const auto & [print, scale] : used) {
        out.add(print);
        out.add(&scale, sizeof(scale));
    }
    return out.get();
}

void add_rope(hasher & out, const llama_cparams & c) {
    out.add(format("rope %.9g %.9g", c.rope_freq_base, c.rope_freq_scale));
    if (c.yarn_ext_factor != 0.0f) { // rounded: the factors are computed
        out.add(format("yarn %u %.4g %.4g %.4g %.4g", c.n_ctx_orig_yarn, c.yarn_ext_factor, c.yarn_attn_factor, c.yarn_beta_fast, c.yarn_beta_slow));
    }
}

void add_control_vectors(hasher & out, const llama_adapter_cvec & cvec, const llama_hparams & hparams) {
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        if (const ggml_tensor * t = cvec.tensor_for(il)) {
            add_tensor(out, "control " + std::to_string(il), *t);
        }
    }
}

uint64_t memory_of(const llama_memory_i * mem, const llama_cparams & c) {
    if (const auto * own = dynamic_cast<const llama_memory_spikingbrain *>(mem)) {
        return 1 + own->get_storage().type_k() + 256*own->get_storage().type_v();
    }
    const llama_kv_cache * kv = dynamic_cast<const llama_kv_cache *>(mem);
    if (const auto * m = dynamic_cast<const llama_kv_cache_iswa *>(mem)) {
        kv = m->get_base();
    } else if (const auto * m = dynamic_cast<const llama_memory_hybrid *>(mem)) {
        kv = m->get_mem_attn();
    } else if (const auto * m = dynamic_cast<const llama_memory_hybrid_iswa *>(mem)) {
        kv = m->get_mem_attn()->get_base();
    }
    const uint64_t transposed = c.flash_attn ? 0 : 65536;
    return kv == nullptr ? 0 : transposed + 1 + kv->type_k() + 256*kv->type_v();
}

} // namespace

void llama_spikingbrain_prints::set_model(const llama_model & model, llama_model_loader & ml) {
    if (model.hparams.no_alloc) {
        return; // only measured
    }
    llama_spikingbrain_check_loaded(model);
    const model_print made = { weights_of(ml), settings_of(model, ml) };
    std::lock_guard<std::mutex> lock(mutex);
    models[&model] = made;
}

llama_spikingbrain_print llama_spikingbrain_prints::of(const llama_context & ctx) {
    const model_print of_model = print_of(ctx.get_model());
    hasher settings;
    settings.add(of_model.settings);
    add_rope(settings, ctx.get_cparams());
    if (const auto * cvec = llama_spikingbrain_context::cvec(ctx)) {
        add_control_vectors(settings, *cvec, ctx.get_model().hparams);
    }
    return { of_model.weights, settings.get(), adapters_of(llama_spikingbrain_context::loras(ctx)), memory_of(ctx.get_memory(), ctx.get_cparams()) };
}

void llama_spikingbrain_prints::write(const llama_context & ctx, llama_io_write_i & io) {
    const uint32_t head[] = { MAGIC, VERSION };
    const llama_spikingbrain_print print = of(ctx);
    io.write(head, sizeof(head));
    io.write(&print, sizeof(print));
}

void llama_spikingbrain_prints::read(const llama_context & ctx, llama_io_read_i & io) {
    uint32_t head[2];
    io.read(head, sizeof(head));
    if (head[0] != MAGIC || head[1] != VERSION) {
        throw std::runtime_error(format("saved state: version: got one without a fingerprint or another one, expected %u; save it again", VERSION));
    }
    llama_spikingbrain_print got;
    io.read(&got, sizeof(got));
    const llama_spikingbrain_print expected = of(ctx);
    if (const char * why = llama_spikingbrain_print_difference(&got, &expected)) {
        throw std::runtime_error(std::string("saved state: ") + why);
    }
}

//
// entry points
//

llama_spikingbrain_print llama_spikingbrain_print_of(const llama_context * ctx) { return llama_spikingbrain_prints::of(*ctx); }

uint64_t llama_spikingbrain_adapter_print(const llama_adapter_lora * adapter) {
    hasher out;
    out.add(&adapter->alpha, sizeof(adapter->alpha));
    out.add(adapter->alora_invocation_tokens.data(), adapter->alora_invocation_tokens.size()*sizeof(llama_token));
    const std::map<std::string, llama_adapter_lora_weight> sorted(adapter->ab_map.begin(), adapter->ab_map.end());
    for (const auto & [name, w] : sorted) {
        add_tensor(out, name + " a", *w.a);
        add_tensor(out, name + " b", *w.b);
    }
    return out.get();
}

const char * llama_spikingbrain_print_difference(const llama_spikingbrain_print * got, const llama_spikingbrain_print * expected) {
    if (got->weights != expected->weights) {
        return "model: got a state of another model file, expected one of this one's weights; load the model it was saved from";
    }
    if (got->settings != expected->settings) {
        return "settings: got a state computed with other ones, expected this model's; load it with the spikes, overrides, rope and control vectors it was saved with";
    }
    if (got->adapters != expected->adapters) {
        return "adapters: got a state computed with other ones, expected those of this model; apply the LoRA adapters and scales it was saved with";
    }
    if (got->memory != expected->memory) {
        return "types: got keys and values of other types, expected this model's; load it with the type_k and type_v it was saved with";
    }
    return nullptr;
}
