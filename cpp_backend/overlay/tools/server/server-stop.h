#pragma once

// A server that was told to stop ends its loop of tasks, and no result comes any more. A request that still waits for one is answered with
// an error: otherwise the server would live as long as that client has patience.

#include <atomic>
#include <exception>

struct server_stop : std::exception {
    const char * what() const noexcept override {
        return "server: answer: got a server that was told to stop, expected one that runs; do ask again when it does";
    }

    // the loop of tasks has ended
    static void stopped() { flag() = true; }

    // asked each second by who waits for a result
    static void check() {
        if (flag()) {
            throw server_stop();
        }
    }

private:
    static std::atomic<bool> & flag() {
        static std::atomic<bool> it { false };
        return it;
    }
};
