// A busy loop waits for several messages: when that is worth it, and that it never waits for long
// for what does not come.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/io_uring/coalescing.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"

using namespace std::chrono_literals;
using tcp::detail::io_uring::coalescing;
using tests::blocking_client;

namespace {

constexpr std::int64_t us = 1000;

/// As many messages as it takes to look, all of them waited for, on so many connections.
void window(coalescing& one, std::uint32_t connections) {
    const auto how = one.wanted() != 0 ? coalescing::wait::paid : coalescing::wait::for_any;
    for (std::uint32_t i = 0; i != 256; ++i) one.came(i % connections);
    one.batch_is_over(how);
}

/// Looks until this is so. The thread may lose its processor in the middle of a window, and seem
/// idle then.
template <class Condition>
bool becomes(coalescing& one, std::uint32_t connections, Condition holds, int most = 1000) {
    for (int left = most; left != 0 && !holds(); --left) window(one, connections);
    return holds();
}

}  // namespace

TEST_CASE("coalescing: what is worth waiting for") {
    const auto worth = [](std::int64_t messages, std::uint32_t connections, std::int64_t wall,
                          std::int64_t busy, std::uint32_t wanted) {
        return coalescing{200us}.worth(messages, connections, wall, busy, wanted);
    };
    // 256 messages in so long, from so many connections; the thread was busy for so long.
    CHECK(worth(256, 64, 1800 * us, 1700 * us, 0) == 28);
    CHECK(worth(256, 64, 1800 * us, 850 * us, 0) == 0);    // it has time
    CHECK(worth(256, 64, 1800 * us, 850 * us, 28) == 28);  // since it waits for several
    CHECK(worth(256, 64, 1800 * us, 380 * us, 28) == 0);
    CHECK(worth(256, 64, 256 * us, 256 * us, 0) == 32);  // never for more than half of them
    CHECK(coalescing{100us}.worth(256, 64, 1800 * us, 1700 * us, 0) == 14);
    CHECK(coalescing{0us}.worth(256, 64, 256 * us, 256 * us, 0) == 0);
    CHECK(worth(256, 16, 1800 * us, 1700 * us, 0) == 8);
    CHECK(worth(256, 15, 1800 * us, 1700 * us, 0) == 0);  // they would all be here, or all there
    CHECK(worth(256, 1, 1800 * us, 1700 * us, 0) == 0);
    CHECK(worth(256, 64, 6400 * us, 6300 * us, 0) == 8);
    CHECK(worth(256, 64, 7400 * us, 7300 * us, 0) == 0);  // too long a time for too few
    CHECK(worth(256, 64, 0, 0, 0) == 0);                  // a clock that stands still
}

TEST_CASE(
    "coalescing: what does not come is waited for once, and later again, less and less often") {
    coalescing one{200us};
    CHECK(one.wanted() == 0);
    window(one, 4);
    CHECK(one.wanted() == 0);
    REQUIRE(becomes(one, 64, [&] { return one.wanted() == 32; }));
    for (int misses = 1; misses <= 8; ++misses) {
        CAPTURE(misses);
        one.came(1);
        one.batch_is_over(coalescing::wait::in_vain);
        CHECK(one.wanted() == 0);
        const int pauses = 1 << std::min(misses, 6);
        for (int i = 1; i != pauses; ++i) {
            window(one, 64);
            CHECK(one.wanted() == 0);
        }
        REQUIRE(becomes(one, 64, [&] { return one.wanted() == 32; }));
    }
    // All come, as fast as before: the next pause is a short one, not of 64. What else runs here
    // may make it seem slower.
    bool is_short = false;
    for (int tries = 0; tries != 100 && !is_short; ++tries) {
        const bool waits = becomes(one, 64, [&] { return one.wanted() == 32; });
        for (int i = 0; i != 8; ++i) window(one, 64);
        REQUIRE(waits);
        if (one.wanted() == 0) continue;
        one.batch_is_over(coalescing::wait::in_vain);
        window(one, 64);
        CHECK(one.wanted() == 0);
        is_short = becomes(
            one, 64, [&] { return one.wanted() == 32; }, 30);
    }
    CHECK(is_short);
}

TEST_CASE("coalescing: waits that bring nothing that counts end as well") {
    coalescing one{200us};
    REQUIRE(becomes(one, 64, [&] { return one.wanted() != 0; }));
    std::this_thread::sleep_for(20ms);
    int waits = 0;
    for (; one.wanted() != 0 && waits != 10'000; ++waits) one.batch_is_over(coalescing::wait::paid);
    CHECK(waits <= 256);
}

TEST_CASE("coalescing: where half as many come since it waits, it waits ever less often") {
    constexpr int windows = 400;
    const auto waiting = [] {
        coalescing one{200us};
        int count = 0;
        for (int i = 0; i != windows; ++i) {
            const bool waits = one.wanted() != 0;
            const auto end = std::chrono::steady_clock::now() + (waits ? 200us : 100us);
            while (std::chrono::steady_clock::now() < end) {}
            window(one, 64);
            count += waits ? 1 : 0;
        }
        return count;
    };
    // What else runs here may make it seem to be worth it, now and then.
    int count = waiting();
    for (int tries = 0; tries != 20 && (count == 0 || count >= windows / 4); ++tries)
        count = waiting();
    CHECK(count != 0);
    CHECK(count < windows / 4);
}

TEST_CASE("coalescing: behind many that talk fast, one that is left alone is answered at once") {
    tcp::server<tcp::echo, tcp::io_uring_engine> server{{.coalescing = 100ms}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread serving{[&] { server.run(); }};
    std::vector<std::chrono::steady_clock::duration> took;
    {
        std::vector<blocking_client> clients;
        for (int i = 0; i != 64; ++i) clients.emplace_back(where);
        for (int round = 0; round != 5; ++round) {
            // Two turns, so that one is under way while the other is answered.
            const auto text_of = [](std::size_t i, int n) {
                return std::to_string(i) + " says " + std::to_string(n) + '\n';
            };
            bool right = true;
            const auto hear_all = [&](int n) {
                for (std::size_t i = 0; i != 64; ++i) {
                    const std::string expected = text_of(i, n);
                    right = clients[i].receive(expected.size()) == expected && right;
                }
            };
            for (int n = 0; n != 60; ++n) {
                for (std::size_t i = 0; i != 64; ++i)
                    right = clients[i].send(text_of(i, n)) && right;
                if (n != 0) hear_all(n - 1);
            }
            hear_all(59);
            CHECK(right);
            for (int i = 0; i != 20; ++i) {
                const auto begin = std::chrono::steady_clock::now();
                CHECK(clients[0].echoes("alone"));
                took.push_back(std::chrono::steady_clock::now() - begin);
            }
        }
    }
    const auto begin = std::chrono::steady_clock::now();
    server.stop();
    serving.join();
    CHECK(std::chrono::steady_clock::now() - begin < 5s);
    std::sort(took.begin(), took.end());
    CHECK(took[took.size() / 2] < 5ms);
}
