// A connection that sends as much as its socket takes, and reads what comes back, every byte
// compared. It has a thread of its own, which gets what those that are measured leave of the
// processor (SCHED_IDLE, sched(7)): in their thread it would make them wait, whatever the server
// does.
#pragma once

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
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
    flood(std::uint16_t port, const pattern& bytes) : socket_(connect_to(port)), pattern_(bytes) {}
    flood(const flood&) = delete;
    flood& operator=(const flood&) = delete;
    ~flood() {
        stop_ = true;
        ::shutdown(socket_, SHUT_RDWR);  // wakes the thread
        if (thread_.joinable()) thread_.join();
        ::close(socket_);
    }

    void begin() {
        stop_ = false;
        thread_ = std::thread([this] { run(); });
    }

    /// How many bytes have come back since begin().
    std::uint64_t bytes() const noexcept { return received_ - counted_; }

    /// Sends no more, and waits until all has come back. Throws when a byte was wrong, the server
    /// closed, or nothing moved for 10 s.
    void end() {
        stop_ = true;
        thread_.join();
        counted_ = received_;
        if (error_) std::rethrow_exception(error_);
    }

private:
    static constexpr std::size_t piece = 65'536;

    void run() noexcept try {
        const sched_param none{};
        ::sched_setscheduler(0, SCHED_IDLE, &none);
        while (!stop_ || received_ < sent_) {
            const short events = stop_ ? POLLIN : POLLIN | POLLOUT;
            pollfd ready{socket_, events, 0};
            const int count = ::poll(&ready, 1, 10'000);
            if (count == 0) throw std::runtime_error("the flood did not move for 10 s");
            if (count < 0 && errno != EINTR) fail("poll");
            if ((ready.revents & ~POLLOUT) != 0) receive();
            if ((ready.revents & POLLOUT) != 0 && !stop_) send();
        }
    } catch (...) {
        error_ = std::current_exception();
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
    std::atomic<bool> stop_{true};
    std::atomic<std::uint64_t> received_{0};
    std::uint64_t sent_ = 0;  // of the thread
    std::uint64_t counted_ = 0;
    std::exception_ptr error_;
    std::thread thread_;
};

}  // namespace bench
