// The system's side of the epoll engine: the set of watched descriptors, waiting, and being woken.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <system_error>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0::detail {

/// epoll(7) and an eventfd(2). A key comes back with each event of its descriptor.
class epoll_set {
public:
    /// Throws std::system_error when there are no descriptors or no memory. Wakes come as wake_key.
    [[gnu::cold]] explicit epoll_set(std::uint64_t wake_key)
        : epoll_{checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")},
          wake_{checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")} {
        // Each write is an edge of its own, so the counter need not be read.
        if (const int error = add(wake_.get(), EPOLLIN | EPOLLET, wake_key); error != 0)
            fail({error, std::system_category()}, "epoll_ctl");
    }

    /// 0, or an errno.
    int add(int fd, std::uint32_t events, std::uint64_t key) noexcept {
        epoll_event event{};
        event.events = events;
        event.data.u64 = key;
        return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
    }

    void remove(int fd) noexcept { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

    /// How many events there are; none after a signal. epoll_wait(2) counts in milliseconds:
    /// rounded up, so that no deadline is early.
    template <int Most>
    int wait(epoll_event (&events)[Most], duration timeout) noexcept {
        constexpr std::int64_t unit = 1'000'000;
        const std::int64_t ns = timeout.nanoseconds();
        const std::int64_t ms = ns / unit + (ns % unit != 0 ? 1 : 0);
        const int n = ::epoll_wait(epoll_.get(), events, Most,
                                   timeout == duration::max() ? -1
                                   : ms > INT_MAX             ? INT_MAX
                                                              : static_cast<int>(ms));
        return n < 0 ? 0 : n;
    }

    /// Any thread, and signal handlers.
    void wake() noexcept {
        const int kept = errno;
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
        errno = kept;
    }

private:
    static int checked(int fd, const char* call) {
        if (fd < 0)
            fail({errno, std::system_category()},
                 sentence{call, "; raise the limit of descriptors (`ulimit -n`), or close some"});
        return fd;
    }

    descriptor epoll_;
    descriptor wake_;
};

/// CLOCK_MONOTONIC, clock_gettime(2).
inline duration monotonic_now() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return duration::nanoseconds(static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec);
}

}  // namespace tcp::inline v0::detail
