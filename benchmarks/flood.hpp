// A connection that sends as much as its socket takes, and reads what comes back, every byte
// compared. It has a thread of its own, which gets what those that are measured leave of their
// core: in their thread it would make them wait, whatever the server does. sched(7): the thread
// that measures goes before every other where it may (SCHED_FIFO, which is root's), the flood
// behind every other (SCHED_IDLE); the latter alone does not do, since Linux lets who has become
// so run for a tick before it looks, and the p99 of a short round is nothing else then.
#pragma once

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

#include "client_socket.hpp"
#include "pattern.hpp"

namespace bench {

class flood {
public:
    flood(std::uint16_t port, const pattern& bytes)
        : socket_(connect_to(port)), pattern_(bytes), thread_([this] { run(); }) {
        const sched_param first{.sched_priority = 1};
        if (::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) != 0)
            std::perror("the flood may go before the pings; SCHED_FIFO");
    }
    flood(const flood&) = delete;
    flood& operator=(const flood&) = delete;
    ~flood() {
        become(phase::over);
        ::shutdown(socket_, SHUT_RDWR);  // wakes the thread, should it wait for the server
        thread_.join();
        ::close(socket_);
    }

    void begin() {
        counted_ = received_;
        become(phase::sending);
    }

    /// How many bytes have come back since begin().
    std::uint64_t bytes() const noexcept { return received_ - counted_; }

    /// Sends no more, and waits until all has come back. Throws when a byte was wrong, the server
    /// closed, or nothing moved for 10 s.
    void end() {
        become(phase::emptying);
        phase_.wait(phase::emptying);
        if (error_) std::rethrow_exception(error_);
    }

private:
    static constexpr std::size_t piece = 65'536;

    enum class phase : unsigned char { resting, sending, emptying, over };

    void become(phase next) noexcept {
        phase_ = next;
        phase_.notify_all();
    }

    void run() noexcept {
        const sched_param none{};
        ::sched_setscheduler(0, SCHED_IDLE, &none);
        while (phase_ != phase::over) {
            phase_.wait(phase::resting);
            try {
                send_and_receive();
            } catch (...) {
                error_ = std::current_exception();
            }
            phase_.wait(phase::sending);  // where it failed
            phase expected = phase::emptying;
            if (phase_.compare_exchange_strong(expected, phase::resting)) phase_.notify_all();
        }
    }

    void send_and_receive() {
        while (phase_ == phase::sending || (phase_ == phase::emptying && received_ < sent_)) {
            const bool sends = phase_ == phase::sending;
            pollfd ready{socket_, static_cast<short>(sends ? POLLIN | POLLOUT : POLLIN), 0};
            const int count = ::poll(&ready, 1, 10'000);
            if (count == 0) throw std::runtime_error("the flood did not move for 10 s");
            if (count < 0 && errno != EINTR) fail("poll");
            if ((ready.revents & ~POLLOUT) != 0) receive();
            if ((ready.revents & POLLOUT) != 0 && sends) send();
        }
    }

    void receive() {
        const std::size_t size = receive_from(socket_, buffer_);
        if (received_ + size > sent_ ||
            std::memcmp(buffer_.data(), pattern_.at(0, received_), size) != 0)
            throw std::runtime_error("the flood got back other bytes than it sent");
        received_ += size;
    }
    void send() {
        const ssize_t count = ::send(socket_, pattern_.at(0, sent_), piece, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) fail("send");
        if (count > 0) sent_ += static_cast<std::uint64_t>(count);
    }

    const int socket_;
    const pattern& pattern_;
    std::vector<char> buffer_ = std::vector<char>(piece);
    std::atomic<phase> phase_{phase::resting};
    std::atomic<std::uint64_t> received_{0};
    std::uint64_t sent_ = 0;  // of the thread
    std::uint64_t counted_ = 0;
    std::exception_ptr error_;  // of the thread until the next end()
    std::thread thread_;
};

}  // namespace bench
