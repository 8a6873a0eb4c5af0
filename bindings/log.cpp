#include "core.h"

#include <cstdio>

namespace sb {

static thread_local log_scope * g_scope = nullptr;

log_scope::log_scope(bool verbose) : verbose_(verbose), outer_(g_scope) { g_scope = this; }
log_scope::~log_scope() { g_scope = outer_; }

void log_scope::add(ggml_log_level level, const char * text) {
    if (verbose_) {
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
    std::string first = one_line(errors_.front());
    return first;
}

static void log_callback(ggml_log_level level, const char * text, void *) {
    if (g_scope) {
        g_scope->add(level, text);
    }
}

void log_install() { llama_log_set(log_callback, nullptr); }

owned::use::use(const owned & o, const char * what, bool open) : o_(o) {
    if (!open) {
        throw std::runtime_error(std::string(what) + ": got a closed handle, expected an open one; make a new one");
    }
    if (o.foreign()) {
        throw std::runtime_error(std::string(what) + ": got process " + std::to_string(getpid()) + ", expected " +
            std::to_string(o.pid_) + ", the one that loaded it; load the model after the fork");
    }
    if (o.busy_.exchange(true)) {
        throw std::runtime_error(std::string(what) + ": got a second caller, expected one thread at a time; "
            "use a lock or one handle per thread");
    }
}

owned::use::~use() { o_.busy_.store(false); }

} // namespace sb
