// What ends the wait of an engine from outside.
#pragma once

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>

namespace tcp::inline v0_1::detail {

/// A descriptor of the system's, or std::system_error with what to do.
[[gnu::cold]] inline int checked_descriptor(int fd, const char* call) {
    if (fd < 0)
        fail({errno, std::system_category()},
             sentence{call, "; raise the limit of descriptors (`ulimit -n`), or close some"});
    return fd;
}

/// An eventfd(2). Each wake() makes it readable once more, which is an edge of its own: its counter
/// need not be read.
class wakeup {
public:
    /// Throws std::system_error when there are no descriptors.
    [[gnu::cold]] wakeup()
        : fd_{checked_descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")} {}

    int fd() const noexcept { return fd_.get(); }

    /// Any thread, and signal handlers.
    void wake() noexcept {
        const int kept = errno;
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof one);
        errno = kept;
    }

private:
    descriptor fd_;
};

}  // namespace tcp::inline v0_1::detail
