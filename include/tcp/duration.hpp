// A length of time that takes any std::chrono duration without including <chrono>, which alone would
// cost a third of the time in which the echo program compiles.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace tcp::inline v0 {

/// What counts as a duration: std::chrono::duration, or a type of the same shape.
template <class D>
concept chrono_duration = requires(const D& d) {
    d.count();
    D::period::num;
    D::period::den;
};

/// A length of time in nanoseconds. Write it with <chrono>: `tcp::options{.close_timeout = 5s}`.
/// Lengths beyond 292 years are taken as that.
class duration {
public:
    constexpr duration() noexcept = default;

    template <chrono_duration D>
    constexpr duration(const D& length) noexcept  // NOLINT(google-explicit-constructor): 5s is a duration
        : nanoseconds_{from(length)} {}

    static constexpr duration nanoseconds(std::int64_t n) noexcept {
        duration d;
        d.nanoseconds_ = n;
        return d;
    }
    static constexpr duration milliseconds(std::int64_t n) noexcept {
        return nanoseconds(n * 1'000'000);
    }
    static constexpr duration max() noexcept {
        return nanoseconds(std::numeric_limits<std::int64_t>::max());
    }

    constexpr std::int64_t nanoseconds() const noexcept { return nanoseconds_; }

    /// As a std::chrono duration, rounded toward zero.
    template <chrono_duration D>
    constexpr D to() const noexcept {
        using rep = decltype(D{}.count());
        if constexpr (D::period::num == 1 && 1'000'000'000 % D::period::den == 0)
            return D{static_cast<rep>(nanoseconds_ / (1'000'000'000 / D::period::den))};
        else
            return D{static_cast<rep>(static_cast<long double>(nanoseconds_) * D::period::den /
                                      D::period::num / 1e9L)};
    }

    friend constexpr bool operator==(duration, duration) noexcept = default;
    friend constexpr auto operator<=>(duration a, duration b) noexcept {
        return a.nanoseconds_ <=> b.nanoseconds_;
    }
    friend constexpr duration operator+(duration a, duration b) noexcept {
        std::int64_t sum{};
        if (!__builtin_add_overflow(a.nanoseconds_, b.nanoseconds_, &sum)) return nanoseconds(sum);
        return a.nanoseconds_ > 0 ? max() : nanoseconds(std::numeric_limits<std::int64_t>::min());
    }
    friend constexpr duration operator-(duration a, duration b) noexcept {
        return a + nanoseconds(b.nanoseconds_ == std::numeric_limits<std::int64_t>::min()
                                   ? std::numeric_limits<std::int64_t>::max()
                                   : -b.nanoseconds_);
    }

private:
    template <class D>
    static constexpr std::int64_t from(const D& length) noexcept {
        constexpr long double bound = 9.2e18L;
        const long double exact =
            static_cast<long double>(length.count()) * D::period::num / D::period::den * 1e9L;
        if (exact >= bound) return std::numeric_limits<std::int64_t>::max();
        if (exact <= -bound) return std::numeric_limits<std::int64_t>::min();
        return static_cast<std::int64_t>(exact);
    }

    std::int64_t nanoseconds_ = 0;
};

}  // namespace tcp::inline v0
