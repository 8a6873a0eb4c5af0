// sb-bench-driver: one model, one context, commanded line by line (request.h).

#include "engine.h"
#include "machine.h"
#include "session.h"
#ifndef SB_BENCH_IK
#include "operators.h"
#endif
#ifdef SB_BENCH_SPIKINGBRAIN
#include "events.h"
#endif

#include <unistd.h>

#include <cstdio>
#include <functional>
#include <iostream>
#include <map>

// the log of llama.cpp: the last error lines, quoted where a command fails
static std::string last_errors;

static void on_log(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        last_errors += text;
    }
}

// around a command with "mark": a system call that no kernel has, where a counter of instructions tells its count
// (mobile/arm64/count/plugin.c)
static void mark() {
    syscall(5350);
}

static json answer(const std::map<std::string, std::function<json(const request &)>> & commands, const std::string & line) {
    last_errors.clear();
    try {
        const request r(json::parse(line));
        const std::string name = r.at("cmd");
        const auto found = commands.find(name);
        if (found == commands.end()) {
            fail("cmd: got '" + name + "', expected one of the commands of driver.cpp");
        }
        const bool marked = r.value("mark", false);
        if (marked) {
            mark();
        }
        json out = found->second(r);
        if (marked) {
            mark();
        }
        r.check_all_read();
        return out;
    } catch (const std::exception & e) {
        return { { "error", e.what() }, { "log", last_errors } };
    }
}

int main() {
    // answers go to what was stdout; a library that prints there must not break them
    FILE * answers = fdopen(dup(STDOUT_FILENO), "w");
    if (!answers || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        return 1;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_backend_init();

    session s;
#ifndef SB_BENCH_IK
    operator_bench op;
#endif
#ifdef SB_BENCH_SPIKINGBRAIN
    event_bench events;
#endif
    bool done = false;
    std::map<std::string, std::function<json(const request &)>> commands = {
        { "hello",    cmd_hello },
        { "memory",   cmd_memory },
        { "read",     cmd_read },
        { "spin",     cmd_spin },
        { "load",     [&](const request & r) { return s.load(r); } },
        { "context",  [&](const request & r) { return s.open(r); } },
        { "fill",     [&](const request & r) { return s.fill(r); } },
        { "decode",   [&](const request & r) { return s.decode(r); } },
        { "verify",   [&](const request & r) { return s.verify(r); } },
        { "prefill",  [&](const request & r) { return s.prefill(r); } },
        { "position", [&](const request & r) { return s.position(r); } },
        { "close",    [&](const request &)   { s.close_model(); return json::object(); } },
        { "close_context", [&](const request &) { s.close_context(); return json::object(); } },
        { "quit",     [&](const request &)   { done = true; return json::object(); } },
    };
#ifndef SB_BENCH_IK
    commands["op_build"] = [&](const request & r) { return op.build(r); };
    commands["op_time"]  = [&](const request & r) { return op.time(r); };
#endif
#ifdef SB_BENCH_SPIKINGBRAIN
    commands["events_build"] = [&](const request & r) { return events.build(r); };
    commands["events_time"]  = [&](const request & r) { return events.time(r); };
#endif
    for (std::string line; !done && std::getline(std::cin, line); ) {
        // bytes that are no UTF-8 (a path in an error) become U+FFFD instead of an exception
        const std::string out = answer(commands, line).dump(-1, ' ', false, json::error_handler_t::replace);
        std::fwrite(out.data(), 1, out.size(), answers);
        std::fputc('\n', answers);
        std::fflush(answers);
    }
#ifndef SB_BENCH_IK
    op.close();
#endif
#ifdef SB_BENCH_SPIKINGBRAIN
    events.close();
#endif
    s.close_model();
    llama_backend_free();
    return 0;
}
