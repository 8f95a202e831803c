// Timers beside a plain sorted container that has the same done to it.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/loop/timer_wheel.hpp>

using namespace tcp::detail;

namespace {

static_assert(sizeof(timer_node) == 24, "each idle connection has one");
static_assert(tick_from(tcp::duration::nanoseconds(0)) == 0);
static_assert(tick_from(tcp::duration::nanoseconds(1)) == 1);
static_assert(tick_from(tcp::duration::milliseconds(1)) == 1);
static_assert(tick_from(tcp::duration::nanoseconds(1'000'001)) == 2);
static_assert(tick_of(tcp::duration::nanoseconds(1'999'999)) == 1);

struct user_timer : timer_node {
    user_timer() : timer_node{kind::of_user} {}
};

// Goes from event to event until this tick, and gives those that were due on the way.
std::vector<timer_node*> all_due(timer_wheel& wheel, tick until) {
    std::vector<timer_node*> found;
    while (timer_node* const one = wheel.due(until)) found.push_back(one);
    return found;
}

}  // namespace

TEST_CASE("timer_wheel: nothing waits") {
    user_timer one;
    timer_wheel wheel;
    CHECK(wheel.next() == never);
    CHECK(wheel.due(1'000'000'000) == nullptr);
    CHECK_FALSE(one.waits());
    wheel.stop(one);
    CHECK(wheel.next() == never);
}

TEST_CASE("58 timer_wheel: never early, and not late") {
    for (const tick begin : {tick{0}, tick{1}, tick{63}, tick{64}, tick{4'095}, tick{1} << 30,
                             (tick{1} << 30) - 1, (tick{1} << 42) + 12'345}) {
        CAPTURE(begin);
        for (tick delay = 1; delay < tick{1} << 33; delay = delay * 3 / 2 + 1) {
            CAPTURE(delay);
            user_timer one;
            timer_wheel wheel;
            CHECK(wheel.due(begin) == nullptr);
            wheel.start(one, begin + delay);
            CHECK(one.waits());
            CHECK(wheel.next() <= begin + delay);
            CHECK(wheel.next() > begin);
            // However often one looks on the way, it is due at its tick and not before.
            while (wheel.next() < begin + delay) CHECK(wheel.due(wheel.next()) == nullptr);
            CHECK(wheel.due(begin + delay - 1) == nullptr);
            CHECK(wheel.next() == begin + delay);
            CHECK(wheel.due(begin + delay) == &one);
            CHECK_FALSE(one.waits());
            CHECK(wheel.next() == never);
        }
    }
}

TEST_CASE("58 timer_wheel: few looks lead to a timer that is far away") {
    user_timer one;
    timer_wheel wheel;
    wheel.start(one, (tick{1} << 30) - 1);
    int looks = 0;
    for (; one.waits() && looks < 100; ++looks) wheel.due(wheel.next());
    CHECK_FALSE(one.waits());
    CHECK(looks <= 5);  // one for each wheel
}

TEST_CASE("58 timer_wheel: 0, the past and the largest") {
    user_timer now, past, largest;
    timer_wheel wheel;
    CHECK(wheel.due(1'000) == nullptr);
    wheel.start(now, 1'000);
    wheel.start(past, -5);
    wheel.start(largest, never);
    CHECK(wheel.due(1'000) == nullptr);  // at the next tick: who starts itself again has turns
    CHECK(all_due(wheel, 1'001) == std::vector<timer_node*>{&now, &past});
    CHECK(largest.waits());
    CHECK(wheel.due(tick{1} << 45) == nullptr);  // a thousand years; a step is twelve days
    CHECK(largest.waits());
    wheel.stop(largest);
    CHECK(wheel.next() == never);
}

TEST_CASE("timer_wheel: started again it waits for the new time only") {
    user_timer one;
    timer_wheel wheel;
    wheel.start(one, 10);
    wheel.start(one, 5'000);
    CHECK(wheel.due(4'999) == nullptr);
    wheel.start(one, 5'001);
    CHECK(wheel.due(5'000) == nullptr);
    CHECK(wheel.due(9'000) == &one);
    CHECK(wheel.due(90'000) == nullptr);
}

TEST_CASE("timer_wheel: when it goes, its timers wait no more") {
    user_timer one, two;
    {
        timer_wheel wheel;
        wheel.start(one, 10);
        wheel.start(two, tick{1} << 40);
    }
    CHECK_FALSE(one.waits());
    CHECK_FALSE(two.waits());
}

TEST_CASE("58 timer_wheel: stopped while others of its tick are being told") {
    user_timer timers[3];
    timer_wheel wheel;
    for (user_timer& one : timers) wheel.start(one, 7);
    CHECK(wheel.due(7) == &timers[0]);
    wheel.stop(timers[1]);
    wheel.start(timers[0], 7);
    CHECK(wheel.due(7) == &timers[2]);
    CHECK(wheel.due(7) == nullptr);
    CHECK(wheel.due(8) == &timers[0]);
}

TEST_CASE("60 timer_wheel: random operations, beside a sorted container") {
    for (std::uint64_t seed = 1; seed != 40; ++seed) {
        CAPTURE(seed);
        std::mt19937_64 random{seed};
        const auto below = [&](std::int64_t n) {
            return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
        };
        std::multimap<tick, timer_node*> expected;
        std::vector<user_timer> timers(200);  // they outlive the wheel
        timer_wheel wheel;
        const auto forget = [&](timer_node* one) {
            for (auto i = expected.begin(); i != expected.end(); ++i)
                if (i->second == one) return void(expected.erase(i));
        };
        tick now = below(tick{1} << 35);
        CHECK(wheel.due(now) == nullptr);
        for (int step = 0; step != 2'000; ++step) {
            timer_node& one = timers[static_cast<std::size_t>(below(200))];
            switch (below(4)) {
                case 0:
                case 1: {
                    const tick due = now + 1 + below(tick{1} << below(36));
                    forget(&one);
                    expected.emplace(due, &one);
                    wheel.start(one, due);
                    break;
                }
                case 2:
                    forget(&one);
                    wheel.stop(one);
                    break;
                default:
                    now += below(tick{1} << below(34));
                    while (timer_node* const due = wheel.due(now)) {
                        REQUIRE_FALSE(expected.empty());
                        CHECK(expected.begin()->first == due->due());  // in the order of their time
                        CHECK(due->due() <= now);
                        forget(due);
                    }
                    CHECK((expected.empty() || expected.begin()->first > now));
            }
            CHECK(wheel.next() <= (expected.empty() ? never : expected.begin()->first));
            CHECK(wheel.next() > now);
        }
    }
}
