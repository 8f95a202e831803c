// A counter that one thread counts with and any thread may read.
#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/detail/counter.hpp>

using tcp::detail::counter;

namespace {

static_assert(!std::is_copy_constructible_v<counter>);
static_assert(std::is_nothrow_default_constructible_v<counter>);
static_assert(std::is_same_v<decltype(counter{}.read()), std::uint64_t>);
static_assert(sizeof(counter) == sizeof(std::uint64_t));
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace

TEST_CASE("counter: adds and subtracts") {
    counter c;
    CHECK(c.read() == 0);
    c.add(1);
    c.add(0);
    c.add(41);
    CHECK(c.read() == 42);
    c.subtract(2);
    CHECK(c.read() == 40);
    c.subtract(0);
    c.subtract(40);
    CHECK(c.read() == 0);
}

TEST_CASE("counter: counts beyond 32 bits, and goes round at the end") {
    constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
    counter c;
    c.add(5'000'000'000);
    c.add(5'000'000'000);
    CHECK(c.read() == 10'000'000'000);
    c.subtract(6'000'000'000);
    CHECK(c.read() == 4'000'000'000);
    c.subtract(4'000'000'000);
    c.add(most);
    CHECK(c.read() == most);
    c.add(2);
    CHECK(c.read() == 1);
    c.subtract(2);
    CHECK(c.read() == most);
}

TEST_CASE("70 counter: read by one thread while another counts") {
    constexpr std::uint64_t rounds = 100'000;
    counter c;
    std::thread writer{[&] {
        for (std::uint64_t i = 0; i != rounds; ++i) {
            c.add(3);
            if (i % 1'000 == 0) std::this_thread::yield();
        }
    }};
    bool in_steps = true;
    std::uint64_t before = 0;
    while (before != 3 * rounds) {
        const std::uint64_t now = c.read();
        in_steps = in_steps && now >= before && now % 3 == 0 && now <= 3 * rounds;
        before = now;
    }
    writer.join();
    CHECK(in_steps);
}
