// A client that blocks, for tests of a server that another thread or process runs.
#pragma once

#include <sys/time.h>

#include <cstddef>
#include <string>
#include <string_view>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>

namespace tests {

/// A client on a socket that blocks, for 20 seconds at most. Its calls go on after EINTR: an engine
/// on io_uring interrupts, once, system calls of the thread that made a server when that server is
/// destroyed.
class blocking_client {
public:
    explicit blocking_client(const tcp::endpoint& to)
        : fd_{::socket(to.data()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
        const timeval most{.tv_sec = 20, .tv_usec = 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
        // A second connect(2) waits for what the first one began.
        connected_ = again([&] { return ::connect(fd_.get(), to.data(), to.size()); }) == 0;
        refused_ = !connected_ && errno == ECONNREFUSED;
    }
    bool connected() const noexcept { return connected_; }
    bool refused() const noexcept { return refused_; }

    /// Whether all of it could be sent.
    bool send(std::string_view text) const {
        while (!text.empty()) {
            const ssize_t n =
                again([&] { return ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL); });
            if (n < 0) return false;
            text.remove_prefix(static_cast<std::size_t>(n));
        }
        return true;
    }

    /// So many bytes, or fewer where they end.
    std::string receive(std::size_t size) const {
        std::string text(size, '\0');
        std::size_t got = 0;
        while (got != size) {
            const ssize_t n = receive(text.data() + got, size - got);
            if (n <= 0) break;
            got += static_cast<std::size_t>(n);
        }
        text.resize(got);
        return text;
    }
    /// All that comes until the end.
    std::string receive_all() const {
        std::string all;
        char piece[4096];
        for (ssize_t n = 0; (n = receive(piece, sizeof piece)) > 0;)
            all.append(piece, static_cast<std::size_t>(n));
        return all;
    }

    /// Whether what was sent came back.
    bool echoes(std::string_view text) const { return send(text) && receive(text.size()) == text; }

    /// Ends with a reset, whatever is unread.
    void reset() {
        const linger now{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
        fd_.reset();
    }

    bool shutdown_send() const { return ::shutdown(fd_.get(), SHUT_WR) == 0; }

    /// Finishes sending; whether the server does, too.
    bool finishes() const {
        char more = 0;
        return shutdown_send() && receive(&more, 1) == 0;
    }
    /// Whether the server has ended the connection, in order or with a reset.
    bool over() const {
        char more = 0;
        const ssize_t n = receive(&more, 1);
        return n == 0 || (n < 0 && errno == ECONNRESET);
    }

    /// The errno of the last receive that failed; 0 where the peer ended in order.
    int error() const noexcept { return error_; }

private:
    /// The result of a system call that no signal interrupted.
    template <class Call>
    static ssize_t again(Call call) {
        for (;;) {
            const ssize_t result = call();
            if (result >= 0 || errno != EINTR) return result;
        }
    }
    ssize_t receive(char* to, std::size_t size) const {
        const ssize_t n = again([&] { return ::recv(fd_.get(), to, size, 0); });
        error_ = n < 0 ? errno : 0;
        return n;
    }

    tcp::detail::descriptor fd_;
    bool connected_ = false;
    bool refused_ = false;
    mutable int error_ = 0;
};

}  // namespace tests
