// Which deadline is next: without a loop, at any time, across the end of what a clock can count.
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include <doctest/doctest.h>

#include <tcp/loop/deadlines.hpp>

using tcp::deadline;
using tcp::duration;
using namespace tcp::detail;

namespace {

duration ms(std::int64_t n) { return duration::milliseconds(n); }

static_assert(sizeof(connection_clock) == 24, "each idle connection has one");

connection_clock clock_at(duration now) {
    const std::uint32_t stamp = deadlines::stamp(now);
    return {.begun = stamp, .active = stamp, .received = stamp, .sent = stamp};
}

// Moments from which a clock's 32 bits go on, turn negative, and begin anew.
constexpr std::int64_t moments[] = {0, 1, 12'345, 0x7fff'ff00, 0xffff'ff00, 0x1'ffff'ffff};

}  // namespace

TEST_CASE("deadlines: none, unless it is set") {
    const deadlines none{tcp::options{}};
    CHECK_FALSE(none.any());
    const connection_clock clock = clock_at(ms(5));
    CHECK(none.first(clock, {.receiving = true, .sending = true}, ms(1'000'000)).which ==
          deadline::none);
    CHECK(none.first(clock, {.receiving = true, .sending = true}, ms(1'000'000)).left == never);
    for (const auto set : {&tcp::options::idle_timeout, &tcp::options::receive_timeout,
                           &tcp::options::send_timeout, &tcp::options::lifetime}) {
        tcp::options o;
        o.*set = ms(24LL * 60 * 60 * 1000 * 30);  // a month is none
        CHECK_FALSE(deadlines{o}.any());
        o.*set = ms(24LL * 60 * 60 * 1000 * 12);
        CHECK(deadlines{o}.any());
    }
    CHECK(deadlines{tcp::options{.min_receive_rate = 1}}.any());
}

TEST_CASE("55 deadlines: each is left its whole length, and nothing when that has passed") {
    struct one {
        duration tcp::options::*set;
        deadline which;
        connection_activity doing;
    };
    for (const one& d :
         {one{&tcp::options::idle_timeout, deadline::idle, {}},
          one{&tcp::options::receive_timeout, deadline::receive, {.receiving = true}},
          one{&tcp::options::send_timeout, deadline::send, {.sending = true}},
          one{&tcp::options::lifetime, deadline::lifetime, {}},
          one{&tcp::options::close_timeout, deadline::close, {.closing = true}}})
        for (const std::int64_t begin : moments)
            for (const std::int64_t length : {1, 2, 1'000, 3'600'000}) {
                CAPTURE(begin);
                CAPTURE(length);
                tcp::options o;
                o.*d.set = ms(length);
                const deadlines all{o};
                const connection_clock clock = clock_at(ms(begin));
                CHECK(all.first(clock, d.doing, ms(begin)).which == d.which);
                CHECK(all.first(clock, d.doing, ms(begin)).left == length);
                CHECK(all.first(clock, d.doing, ms(begin + length - 1)).left == 1);
                CHECK(all.first(clock, d.doing, ms(begin + length)).left == 0);
                CHECK(all.first(clock, d.doing, ms(begin + length + 1'000)).left == -1'000);
                // What began within a millisecond is not early by the rest of it.
                const connection_clock later = clock_at(ms(begin) + duration::nanoseconds(1));
                CHECK(all.first(later, d.doing, ms(begin + length)).left == 1);
            }
}

TEST_CASE("55 deadlines: what a connection does not do has none") {
    const deadlines all{tcp::options{.receive_timeout = ms(10), .send_timeout = ms(20)}};
    const connection_clock clock = clock_at(ms(100));
    CHECK(all.first(clock, {}, ms(1'000)).which == deadline::none);
    CHECK(all.first(clock, {.sending = true}, ms(1'000)).which == deadline::send);
    CHECK(all.first(clock, {.receiving = true, .sending = true}, ms(100)).which ==
          deadline::receive);
    // A connection that closes has its close deadline alone.
    CHECK(all.first(clock, {.closing = true, .receiving = true, .sending = true}, ms(100)).which ==
          deadline::close);
}

TEST_CASE("55 deadlines: idle counts from what moved last, in whichever direction, for years") {
    const deadlines all{tcp::options{.idle_timeout = ms(60'000)}};
    constexpr std::int64_t day = 24LL * 60 * 60 * 1000;
    connection_clock clock = clock_at(ms(0));
    for (std::int64_t now = day; now < 200 * day; now += day) {  // nothing is ever sent
        CAPTURE(now / day);
        all.received(clock, 1, deadlines::stamp(ms(now)));
        CHECK(all.first(clock, {}, ms(now + 59'999)).left == 1);
        CHECK(all.first(clock, {}, ms(now + 60'000)).left == 0);
    }
}

TEST_CASE("55 deadlines: a spared one does not put off the others") {
    const deadlines all{tcp::options{.idle_timeout = ms(1'000), .send_timeout = ms(3'000)}};
    connection_clock clock = clock_at(ms(0));
    const connection_activity stuck{.sending = true};
    for (std::int64_t now = 1'000; now <= 3'000; now += 1'000)
        deadlines::restart(clock, deadline::idle, deadlines::stamp(ms(now)));
    CHECK(all.first(clock, stuck, ms(3'000)).which == deadline::send);
    CHECK(all.first(clock, stuck, ms(3'000)).left == 0);
    // Nor does what is no activity: resuming.
    deadlines::resumed(clock, deadlines::stamp(ms(3'500)));
    CHECK(all.first(clock, {}, ms(4'000)).left == 0);
}

TEST_CASE("55 deadlines: the longest overdue is the first, and a spared one begins anew") {
    const deadlines all{tcp::options{.idle_timeout = ms(80),
                                     .receive_timeout = ms(50),
                                     .send_timeout = ms(60),
                                     .lifetime = ms(70)}};
    connection_clock clock = clock_at(ms(0));
    const connection_activity doing{.receiving = true, .sending = true};
    const duration now = ms(100);
    for (const deadline expected :
         {deadline::receive, deadline::send, deadline::lifetime, deadline::idle}) {
        CHECK(all.first(clock, doing, now).which == expected);
        CHECK(all.first(clock, doing, now).left < 0);
        deadlines::restart(clock, expected, deadlines::stamp(now));
    }
    CHECK(all.first(clock, doing, now).which == deadline::receive);
    CHECK(all.first(clock, doing, now).left == 50);
    CHECK(all.first(clock, {}, now).left == 70);  // the lifetime
}

TEST_CASE("56 deadlines: the rate is that of five seconds from the first byte on") {
    const deadlines all{tcp::options{.min_receive_rate = 100}};
    const connection_activity receiving{.receiving = true};
    for (const std::int64_t begin : moments) {
        CAPTURE(begin);
        connection_clock clock = clock_at(ms(begin));
        CHECK(all.first(clock, receiving, ms(begin)).which == deadline::none);
        CHECK(all.received(clock, 1, deadlines::stamp(ms(begin + 10'000))));
        CHECK_FALSE(all.received(clock, 498, deadlines::stamp(ms(begin + 14'000))));
        CHECK(all.first(clock, receiving, ms(begin + 14'000)).which == deadline::receive_rate);
        CHECK(all.first(clock, receiving, ms(begin + 14'000)).left == 1'000);
        CHECK(all.first(clock, {}, ms(begin + 14'000)).which == deadline::none);  // paused
        connection_clock other = clock;
        CHECK_FALSE(all.fast_enough(clock));
        CHECK(all.first(clock, receiving, ms(begin + 15'000)).which == deadline::none);
        CHECK_FALSE(all.received(other, 1, deadlines::stamp(ms(begin + 14'500))));
        CHECK(all.fast_enough(other));

        CHECK(all.received(clock, 5, deadlines::stamp(ms(begin + 20'000))));
        deadlines::resumed(clock, deadlines::stamp(ms(begin + 21'000)));
        CHECK(all.first(clock, receiving, ms(begin + 30'000)).which == deadline::none);
    }
    connection_clock much = clock_at(ms(0));
    for (int i = 0; i != 10; ++i) all.received(much, std::size_t{1} << 31, 1);
    CHECK(much.window_bytes == 0xffff'ffff);  // and not less, as if it had begun anew
    CHECK(all.fast_enough(much));
}
