// Who keeps a loop alive: its owner and the call that runs it, whichever goes last.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/loop/loop_owner.hpp>

#include "allocations.hpp"

namespace {

/// What outlives the loop.
struct record {
    std::atomic<int> alive{0};
    std::atomic<int> stops{0};
};

/// As much of a loop as its owner knows.
class toy_loop {
public:
    toy_loop(record& seen, std::unique_ptr<int> given) : seen_{&seen}, given_{std::move(given)} {
        ++seen_->alive;
    }
    toy_loop(const toy_loop&) = delete;
    toy_loop& operator=(const toy_loop&) = delete;
    ~toy_loop() { --seen_->alive; }

    void stop() noexcept {
        ++seen_->stops;
        stopped_ = true;
    }
    bool stopped() const noexcept { return stopped_; }
    int given() const noexcept { return *given_; }

    void begin_run() noexcept { runner_ = std::this_thread::get_id(); }
    void end_run() noexcept { runner_ = std::thread::id{}; }
    bool runs_here() const noexcept { return runner_ == std::this_thread::get_id(); }

private:
    record* seen_;
    std::unique_ptr<int> given_;
    std::atomic<bool> stopped_{false};
    std::atomic<std::thread::id> runner_{};
};

using owner = tcp::detail::loop_owner<toy_loop>;

static_assert(!std::is_copy_constructible_v<owner>);
static_assert(!std::is_move_constructible_v<owner>);
static_assert(!std::is_copy_assignable_v<owner>);
static_assert(!std::is_copy_constructible_v<owner::turn>);
static_assert(!std::is_convertible_v<const owner&, owner::turn>);

std::unique_ptr<owner> make(record& seen, int given = 1) {
    return std::make_unique<owner>(std::in_place, seen, std::make_unique<int>(given));
}

template <class F>
bool in_another_thread(F f) {
    bool result = false;
    std::thread{[&] { result = f(); }}.join();
    return result;
}

bool may_run(const owner& one) { return static_cast<bool>(owner::turn{one}); }

}  // namespace

TEST_CASE("loop_owner: makes the loop in place and destroys it") {
    record seen;
    {
        const owner one{std::in_place, seen, std::make_unique<int>(7)};
        CHECK(seen.alive == 1);
        CHECK(one->given() == 7);
        CHECK(&*one == one.operator->());
    }
    CHECK(seen.alive == 0);
    CHECK(seen.stops == 0);  // nobody ran it
}

TEST_CASE("loop_owner: a loop that cannot be made leaves nothing behind") {
    struct refuses {
        std::unique_ptr<int> member = std::make_unique<int>(1);
        explicit refuses(int) { throw std::runtime_error("no descriptors"); }
        void stop() noexcept {}
        void begin_run() noexcept {}
        void end_run() noexcept {}
        bool runs_here() const noexcept { return false; }
    };
    const std::size_t live_before = allocations::live;
    CHECK_THROWS_WITH((tcp::detail::loop_owner<refuses>{std::in_place, 1}), "no descriptors");
    CHECK(allocations::live == live_before);
}

TEST_CASE("loop_owner: one turn at a time") {
    record seen;
    {
        const auto one = make(seen);
        {
            const owner::turn first{*one};
            REQUIRE(first);
            CHECK(first.operator->() == &**one);
            CHECK_FALSE(may_run(*one));
            CHECK_FALSE(may_run(*one));  // the one refused took nothing away from the first
            CHECK_FALSE(in_another_thread([&] { return may_run(*one); }));
        }
        CHECK(may_run(*one));
        CHECK(may_run(*one));
        CHECK(in_another_thread([&] { return may_run(*one); }));
        CHECK(may_run(*one));
    }
    CHECK(seen.alive == 0);
    CHECK(seen.stops == 0);
}

TEST_CASE("44 loop_owner: destroyed in a hook, the loop goes on to the end of its turn") {
    record seen;
    auto one = make(seen, 5);
    {
        const owner::turn now{*one};
        REQUIRE(now);
        one.reset();
        CHECK(seen.alive == 1);
        CHECK(seen.stops == 1);
        CHECK(now->stopped());
        CHECK(now->given() == 5);
    }
    CHECK(seen.alive == 0);
    CHECK(seen.stops == 1);
}

TEST_CASE("44 loop_owner: destroyed after a turn, and after a refused one") {
    record seen;
    auto one = make(seen);
    {
        const owner::turn now{*one};
        const owner::turn refused{*one};
        CHECK_FALSE(refused);
    }
    one.reset();
    CHECK(seen.alive == 0);
    CHECK(seen.stops == 0);
}

TEST_CASE("44 loop_owner: destroyed while another thread runs it, and waits for that") {
    for (int round = 0; round != 200; ++round) {
        record seen;
        auto one = make(seen);
        std::atomic<bool> running{false};
        std::atomic<bool> ended{false};
        std::thread runner{[&] {
            const owner::turn now{*one};
            running = true;
            while (!now->stopped()) std::this_thread::yield();
            if (round % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
            ended = true;
        }};
        while (!running) std::this_thread::yield();
        one.reset();
        CHECK(ended);
        CHECK(seen.stops == 1);
        runner.join();
        CHECK(seen.alive == 0);
    }
}

TEST_CASE("44 loop_owner: destroyed in a hook of another loop") {
    record outer_seen, inner_seen;
    auto inner = make(inner_seen);
    std::atomic<bool> running{false};
    std::thread runner{[&] {
        const owner::turn now{*inner};
        running = true;
        while (!now->stopped()) std::this_thread::yield();
    }};
    while (!running) std::this_thread::yield();
    {
        const auto outer = make(outer_seen);
        const owner::turn now{*outer};
        inner.reset();  // which another thread runs
        CHECK_FALSE(now->stopped());
    }
    runner.join();
    CHECK(inner_seen.alive == 0);
    CHECK(outer_seen.alive == 0);
}

TEST_CASE("44 loop_owner: turns taken by turns, by several threads") {
    record seen;
    {
        const auto one = make(seen);
        std::atomic<int> inside{0}, turns{0};
        std::atomic<bool> overlapped{false};
        std::vector<std::thread> threads;
        for (int i = 0; i != 4; ++i)
            threads.emplace_back([&] {
                for (int tries = 0; tries != 2'000; ++tries) {
                    const owner::turn now{*one};
                    if (!now) continue;
                    if (++inside != 1) overlapped = true;
                    ++turns;
                    --inside;
                }
            });
        for (std::thread& each : threads) each.join();
        CHECK_FALSE(overlapped);
        CHECK(turns > 0);
        CHECK(seen.alive == 1);
    }
    CHECK(seen.alive == 0);
}
