// A client on a real socket with the interface of simulation::client, so that one test runs on
// both. It never blocks: pump() does what can be done now.
#pragma once

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include <tcp/bytes.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/socket.hpp>
#include <tcp/endpoint.hpp>

namespace conformance {

class kernel_client {
    struct state {
        tcp::detail::descriptor fd;
        std::string to_send;
        std::size_t begin = 0;  // of what is still to be sent
        std::string received;
        std::size_t sent = 0;
        std::size_t received_size = 0;
        bool connected = false;
        bool refused = false;
        bool ended = false;
        bool was_reset = false;
        bool paused = false;
        bool finish_wanted = false;
    };

public:
    /// Starts to connect. `receive_buffer` sets SO_RCVBUF, for a client whose window is small.
    explicit kernel_client(const tcp::endpoint& to, int receive_buffer = 0)
        : s_{std::make_shared<state>()} {
        // A bare port is every address of the server: here the client takes the loopback address.
        const tcp::endpoint target =
            to.is_wildcard() ? tcp::endpoint::parse("127.0.0.1:" + std::to_string(to.port())) : to;
        s_->fd = tcp::detail::descriptor{
            ::socket(target.data()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
        if (!s_->fd) throw std::system_error{errno, std::system_category(), "socket"};
        if (receive_buffer > 0) set(SOL_SOCKET, SO_RCVBUF, receive_buffer);
        if (target.family() != tcp::address_family::local) set(IPPROTO_TCP, TCP_NODELAY, 1);
        if (::connect(s_->fd.get(), target.data(), target.size()) == 0)
            s_->connected = true;
        else if (errno == ECONNREFUSED)
            s_->refused = true;
        else if (errno != EINPROGRESS)
            throw std::system_error{errno, std::system_category(), "connect"};
    }

    bool send(std::string_view text) {
        if (!s_->fd || s_->was_reset || s_->finish_wanted) return false;
        s_->to_send += text;
        s_->sent += text.size();
        pump();
        return true;
    }
    bool send(tcp::bytes data) { return send(tcp::as_text(data)); }
    bool send(const char* text) { return send(std::string_view{text}); }

    /// Urgent data, tcp(7): one byte out of band.
    void send_urgent(char c) { ::send(s_->fd.get(), &c, 1, MSG_OOB | MSG_NOSIGNAL); }

    void shutdown_send() {
        s_->finish_wanted = true;
        pump();
    }
    void close() {
        pump();
        s_->fd.reset();
    }
    void reset() {
        pump();
        const linger now{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(s_->fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
        s_->fd.reset();
    }
    void pause_receive() { s_->paused = true; }
    void resume_receive() {
        s_->paused = false;
        pump();
    }

    /// Reads at most so many bytes, paused or not. How many it read.
    std::size_t receive(std::size_t most = std::numeric_limits<std::size_t>::max()) {
        std::size_t count = 0;
        char buffer[64 * 1024];
        while (s_->fd && !s_->ended && !s_->was_reset && count < most) {
            const std::size_t wanted = most - count < sizeof buffer ? most - count : sizeof buffer;
            const ssize_t n = ::recv(s_->fd.get(), buffer, wanted, 0);
            if (n > 0) {
                s_->received.append(buffer, static_cast<std::size_t>(n));
                s_->received_size += static_cast<std::size_t>(n);
                count += static_cast<std::size_t>(n);
            } else if (n == 0) {
                s_->ended = true;
            } else if (errno == EAGAIN || errno == EINTR) {
                break;
            } else {
                s_->was_reset = true;
            }
        }
        return count;
    }

    const std::string& received() const noexcept { return s_->received; }
    std::string take() {
        std::string all;
        all.swap(s_->received);
        return all;
    }
    std::size_t received_size() const noexcept { return s_->received_size; }
    std::size_t sent_size() const noexcept { return s_->sent; }

    /// How many bytes given to send() are known to have arrived at the server's system. tcp(7),
    /// SIOCOUTQ, which counts a FIN, too.
    std::size_t acknowledged_size() const noexcept {
        int on_the_way = 0;
        ::ioctl(s_->fd.get(), SIOCOUTQ, &on_the_way);
        const std::size_t missing =
            s_->to_send.size() - s_->begin + static_cast<std::size_t>(on_the_way);
        return missing < s_->sent ? s_->sent - missing : 0;
    }
    bool connected() const noexcept { return s_->connected; }
    bool refused() const noexcept { return s_->refused; }
    bool ended() const noexcept { return s_->ended; }
    bool was_reset() const noexcept { return s_->was_reset; }
    tcp::endpoint local_endpoint() const { return tcp::detail::local_endpoint_of(s_->fd.get()); }
    int descriptor() const noexcept { return s_->fd.get(); }

    /// Does what can be done without blocking. Whether anything moved.
    bool pump() {
        if (!s_->fd || s_->refused || s_->was_reset) return false;
        if (!s_->connected && !finish_connecting()) return false;
        bool moved = false;
        while (s_->begin != s_->to_send.size()) {
            const ssize_t n = ::send(s_->fd.get(), s_->to_send.data() + s_->begin,
                                     s_->to_send.size() - s_->begin, MSG_NOSIGNAL);
            if (n > 0) {
                s_->begin += static_cast<std::size_t>(n);
                moved = true;
            } else {
                if (errno != EAGAIN && errno != EINTR) s_->begin = s_->to_send.size();
                break;
            }
        }
        if (s_->begin == s_->to_send.size()) {
            s_->to_send.clear();
            s_->begin = 0;
        }
        if (s_->finish_wanted && s_->to_send.empty()) ::shutdown(s_->fd.get(), SHUT_WR);
        const bool was_over = s_->ended || s_->was_reset;
        if (!s_->paused) moved = receive() != 0 || moved;
        return moved || was_over != (s_->ended || s_->was_reset);
    }

private:
    void set(int level, int name, int value) {
        ::setsockopt(s_->fd.get(), level, name, &value, sizeof value);
    }

    bool finish_connecting() {
        tcp::endpoint peer = tcp::detail::remote_endpoint_of(s_->fd.get());
        if (peer) return s_->connected = true;
        int error = 0;
        socklen_t size = sizeof error;
        ::getsockopt(s_->fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error == ECONNREFUSED) s_->refused = true;
        if (error == ECONNRESET) s_->was_reset = s_->connected = true;
        return false;
    }

    std::shared_ptr<state> s_;
};

}  // namespace conformance
