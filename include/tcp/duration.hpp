// A length of time that takes any std::chrono duration without including <chrono>, which would cost
// the echo program a tenth more time to compile.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

#include <tcp/detail/platform.hpp>  // a compiler that lacks C++20 is told so first

namespace tcp::inline v0_1 {

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
    /// 0.
    constexpr duration() noexcept = default;

    /// The same length; a fraction of a nanosecond is dropped, and what is not a number is 0.
    template <chrono_duration D>
    constexpr duration(const D& length) noexcept  // NOLINT(google-explicit-constructor): 5s is one
        : nanoseconds_{from(length)} {}

    /// So many nanoseconds or milliseconds, for programs without <chrono>, and the longest length:
    /// for a deadline, none.
    static constexpr duration nanoseconds(std::int64_t n) noexcept {
        duration d;
        d.nanoseconds_ = n;
        return d;
    }
    static constexpr duration milliseconds(std::int64_t n) noexcept {
        std::int64_t exact{};
        if (!__builtin_mul_overflow(n, 1'000'000, &exact)) return nanoseconds(exact);
        return n > 0 ? max() : nanoseconds(std::numeric_limits<std::int64_t>::min());
    }
    static constexpr duration max() noexcept {
        return nanoseconds(std::numeric_limits<std::int64_t>::max());
    }

    /// All of it in nanoseconds.
    constexpr std::int64_t nanoseconds() const noexcept { return nanoseconds_; }

    /// As a std::chrono duration, rounded toward zero.
    template <chrono_duration D>
    constexpr D to() const noexcept {
        using rep = decltype(D{}.count());
        if constexpr (std::numeric_limits<rep>::is_integer && unit<typename D::period> != 0)
            return D{static_cast<rep>(nanoseconds_ / unit<typename D::period>)};
        else
            return D{static_cast<rep>(static_cast<long double>(nanoseconds_) * D::period::den /
                                      (D::period::num * 1e9L))};
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
        std::int64_t difference{};
        if (!__builtin_sub_overflow(a.nanoseconds_, b.nanoseconds_, &difference))
            return nanoseconds(difference);
        return b.nanoseconds_ < 0 ? max() : nanoseconds(std::numeric_limits<std::int64_t>::min());
    }

private:
    // The nanoseconds of one count, 0 where they are not a whole number or too many.
    template <class Period>
    static constexpr std::int64_t unit = 1'000'000'000 % Period::den == 0 &&
                                                 Period::num <=
                                                     std::numeric_limits<std::int64_t>::max() /
                                                         (1'000'000'000 / Period::den)
                                             ? Period::num*(1'000'000'000 / Period::den)
                                             : 0;

    template <class D>
    static constexpr std::int64_t from(const D& length) noexcept {
        using limits = std::numeric_limits<std::int64_t>;
        if constexpr (std::numeric_limits<decltype(length.count())>::is_integer &&
                      unit<typename D::period> != 0) {
            // Whole numbers stay whole: 3 ns by way of a fraction of a second would be 2.
            std::int64_t exact{};
            if (!__builtin_mul_overflow(length.count(), unit<typename D::period>, &exact))
                return exact;
            return length.count() > 0 ? limits::max() : limits::min();
        } else {
            constexpr long double bound = 9223372036854775807.0L;
            const long double exact =
                static_cast<long double>(length.count()) * 1e9L * D::period::num / D::period::den;
            if (exact >= bound) return limits::max();
            if (exact <= -bound) return limits::min();
            return exact == exact ? static_cast<std::int64_t>(exact) : 0;  // 0: not a number
        }
    }

    std::int64_t nanoseconds_ = 0;
};

}  // namespace tcp::inline v0_1
