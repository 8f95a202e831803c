// The clock of engines that serve real sockets, and sleeping by it.
#pragma once

#include <time.h>

#include <cstdint>

#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail {

/// clock_gettime(2).
[[gnu::always_inline]] inline duration time_of(clockid_t clock) noexcept {
    timespec t{};
    ::clock_gettime(clock, &t);
    return duration::nanoseconds(static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec);
}

/// CLOCK_MONOTONIC.
[[gnu::noinline]] inline duration monotonic_now() noexcept { return time_of(CLOCK_MONOTONIC); }

/// How long this thread has run: CLOCK_THREAD_CPUTIME_ID, a system call.
[[gnu::noinline]] inline duration thread_time() noexcept {
    return time_of(CLOCK_THREAD_CPUTIME_ID);
}

/// Less after a signal. nanosleep(2).
[[gnu::cold, gnu::noinline]] inline void sleep_for(duration length) noexcept {
    constexpr std::int64_t second = 1'000'000'000;
    const timespec t{.tv_sec = length.nanoseconds() / second,
                     .tv_nsec = length.nanoseconds() % second};
    ::nanosleep(&t, nullptr);
}

}  // namespace tcp::inline v0_1::detail
