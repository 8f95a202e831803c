// What the engines of Linux ask of the socket of a connection, besides receiving.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <span>

#include <tcp/bytes.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/duration.hpp>
#include <tcp/engine/concept.hpp>

namespace tcp::inline v0_1::detail {

/// Closing it will be a reset, and what it has still to send is dropped: socket(7), SO_LINGER.
inline void reset_on_close(int socket) noexcept {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

inline void close_with_reset(int socket) noexcept {
    reset_on_close(socket);
    ::close(socket);
}

/// The peer of a TCP connection is sent a reset now, and the socket is nobody's any more:
/// connect(2), AF_UNSPEC; RFC 9293 3.10.5.
inline void reset_now(int socket) noexcept {
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    static_cast<void>(::connect(socket, &nobody, sizeof nobody));  // else it ends with close(2)
}

/// Whether it is a unix-domain socket.
inline bool is_local(int socket) noexcept {
    int domain = 0;
    socklen_t size = sizeof domain;
    return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/// The errno that waits in it: socket(7), SO_ERROR.
inline int error_of(int socket) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
    return error != 0 ? error : ECONNRESET;
}

/// How long ago its peer last took some of what was sent. The system has sent something, and been
/// answered since: it answers probes of a closed window, too, but those are no data. max() where
/// the system does not say, as of a unix-domain socket. tcp(7), TCP_INFO.
[[gnu::cold]] inline duration since_taken(int socket) noexcept {
    tcp_info about{};
    socklen_t size = sizeof about;
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &about, &size) != 0 || about.tcpi_snd_mss == 0)
        return duration::max();  // systems that emulate Linux fill in little
    const bool unanswered = about.tcpi_last_ack_recv > about.tcpi_last_data_sent;
    return duration::milliseconds(unanswered ? about.tcpi_last_ack_recv
                                             : about.tcpi_last_data_sent);
}

/// What a send of so many bytes that gave `result`, or -1 and this errno, means. The system took
/// fewer bytes than there were, or none: it has no room; unless that was all that one call takes
/// (sendmsg(2), NOTES of write(2)), or a signal came between.
[[gnu::noinline]] inline send_outcome fell_short(ssize_t result, int error) noexcept {
    constexpr ssize_t most_of_one_call = 0x7ffff000;
    if (result < 0 && error != EAGAIN && error != EINTR)
        return {send_outcome::state::failed, error, 0};
    const bool again = result < 0 ? error == EINTR : result == most_of_one_call;
    const std::size_t taken = result < 0 ? 0 : static_cast<std::size_t>(result);
    return {again ? send_outcome::state::done : send_outcome::state::blocked, 0, taken};
}

/// Sends the first of these pieces with one call of `send_message(const msghdr&)`, which gives what
/// sendmsg(2) does.
template <class F>
send_outcome send_pieces_by(F send_message, std::span<const bytes> pieces) {
    constexpr std::size_t most = 64;
    iovec vector[most];
    std::size_t count = 0;
    ssize_t wanted = 0;
    for (const bytes piece : pieces.first(pieces.size() < most ? pieces.size() : most)) {
        vector[count++] = {const_cast<std::byte*>(piece.data()), piece.size()};
        wanted += static_cast<ssize_t>(piece.size());
    }
    msghdr message{};
    message.msg_iov = vector;
    message.msg_iovlen = count;
    const ssize_t n = send_message(message);
    if (n == wanted) return {.taken = static_cast<std::size_t>(n)};
    return fell_short(n, errno);
}

/// The same of a descriptor, without waiting. Of one piece with send(2), which costs less.
[[gnu::noinline]] inline send_outcome send_pieces(int socket,
                                                  std::span<const bytes> pieces) noexcept {
    constexpr int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    if (pieces.size() == 1) {
        const ssize_t n = ::send(socket, pieces[0].data(), pieces[0].size(), flags);
        if (n == static_cast<ssize_t>(pieces[0].size())) return {.taken = pieces[0].size()};
        return fell_short(n, errno);
    }
    return send_pieces_by([&](const msghdr& message) { return ::sendmsg(socket, &message, flags); },
                          pieces);
}

}  // namespace tcp::inline v0_1::detail
