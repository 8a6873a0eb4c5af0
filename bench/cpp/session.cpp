#include "session.h"

#ifdef SB_BENCH_SPIKINGBRAIN
#include "llama-spikingbrain.h"
#endif

#include <algorithm>
#include <cstring>
#include <map>

session::~session() { close_model(); }

void session::close_context() {
    if (ctx) {
        llama_free(ctx);
        ctx = nullptr;
    }
    delete pool;
    pool = nullptr;
}

void session::close_model() {
    close_context();
    if (model) {
        llama_model_free(model);
        model = nullptr;
    }
}

llama_context * session::context() const {
    if (!ctx) {
        fail("context: got none, expected one; send 'load' and 'context' first");
    }
    return ctx;
}

bool session::is_spikingbrain() const {
    char arch[64] = "";
    llama_model_meta_val_str(model, "general.architecture", arch, sizeof(arch));
    return strcmp(arch, "spikingbrain") == 0;
}

static ggml_type cache_type(const std::string & name) {
    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0 }) {
        if (ggml_type_name(type) == name) {
            return type;
        }
    }
    fail("settings: kv: got '" + name + "', expected f16 or q8_0");
}

// of a side; what the engine does not have is refused
static engine_settings settings_of(const json & r) {
    engine_settings s;
    const std::map<std::string, bool *> ik = {
        { "repack", &s.repack }, { "huge_pages", &s.huge_pages }, { "merge_qkv", &s.merge_qkv }, { "rope_cache", &s.rope_cache } };
    for (const auto & [name, value] : r.items()) {
        const auto found = ik.find(name);
        if (name == "flash_attn") {
            s.flash_attn = value;
        } else if (name == "kv") {
            s.kv = cache_type(value);
        } else if (engine_has_ik_settings && found != ik.end()) {
            *found->second = value;
        } else {
            fail("settings: got '" + name + "', expected what this engine has");
        }
    }
    return s;
}

json session::load(const request & r) {
    close_model();
    const std::string path = r.at("path");
    settings = settings_of(r.value("settings", json::object()));
    const double t0 = now();
    model = llama_model_load_from_file(path.c_str(), engine_model(settings));
    if (!model) {
        fail("load " + path + ": got an error from llama.cpp, expected a model");
    }
    char desc[128];
    llama_model_desc(model, desc, sizeof(desc));
    return {
        { "seconds", now() - t0 }, { "bytes", llama_model_size(model) }, { "params", llama_model_n_params(model) }, { "desc", desc },
        { "n_vocab", llama_vocab_n_tokens(llama_model_get_vocab(model)) },
    };
}

json session::open(const request & r) {
    if (!model) {
        fail("context: got no model, expected one; send 'load' first");
    }
    close_context();
    const int n_threads = r.at("n_threads");
    n_seq   = r.value("n_seq", 1);
    unified = r.value("unified", false);
    n_batch = r.value("n_batch", 512);

    llama_context_params params = llama_context_default_params();
    params.n_ctx           = r.at("n_ctx").get<uint32_t>();
    params.n_seq_max       = n_seq + (unified ? 1 : 0); // one more through which fill() restores
    params.n_batch         = n_batch;
    params.n_ubatch        = n_batch;
    params.n_threads       = n_threads;
    params.n_threads_batch = n_threads;
    params.type_k = params.type_v = settings.kv;
    engine_context(params, settings, unified);

    ctx = llama_init_from_model(model, params);
    if (!ctx) {
        fail("context: n_ctx " + std::to_string(params.n_ctx) + ": got an error from llama.cpp, expected a context");
    }
    pool = new thread_pool(n_threads);
    engine_threads_use(ctx, pool->pool);
    return { { "n_ctx", llama_n_ctx(ctx) }, { "state_bytes", state_bytes() }, { "n_rs_seq", llama_n_rs_seq(ctx) } };
}

// allocated for the state of all sequences; a KV cache is there for every cell of the context
size_t session::state_bytes() const {
#ifdef SB_BENCH_SPIKINGBRAIN
    if (is_spikingbrain()) {
        return llama_spikingbrain_state_bytes(ctx);
    }
#endif
    const size_t d = llama_model_n_embd(model)/llama_model_n_head(model);
    return 2*ggml_row_size(settings.kv, d*llama_model_n_head_kv(model))*llama_model_n_layer(model)*llama_n_ctx(ctx);
}

json session::position(const request & r) {
    const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(context()), r.value("seq", 0));
    return { { "next", last + 1 } };
}

// any tokens do: the work does not depend on which
struct token_batch {
    llama_batch batch;
    explicit token_batch(int n) : batch(llama_batch_init(n, 0, 1)) {}
    ~token_batch() { llama_batch_free(batch); }
    void add(llama_token token, llama_pos pos, llama_seq_id seq, bool logits) {
        const int i = batch.n_tokens++;
        batch.token[i]     = token;
        batch.pos[i]       = pos;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq;
        batch.logits[i]    = logits;
    }
};

static double timed_decode(llama_context * ctx, token_batch & b) {
    const double t0 = now();
    if (const int rc = llama_decode(ctx, b.batch)) {
        fail("decode: got error " + std::to_string(rc) + " from llama.cpp at position " + std::to_string(b.batch.pos[0]) + ", expected 0");
    }
    llama_synchronize(ctx);
    return now() - t0;
}

// n steps of one token for each of `seqs` sequences from `first` on, fewer where `seconds` are over; "back": the tokens are removed again where the memory can
json session::decode(const request & r) {
    llama_memory_t mem = llama_get_memory(context());
    const int n = r.at("n"), seqs = r.value("seqs", 1), first = r.value("first", 0), end = first + seqs;
    const double limit = r.value("seconds", 1e9);
    if (n < 1 || seqs < 1 || first < 0 || end > n_seq) {
        fail("decode: got n " + std::to_string(n) + " and seqs " + std::to_string(seqs) + ", expected at least 1 and at most the context's sequences");
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    uint64_t rng = 1;

    std::vector<llama_pos> begin;
    for (int s = first; s < end; ++s) {
        begin.push_back(llama_memory_seq_pos_max(mem, s) + 1);
    }
    std::vector<double> steps;
    const double t0 = now();
    for (int i = 0; i < n && (i == 0 || now() - t0 < limit); ++i) {
        token_batch b(seqs);
        for (int s = first; s < end; ++s) {
            b.add(rng_next(rng) % n_vocab, llama_memory_seq_pos_max(mem, s) + 1, s, true);
        }
        steps.push_back(timed_decode(ctx, b));
    }
    pool->pause();
    if (r.value("back", false)) {
        for (int s = first; s < end; ++s) {
            llama_memory_seq_rm(mem, s, begin[s - first], -1); // a state without that keeps them: its work does not grow
        }
    }
    return { { "seconds", steps } };
}

// n tokens after those that are there, with the logits of all, in one batch or "one_by_one"; then the last `back` of them are taken back
json session::verify(const request & r) {
    llama_memory_t mem = llama_get_memory(context());
    const int n = r.at("n"), back = r.value("back", n), seq = r.value("seq", 0);
    if (n < 1 || n > n_batch || back < 0 || back > n || seq < 0 || seq >= n_seq) {
        fail("verify: got n " + std::to_string(n) + ", back " + std::to_string(back) + ", sequence " + std::to_string(seq) +
            ", expected 1 .. n_batch, 0 .. n and a sequence of the context");
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), n_step = r.value("one_by_one", false) ? 1 : n;
    const llama_pos begin = llama_memory_seq_pos_max(mem, seq) + 1;
    uint64_t rng = 3;

    std::vector<double> steps;
    for (int i = 0; i < n; i += n_step) {
        token_batch b(n_step);
        for (int j = 0; j < n_step; ++j) {
            b.add(rng_next(rng) % n_vocab, begin + i + j, seq, true);
        }
        steps.push_back(timed_decode(ctx, b));
    }
    const double t0 = now();
    if (back > 0 && !llama_memory_seq_rm(mem, seq, begin + n - back, -1)) {
        fail("verify: back: got " + std::to_string(back) + ", expected what the memory can take back");
    }
    const double seconds_back = now() - t0;
    pool->pause();
    return { { "seconds", steps }, { "back", seconds_back } };
}

// n tokens after those that are there ("keep") or as a new prompt; chunks of n_batch, logits of the last token only
json session::prefill(const request & r) {
    llama_memory_t mem = llama_get_memory(context());
    const int n = r.at("n"), seq = r.value("seq", 0);
    if (n < 1 || seq < 0 || seq >= n_seq) {
        fail("prefill: got n " + std::to_string(n) + ", sequence " + std::to_string(seq) + ", expected at least 1 token and a sequence of the context");
    }
    if (!r.value("keep", false)) {
        llama_memory_seq_rm(mem, seq, -1, -1);
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    uint64_t rng = 2;

    const llama_pos begin = llama_memory_seq_pos_max(mem, seq) + 1;
    std::vector<double> chunks;
    for (int i = 0; i < n; i += n_batch) {
        const int m = std::min(n_batch, n - i);
        token_batch b(m);
        for (int j = 0; j < m; ++j) {
            b.add(rng_next(rng) % n_vocab, begin + i + j, seq, i + j == n - 1);
        }
        chunks.push_back(timed_decode(ctx, b));
    }
    pool->pause();
    return { { "seconds", chunks } };
}
