// Which operators compute a micro-batch: one line per layer, then the output, then how many there are. Threads wait for each other after every
// one of them. What only looks at memory is left out; RMS_NORM and the MUL behind it are one (ggml's CPU backend computes them in one pass).
// usage: test-graph MODEL.gguf N_TOKENS [--embeddings] [--no-repack] [--lora ADAPTER.gguf]

#include "ggml.h"
#include "ggml-backend.h"
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

struct counter {
    std::string line, last;
    int         n = 0;
};

static bool is_view(enum ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_RESHAPE || op == GGML_OP_VIEW || op == GGML_OP_PERMUTE || op == GGML_OP_TRANSPOSE;
}

// asked for every node before anything runs; wants none of them, so that nothing is computed otherwise
static bool on_node(ggml_tensor * t, bool, void * data) {
    counter & c = *(counter *) data;
    if (is_view(t->op)) {
        return false;
    }
    const std::string name = ggml_op_desc(t);
    if (c.last == "RMS_NORM" && name == "MUL") {
        c.line += "*MUL";
    } else {
        c.line += (c.line.empty() ? "" : " ") + name;
        ++c.n;
    }
    c.last = name;
    if (strncmp(t->name, "l_out-", 6) == 0) {
        printf("%s: %s\n", t->name + 6, c.line.c_str());
        c.line.clear();
    }
    return false;
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: test-graph MODEL.gguf N_TOKENS [--embeddings] [--no-repack] [--lora ADAPTER.gguf]\n");
        return 2;
    }
    counter c;
    const int n_tokens = atoi(argv[2]);
    auto mparams = llama_model_default_params();
    auto cparams = llama_context_default_params();
    const char * lora = nullptr;
    for (int i = 3; i < argc; ++i) {
        cparams.embeddings        |= strcmp(argv[i], "--embeddings") == 0;
        mparams.use_extra_bufts   &= strcmp(argv[i], "--no-repack") != 0;
        lora = i + 1 < argc && strcmp(argv[i], "--lora") == 0 ? argv[i + 1] : lora;
    }
    cparams.n_ctx = 0;
    cparams.n_batch = cparams.n_ubatch = n_tokens;
    cparams.n_threads = cparams.n_threads_batch = 1;
    cparams.cb_eval           = on_node;
    cparams.cb_eval_user_data = &c;

    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all();
    llama_model   * model = llama_model_load_from_file(argv[1], mparams);
    llama_context * ctx   = model ? llama_init_from_model(model, cparams) : nullptr;
    if (!ctx) {
        fprintf(stderr, "test-graph: %s: not loaded\n", argv[1]);
        return 2;
    }
    if (lora) {
        llama_adapter_lora * adapter = llama_adapter_lora_init(model, lora);
        float scale = 1.0f;
        if (!adapter || llama_set_adapters_lora(ctx, &adapter, 1, &scale) != 0) {
            fprintf(stderr, "test-graph: %s: not loaded\n", lora);
            return 2;
        }
    }
    c = {};
    std::vector<llama_token> tokens(n_tokens, 1);
    const int rc = llama_decode(ctx, llama_batch_get_one(tokens.data(), n_tokens));
    printf("output: %s\nall: %d\n", c.line.c_str(), c.n);
    llama_free(ctx);
    llama_model_free(model);
    return rc;
}
