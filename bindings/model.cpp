#include "core.h"

#include <cstring>

namespace sb {

overrides read_overrides(const py::dict & dict) {
    overrides out;
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
             const py::dict & kv_overrides, bool verbose, const std::vector<std::string> & rpc_servers, int32_t n_gpu_layers)
    : vocab_only_(vocab_only), verbose_(verbose) {
    const auto given = read_overrides(kv_overrides);
    bool interrupted = false;
    std::vector<ggml_backend_dev_t> devices;
    if (!rpc_servers.empty()) {
        py::gil_scoped_release nogil;
        devices = remote_devices(rpc_servers);
    }
    devices.push_back(nullptr); // ends the list: other devices of this process are another model's

    auto params = llama_model_default_params();
    params.devices       = devices.data();
    params.n_gpu_layers  = n_gpu_layers;
    params.vocab_only    = vocab_only;
    params.check_tensors = check_tensors;
    params.load_mode     = use_mmap ? (use_mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP)
                                    : (use_mlock ? LLAMA_LOAD_MODE_MLOCK      : LLAMA_LOAD_MODE_NONE);
    params.kv_overrides  = given.empty() ? nullptr : given.data();
    params.progress_callback           = on_progress;
    params.progress_callback_user_data = &interrupted;

    log_scope log(verbose);
    {
        py::gil_scoped_release nogil;
        const model_file file(path);
        model_ = file.load(params);
    }
    if (interrupted) {
        close();
        PyErr_SetNone(PyExc_KeyboardInterrupt);
        throw py::error_already_set();
    }
    if (!model_) {
        throw std::runtime_error(log.reason());
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
        const auto held = in_use("model: close");
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

llama_token model::checked(llama_token id) const { return sb::checked(vocab(), id); }

static py::str text(const std::string & s) {
    PyObject * o = PyUnicode_DecodeUTF8(s.data(), s.size(), "replace");
    if (!o) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::str>(o);
}

py::dict model::metadata() const {
    py::dict out;
    for (const auto & [key, value] : sb::metadata(get())) {
        out[text(key)] = text(value);
    }
    return out;
}

std::string model::desc() const { return description(get()); }

py::object model::chat_template(const py::object & name) const {
    const auto   key = name.is_none() ? std::string() : py::cast<std::string>(name);
    const char * t   = llama_model_chat_template(get(), name.is_none() ? nullptr : key.c_str());
    return t ? py::object(text(t)) : py::object(py::none());
}

py::bytes model::token_text(llama_token id) const { return py::bytes(llama_vocab_get_text(vocab(), checked(id))); }

py::bytes model::token_to_piece(llama_token id, bool special) const { return py::bytes(sb::token_to_piece(vocab(), id, special)); }

std::vector<llama_token> model::tokenize(const std::string & text, bool add_special, bool parse_special) const {
    const auto * v = vocab();
    const auto held = in_use("tokenize");
    py::gil_scoped_release nogil;
    return sb::tokenize(v, text, add_special, parse_special);
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
        const auto held = in_use("detokenize");
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
    py::list out;
    for (const auto & t : sb::added_tokens(vocab())) {
        out.append(py::make_tuple(t.id, text(t.text), t.control));
    }
    return out;
}

} // namespace sb
