// How many messages a busy loop lets come before it serves them. A wait that brings one costs a
// system call for one, and a loop that is as fast as its clients are gets one at a time.
#pragma once

#include <cstdint>
#include <ctime>

#include <tcp/detail/clock.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// Looks at what comes, and decides anew every 256 messages. It is worth it to wait for several
/// where the processor is what there is too little of: the thread is busy, they come fast enough,
/// and from so many connections that while half of them wait here, the others have work to do.
/// With fewer, this side and the peers would take turns at doing nothing.
class coalescing {
public:
    /// No wait for several takes longer.
    static constexpr duration longest = duration::nanoseconds(200'000);

    /// How many to wait for; 0: for any.
    std::uint32_t wanted() const noexcept { return wanted_; }

    /// A message has come on this connection.
    void came(std::uint32_t slot) noexcept {
        ++messages_;
        connections_ |= std::uint64_t{1} << (slot & 63);
    }

    /// All has come that a wait for so many brought.
    void batch_is_over(std::uint32_t awaited) noexcept {
        const std::uint32_t of_batch = messages_ - before_;
        before_ = messages_;
        if (of_batch < awaited) [[unlikely]]
            missed();
        if (messages_ >= looked_at) [[unlikely]]
            look();
    }

    /// What to wait for where so many messages came in so many nanoseconds on so many connections,
    /// and the thread ran for so many of them; now it waits for `wanted`.
    static constexpr std::uint32_t worth(std::int64_t messages, std::uint32_t connections,
                                         std::int64_t wall, std::int64_t busy,
                                         std::uint32_t wanted) noexcept {
        // To wait for several makes it less busy: that is no reason to end it.
        const std::int64_t enough_per_cent = wanted != 0 ? 40 : 80;
        if (busy * 100 < wall * enough_per_cent) return 0;
        const std::int64_t in_time = messages * longest.nanoseconds() / (wall > 0 ? wall : 1);
        const std::uint32_t half = connections / 2;
        const std::uint32_t most =
            in_time < std::int64_t{half} ? static_cast<std::uint32_t>(in_time) : half;
        return most < fewest ? 0 : most;
    }

private:
    static constexpr std::uint32_t looked_at = 256;
    static constexpr std::uint32_t fewest = 8;
    static constexpr unsigned most_misses = 6;

    /// They did not come. The next try is later each time.
    [[gnu::cold, gnu::noinline]] void missed() noexcept {
        wanted_ = 0;
        if (misses_ != most_misses) ++misses_;
        pauses_ = 1U << misses_;
    }

    [[gnu::noinline]] void look() noexcept {
        const std::int64_t now = monotonic_now().nanoseconds();
        timespec used{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
        const std::int64_t ran = std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
        if (pauses_ != 0)
            --pauses_;
        else if (wanted_ != 0)
            misses_ = 0;
        const auto connections = static_cast<std::uint32_t>(__builtin_popcountll(connections_));
        wanted_ = pauses_ != 0
                      ? 0
                      : worth(messages_, connections, now - begun_, ran - ran_before_, wanted_);
        begun_ = now;
        ran_before_ = ran;
        messages_ = before_ = 0;
        connections_ = 0;
    }

    std::uint32_t wanted_ = 0;
    std::uint32_t messages_ = 0;  // since it last looked
    std::uint32_t before_ = 0;    // ... and before the batch that comes now
    unsigned misses_ = 0;         // in a row
    unsigned pauses_ = 0;         // how often it looks before it tries again
    std::uint64_t connections_ =
        0;                    // those of which something came, by the last six bits of their slots
    std::int64_t begun_ = 0;  // nanoseconds
    std::int64_t ran_before_ = 0;  // ... of the thread
};

}  // namespace tcp::inline v0_1::detail::io_uring
