#include "core.h"
#include "grammar.h"

using namespace sb;

static std::shared_ptr<context> make_context(std::shared_ptr<model> m, uint32_t n_ctx, uint32_t n_batch,
        uint32_t n_ubatch, uint32_t n_seq_max, uint32_t n_rs_seq, uint32_t n_outputs_max, int32_t n_threads, int32_t n_threads_batch,
        bool kv_unified, int32_t type_k, int32_t type_v, bool spike_stats, int64_t spike_keep_tokens,
        int64_t spike_keep_neurons, bool embeddings, int32_t flash_attn, bool stop_inside) {
    return std::make_shared<context>(std::move(m), context_options{ n_ctx, n_batch, n_ubatch, n_seq_max,
        n_rs_seq, n_outputs_max, n_threads, n_threads_batch, kv_unified, type_k, type_v, spike_stats, spike_keep_tokens,
        spike_keep_neurons, embeddings, flash_attn, stop_inside });
}

static void bind_model(py::module_ & m) {
    using namespace py::literals;
    #define VOCAB(name, call) .def(name, [](const model & self) { return call(self.vocab()); })
    #define MODEL(name, call) .def(name, [](const model & self) { return call(self.get()); })
    py::class_<model, std::shared_ptr<model>>(m, "Model")
        .def(py::init<const std::string &, bool, bool, bool, bool, const py::dict &, bool, const std::vector<std::string> &, int32_t>(), "path"_a, py::kw_only(),
            "vocab_only"_a = false, "use_mmap"_a = true, "use_mlock"_a = false, "check_tensors"_a = false,
            "kv_overrides"_a = py::dict(), "verbose"_a = false, "rpc_servers"_a = std::vector<std::string>(), "n_gpu_layers"_a = 0)
        .def("close", &model::close)
        .def_property_readonly("closed", &model::closed)
        .def_property_readonly("vocab_only", &model::vocab_only)
        .def("metadata", &model::metadata)
        .def("desc", &model::desc)
        .def("chat_template", &model::chat_template, "name"_a = py::none())
        .def("token_text", &model::token_text, "token"_a)
        .def("token_to_piece", &model::token_to_piece, "token"_a, "special"_a)
        .def("tokenize", &model::tokenize, "text"_a, "add_special"_a, "parse_special"_a)
        .def("detokenize", &model::detokenize, "tokens"_a, "remove_special"_a, "unparse_special"_a)
        .def("added_tokens", &model::added_tokens)
        .def("is_eog",     [](const model & self, llama_token t) { return llama_vocab_is_eog(self.vocab(), self.checked(t)); }, "token"_a)
        .def("is_control", [](const model & self, llama_token t) { return is_control(self.vocab(), t); }, "token"_a)
        VOCAB("n_vocab", llama_vocab_n_tokens)
        VOCAB("token_bos", llama_vocab_bos)
        VOCAB("token_eos", llama_vocab_eos)
        VOCAB("token_eot", llama_vocab_eot)
        VOCAB("token_nl",  llama_vocab_nl)
        VOCAB("add_bos",   llama_vocab_get_add_bos)
        VOCAB("add_eos",   llama_vocab_get_add_eos)
        MODEL("n_embd",      llama_model_n_embd)
        MODEL("n_layer",     llama_model_n_layer)
        MODEL("n_ctx_train", llama_model_n_ctx_train)
        .def("default_limit", [](const model & self, int64_t n_prompt) { return llama_spikingbrain_default_limit(self.get(), n_prompt); }, "n_prompt"_a)
        MODEL("n_params",    llama_model_n_params)
        MODEL("size",        llama_model_size)
        MODEL("is_hybrid",   llama_model_is_hybrid)
        MODEL("is_recurrent", llama_model_is_recurrent);
    #undef VOCAB
    #undef MODEL
}

static void bind_context(py::module_ & m) {
    using namespace py::literals;
    py::class_<cancel_token, std::shared_ptr<cancel_token>>(m, "CancelToken")
        .def(py::init<>())
        .def("cancel", &cancel_token::cancel)
        .def_property_readonly("cancelled", &cancel_token::cancelled);
    py::register_exception<cancelled>(m, "Cancelled", PyExc_RuntimeError);
    py::register_exception<lost>(m, "Lost", py::module_::import("spikingbrain_cpp.errors").attr("LlamaError"));
    py::class_<adapter, std::shared_ptr<adapter>>(m, "Adapter")
        .def(py::init<std::shared_ptr<model>, const std::string &>(), "model"_a, "path"_a);
    py::class_<context, std::shared_ptr<context>>(m, "Context")
        .def(py::init(&make_context), "model"_a, py::kw_only(), "n_ctx"_a = 0, "n_batch"_a = 512, "n_ubatch"_a = 512,
            "n_seq_max"_a = 1, "n_rs_seq"_a = 0, "n_outputs_max"_a = 1, "n_threads"_a = 1, "n_threads_batch"_a = 1,
            "kv_unified"_a = false, "type_k"_a = -1, "type_v"_a = -1, "spike_stats"_a = false,
            "spike_keep_tokens"_a = 0, "spike_keep_neurons"_a = 0, "embeddings"_a = false,
            "flash_attn"_a = (int32_t) LLAMA_FLASH_ATTN_TYPE_AUTO, "stop_inside"_a = false)
        .def("close", &context::close)
        .def_property_readonly("closed", &context::closed)
        .def("n_ctx", &context::n_ctx)
        .def("n_batch", &context::n_batch)
        .def("n_ubatch", &context::n_ubatch)
        .def("n_seq_max", &context::n_seq_max)
        .def("n_rs_seq", &context::n_rs_seq)
        .def("decode", &context::decode, "tokens"_a, "pos"_a, "seq"_a = 0, "rows"_a = py::none(), "cancel"_a = py::none())
        .def("decode_batch", &context::decode_batch, "tokens"_a, "pos"_a, "seq"_a, "want"_a, "cancel"_a = py::none())
        .def("score", &context::score, "tokens"_a, "pos"_a, "seq"_a, "rows"_a, "targets"_a, "cancel"_a = py::none())
        .def("embed", &context::embed, "tokens"_a, "pos"_a, "cancel"_a = py::none())
        .def("set_adapters", &context::set_adapters, "adapters"_a)
        .def("logits", [](const py::object & self) { return py::cast<context &>(self).logits(self); })
        .def("logits_pos", &context::logits_pos)
        .def("set_logits", &context::set_logits, "row"_a, "pos"_a)
        .def("clear", &context::clear)
        .def("seq_rm", &context::seq_rm, "seq"_a, "p0"_a = -1, "p1"_a = -1)
        .def("seq_cp", &context::seq_cp, "src"_a, "dst"_a)
        .def("seq_keep", &context::seq_keep, "seq"_a)
        .def("seq_pos_min", &context::seq_pos_min, "seq"_a)
        .def("seq_pos_max", &context::seq_pos_max, "seq"_a)
        .def("state_size", &context::state_size, "seq"_a = 0, "flags"_a = 0)
        .def("state_get", &context::state_get, "seq"_a = 0, "flags"_a = 0)
        .def("state_set", &context::state_set, "data"_a, "seq"_a = 0, "flags"_a = 0)
        .def("fingerprint", &context::fingerprint)
        .def("state_bytes", &context::state_bytes)
        .def("spike_stats", &context::spike_stats)
        .def("expert_stats", &context::expert_stats)
        .def("reset_spike_stats", &context::reset_spike_stats);
}

static void set_grammar(sampler & s, const std::string & text, const std::string & root, bool lazy,
        const std::vector<std::string> & trigger_patterns, const std::vector<llama_token> & trigger_tokens,
        const std::vector<llama_token> & preserved, const std::vector<llama_token> & prefill) {
    s.set_grammar({ text, root, lazy, trigger_patterns, trigger_tokens, preserved, prefill });
}

static void bind_sampler(py::module_ & m) {
    using namespace py::literals;
    const std::vector<llama_token> none;
    py::class_<sampler, std::shared_ptr<sampler>>(m, "Sampler")
        .def(py::init<std::shared_ptr<model>>(), "model"_a)
        .def("add_logit_bias", &sampler::add_logit_bias, "bias"_a)
        .def("add_penalties", &sampler::add_penalties, "last_n"_a, "repeat"_a, "freq"_a, "present"_a)
        .def("add_top_k",   [](sampler & s, int32_t k) { s.add(llama_sampler_init_top_k(k), "top_k"); }, "k"_a)
        .def("add_top_p",   [](sampler & s, float p) { s.add(llama_sampler_init_top_p(p, 1), "top_p"); }, "p"_a)
        .def("add_min_p",   [](sampler & s, float p) { s.add(llama_sampler_init_min_p(p, 1), "min_p"); }, "p"_a)
        .def("add_typical", [](sampler & s, float p) { s.add(llama_sampler_init_typical(p, 1), "typical_p"); }, "p"_a)
        .def("add_temp",    [](sampler & s, float t) { s.add(llama_sampler_init_temp(t), "temp"); }, "t"_a)
        .def("add_greedy",  [](sampler & s) { s.add(llama_sampler_init_greedy(), "greedy"); })
        .def("add_dist",    [](sampler & s, uint32_t seed) { s.add(llama_sampler_init_dist(seed), "dist"); }, "seed"_a)
        .def("add_mirostat", &sampler::add_mirostat, "seed"_a, "tau"_a, "eta"_a, "m"_a = 100)
        .def("add_mirostat_v2", [](sampler & s, uint32_t seed, float tau, float eta) {
            s.add(llama_sampler_init_mirostat_v2(seed, tau, eta), "mirostat_v2"); }, "seed"_a, "tau"_a, "eta"_a)
        .def("set_grammar", &set_grammar, "text"_a, "root"_a = "root", py::kw_only(), "lazy"_a = false,
            "trigger_patterns"_a = std::vector<std::string>(), "trigger_tokens"_a = none, "preserved"_a = none, "prefill"_a = none)
        .def("accept_grammar", &sampler::accept_grammar, "token"_a)
        .def("names", &sampler::names)
        .def("accept", &sampler::accept, "tokens"_a)
        .def("reset", &sampler::reset)
        .def("sample", &sampler::sample, "logits"_a);
}

static py::dict measure_model(const std::string & path, const py::dict & kv_overrides, uint32_t n_ctx, uint32_t n_batch,
        uint32_t n_ubatch, uint32_t n_seq_max, uint32_t n_rs_seq, uint32_t n_outputs_max, int32_t type_k, int32_t type_v) {
    using namespace py::literals;
    const auto given = read_overrides(kv_overrides);
    auto params = llama_context_default_params();
    params.n_ctx         = n_ctx;
    params.n_batch       = n_batch;
    params.n_ubatch      = n_ubatch;
    params.n_seq_max     = n_seq_max;
    params.n_rs_seq      = n_rs_seq;
    params.n_outputs_max = n_outputs_max;
    params.type_k        = type_k == -1 ? params.type_k : (ggml_type) type_k;
    params.type_v        = type_v == -1 ? params.type_v : (ggml_type) type_v;
    memory_use use;
    {
        py::gil_scoped_release nogil;
        use = measure(model_file(path), given, params);
    }
    return py::dict("model"_a = use.model, "state"_a = use.state, "cache"_a = use.cache, "compute"_a = use.compute, "n_vocab"_a = use.n_vocab);
}

PYBIND11_MODULE(_core, m) {
    using namespace py::literals;
    m.doc() = "Handles on llama.cpp: Model, Context, Sampler. Thin; the policy is in spikingbrain_cpp.Llama.";
    bind_model(m);
    bind_context(m);
    bind_sampler(m);
    bind_chat(m);

    m.def("gguf_tensor_types", &tensor_types, "path"_a);
    m.def("check_grammar", &check_grammar, "text"_a, "root"_a);
    m.def("grammar_matches", &grammar_matches, "text"_a, "root"_a, "answer"_a, py::call_guard<py::gil_scoped_release>());
    m.def("render_template", &render_template, "source"_a, "variables_json"_a);
    m.def("init", &init, "backends_dir"_a);
    m.def("measure", &measure_model, "path"_a, py::kw_only(), "kv_overrides"_a = py::dict(), "n_ctx"_a = 0, "n_batch"_a = 512,
        "n_ubatch"_a = 512, "n_seq_max"_a = 1, "n_rs_seq"_a = 0, "n_outputs_max"_a = 1, "type_k"_a = -1, "type_v"_a = -1);
    m.def("missing_bytes", [](const std::string & path) { return missing_bytes(model_file(path)); }, "path"_a);
    m.def("spike_isa", &spike_isa);
    m.def("vocab_digest_input", [](const model & m) { return py::bytes(vocab_digest_input(m.vocab())); }, "model"_a);
    m.def("constants", &constants);
    m.def("log_to", [](uintptr_t call, uintptr_t data) { set_log_sink((ggml_log_callback) call, (void *) data); }, "call"_a, "data"_a = 0);
    m.def("numa_init", &numa_init, "strategy"_a);
    m.def("system_info", [] { return std::string(llama_print_system_info()); });
    m.def("ggml_type_name", [](int32_t t) {
        return t >= 0 && t < GGML_TYPE_COUNT && ggml_type_name((ggml_type) t) ? std::string(ggml_type_name((ggml_type) t)) : std::string(); }, "type"_a);
    m.attr("DEFAULT_SEED") = (uint32_t) LLAMA_DEFAULT_SEED;
    m.attr("STATE_PARTIAL_ONLY") = (uint32_t) LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
}
