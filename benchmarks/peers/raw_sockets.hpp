// What servers around a bare event library share: a listener, and the echo of one connection by
// hand.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

namespace raw {

/// Listens at 127.0.0.1, and says so. -1 when that fails.
inline int listen_on(int port, const char* name) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in local{};
    local.sin_family = AF_INET;
    local.sin_port = htons(static_cast<in_port_t>(port));
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const address = reinterpret_cast<sockaddr*>(&local);
    socklen_t size = sizeof local;
    if (::bind(listener, address, size) != 0 || ::listen(listener, 4096) != 0) return -1;
    ::getsockname(listener, address, &size);
    std::printf("listening on 127.0.0.1:%d engine %s\n", ntohs(local.sin_port), name);
    std::fflush(stdout);
    return listener;
}

/// The next connection that waits, or -1.
inline int accept_next(int listener) {
    const int peer = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    const int on = 1;
    if (peer >= 0) ::setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return peer;
}

enum class state { receives, sends, ended };

/// Echoes one connection. What the socket does not take is kept, and sent before more is received.
class echo {
public:
    explicit echo(int socket) noexcept : socket_(socket) {}
    echo(const echo&) = delete;
    echo& operator=(const echo&) = delete;
    ~echo() { ::close(socket_); }

    /// The socket is ready for what was asked for. Returns what to wait for next.
    state go_on() {
        if (!unsent_.empty()) return send_rest();
        const ssize_t count = ::recv(socket_, received, sizeof received, 0);
        if (count < 0 && errno == EAGAIN) return state::receives;
        if (count <= 0) return state::ended;
        const ssize_t sent =
            ::send(socket_, received, static_cast<std::size_t>(count), MSG_NOSIGNAL);
        if (sent == count) return state::receives;
        if (sent < 0 && errno != EAGAIN) return state::ended;
        unsent_.assign(received + (sent < 0 ? 0 : sent), received + count);
        return state::sends;
    }

private:
    state send_rest() {
        const ssize_t sent = ::send(socket_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN ? state::sends : state::ended;
        unsent_.erase(0, static_cast<std::size_t>(sent));
        if (!unsent_.empty()) return state::sends;
        std::string().swap(unsent_);
        return state::receives;
    }

    alignas(4096) static inline char received[512 * 1024];  // as that of floor_epoll.cpp
    int socket_;
    std::string unsent_;
};

}  // namespace raw
