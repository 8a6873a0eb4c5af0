#include "core.h"

#include <cstring>

namespace sb {

std::vector<llama_model_kv_override> read_overrides(const py::dict & dict) {
    std::vector<llama_model_kv_override> out;
    for (auto item : dict) {
        llama_model_kv_override o;
        memset(&o, 0, sizeof(o));
        const auto key = py::cast<std::string>(item.first);
        if (key.empty() || key.size() >= sizeof(o.key)) {
            throw std::invalid_argument("model: kv_overrides: got a key of " + std::to_string(key.size()) +
                " bytes, expected 1 to 127; shorten it");
        }
        memcpy(o.key, key.data(), key.size());
        if (py::isinstance<py::bool_>(item.second)) {
            o.tag = LLAMA_KV_OVERRIDE_TYPE_BOOL;
            o.val_bool = py::cast<bool>(item.second);
        } else if (py::isinstance<py::int_>(item.second)) {
            o.tag = LLAMA_KV_OVERRIDE_TYPE_INT;
            o.val_i64 = py::cast<int64_t>(item.second);
        } else if (py::isinstance<py::float_>(item.second)) {
            o.tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
            o.val_f64 = py::cast<double>(item.second);
        } else if (py::isinstance<py::str>(item.second)) {
            const auto val = py::cast<std::string>(item.second);
            if (val.size() >= sizeof(o.val_str)) {
                throw std::invalid_argument("model: kv_overrides: " + key + ": got " + std::to_string(val.size()) +
                    " bytes, expected at most 127; shorten it");
            }
            o.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
            memcpy(o.val_str, val.data(), val.size());
        } else {
            throw std::invalid_argument("model: kv_overrides: " + key + ": got a " +
                py::cast<std::string>(py::str(py::type::of(item.second).attr("__name__"))) +
                ", expected bool, int, float or str");
        }
        out.push_back(o);
    }
    if (!out.empty()) {
        out.emplace_back();
        memset(&out.back(), 0, sizeof(out.back())); // the empty key ends the list
    }
    return out;
}

// loading stops at the next report of progress after Ctrl-C
static bool on_progress(float, void * interrupted) {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) {
        return true;
    }
    PyErr_Clear();
    *static_cast<bool *>(interrupted) = true;
    return false;
}

model::model(const std::string & path, bool vocab_only, bool use_mmap, bool use_mlock, bool check_tensors,
             const py::dict & kv_overrides, bool verbose) : vocab_only_(vocab_only), verbose_(verbose) {
    const auto overrides = read_overrides(kv_overrides);
    bool interrupted = false;

    auto params = llama_model_default_params();
    params.n_gpu_layers  = 0;
    params.vocab_only    = vocab_only;
    params.check_tensors = check_tensors;
    params.load_mode     = use_mmap ? (use_mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP)
                                    : (use_mlock ? LLAMA_LOAD_MODE_MLOCK      : LLAMA_LOAD_MODE_NONE);
    params.kv_overrides  = overrides.empty() ? nullptr : overrides.data();
    params.progress_callback           = on_progress;
    params.progress_callback_user_data = &interrupted;

    log_scope log(verbose);
    {
        py::gil_scoped_release nogil;
        check_header(path, overrides);
        model_ = llama_model_load_from_file(path.c_str(), params);
    }
    if (interrupted) {
        close();
        PyErr_SetNone(PyExc_KeyboardInterrupt);
        throw py::error_already_set();
    }
    if (!model_) {
        const auto why = log.errors();
        throw std::runtime_error(why.empty() ? "llama.cpp gave no reason" : why);
    }
}

model::~model() {
    n_contexts = 0; // contexts own their model: there are none left
    close();
}

void model::close() {
    if (n_contexts > 0) {
        throw std::runtime_error("model: close: got " + std::to_string(n_contexts) + " open contexts, expected none; "
            "close them first");
    }
    if (model_ && !owner_.foreign()) { // in a forked child the memory is the parent's: left alone
        llama_model_free(model_);
    }
    model_ = nullptr;
}

const llama_model * model::get() const {
    owned::use use(owner_, "model", model_ != nullptr);
    return model_;
}

llama_model * model::get() { return const_cast<llama_model *>(static_cast<const model *>(this)->get()); }

const llama_vocab * model::vocab() const { return llama_model_get_vocab(get()); }

llama_token model::checked(llama_token id) const {
    const int32_t n = llama_vocab_n_tokens(vocab());
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

static py::str text(const std::string & s) {
    PyObject * o = PyUnicode_DecodeUTF8(s.data(), s.size(), "replace");
    if (!o) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::str>(o);
}

py::dict model::metadata() const {
    const auto * m = get();
    py::dict out;
    for (int32_t i = 0; i < llama_model_meta_count(m); ++i) {
        const auto key = read_string([&](char * b, size_t n) { return llama_model_meta_key_by_index(m, i, b, n); });
        const auto val = read_string([&](char * b, size_t n) { return llama_model_meta_val_str_by_index(m, i, b, n); });
        out[text(key)] = text(val);
    }
    return out;
}

std::string model::desc() const {
    const auto * m = get();
    return read_string([&](char * b, size_t n) { return llama_model_desc(m, b, n); });
}

py::object model::chat_template(const py::object & name) const {
    const auto   key = name.is_none() ? std::string() : py::cast<std::string>(name);
    const char * t   = llama_model_chat_template(get(), name.is_none() ? nullptr : key.c_str());
    return t ? py::object(text(t)) : py::object(py::none());
}

py::bytes model::token_text(llama_token id) const { return py::bytes(llama_vocab_get_text(vocab(), checked(id))); }

py::bytes model::token_to_piece(llama_token id, bool special) const {
    const auto * v = vocab();
    std::string piece(64, '\0');
    int32_t n = llama_token_to_piece(v, checked(id), &piece[0], piece.size(), 0, special);
    if (n < 0) {
        piece.resize(-n);
        n = llama_token_to_piece(v, id, &piece[0], piece.size(), 0, special);
    }
    return py::bytes(piece.data(), n < 0 ? 0 : n);
}

std::vector<llama_token> model::tokenize(const std::string & text, bool add_special, bool parse_special) const {
    if (text.size() > INT32_MAX / 2) {
        throw std::invalid_argument("tokenize: got " + std::to_string(text.size()) + " bytes, expected at most 2^30; "
            "split the text");
    }
    const auto * v = vocab();
    if (llama_vocab_type(v) == LLAMA_VOCAB_TYPE_NONE) {
        throw std::runtime_error("tokenize: got a model without a tokenizer, expected tokenizer.ggml.* in the GGUF; "
            "give token ids instead");
    }
    if (add_special && ((llama_vocab_get_add_bos(v) && llama_vocab_bos(v) < 0) ||
                        (llama_vocab_get_add_eos(v) && llama_vocab_eos(v) < 0))) {
        throw std::runtime_error("tokenize: got a vocabulary without the BOS or EOS token that it asks to add, expected "
            "one; tokenize without add_bos");
    }
    std::vector<llama_token> out(text.size() + 8);
    int32_t n;
    {
        py::gil_scoped_release nogil;
        n = llama_tokenize(v, text.data(), text.size(), out.data(), out.size(), add_special, parse_special);
        if (n < 0 && n != INT32_MIN) {
            out.resize(-n);
            n = llama_tokenize(v, text.data(), text.size(), out.data(), out.size(), add_special, parse_special);
        }
    }
    if (n < 0) {
        throw std::runtime_error("tokenize: got more tokens than 2^31; split the text");
    }
    out.resize(n);
    return out;
}

py::bytes model::detokenize(const tokens_in & tokens, bool remove_special, bool unparse_special) const {
    const auto * v = vocab();
    const auto   n_tokens = tokens.size();
    for (py::ssize_t i = 0; i < n_tokens; ++i) {
        checked(tokens.data()[i]);
    }
    std::string out(n_tokens*8 + 64, '\0');
    int32_t n;
    {
        py::gil_scoped_release nogil;
        n = llama_detokenize(v, tokens.data(), n_tokens, &out[0], out.size(), remove_special, unparse_special);
        if (n < 0) {
            out.resize(-n);
            n = llama_detokenize(v, tokens.data(), n_tokens, &out[0], out.size(), remove_special, unparse_special);
        }
    }
    return py::bytes(out.data(), n < 0 ? 0 : n);
}

py::list model::added_tokens() const {
    const auto * v = vocab();
    py::list out;
    const int32_t n = llama_vocab_n_tokens(v);
    for (llama_token id = 0; id < n; ++id) {
        const int attr = llama_vocab_get_attr(v, id);
        if (attr & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN)) {
            const bool control = attr & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN);
            out.append(py::make_tuple(id, text(llama_vocab_get_text(v, id)), control));
        }
    }
    return out;
}

} // namespace sb
