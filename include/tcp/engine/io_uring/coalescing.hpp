// How many messages a busy loop lets come before it serves them. A wait that brings one costs a
// system call for one, and a loop that is as fast as its clients are gets one at a time.
#pragma once

#include <cstdint>

#include <tcp/detail/clock.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// Looks at what comes, connections, messages and ends alike, and decides anew every 256 of them.
/// It is worth it to wait for several where the thread is busy, they come fast enough, and from so
/// many connections that while half of them wait here, the others have work to do. With fewer, this
/// side and the peers would take turns at doing nothing; so it ends, too, where fewer come since it
/// waits. On loopback it even serves faster: who sends to a loop that sleeps has to wake it.
class coalescing {
public:
    /// No wait for several takes longer; 0: there are none.
    explicit coalescing(duration longest) noexcept : longest_{longest} {}
    duration longest() const noexcept { return longest_; }

    /// How many to wait for; 0: for anything.
    std::uint32_t wanted() const noexcept { return wanted_; }

    /// This connection has come, or a message on it, or its end.
    void came(std::uint32_t slot) noexcept {
        ++messages_;
        connections_ |= std::uint64_t{1} << (slot & 63);
    }

    /// How many make a wait for several worth its time, where not all of them came.
    static constexpr std::uint32_t enough = 4;

    /// All has come that a wait brought: a wait for anything, or one for several that took its
    /// time in vain, or brought enough.
    enum class wait { for_any, in_vain, paid };
    void batch_is_over(wait how) noexcept {
        if (how == wait::in_vain) [[unlikely]]
            missed();
        paid_ = paid_ || how == wait::paid;
        // Other things than those that count may end all the waits.
        if (wanted_ != 0) waits_ += 1;
        if (messages_ >= looked_at || waits_ == looked_at) [[unlikely]]
            look();
    }

    /// What to wait for where so many came in so many nanoseconds on so many connections, and the
    /// thread ran for so many of them; now it waits for `wanted`.
    std::uint32_t worth(std::int64_t messages, std::uint32_t connections, std::int64_t wall,
                        std::int64_t busy, std::uint32_t wanted) const noexcept {
        // To wait for several makes it less busy, 50 % become 30: no reason to end it.
        const std::int64_t per_cent = wanted != 0 ? 22 : 50;
        if (wall <= 0 || busy * 100 < wall * per_cent) return 0;
        const std::int64_t in_time = messages * longest_.nanoseconds() / wall;
        const std::uint32_t half = connections / 2;
        const std::uint32_t most =
            in_time < std::int64_t{half} ? static_cast<std::uint32_t>(in_time) : half;
        return most < fewest ? 0 : most;
    }

    /// So many messages, or as many fewer as there are buffers for. Each send holds one until its
    /// completion is seen; and since Linux 6.13 the kernel mostly receives up to twice as many
    /// messages at once as it is to wait for completions (io_run_local_work()).
    static constexpr std::uint32_t with_buffers(std::uint32_t messages, std::uint32_t sends,
                                                std::uint32_t buffers) noexcept {
        if (sends >= buffers / 3) return 0;
        const std::uint32_t most = (buffers - sends) / 2 - sends;
        return messages < most ? messages : most;
    }

private:
    static constexpr std::uint32_t looked_at = 256;
    static constexpr std::uint32_t fewest = 8;
    static constexpr unsigned most_misses = 6;

    /// It was not worth it. The next try is later each time.
    [[gnu::cold, gnu::noinline]] void missed() noexcept {
        wanted_ = 0;
        if (misses_ != most_misses) ++misses_;
        pauses_ = 1U << misses_;
    }

    [[gnu::noinline]] void look() noexcept {
        const std::int64_t now = monotonic_now().nanoseconds();
        const std::int64_t ran = thread_time().nanoseconds();
        if (begun_ != 0) decide(now - begun_, ran - ran_before_);
        begun_ = now;
        ran_before_ = ran;
        messages_ = 0;
        waits_ = 0;
        connections_ = 0;
        paid_ = false;
    }

    void decide(std::int64_t wall, std::int64_t busy) noexcept {
        if (wall <= 0) return;
        const std::int64_t rate = std::int64_t{messages_} * 1'000'000'000 / wall;
        if (wanted_ == 0) rate_ = before_ = rate;
        rate_ += (rate - rate_) / 8;
        const std::int64_t least = before_ - before_ / 8;
        if (rate_ < least) return missed();
        if (pauses_ != 0 && --pauses_ != 0) return;
        const std::uint32_t several =
            worth(messages_, static_cast<std::uint32_t>(__builtin_popcountll(connections_)), wall,
                  busy, wanted_);
        // That nothing is left to do may be because everybody waits.
        if (several == 0 && rate < least) return missed();
        if (paid_ && rate >= least && wanted_ != 0) misses_ = 0;
        wanted_ = several;
    }

    duration longest_;
    std::uint32_t wanted_ = 0;
    std::uint32_t messages_ = 0;     // since it last looked
    std::uint32_t waits_ = 0;        // ... for several
    std::uint64_t connections_ = 0;  // ... on these, by the last six bits of their slots
    bool paid_ = false;              // ... and a wait for several brought enough
    unsigned misses_ = 0;            // in a row
    unsigned pauses_ = 0;            // how often it looks before it tries again
    std::int64_t begun_ = 0;         // when it last looked, in nanoseconds
    std::int64_t ran_before_ = 0;    // ... of the thread
    std::int64_t before_ = 0;        // messages a second, when it last did not wait for several
    std::int64_t rate_ = 0;          // ... and since, over some windows
};

}  // namespace tcp::inline v0_1::detail::io_uring
