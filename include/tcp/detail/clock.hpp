// The clock of engines that serve real sockets, and sleeping by it.
#pragma once

#include <time.h>

#include <cstdint>

#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail {

/// CLOCK_MONOTONIC, clock_gettime(2).
[[gnu::noinline]] inline duration monotonic_now() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return duration::nanoseconds(static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec);
}

/// Less after a signal. nanosleep(2).
[[gnu::cold, gnu::noinline]] inline void sleep_for(duration length) noexcept {
    constexpr std::int64_t second = 1'000'000'000;
    const timespec t{.tv_sec = length.nanoseconds() / second,
                     .tv_nsec = length.nanoseconds() % second};
    ::nanosleep(&t, nullptr);
}

}  // namespace tcp::inline v0_1::detail
