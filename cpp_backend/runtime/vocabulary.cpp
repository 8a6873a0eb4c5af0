#include "runtime.h"

namespace sb {

llama_token checked(const llama_vocab * v, llama_token id) {
    const int32_t n = llama_vocab_n_tokens(v);
    if (id < 0 || id >= n) {
        throw std::invalid_argument("token: got " + std::to_string(id) + ", expected 0 to " + std::to_string(n - 1));
    }
    return id;
}

// a value of any length through llama.cpp's (buffer, size) calls; f returns the length it needs or a negative number
template <typename F> static std::string read_string(F f) {
    std::string s(256, '\0');
    int32_t n = f(&s[0], s.size());
    if (n >= (int32_t) s.size()) {
        s.resize(n + 1);
        n = f(&s[0], s.size());
    }
    s.resize(n < 0 ? 0 : n);
    return s;
}

std::vector<std::pair<std::string, std::string>> metadata(const llama_model * m) {
    std::vector<std::pair<std::string, std::string>> out;
    for (int32_t i = 0; i < llama_model_meta_count(m); ++i) {
        out.emplace_back(read_string([&](char * b, size_t n) { return llama_model_meta_key_by_index(m, i, b, n); }),
                         read_string([&](char * b, size_t n) { return llama_model_meta_val_str_by_index(m, i, b, n); }));
    }
    return out;
}

std::string description(const llama_model * m) {
    return read_string([&](char * b, size_t n) { return llama_model_desc(m, b, n); });
}

bool can_stop_inside(const llama_model * m) {
    const std::string arch = read_string([&](char * b, size_t n) { return llama_model_meta_val_str(m, "general.architecture", b, n); });
    return arch == "spikingbrain" || !(llama_model_is_recurrent(m) || llama_model_is_hybrid(m));
}

static bool has_tokenizer(const llama_vocab * v) { return llama_vocab_type(v) != LLAMA_VOCAB_TYPE_NONE; }

static void require_tokenizer(const llama_vocab * v, const char * where) { // llama.cpp aborts without
    if (!has_tokenizer(v)) {
        throw std::runtime_error(std::string(where) + ": got a model without a tokenizer, expected tokenizer.ggml.* in the GGUF; "
            "give token ids instead");
    }
}

bool is_control(const llama_vocab * v, llama_token id) { return has_tokenizer(v) && llama_vocab_is_control(v, checked(v, id)); }

std::string token_to_piece(const llama_vocab * v, llama_token id, bool special) {
    require_tokenizer(v, "detokenize");
    std::string piece(64, '\0');
    int32_t n = llama_token_to_piece(v, checked(v, id), &piece[0], piece.size(), 0, special);
    if (n < 0) {
        piece.resize(-n);
        n = llama_token_to_piece(v, id, &piece[0], piece.size(), 0, special);
    }
    piece.resize(n < 0 ? 0 : n);
    return piece;
}

static void check_tokenizer(const llama_vocab * v, const std::string & text, bool add_special) {
    if (text.size() > INT32_MAX / 2) {
        throw std::invalid_argument("tokenize: got " + std::to_string(text.size()) + " bytes, expected at most 2^30; "
            "split the text");
    }
    require_tokenizer(v, "tokenize");
    if (add_special && ((llama_vocab_get_add_bos(v) && llama_vocab_bos(v) < 0) ||
                        (llama_vocab_get_add_eos(v) && llama_vocab_eos(v) < 0))) {
        throw std::runtime_error("tokenize: got a vocabulary without the BOS or EOS token that it asks to add, expected "
            "one; tokenize without add_bos");
    }
}

std::vector<llama_token> tokenize(const llama_vocab * v, const std::string & text, bool add_special, bool parse_special) {
    check_tokenizer(v, text, add_special);
    std::vector<llama_token> out(text.size() + 8);
    int32_t n = llama_tokenize(v, text.data(), text.size(), out.data(), out.size(), add_special, parse_special);
    if (n < 0 && n != INT32_MIN) {
        out.resize(-n);
        n = llama_tokenize(v, text.data(), text.size(), out.data(), out.size(), add_special, parse_special);
    }
    if (n < 0) {
        throw std::runtime_error("tokenize: got more tokens than 2^31; split the text");
    }
    out.resize(n);
    return out;
}

std::vector<added_token> added_tokens(const llama_vocab * v) {
    std::vector<added_token> out;
    const int32_t n = has_tokenizer(v) ? llama_vocab_n_tokens(v) : 0;
    for (llama_token id = 0; id < n; ++id) {
        const int attr = llama_vocab_get_attr(v, id);
        if (attr & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN)) {
            out.push_back({ id, llama_vocab_get_text(v, id), (attr & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0 });
        }
    }
    return out;
}

std::string vocab_digest_input(const llama_vocab * v) {
    std::string out = std::to_string(llama_vocab_type(v));
    for (llama_token t : { llama_vocab_bos(v), llama_vocab_eos(v), llama_vocab_eot(v), llama_vocab_nl(v) }) {
        out += " " + std::to_string(t);
    }
    out += llama_vocab_get_add_bos(v) ? " bos" : "";
    out += llama_vocab_get_add_eos(v) ? " eos" : "";
    const int32_t n = has_tokenizer(v) ? llama_vocab_n_tokens(v) : 0;
    for (llama_token id = 0; id < n; ++id) {
        out += '\n' + std::to_string(llama_vocab_get_attr(v, id)) + ' ' + llama_vocab_get_text(v, id);
    }
    return out;
}

} // namespace sb
