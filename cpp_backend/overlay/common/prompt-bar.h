#pragma once

// How far a prompt is read, as a bar on stderr. Drawn where stderr is a terminal and reading takes longer than a second,
// erased before anything else is printed; otherwise nothing is written at all.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

class prompt_bar {
    using clock = std::chrono::steady_clock;

    static constexpr auto DELAY  = std::chrono::seconds(1);
    static constexpr auto PERIOD = std::chrono::milliseconds(250); // the seconds go on while a long batch is computed
    static constexpr int  WIDTH  = 24;

    const bool enabled;

    std::mutex              mutex;
    std::condition_variable finished;
    std::thread             drawer; // as long as a prompt is read

    // of the prompt that is read, in tokens; n_total == 0: none
    int n_first = 0;
    int n_done  = 0;
    int n_total = 0;

    static bool is_terminal(FILE * file) {
#if defined(_WIN32)
        return _isatty(_fileno(file));
#else
        return isatty(fileno(file));
#endif
    }

    static bool can_draw() {
        const char * term = std::getenv("TERM");
        return is_terminal(stderr) && !(term && std::string(term) == "dumb");
    }

    void draw(clock::duration elapsed) const {
        const double part = (double) (n_done - n_first)/(n_total - n_first);
        const int    full = part*WIDTH;
        fprintf(stderr, "\r[%s%s] %3d%% of %d tokens, %d s\033[K", std::string(full, '#').c_str(), std::string(WIDTH - full, '.').c_str(),
            (int) (100*part), n_total - n_first, (int) std::chrono::duration_cast<std::chrono::seconds>(elapsed).count());
        fflush(stderr);
    }

    void run() {
        std::unique_lock<std::mutex> lock(mutex);
        const auto begin = clock::now();
        const auto ended = [this] { return n_total == 0; };

        finished.wait_for(lock, DELAY, ended);
        const bool drawn = !ended();
        while (!ended()) {
            draw(clock::now() - begin);
            finished.wait_for(lock, PERIOD, ended);
        }
        if (drawn) {
            fprintf(stderr, "\r\033[K");
            fflush(stderr);
        }
    }

public:
    // simple_io: the terminal is not to be drawn on; echo: the prompt's text is printed while it is read
    explicit prompt_bar(bool simple_io, bool echo = false) : enabled(!simple_io && can_draw() && !(echo && is_terminal(stdout))) {}

    // body: of a request to llama-server, which is asked for its progress
    template <typename Json, typename = decltype(std::declval<Json &>()["return_progress"])>
    prompt_bar(bool simple_io, Json & body) : prompt_bar(simple_io) { body["return_progress"] = enabled; }

    prompt_bar(const prompt_bar &) = delete;

    ~prompt_bar() { end(); }

    // `done` of `total` tokens are read; the first call after an end() is where the bar begins
    void set(int done, int total) {
        if (done >= total) {
            end();
        } else if (enabled) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (!drawer.joinable()) {
                n_first = done;
                drawer  = std::thread(&prompt_bar::run, this);
            }
            n_done  = std::max(n_first, done);
            n_total = total;
        }
    }

    // erases the bar; when it returns, others may print
    void end() {
        if (drawer.joinable()) {
            {
                const std::lock_guard<std::mutex> lock(mutex);
                n_total = 0;
                finished.notify_all();
            }
            drawer.join();
        }
    }

    // a chunk of llama-server's stream: its prompt_progress is shown, anything else ends the bar
    template <typename Json>
    void show(const Json & chunk) {
        if (chunk.contains("prompt_progress")) {
            const auto & progress = chunk.at("prompt_progress");
            set(progress.value("processed", 0), progress.value("total", 0));
        } else {
            end();
        }
    }

    // a batch of a prompt that is computed while this object lives
    struct batch {
        prompt_bar & bar;
        const int    done;
        const int    total;

        // `n` tokens follow after `done` - n; a single one is generated text, not a prompt
        batch(prompt_bar & bar, int n, int done, int total) : bar(bar), done(done), total(n > 1 ? total : 0) { bar.set(done - n, this->total); }

        ~batch() { bar.set(done, total); }
    };
};
