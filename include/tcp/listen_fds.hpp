// Listening sockets that a service manager, or the process before this one, has opened:
// sd_listen_fds(3).
//
//     tcp::server<my_handler> server;
//     for (const int socket : tcp::listen_fds()) server.adopt(socket);
#pragma once

#include <charconv>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <tcp/detail/platform.hpp>

namespace tcp::inline v0_1 {

/// The descriptors that this process was started with to listen on, from 3 up: as many as
/// LISTEN_FDS says, if LISTEN_PID names this process; none otherwise. They are CLOEXEC from now on.
/// The environment stays as it is. Not while another thread changes it (getenv(3)). Throws
/// std::bad_alloc.
inline std::vector<int> listen_fds() {
    const auto number = [](const char* name) {
        const char* const text = std::getenv(name);
        const std::string_view digits = text != nullptr ? text : "";
        long value = 0;
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), value);
        const bool whole = error == std::errc{} && end == digits.data() + digits.size();
        return whole ? value : -1;
    };
    constexpr int first = 3;
    std::vector<int> all;
    if (number("LISTEN_PID") != ::getpid()) return all;
    const long count = number("LISTEN_FDS");
    for (int socket = first; socket - first < count; ++socket) {
        if (::fcntl(socket, F_SETFD, FD_CLOEXEC) != 0) break;  // fewer than was said
        all.push_back(socket);
    }
    return all;
}

}  // namespace tcp::inline v0_1
