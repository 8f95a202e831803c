// The load that all measuring uses: a closed loop over N connections, each with up to K messages of
// S bytes in flight, every echoed byte compared. One thread, epoll.
//
// All connections share one pattern of bytes (pattern.hpp) and one receive buffer: a connection
// costs its positions, and memory does not grow with the size of the messages. Of what is in flight
// at most 1 GiB is out at a time (1,000 connections × 1 MiB × 16 would be 16 GiB, far beyond what
// the kernel gives to TCP); the rest waits its turn in the client, which counts as a part of its
// latency.
//
// With `ping_every` the loop is open: each connection sends one message in each such time, whether
// or not the one before has come back (up to --in-flight). Beside them there may be connections
// that only sit there, and one that floods.
#pragma once

#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include "client_socket.hpp"
#include "flood.hpp"
#include "latencies.hpp"
#include "pattern.hpp"
#include "process.hpp"

namespace bench {

struct shape {
    std::size_t connections = 1;
    std::size_t message = 64;  // bytes
    std::size_t in_flight = 1;
    std::size_t idle = 0;         // more connections, on which nothing is sent
    std::int64_t ping_every = 0;  // nanoseconds, of each connection; 0 for a closed loop
    bool flood = false;           // one more, which floods in the rounds that ask for it
};

struct round_result {
    std::uint64_t messages = 0;
    std::int64_t nanoseconds = 0;
    std::uint64_t flood_bytes = 0;  // that the flood got back, beside the messages
};

inline std::int64_t now_nanoseconds() noexcept {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Connections to one server on 127.0.0.1, kept open over any number of rounds.
class load {
public:
    load(std::uint16_t port, shape wanted)
        : shape_(wanted),
          connections_(wanted.connections + wanted.idle),
          granted_at_(wanted.connections * wanted.in_flight) {
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ < 0) fail("epoll_create1");
        try {
            for (std::size_t i = 0; i < connections_.size(); ++i) connect(i, port);
            if (wanted.flood) flood_ = std::make_unique<flood>(port, pattern_);
        } catch (...) {
            close_all();
            throw;
        }
    }

    load(const load&) = delete;
    load& operator=(const load&) = delete;
    ~load() { close_all(); }

    /// Sends for so long, then lets what was begun come back: between rounds the server has nothing
    /// to do. The time in the result includes that. Throws when a byte is wrong, the server closes,
    /// or nothing moves for 10 s.
    round_result run(std::chrono::nanoseconds length, latencies& into, bool flooded = false) {
        const std::int64_t start = now_nanoseconds();
        const std::int64_t end = start + length.count();
        into_ = &into;
        messages_ = 0;
        granting_ = true;
        if (flooded) flood_->begin();
        next_ping_ = start;
        for (std::size_t i = 0; i < shape_.connections && !pings(); ++i) {
            grant(i, shape_.in_flight, now_nanoseconds());
            send_granted(i);
        }
        epoll_event events[256];
        while (outstanding_ > 0 || (pings() && granting_)) {
            const int count = wait(events);
            std::int64_t now = now_nanoseconds();
            if (granting_ && now >= end) revoke();
            if (granting_ && pings()) ping(now);
            for (int i = 0; i < count; ++i) {
                now = now_nanoseconds();
                if (granting_ && now >= end) revoke();
                const std::size_t which = events[i].data.u64;
                if ((events[i].events & EPOLLOUT) != 0) connections_[which].blocked = false;
                serve(which, now);
            }
        }
        round_result result{messages_, now_nanoseconds() - start};
        if (flooded) {
            result.flood_bytes = flood_->bytes();
            flood_->end();
        }
        return result;
    }

private:
    static constexpr std::size_t piece = pattern::longest;  // the most that one system call moves
    static constexpr std::size_t most_out = 1'073'741'824;

    struct connection {
        int socket = -1;
        bool blocked = false;       // the socket takes no more until the next event
        std::uint64_t granted = 0;  // bytes that may have been sent by now
        std::uint64_t sent = 0;
        std::uint64_t received = 0;
    };

    void close_all() const noexcept {
        for (const connection& each : connections_)
            if (each.socket >= 0) ::close(each.socket);
        ::close(epoll_);
    }

    void connect(std::size_t i, std::uint16_t port) {
        connections_[i].socket = connect_to(port);
        // Edge-triggered: one registration for the connection's life, no event handled twice.
        epoll_event event{};
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
        event.data.u64 = i;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i].socket, &event) != 0)
            fail("epoll_ctl");
    }

    bool pings() const noexcept { return shape_.ping_every != 0; }

    // Until something came, or it is time for the next ping.
    int wait(epoll_event (&events)[256]) const {
        const bool waits = !(pings() && granting_);
        const std::int64_t left =
            waits ? 10'000'000'000 : std::max<std::int64_t>(next_ping_ - now_nanoseconds(), 0);
        const timespec most{left / 1'000'000'000, left % 1'000'000'000};
        const int count = ::epoll_pwait2(epoll_, events, 256, &most, nullptr);
        if (count == 0 && waits) throw std::runtime_error("the server did not answer for 10 s");
        if (count < 0 && errno != EINTR) fail("epoll_pwait2");
        return count;
    }

    // What is late counts from when it should have been.
    void ping(std::int64_t now) {
        for (; next_ping_ <= now; ++pings_) {
            const std::size_t i = pings_ % shape_.connections;
            const connection& peer = connections_[i];
            if (peer.granted - peer.received < shape_.in_flight * shape_.message) {
                grant(i, 1, next_ping_);
                send_granted(i);
            }
            next_ping_ += shape_.ping_every / static_cast<std::int64_t>(shape_.connections);
        }
    }

    void grant(std::size_t i, std::size_t messages, std::int64_t now) noexcept {
        connection& peer = connections_[i];
        for (std::size_t m = 0; m < messages; ++m) {
            granted_at_[i * shape_.in_flight + peer.granted / shape_.message % shape_.in_flight] =
                now;
            peer.granted += shape_.message;
        }
        outstanding_ += messages;
    }

    /// Takes back the messages of which no byte has been sent.
    void revoke() noexcept {
        granting_ = false;
        for (std::size_t i = 0; i < shape_.connections; ++i) {
            connection& peer = connections_[i];
            const std::uint64_t begun = (peer.sent + shape_.message - 1) / shape_.message;
            outstanding_ -= peer.granted / shape_.message - begun;
            peer.granted = begun * shape_.message;
        }
    }

    void serve(std::size_t i, std::int64_t now) {
        connection& peer = connections_[i];
        for (;;) {
            const std::size_t count = receive_from(peer.socket, buffer_);
            if (count == 0) break;
            check(i, count);
            finish(i, count, now);
            if (count < buffer_.size()) break;  // drained: what comes next is a new edge
        }
        send_granted(i);
    }

    void check(std::size_t i, std::size_t count) const {
        const connection& peer = connections_[i];
        if (peer.received + count > peer.sent ||
            std::memcmp(buffer_.data(), pattern_.at(i, peer.received), count) != 0)
            throw std::runtime_error("connection " + std::to_string(i) +
                                     " got back other bytes than it sent, after " +
                                     std::to_string(peer.received));
    }

    void finish(std::size_t i, std::size_t count, std::int64_t now) noexcept {
        connection& peer = connections_[i];
        const std::uint64_t before = peer.received / shape_.message;
        peer.received += count;
        const std::uint64_t after = peer.received / shape_.message;
        for (std::uint64_t m = before; m < after; ++m)
            into_->record(now - granted_at_[i * shape_.in_flight + m % shape_.in_flight]);
        messages_ += after - before;
        outstanding_ -= after - before;
        if (granting_ && !pings()) grant(i, after - before, now);
    }

    void send_granted(std::size_t i) {
        connection& peer = connections_[i];
        while (!peer.blocked) {
            const std::uint64_t room = window_ - (peer.sent - peer.received);
            const std::size_t length = std::min({peer.granted - peer.sent, room, piece});
            if (length == 0) return;
            const ssize_t count =
                ::send(peer.socket, pattern_.at(i, peer.sent), length, MSG_NOSIGNAL);
            if (count >= 0)
                peer.sent += static_cast<std::uint64_t>(count);
            else if (errno == EAGAIN)
                peer.blocked = true;
            else if (errno != EINTR)
                fail("send");
        }
    }

    shape shape_;
    std::uint64_t window_ = most_out / shape_.connections;  // for a connection
    std::vector<connection> connections_;
    std::vector<std::int64_t>
        granted_at_;  // of each message in flight, connection after connection
    pattern pattern_;
    std::unique_ptr<flood> flood_;
    std::vector<char> buffer_ = std::vector<char>(piece);
    latencies* into_ = nullptr;
    std::uint64_t messages_ = 0;
    std::uint64_t outstanding_ = 0;
    bool granting_ = false;
    std::int64_t next_ping_ = 0;
    std::uint64_t pings_ = 0;
    int epoll_ = -1;
};

}  // namespace bench
