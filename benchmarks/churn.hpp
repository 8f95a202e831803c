// The load of short connections: connect, echo one message, close, with so many at a time. Every
// byte is compared. A connection counts as a message; its latency runs from before connect until
// all has come back. The client closes with RST, so that no port stays in TIME_WAIT.
#pragma once

#include "load.hpp"

namespace bench {

class churn {
public:
    churn(std::uint16_t port, shape wanted)
        : port_(port), shape_(wanted), open_(wanted.connections) {
        if (wanted.message > most)
            throw std::runtime_error("a short connection's message is short");
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ < 0) fail("epoll_create1");
    }

    churn(const churn&) = delete;
    churn& operator=(const churn&) = delete;
    ~churn() {
        for (const connection& each : open_)
            if (each.socket >= 0) ::close(each.socket);
        ::close(epoll_);
    }

    /// Opens connections for so long, then lets those that are open finish; as load::run.
    round_result run(std::chrono::nanoseconds length, latencies& into) {
        const std::int64_t start = now_nanoseconds();
        const std::int64_t end = start + length.count();
        std::uint64_t messages = 0;
        std::size_t outstanding = open_.size();
        for (std::size_t i = 0; i < open_.size(); ++i) open(i);
        epoll_event events[256];
        while (outstanding > 0) {
            const int count = ::epoll_wait(epoll_, events, 256, 10'000);
            if (count == 0) throw std::runtime_error("the server did not answer for 10 s");
            if (count < 0 && errno != EINTR) fail("epoll_wait");
            for (int i = 0; i < count; ++i) {
                const std::size_t which = events[i].data.u64;
                if (!receive(which)) continue;
                const std::int64_t now = now_nanoseconds();
                into.record(now - open_[which].since);
                ++messages;
                if (now < end)
                    open(which);
                else
                    --outstanding;
            }
        }
        return {messages, now_nanoseconds() - start, 0};
    }

private:
    static constexpr std::size_t most = 4096;

    struct connection {
        int socket = -1;
        std::uint64_t number = 0;  // each sends other bytes than those before it
        std::int64_t since = 0;
        std::size_t received = 0;
    };

    // Connecting blocks, which on loopback is over before the server has to do anything.
    void open(std::size_t i) {
        connection& peer = open_[i];
        peer.since = now_nanoseconds();
        peer.socket = connect_to(port_);
        peer.number = ++opened_;
        peer.received = 0;
        if (::send(peer.socket, pattern_.at(peer.number, 0), shape_.message, MSG_NOSIGNAL) !=
            static_cast<ssize_t>(shape_.message))
            fail("send");
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = i;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, peer.socket, &event) != 0) fail("epoll_ctl");
    }

    /// Whether all has come back; the connection is closed then.
    bool receive(std::size_t i) {
        connection& peer = open_[i];
        char buffer[most];
        const std::size_t size = receive_from(peer.socket, buffer);
        if (peer.received + size > shape_.message ||
            std::memcmp(buffer, pattern_.at(peer.number, peer.received), size) != 0)
            throw std::runtime_error("a short connection got back other bytes than it sent");
        peer.received += size;
        if (peer.received < shape_.message) return false;
        ::close(peer.socket);
        peer.socket = -1;
        return true;
    }

    std::uint16_t port_;
    shape shape_;
    std::vector<connection> open_;
    pattern pattern_;
    std::uint64_t opened_ = 0;
    int epoll_ = -1;
};

}  // namespace bench
