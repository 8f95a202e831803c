// What one loop counts, and how the loops of a server add up.
#include <cstddef>
#include <cstdint>

#include <doctest/doctest.h>

#include <tcp/loop/loop_counters.hpp>

using tcp::closed_by;
using tcp::closed_by_count;
using tcp::detail::loop_counters;

namespace {

// Numbers of which no sum of some is the sum of others.
void count(loop_counters& loop, std::uint64_t times) {
    loop.accepted.add(1 * times);
    loop.refused_by[0].add(9 * times);
    loop.refused_by[2].add(1 * times);
    loop.open.add(100 * times);
    loop.bytes_received.add(1'000 * times);
    loop.bytes_sent.add(10'000 * times);
    loop.accept_errors.add(100'000 * times);
    loop.pauses.add(1'000'000 * times);
    for (std::size_t i = 0; i != closed_by_count; ++i)
        loop.closed_by[i].add((std::uint64_t{1} << (4 * i)) * times);
}

void check(const tcp::statistics& sum, std::uint64_t times) {
    CHECK(sum.accepted == 1 * times);
    CHECK(sum.refused == 10 * times);
    CHECK(sum.refused_by[0] == 9 * times);
    CHECK(sum.refused_by[1] == 0);
    CHECK(sum.refused_by[2] == 1 * times);
    CHECK(sum.open == 100 * times);
    CHECK(sum.bytes_received == 1'000 * times);
    CHECK(sum.bytes_sent == 10'000 * times);
    CHECK(sum.accept_errors == 100'000 * times);
    CHECK(sum.pauses == 1'000'000 * times);
    std::uint64_t closed = 0;
    for (std::size_t i = 0; i != closed_by_count; ++i) {
        CHECK(sum.closed_by[i] == (std::uint64_t{1} << (4 * i)) * times);
        closed += sum.closed_by[i];
    }
    CHECK(sum.closed == closed);
}

static_assert(noexcept(loop_counters{}.add_to(*static_cast<tcp::statistics*>(nullptr))));

}  // namespace

TEST_CASE("loop_counters: nothing at first") {
    tcp::statistics sum;
    loop_counters{}.add_to(sum);
    check(sum, 0);
}

TEST_CASE("loop_counters: each number goes to its place") {
    loop_counters loop;
    count(loop, 1);
    tcp::statistics sum;
    loop.add_to(sum);
    check(sum, 1);
}

TEST_CASE("loop_counters: several loops add up, and keep their numbers") {
    loop_counters first, second, third;
    count(first, 1);
    count(second, 2);
    count(third, 5);
    for (int again = 0; again != 2; ++again) {
        tcp::statistics sum;
        first.add_to(sum);
        second.add_to(sum);
        third.add_to(sum);
        check(sum, 8);
    }
}

TEST_CASE("loop_counters: closed is the sum of its reasons, and open goes down again") {
    loop_counters loop;
    loop.open.add(3);
    loop.closed_by[static_cast<std::size_t>(closed_by::peer_reset)].add(2);
    loop.open.subtract(2);
    loop.closed_by[static_cast<std::size_t>(closed_by::system_error)].add(1);
    tcp::statistics sum;
    loop.add_to(sum);
    CHECK(sum.open == 1);
    CHECK(sum.closed == 3);
    CHECK(sum.closed_by[static_cast<std::size_t>(closed_by::peer_reset)] == 2);
    CHECK(sum.closed_by[static_cast<std::size_t>(closed_by::system_error)] == 1);
}
