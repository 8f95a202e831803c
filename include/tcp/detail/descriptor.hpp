// The owner of a file descriptor.
#pragma once

#include <tcp/detail/platform.hpp>

namespace tcp::inline v0_1::detail {

/// Owns one descriptor, or none, and closes it at the end (close(2)). Closing keeps errno, so that
/// an early return that drops a socket can still say why.
class descriptor {
public:
    constexpr descriptor() noexcept = default;
    explicit constexpr descriptor(int fd) noexcept : fd_{fd} {}
    descriptor(descriptor&& other) noexcept : fd_{other.release()} {}
    descriptor& operator=(descriptor&& other) noexcept {
        reset(other.release());
        return *this;
    }
    ~descriptor() { reset(); }

    /// The descriptor, still owned here; -1 for none.
    constexpr int get() const noexcept { return fd_; }
    explicit constexpr operator bool() const noexcept { return fd_ >= 0; }

    /// Hands the descriptor over: the caller closes it.
    int release() noexcept {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }

    /// Closes what is owned and owns this one instead.
    void reset(int fd = -1) noexcept {
        const int closing = fd_;
        fd_ = fd;
        if (closing < 0) return;
        const int kept = errno;
        // Never again on EINTR: Linux has freed the number by then, and another thread may own it.
        ::close(closing);
        errno = kept;
    }

private:
    int fd_ = -1;
};

}  // namespace tcp::inline v0_1::detail
