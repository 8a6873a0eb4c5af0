#include "connection.h"
#include "sockets.h"

#include "ggml-spikingbrain-rpc.h"

#include "../transport.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

using namespace std::chrono_literals;

static const uint64_t HEARTBEAT = UINT64_MAX;
static const auto     BEAT_TIME = 250ms;

// after a call that failed: nothing is wrong, nothing was there
static bool may_come() {
    const int error = sockets::error();
    return sockets::would_block(error) || error == sockets::INTERRUPTED;
}

std::string spk_rpc_text(const char * format, ...) {
    char    buf[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(buf, sizeof(buf), format, args);
    va_end(args);
    return buf;
}

connection::~connection() {
    if (heart.joinable()) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            stopped = true;
        }
        changed.notify_all();
        heart.join();
    }
    sockets::close(fd);
}

void connection::lose(const std::string & what, const char * advice) {
    if (lost) {
        return;
    }
    why  = spk_rpc_text("rpc: %s: got %s, expected an answer; %s", endpoint.c_str(), what.c_str(), advice);
    lost = true;
    shutdown(fd, sockets::BOTH);
    if (who == CLIENT) {
        ggml_spk_rpc_set_lost(endpoint.c_str(), why.c_str());
    }
}

bool connection::failed(const char * what) {
    const int error = sockets::error();
    lose(sockets::is_closed(error) ? "a closed connection" : spk_rpc_text("%s: %s", what, sockets::text(error).c_str()));
    return false;
}

// Until one of the events or the limit. since: the last sign of life.
bool connection::wait(short events, clock_type::time_point since) {
    for (;;) {
        int ms = -1;
        if (limit > 0s) {
            const auto left = since + limit - clock_type::now();
            ms = std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
        }
        pollfd     p = {};
        p.fd     = fd;
        p.events = events;
        const int  n = sockets::wait(&p, ms);
        if (n > 0) {
            return true;
        }
        if (n == 0) {
            lose(spk_rpc_text("nothing for %d s", (int) limit.count()), "it has stopped, or serves another client: start it again or wait, then load the model again");
            return false;
        }
        if (sockets::error() != sockets::INTERRUPTED) {
            return failed("poll");
        }
    }
}

bool connection::send_all(const char * data, size_t size) {
    auto since = clock_type::now();
    while (size > 0) {
        const int64_t n = sockets::send(fd, data, std::min(size, MAX_CHUNK_SIZE));
        if (n >= 0) {
            data += n;
            size -= n;
            since = clock_type::now();
            continue;
        }
        if (!may_come()) {
            return failed("send");
        }
        if (!wait(who == CLIENT ? POLLOUT | POLLIN : POLLOUT, since)) {
            return false;
        }
        if (who == CLIENT) { // a server that computes reads nothing, but its heart beats
            const size_t before = n_head;
            bool complete = false;
            if (!take_head(complete)) {
                return false;
            }
            if (complete) {
                lose("an answer that nobody asked for");
                return false;
            }
            since = n_head != before ? clock_type::now() : since;
        }
    }
    return true;
}

// Heartbeats, or a part of one, or the length of an answer, without waiting. False: lost.
bool connection::take_head(bool & complete) {
    for (;;) {
        const int64_t n = sockets::recv(fd, head + n_head, sizeof(head) - n_head);
        if (n == 0) {
            lose("a closed connection");
            return false;
        }
        if (n < 0) {
            return may_come() || failed("recv");
        }
        n_head += n;
        if (n_head == sizeof(head)) {
            uint64_t length;
            memcpy(&length, head, sizeof(length));
            if (length != HEARTBEAT) {
                complete = true;
                return true;
            }
            n_head = 0;
        }
    }
}

bool connection::recv_all(char * data, size_t size) {
    auto since = clock_type::now();
    while (size > 0) {
        const int64_t n = sockets::recv(fd, data, std::min(size, MAX_CHUNK_SIZE));
        if (n > 0) {
            data += n;
            size -= n;
            since = clock_type::now();
            continue;
        }
        if (n == 0) {
            lose("a closed connection");
            return false;
        }
        if (!may_come()) {
            return failed("recv");
        }
        if (!wait(POLLIN, since)) {
            return false;
        }
    }
    return true;
}

bool connection::send_data(const void * data, size_t size) {
    if (lost) {
        return false;
    }
    std::lock_guard<std::mutex> lock(mutex);
    in_answer = true;
    return send_all(static_cast<const char *>(data), size);
}

bool connection::recv_data(void * data, size_t size) {
    if (lost) {
        return false;
    }
    if (at_head) {
        return recv_head(data, size);
    }
    working = false;
    const bool ok = recv_all(static_cast<char *>(data), size);
    working = ok;
    return ok;
}

bool connection::recv_head(void * data, size_t size) {
    auto since    = clock_type::now();
    bool complete = false;
    while (take_head(complete) && !complete && wait(POLLIN, since)) {
        since = clock_type::now();
    }
    if (complete && size != sizeof(head)) {
        lose("another protocol");
    }
    if (lost || !complete) {
        return false;
    }
    memcpy(data, head, size);
    n_head  = 0;
    at_head = false;
    return true;
}

bool connection::flush() {
    std::lock_guard<std::mutex> lock(mutex);
    in_answer = false;
    at_head   = who == CLIENT;
    return !lost;
}

// one thread of the server per connection
void connection::beat() {
    std::unique_lock<std::mutex> lock(mutex);
    while (!changed.wait_for(lock, BEAT_TIME, [this] { return stopped; })) {
        if (working && !in_answer && !lost) {
            send_all(reinterpret_cast<const char *>(&HEARTBEAT), sizeof(HEARTBEAT));
        }
    }
}
