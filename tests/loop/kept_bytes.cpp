// Received bytes that a handler has not taken: beside a std::string that has the same done to it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/loop/block_pool.hpp>
#include <tcp/loop/kept_bytes.hpp>

#include "allocations.hpp"

using tcp::as_bytes;
using tcp::as_text;
using tcp::detail::block_pool;
using tcp::detail::kept_bytes;

namespace {

static_assert(!std::is_copy_constructible_v<kept_bytes>);
static_assert(!std::is_copy_assignable_v<kept_bytes>);
static_assert(std::is_nothrow_default_constructible_v<kept_bytes>);
static_assert(sizeof(kept_bytes) <= sizeof(void*), "each idle connection has one");

/// Kept bytes and their pool; all memory is back when they are gone.
struct bench {
    std::size_t live_before = allocations::live;
    std::unique_ptr<block_pool> pool = std::make_unique<block_pool>();
    kept_bytes kept;

    bench() = default;
    bench(const bench&) = delete;
    bench& operator=(const bench&) = delete;
    ~bench() {
        allocations::fail_in = 0;
        kept.clear(*pool);
        CHECK(kept.empty());
        pool.reset();
        CHECK(allocations::live == live_before);
    }

    void append(std::string_view text) { kept.append(*pool, as_bytes(text)); }
    void consume(std::size_t count) { kept.consume(*pool, count); }
    std::string_view text() const { return as_text(kept.view()); }

    bool holds(std::string_view expected) const {
        return text() == expected && kept.size() == expected.size() &&
               kept.empty() == expected.empty();
    }
};

/// Text that does not repeat itself soon.
std::string numbered(std::size_t size, std::size_t from = 0) {
    std::string text;
    while (text.size() < size) text += std::to_string(from++) + ' ';
    text.resize(size);
    return text;
}

}  // namespace

TEST_CASE("kept_bytes: none") {
    bench on;
    const std::size_t before = allocations::made;
    CHECK(on.holds(""));
    CHECK(on.kept.view().empty());
    on.consume(0);
    on.kept.clear(*on.pool);
    on.append("");
    CHECK(on.holds(""));
    CHECK(allocations::made == before);
}

TEST_CASE("kept_bytes: random operations, beside a string that has the same done to it") {
    std::size_t failures = 0;
    for (std::uint64_t seed = 1; seed != 60; ++seed) {
        CAPTURE(seed);
        bench on;
        std::string expected;
        std::mt19937_64 dice{seed};
        const auto below = [&](std::size_t bound) {
            return std::uniform_int_distribution<std::size_t>{0, bound - 1}(dice);
        };
        for (std::size_t step = 0; step != 400; ++step) {
            CAPTURE(step);
            const std::size_t kind = below(10);
            if (kind < 5) {
                const std::size_t most = kind == 0 ? 30'000 : kind == 1 ? 3'000 : 200;
                const std::string text = numbered(below(most), step * 1'000);
                allocations::fail_in = below(3) == 0 ? 1 : 0;
                bool done = true;
                try {
                    on.append(text);
                } catch (const std::bad_alloc&) {
                    done = false;
                    ++failures;
                }
                allocations::fail_in = 0;
                if (done) expected += text;
            } else if (kind == 5 && below(5) == 0) {
                on.kept.clear(*on.pool);
                expected.clear();
            } else {
                const std::size_t most = kind == 6 ? expected.size() : 500;
                const std::size_t count = std::min(below(most + 1), expected.size());
                on.consume(count);
                expected.erase(0, count);
            }
            REQUIRE(on.holds(expected));
        }
    }
    CHECK((failures > 100 || !allocations::counted));  // memory did run out
}

TEST_CASE("kept_bytes: taken in every cutting, and shown in one piece with what comes next") {
    const std::string first = numbered(700);
    const std::string second = numbered(900, 5'000);
    for (std::size_t taken = 0; taken <= first.size(); taken += 7) {
        bench on;
        on.append(first);
        on.consume(taken);
        CHECK(on.holds(first.substr(taken)));
        on.append(second);
        CHECK(on.holds(first.substr(taken) + second));
    }
}

TEST_CASE("kept_bytes: everything taken gives the memory back") {
    bench on;
    const std::string text = numbered(5'000);
    on.append(text);
    on.consume(text.size() - 1);
    CHECK(on.kept.size() == 1);
    on.consume(1);
    CHECK(on.kept.empty());

    const std::size_t before = allocations::made;
    kept_bytes another;  // gets the block of the first
    another.append(*on.pool, as_bytes(text));
    CHECK(allocations::made == before);
    another.clear(*on.pool);
}

TEST_CASE("62 kept_bytes: an append that finds no memory changes nothing" *
          doctest::skip(!allocations::counted)) {
    for (const std::size_t there : {std::size_t{0}, std::size_t{50}, std::size_t{5'000}}) {
        CAPTURE(there);
        bench on;
        const std::string before = numbered(there + 10);
        const std::string text = numbered(20'000, 7'000);
        on.append(before);
        on.consume(there == 0 ? before.size() : 10);
        const std::string kept{on.text()};
        allocations::fail_in = 1;
        CHECK_THROWS_AS(on.append(text), std::bad_alloc);
        CHECK(on.holds(kept));
        on.append(text);
        CHECK(on.holds(kept + text));
    }
}

TEST_CASE("kept_bytes: nothing is allocated once the pool is warm") {
    bench on;
    std::size_t before = 0;
    const std::string frame = numbered(1'000);
    for (int round = 0; round != 200; ++round) {
        if (round == 1) before = allocations::made;
        for (int i = 0; i != 10; ++i) on.append(frame);
        while (on.kept.size() > 300) on.consume(300);
        on.append(frame);
        on.consume(on.kept.size());
    }
    CHECK(allocations::made == before);
}

TEST_CASE("kept_bytes: no memory is needed while what was taken leaves room enough") {
    bench on;
    const std::string text = numbered(4'000);
    on.append(text);
    on.consume(3'000);
    allocations::fail_in = 1;
    on.append(std::string_view{text}.substr(0, 2'000));
    CHECK(allocations::fail_in == 1);
    allocations::fail_in = 0;
    CHECK(on.holds(text.substr(3'000) + text.substr(0, 2'000)));
}

TEST_CASE("kept_bytes: who always leaves a little costs no more memory with time") {
    bench on;
    const std::string frame = numbered(1'000);
    on.append("rest");
    for (int i = 0; i != 100; ++i) {
        on.append(frame);
        on.consume(frame.size());
    }
    const std::size_t before = allocations::made;
    for (int i = 0; i != 10'000; ++i) {
        on.append(frame);
        on.consume(frame.size());
    }
    CHECK(on.kept.size() == 4);
    CHECK(allocations::made == before);
}

TEST_CASE("kept_bytes: a megabyte that comes byte by byte moves a few times only") {
    bench on;
    const std::string all = numbered(1 << 20);
    const std::size_t before = allocations::made;
    const void* where = nullptr;
    std::size_t moved = 0;
    for (const char& c : all) {
        on.append({&c, 1});
        if (where != on.kept.view().data()) moved += on.kept.size();
        where = on.kept.view().data();
    }
    CHECK(on.holds(all));
    CHECK(allocations::made - before < 20);
    CHECK(moved < 4 * all.size());
}

TEST_CASE("kept_bytes: taken slower than it comes, each byte moves a few times only") {
    bench on;
    const std::string chunk = numbered(1'000);
    std::size_t received = 0;
    std::size_t moved = 0;
    for (int i = 0; i != 2'000; ++i) {
        const void* const where = on.kept.view().data();
        on.append(chunk);
        received += chunk.size();
        if (where != on.kept.view().data()) moved += on.kept.size();
        on.consume(900);
    }
    CHECK(moved < 4 * received);
}
