// transport.h over TCP, in place of ggml-rpc/transport.cpp (cpp_backend/rpc.cmake): peers that are of one build or part at once, and no
// wait without end. No RDMA. A connection begins with a greeting in each direction.

#include "connection.h"
#include "rpc.h"
#include "sockets.h"

#include "ggml-impl.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

using namespace std::chrono_literals;

namespace {

struct greeting {
    char     magic[8];
    uint64_t build; // of the operators' sources and the pin: peers must compute the same
};

} // namespace

static greeting own_greeting() {
    return { { 's', 'b', '-', 'r', 'p', 'c', '1', '\n' }, SPIKINGBRAIN_OPERATORS };
}

void spk_rpc_throw(const char * format, ...) {
    char    buf[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(buf, sizeof(buf), format, args);
    va_end(args);
    throw std::runtime_error(buf);
}

// without a sign of life while one is waited for
static std::chrono::seconds silence() {
    const char * given = std::getenv("SPIKINGBRAIN_RPC_TIMEOUT");
    if (!given) {
        return 10s;
    }
    char *  end     = nullptr;
    int64_t seconds = std::strtoll(given, &end, 10);
    if (end == given || *end != '\0' || seconds < 1 || seconds > 3600) {
        spk_rpc_throw("rpc: SPIKINGBRAIN_RPC_TIMEOUT: got '%s', expected 1 to 3600 seconds", given);
    }
    return std::chrono::seconds(seconds);
}

//
// beginning and end
//

// a peer whose machine is gone is noticed by probes, or by what it does not acknowledge; not so a server that computes and does not read
static void set_options(int fd, connection::role who) {
    const int idle = 10, interval = 5, count = 3;
    sockets::begin(fd);
    sockets::set(fd, IPPROTO_TCP, TCP_NODELAY,  1);
    sockets::set(fd, SOL_SOCKET,  SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    sockets::set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
#elif defined(TCP_KEEPALIVE) // macOS' name for it
    sockets::set(fd, IPPROTO_TCP, TCP_KEEPALIVE, idle);
#endif
    sockets::set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    sockets::set(fd, IPPROTO_TCP, TCP_KEEPCNT,   count);
#ifdef TCP_USER_TIMEOUT
    sockets::set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, who == connection::SERVER ? 30000 : 0);
#else
    GGML_UNUSED(who);
#endif
}

// 0, or the system's error
static int connect_within(int fd, const addrinfo & a, std::chrono::seconds limit) {
    sockets::set_blocking(fd, false);
    int error = ::connect(fd, a.ai_addr, a.ai_addrlen) == 0 ? 0 : sockets::error();
    if (sockets::in_progress(error)) {
        pollfd    p = {};
        socklen_t n = sizeof(error);
        int       ready;
        p.fd     = fd;
        p.events = POLLOUT;
        while ((ready = sockets::wait(&p, limit.count()*1000)) < 0 && sockets::error() == sockets::INTERRUPTED) {}
        if (ready <= 0) {
            return sockets::TIMED_OUT;
        }
        getsockopt(fd, SOL_SOCKET, SO_ERROR, (char *) &error, &n);
    }
    sockets::set_blocking(fd, true);
    return error;
}

static int open_connection(const char * host, int port, const std::string & endpoint, std::chrono::seconds limit) {
    addrinfo hints = {}, * found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    sockets::start();
    if (const int rc = getaddrinfo(host, std::to_string(port).c_str(), &hints, &found)) {
        spk_rpc_throw("rpc: %s: host: got '%s', expected a known one: %s", endpoint.c_str(), host, sockets::address_text(rc).c_str());
    }
    int error = sockets::NOT_THERE, fd = -1;
    for (const addrinfo * a = found; a && error != 0; a = a->ai_next) {
        fd = sockets::make(*a);
        error = fd < 0 ? sockets::error() : connect_within(fd, *a, limit);
        if (fd >= 0 && error != 0) {
            sockets::close(fd);
        }
    }
    freeaddrinfo(found);
    if (error != 0) {
        spk_rpc_throw("rpc: %s: got '%s', expected an sb-rpc-server; start one there, or check host, port and firewall", endpoint.c_str(), sockets::text(error).c_str());
    }
    return fd;
}

//
// transport.h, and what ggml-rpc.cpp asks besides
//

struct socket_t::impl : connection {
    using connection::connection;
};

// transport.h is llama.cpp's and has no place for more
static std::mutex                                        clients_mutex;
static std::unordered_map<const socket_t *, connection *> clients;

static connection * client_of(const socket_ptr & sock) {
    std::lock_guard<std::mutex> lock(clients_mutex);
    const auto it = clients.find(sock.get());
    return it == clients.end() ? nullptr : it->second;
}

void spk_rpc_lose(const socket_ptr & sock, const char * what) {
    if (connection * c = client_of(sock)) {
        c->lose(what);
    }
}

void spk_rpc_throw_if_lost(const socket_ptr & sock) {
    const connection * c = client_of(sock);
    if (c && c->lost) {
        throw std::runtime_error(c->why);
    }
}

void spk_rpc_check_endpoint(const char * endpoint) {
    const std::string s     = endpoint;
    const size_t      colon = s.find(':');
    const std::string port  = colon == std::string::npos ? "" : s.substr(colon + 1);
    const bool digits = !port.empty() && port.size() <= 5 && port[0] != '0' && port.find_first_not_of("0123456789") == std::string::npos;
    if (colon == 0 || !digits || std::stoi(port) > 65535 || s.find_first_of(" \t\n/") != std::string::npos) {
        spk_rpc_throw("rpc: server: got '%s', expected HOST:PORT, such as 192.168.0.2:50052", endpoint);
    }
    std::lock_guard<std::mutex> lock(clients_mutex);
    for (const auto & [sock, c] : clients) {
        if (c->endpoint == s && c->lost) {
            throw std::runtime_error(c->why + "; close what was loaded to it first");
        }
    }
}

bool spk_rpc_graph_uses(const ggml_cgraph * graph, const ggml_backend_buffer * buffer) {
    const auto in_buffer = [&](const ggml_tensor * t) { return t && (t->buffer == buffer || (t->view_src && t->view_src->buffer == buffer)); };
    for (int i = 0; graph && i < graph->n_nodes; ++i) {
        const ggml_tensor * node = graph->nodes[i];
        if (node && (in_buffer(node) || std::any_of(std::begin(node->src), std::end(node->src), in_buffer))) {
            return true;
        }
    }
    return false;
}

socket_t::socket_t(std::unique_ptr<impl> p) : pimpl(std::move(p)) {}

socket_t::~socket_t() {
    std::lock_guard<std::mutex> lock(clients_mutex);
    clients.erase(this);
}

bool socket_t::send_data(const void * data, size_t size) { return pimpl->send_data(data, size); }
bool socket_t::recv_data(void * data, size_t size)       { return pimpl->recv_data(data, size); }
bool socket_t::flush()                                   { return pimpl->flush(); }
void socket_t::get_caps(uint8_t * local_caps)            { memset(local_caps, 0, RPC_CONN_CAPS_SIZE); } // no RDMA
void socket_t::update_caps(const uint8_t *)              {}

static bool same_build(const greeting & theirs, const std::string & endpoint, std::string & why) {
    const greeting mine = own_greeting();
    if (memcmp(mine.magic, theirs.magic, sizeof(mine.magic)) != 0) {
        why = spk_rpc_text("rpc: %s: got a peer of another kind, expected an sb-rpc-server or its client", endpoint.c_str());
    } else if (mine.build != theirs.build) {
        why = spk_rpc_text("rpc: %s: got operators of build %016" PRIx64 ", expected %016" PRIx64 "; install the same version on both machines",
            endpoint.c_str(), theirs.build, mine.build);
    }
    return why.empty();
}

socket_ptr socket_t::connect(const char * host, int port) {
    const std::string endpoint = spk_rpc_text("%s:%d", host, port);
    const auto limit = silence();
    const int  fd    = open_connection(host, port, endpoint, limit);
    set_options(fd, connection::CLIENT);
    socket_ptr sock(new socket_t(std::make_unique<impl>(fd, connection::CLIENT, endpoint, limit)));

    connection & c = *sock->pimpl;
    greeting mine = own_greeting(), theirs = {};
    if (!c.send_data(&mine, sizeof(mine)) || !c.recv_data(&theirs, sizeof(theirs))) {
        throw std::runtime_error(c.why + "; expected an sb-rpc-server of this version there");
    }
    if (!same_build(theirs, endpoint, c.why)) {
        throw std::runtime_error(c.why);
    }
    std::lock_guard<std::mutex> lock(clients_mutex);
    clients[sock.get()] = &c;
    return sock;
}

socket_ptr socket_t::create_server(const char * host, int port) {
    addrinfo hints = {}, * found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags    = AI_PASSIVE;
    sockets::start();
    if (getaddrinfo(host, std::to_string(port).c_str(), &hints, &found) != 0) {
        fprintf(stderr, "sb-rpc-server: host: got '%s', expected one of this machine's addresses\n", host);
        return nullptr;
    }
    const int fd = sockets::make(*found);
#ifdef _WIN32
    sockets::set(fd, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1); // SO_REUSEADDR there means that others may take the port, too
#else
    sockets::set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#endif
    const bool ok = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 8) == 0;
    const int error = sockets::error();
    freeaddrinfo(found);
    if (!ok) {
        fprintf(stderr, "sb-rpc-server: %s:%d: got '%s', expected an address and a port that are free\n", host, port, sockets::text(error).c_str());
        sockets::close(fd);
        return nullptr;
    }
    printf("listening on %s:%d\n", host, port);
    return socket_ptr(new socket_t(std::make_unique<impl>(fd, connection::LISTENER, spk_rpc_text("%s:%d", host, port), 0s)));
}

// the next peer that greets; others are told who is here, and passed over
socket_ptr socket_t::accept() {
    for (;;) {
        sockaddr_storage a = {};
        socklen_t        n = sizeof(a);
        const int fd = sockets::accept(pimpl->fd, (sockaddr *) &a, &n);
        if (fd < 0) {
            const int error = sockets::error();
            std::this_thread::sleep_for(error == sockets::INTERRUPTED || error == sockets::ABORTED ? 0ms : 100ms);
            continue;
        }
        set_options(fd, connection::SERVER);
        char host[NI_MAXHOST] = "?";
        getnameinfo((sockaddr *) &a, n, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);

        socket_ptr   sock(new socket_t(std::make_unique<impl>(fd, connection::SERVER, host, 5s)));
        connection & c = *sock->pimpl;
        greeting mine = own_greeting(), theirs = {};
        std::string why;
        if (!c.recv_data(&theirs, sizeof(theirs)) || !c.send_data(&mine, sizeof(mine)) || !c.flush()) {
            continue;
        }
        if (!same_build(theirs, host, why)) {
            fprintf(stderr, "sb-rpc-server: %s\n", why.c_str());
            continue;
        }
        c.limit = 0s; // a client may think; who comes in the meantime waits
        c.start_heart();
        return sock;
    }
}

bool rpc_transport_init() { return sockets::start(); }
void rpc_transport_shutdown() {}
