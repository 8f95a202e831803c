// One direction of a simulated connection: a stream of bytes, and how far each of them has come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <tcp/bytes.hpp>

namespace tcp::inline v0_1::simulated {

/// The bytes between a sender and its receiver. The marks count bytes since the beginning and stand
/// in this order:
///
///      read ........... arrived ........... departed ........... written
///        │ waits for the   │  on its way       │ waits for the      │
///        │ receiver        │                   │ window to open     │
///
/// The receiver's window bounds departed - read, the sender's buffer bounds written - arrived.
class pipe {
public:
    std::uint64_t read() const noexcept { return read_; }
    std::uint64_t arrived() const noexcept { return arrived_; }
    std::uint64_t written() const noexcept { return written_; }

    std::size_t unread() const noexcept { return static_cast<std::size_t>(arrived_ - read_); }
    std::size_t waiting() const noexcept { return static_cast<std::size_t>(written_ - departed_); }
    std::size_t unarrived() const noexcept { return static_cast<std::size_t>(written_ - arrived_); }
    std::size_t room(std::size_t capacity) const noexcept {
        return capacity > unarrived() ? capacity - unarrived() : 0;
    }
    std::size_t window(std::size_t size) const noexcept {
        const auto used = static_cast<std::size_t>(departed_ - read_);
        return size > used ? size - used : 0;
    }

    /// The oldest so many bytes that have arrived.
    bytes front(std::size_t count) const noexcept { return {buffer_.data() + head_, count}; }

    void write(bytes data) {
        // Half of the buffer is read and gone: moving the rest to the front costs each byte at most
        // once.
        if (head_ > buffer_.size() / 2) {
            buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(head_));
            head_ = 0;
        }
        buffer_.insert(buffer_.end(), data.begin(), data.end());
        written_ += data.size();
    }
    void depart(std::size_t count) noexcept { departed_ += count; }
    void arrive(std::size_t count) noexcept { arrived_ += count; }
    void take(std::size_t count) {
        read_ += count;
        head_ += count;
        if (head_ == buffer_.size()) forget();
    }

    /// What has not departed is gone.
    void drop_waiting() { drop(departed_); }

    /// What has not arrived is gone; segments that are on their way will not arrive.
    void drop_unarrived() {
        drop(arrived_);
        departed_ = arrived_;
        ++journey;
    }

    bool finished = false;          // the sender writes no more
    bool end_departed = false;      // ... and its FIN is on the way
    bool end_arrived = false;       // ... and was received
    bool cut = false;               // nothing departs any more
    bool window_announced = false;  // the sender is about to learn that the window is open again
    std::uint32_t journey = 0;      // segments of an earlier journey are lost
    std::int64_t last_arrival = 0;  // keeps the segments in order

private:
    void drop(std::uint64_t from) {
        buffer_.resize(buffer_.size() - static_cast<std::size_t>(written_ - from));
        written_ = from;
    }
    void forget() {
        head_ = 0;
        if (buffer_.capacity() > kept)
            buffer_ = {};
        else
            buffer_.clear();
    }

    static constexpr std::size_t kept = 4 * 1024;

    std::vector<std::byte> buffer_;
    std::size_t head_ = 0;
    std::uint64_t read_ = 0;
    std::uint64_t arrived_ = 0;
    std::uint64_t departed_ = 0;
    std::uint64_t written_ = 0;
};

}  // namespace tcp::inline v0_1::simulated
