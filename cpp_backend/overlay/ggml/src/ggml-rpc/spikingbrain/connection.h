#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

// One TCP connection of a client or a server, or a server's listening socket.
//
// While the server computes it sends four heartbeats a second, so that a long computation is not taken for a dead server, nor a
// stopped process for a long computation: its kernel would go on to answer TCP's own probes. A heartbeat stands where the length
// of an answer could stand, and is no length. Without a sign of life for `limit` while one is waited for, a client's is lost.
struct connection {
    enum role { LISTENER, CLIENT, SERVER };

    connection(int fd, role who, std::string endpoint, std::chrono::seconds limit) : fd(fd), who(who), endpoint(std::move(endpoint)), limit(limit) {}
    connection(const connection &) = delete;
    ~connection();

    // all of it, or false: the connection is lost
    bool send_data(const void * data, size_t size);
    bool recv_data(void * data, size_t size);
    bool flush(); // the end of a message: a client then awaits an answer, maybe

    // of a client: noted for all that compute with the endpoint (ggml-spikingbrain-rpc.h)
    void lose(const std::string & what, const char * advice = "see its output, start it again and load the model again");
    void start_heart() { heart = std::thread([this] { beat(); }); }

    const int            fd;
    const role           who;
    const std::string    endpoint;
    std::chrono::seconds limit; // 0: none
    std::atomic<bool>    lost{false};
    std::string          why; // set before lost

private:
    using clock_type = std::chrono::steady_clock;

    bool wait(short events, clock_type::time_point since);
    bool send_all(const char * data, size_t size);
    bool recv_all(char * data, size_t size);
    bool recv_head(void * data, size_t size);
    bool take_head(bool & complete);
    bool failed(const char * what);
    void beat();

    // client: the length of the next answer, as far as it came
    bool   at_head = false;
    char   head[8];
    size_t n_head  = 0;

    // server
    std::thread             heart;
    std::mutex              mutex; // of what is sent
    std::condition_variable changed;
    bool                    stopped   = false;
    bool                    in_answer = false;
    std::atomic<bool>       working{false};
};

// as printf
#if defined(__MINGW32__)
std::string spk_rpc_text(const char * format, ...) __attribute__((format(gnu_printf, 1, 2)));
#elif defined(__GNUC__)
std::string spk_rpc_text(const char * format, ...) __attribute__((format(printf, 1, 2)));
#else
std::string spk_rpc_text(const char * format, ...);
#endif
