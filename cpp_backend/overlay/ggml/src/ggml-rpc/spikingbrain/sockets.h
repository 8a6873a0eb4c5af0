#pragma once

// TCP of Linux, macOS and Windows under one set of names. Sockets are ints on all of them: Windows' handles have no more than 31 bits.

#include <cstddef>
#include <cstdint>
#include <string>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

namespace sockets {

#ifdef _WIN32
enum { INTERRUPTED = WSAEINTR, ABORTED = WSAECONNABORTED, TIMED_OUT = WSAETIMEDOUT, NOT_THERE = WSAEADDRNOTAVAIL, BOTH = SD_BOTH };

inline int  error()                { return WSAGetLastError(); }
inline bool would_block(int e)     { return e == WSAEWOULDBLOCK; }
inline bool in_progress(int e)     { return e == WSAEWOULDBLOCK; }
inline bool is_closed(int e)       { return e == WSAECONNRESET || e == WSAECONNABORTED || e == WSAESHUTDOWN; }
inline void close(int fd)          { closesocket(fd); }
inline int  wait(pollfd * p, int ms) { return WSAPoll(p, 1, ms); }
inline void set_blocking(int fd, bool on) { u_long non = !on; ioctlsocket(fd, FIONBIO, &non); }
inline void begin(int fd)          { set_blocking(fd, false); }
inline void end_at_exec(int fd)    { SetHandleInformation((HANDLE) (intptr_t) fd, HANDLE_FLAG_INHERIT, 0); }
inline int64_t send(int fd, const char * data, size_t n) { return ::send(fd, data, (int) n, 0); }
inline int64_t recv(int fd, char * data, size_t n)       { return ::recv(fd, data, (int) n, 0); }

inline std::string text(int e) {
    char buf[256] = "";
    FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr, e, 0, buf, sizeof(buf), nullptr);
    const std::string s = buf;
    return s.empty() ? "error " + std::to_string(e) : s.substr(0, s.find_last_not_of(" .\r\n") + 1);
}

inline std::string address_text(int e) { return text(e); }

// once, before the first socket
inline bool start() {
    static const bool ok = [] { WSADATA data; return WSAStartup(MAKEWORD(2, 2), &data) == 0; }();
    return ok;
}
#else
enum { INTERRUPTED = EINTR, ABORTED = ECONNABORTED, TIMED_OUT = ETIMEDOUT, NOT_THERE = EADDRNOTAVAIL, BOTH = SHUT_RDWR };

#ifdef SO_NOSIGPIPE // macOS: begin(); MSG_NOSIGNAL is known to its newest headers, not to older systems
constexpr int QUIET = MSG_DONTWAIT;
#else
constexpr int QUIET = MSG_NOSIGNAL | MSG_DONTWAIT;
#endif

inline int  error()                { return errno; }
inline bool would_block(int e)     { return e == EAGAIN || e == EWOULDBLOCK; }
inline bool in_progress(int e)     { return e == EINPROGRESS; }
inline bool is_closed(int e)       { return e == EPIPE || e == ECONNRESET; }
inline void close(int fd)          { ::close(fd); }
inline int  wait(pollfd * p, int ms) { return ::poll(p, 1, ms); }
inline void set_blocking(int fd, bool on) { fcntl(fd, F_SETFL, on ? 0 : O_NONBLOCK); }
inline void end_at_exec(int fd)    { fcntl(fd, F_SETFD, FD_CLOEXEC); }
inline int64_t send(int fd, const char * data, size_t n) { return ::send(fd, data, n, QUIET); }
inline int64_t recv(int fd, char * data, size_t n)       { return ::recv(fd, data, n, MSG_DONTWAIT); }
inline std::string text(int e)     { return strerror(e); }
inline std::string address_text(int e) { return gai_strerror(e); }
inline bool start()                { return true; }

inline void begin(int fd) {
#ifdef SO_NOSIGPIPE
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#else
    (void) fd;
#endif
}
#endif

inline void set(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, (const char *) &value, sizeof(value));
}

// -1: none
inline int make(const addrinfo & a) {
    const int fd = (int) socket(a.ai_family, a.ai_socktype, a.ai_protocol);
    if (fd >= 0) {
        end_at_exec(fd);
    }
    return fd;
}

inline int accept(int fd, sockaddr * address, socklen_t * n) {
#ifdef __linux__
    return ::accept4(fd, address, n, SOCK_CLOEXEC);
#else
    const int one = (int) ::accept(fd, address, n);
    if (one >= 0) {
        end_at_exec(one);
    }
    return one;
#endif
}

} // namespace sockets
