// Which deadline of a connection passes next, and when: what the options say, and the clock that
// each connection carries for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tcp/close_reason.hpp>
#include <tcp/duration.hpp>
#include <tcp/loop/timer_wheel.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

/// When things last happened to a connection: the low bits of ticks, and so good for 24 days.
struct connection_clock {
    std::uint32_t begun = 0;     // it was opened
    std::uint32_t active = 0;    // bytes came, or the peer or the system took some
    std::uint32_t received = 0;  // bytes came, or receiving was resumed
    std::uint32_t sent = 0;      // the same took bytes, bytes began to wait, close() was called
    std::uint32_t window = 0;    // the counting of received bytes began
    std::uint32_t window_bytes = 0;
};

/// What a connection is doing, as far as deadlines care.
struct connection_activity {
    bool closing = false;
    bool receiving = false;  // neither paused nor at its end
    bool sending = false;    // something is queued
};

/// A deadline, and the ticks until it passes: 0 or less when it has.
struct next_deadline {
    deadline which = deadline::none;
    std::int64_t left = never;
};

class deadlines {
public:
    explicit deadlines(const options& o) noexcept
        : close_{ticks(o.close_timeout)},
          idle_{ticks(o.idle_timeout)},
          receive_{ticks(o.receive_timeout)},
          send_{ticks(o.send_timeout)},
          lifetime_{ticks(o.lifetime)},
          rate_{o.min_receive_rate} {}

    /// Whether any but the close deadline is set.
    bool any() const noexcept {
        return rate_ != 0 || idle_ != never || receive_ != never || send_ != never ||
               lifetime_ != never;
    }

    /// A point in time as clocks keep it: rounded up, so that no deadline is early.
    static std::uint32_t stamp(duration now) noexcept {
        return static_cast<std::uint32_t>(tick_from(now));
    }

    [[gnu::noinline]] next_deadline first(const connection_clock& clock, connection_activity doing,
                                          duration now) const noexcept {
        next_deadline result;
        const auto consider = [&](deadline which, std::int64_t length, std::uint32_t since) {
            if (length == never) return;
            const std::int64_t still = left(length, since, now);
            if (still < result.left) result = {which, still};
        };
        consider(deadline::lifetime, lifetime_, clock.begun);
        if (doing.closing) {
            consider(deadline::close, close_, clock.sent);
            return result;
        }
        consider(deadline::idle, idle_, clock.active);
        if (doing.sending) consider(deadline::send, send_, clock.sent);
        if (doing.receiving) consider(deadline::receive, receive_, clock.received);
        if (doing.receiving && clock.window_bytes != 0)
            consider(deadline::receive_rate, window, clock.window);
        return result;
    }

    /// Bytes came. Whether a deadline begins with them.
    bool received(connection_clock& clock, std::size_t size, std::uint32_t now) const noexcept {
        clock.active = clock.received = now;
        if (rate_ == 0) return false;
        const bool begins = clock.window_bytes == 0;
        if (begins) clock.window = now;
        constexpr std::uint32_t most = 0xffff'ffff;
        clock.window_bytes = size < most - clock.window_bytes
                                 ? clock.window_bytes + static_cast<std::uint32_t>(size)
                                 : most;
        return begins;
    }

    /// Receiving was paused until now, which was not the peer's doing.
    static void resumed(connection_clock& clock, std::uint32_t now) noexcept {
        clock.received = now;
        clock.window_bytes = 0;
    }

    /// At the end of a window: whether enough came in it. The next one begins with the next bytes.
    bool fast_enough(connection_clock& clock) const noexcept {
        const std::uint64_t came = clock.window_bytes;
        clock.window_bytes = 0;
        return came >= rate_ * (window / ticks_of_a_second);
    }

    /// The deadline was spared: it begins anew.
    static void restart(connection_clock& clock, deadline which, std::uint32_t now) noexcept {
        switch (which) {
            case deadline::lifetime: clock.begun = now; break;
            case deadline::idle: clock.active = now; break;
            case deadline::receive: clock.received = now; break;
            case deadline::send:
            case deadline::close: clock.sent = now; break;
            case deadline::receive_rate:
            case deadline::none: break;
        }
    }

    /// Whether it is put off by a peer that takes what is sent, though so slowly that the system
    /// has no room for more.
    static bool ask_the_peer(deadline which) noexcept {
        return which == deadline::close || which == deadline::idle || which == deadline::send;
    }

private:
    static constexpr std::int64_t ticks_of_a_second = 1'000;
    static constexpr std::int64_t window = 5 * ticks_of_a_second;

    static std::int64_t left(std::int64_t length, std::uint32_t since, duration now) noexcept {
        const auto present = static_cast<std::uint32_t>(tick_of(now));
        return length - static_cast<std::int32_t>(present - since);
    }

    [[gnu::cold, gnu::noinline]] static std::int64_t ticks(duration length) noexcept {
        const tick exact = tick_from(length);
        return exact > INT32_MAX / 2 ? never : exact;
    }

    std::int64_t close_;
    std::int64_t idle_;
    std::int64_t receive_;
    std::int64_t send_;
    std::int64_t lifetime_;
    std::uint64_t rate_;  // bytes a second
};

}  // namespace tcp::inline v0_1::detail
