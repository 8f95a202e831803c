// The system's side of the epoll engine: the set of watched descriptors, waiting, and being woken.
#pragma once

#include <sys/epoll.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/fork_mark.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/detail/wakeup.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail {

/// epoll(7). A key comes back with each event of its descriptor.
class epoll_set {
public:
    /// Throws std::system_error when there are no descriptors or no memory. Wakes come as wake_key.
    [[gnu::cold]] explicit epoll_set(std::uint64_t wake_key) { renew(wake_key); }

    /// A set is shared over fork(2): in the child it is the parent's, to be left alone.
    bool is_of_another_process() const noexcept { return mark_.is_of_another_process(); }

    /// One of this process, with nothing in it. The wakes stay the same: one of either process is
    /// seen by both, and harms neither. Throws as above.
    [[gnu::cold]] void renew(std::uint64_t wake_key) {
        epoll_ = descriptor{checked_descriptor(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")};
        fork_mark mine;
        int error = mine.open(1);
        if (error == 0) error = add(wakeup_.fd(), EPOLLIN | EPOLLET, wake_key);
        if (error != 0) fail({error, std::system_category()}, "epoll_ctl");
        mark_ = std::move(mine);
    }

    /// 0, or an errno.
    int add(int fd, std::uint32_t events, std::uint64_t key) noexcept {
        return control(EPOLL_CTL_ADD, fd, events, key);
    }

    /// What is ready comes as an edge once more.
    void look_again(int fd, std::uint32_t events, std::uint64_t key) noexcept {
        control(EPOLL_CTL_MOD, fd, events, key);
    }

    void remove(int fd) noexcept { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

    /// How many events there are; none after a signal. epoll_wait(2) counts in milliseconds:
    /// rounded up, so that no deadline is early. Throws std::system_error where there is no set any
    /// more, as when a program has closed descriptors that are not its own.
    template <std::size_t Most>
    int wait(epoll_event (&events)[Most], duration timeout) {
        constexpr std::int64_t unit = 1'000'000;
        const std::int64_t ns = timeout.nanoseconds();
        const std::int64_t ms = ns / unit + (ns % unit != 0 ? 1 : 0);
        const int n = ::epoll_wait(epoll_.get(), events, static_cast<int>(Most),
                                   timeout == duration::max() ? -1
                                   : ms > INT_MAX             ? INT_MAX
                                                              : static_cast<int>(ms));
        if (n >= 0) return n;
        if (errno != EINTR) fail({errno, std::system_category()}, "epoll_wait");
        return 0;
    }

    /// Any thread, and signal handlers.
    void wake() noexcept { wakeup_.wake(); }

private:
    int control(int operation, int fd, std::uint32_t events, std::uint64_t key) noexcept {
        epoll_event event{};
        event.events = events;
        event.data.u64 = key;
        return ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0 ? 0 : errno;
    }

    descriptor epoll_;
    wakeup wakeup_;
    fork_mark mark_;
};

}  // namespace tcp::inline v0_1::detail
