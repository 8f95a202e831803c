// The socket of a client of the loads.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "process.hpp"

namespace bench {

/// A connection to 127.0.0.1.
inline int connect_to(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket < 0) fail("socket (`ulimit -n` may be too low)");
    const timeval patience{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        ::close(socket);
        fail("connect");
    }
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // Closed with RST: thousands of ports in TIME_WAIT would be missing to the next load.
    const linger reset{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    ::fcntl(socket, F_SETFL, O_NONBLOCK);
    return socket;
}

/// Receives what is there, as much as fits; 0 where there is nothing. Throws when the server has
/// closed.
inline std::size_t receive_from(int socket, std::span<char> into) {
    for (;;) {
        const ssize_t count = ::recv(socket, into.data(), into.size(), 0);
        if (count > 0) return static_cast<std::size_t>(count);
        if (count == 0) throw std::runtime_error("the server closed a connection");
        if (errno == EAGAIN) return 0;
        if (errno != EINTR) fail("recv");
    }
}

}  // namespace bench
