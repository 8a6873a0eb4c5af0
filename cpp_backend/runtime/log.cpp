#include "runtime.h"

#include "ggml-backend.h"

#include <atomic>
#include <cstdio>

namespace sb {

static thread_local log_scope * g_scope = nullptr;

struct log_sink { ggml_log_callback call; void * data; };
static std::atomic<const log_sink *> g_sink { nullptr };

void set_log_sink(ggml_log_callback call, void * data) {
    g_sink = call ? new log_sink { call, data } : nullptr; // the one before may be in use by another thread, and is kept
}

log_scope::log_scope(bool verbose) : verbose_(verbose), outer_(g_scope) { g_scope = this; }
log_scope::~log_scope() { g_scope = outer_; }

void log_scope::add(ggml_log_level level, const char * text) {
    if (verbose_ && !g_sink) {
        fputs(text, stderr);
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        last_level_ = level;
    }
    if (last_level_ != GGML_LOG_LEVEL_ERROR) {
        return;
    }
    if (level == GGML_LOG_LEVEL_CONT && !errors_.empty()) {
        errors_.back() += text;
    } else {
        errors_.emplace_back(text);
    }
}

static std::string one_line(std::string s) {
    while (!s.empty() && (s.back() == '\n' || s.back() == ' ')) {
        s.pop_back();
    }
    for (char & c : s) {
        c = c == '\n' ? ' ' : c;
    }
    return s;
}

std::string log_scope::errors() const {
    if (errors_.empty()) {
        return "";
    }
    return one_line(errors_.front());
}

std::string log_scope::reason() const {
    const auto why = errors();
    return why.empty() ? "llama.cpp gave no reason" : why;
}

static void log_callback(ggml_log_level level, const char * text, void *) {
    if (const log_sink * sink = g_sink) {
        sink->call(level, text, sink->data);
    }
    if (g_scope) {
        g_scope->add(level, text);
    }
}

// llama_backend_init itself would look for the CPU libraries in the working directory
void init(const std::string & backends_dir) {
    llama_log_set(log_callback, nullptr);
    log_scope log(false);
    if (!backends_dir.empty()) {
        ggml_backend_load_all_from_path(backends_dir.c_str());
    }
    if (ggml_backend_reg_count() == 0) {
        throw std::runtime_error("init: " + backends_dir + ": got no CPU library that runs here, expected one; "
            "install the package again");
    }
    llama_backend_init();
}

} // namespace sb
