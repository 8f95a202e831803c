// Blocks that are used again: their sizes, which ones are kept, and that all are given back.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/loop/block_pool.hpp>

#include "allocations.hpp"

using tcp::detail::block_pool;

namespace {

static_assert(!std::is_copy_constructible_v<block_pool>);
static_assert(!std::is_copy_assignable_v<block_pool>);
static_assert(block_pool::block_size(0) == block_pool::block_size(1));

constexpr std::size_t kibibyte = 1024;
constexpr std::size_t largest = 256 * kibibyte;     // of the blocks that are kept
constexpr std::size_t most_kept = 1024 * kibibyte;  // of each size

struct block {
    void* memory;
    std::size_t size;
};

/// Writes on all of it, so that ASan sees what is too short.
block take(block_pool& pool, std::size_t least) {
    const block taken{pool.allocate(least), block_pool::block_size(least)};
    std::memset(taken.memory, 0x5A, taken.size);
    return taken;
}
void give(block_pool& pool, const block& taken) { pool.free(taken.memory, taken.size); }

}  // namespace

TEST_CASE("block_pool: a block is as large as asked for, and at most half as large again") {
    for (std::size_t least = 0; least < 600 * kibibyte; least += least < 5'000 ? 1 : 97) {
        const std::size_t size = block_pool::block_size(least);
        CAPTURE(least);
        REQUIRE(size >= least);
        REQUIRE(size >= 128);
        REQUIRE(size <= std::max<std::size_t>(128, least + least / 2));
        REQUIRE(size % 64 == 0);
        // The size of a block is the size of the block that has this size: it is given back so.
        REQUIRE(block_pool::block_size(size) == size);
        if (size <= largest)
            REQUIRE((std::has_single_bit(size) || std::has_single_bit(size / 3)));
        else
            REQUIRE(size < least + 128);
    }
    CHECK(block_pool::block_size(128) == 128);
    CHECK(block_pool::block_size(129) == 192);
    CHECK(block_pool::block_size(192) == 192);
    CHECK(block_pool::block_size(193) == 256);
    CHECK(block_pool::block_size(257) == 384);
    CHECK(block_pool::block_size(largest) == largest);
    CHECK(block_pool::block_size(largest + 1) == largest + 128);
}

TEST_CASE("block_pool: a block given back is the next one of its size" *
          doctest::skip(!allocations::counted)) {
    block_pool pool;
    for (const std::size_t least : {std::size_t{1}, std::size_t{129}, std::size_t{193},
                                    3 * kibibyte, 4 * kibibyte, largest}) {
        CAPTURE(least);
        const block first = take(pool, least);
        const block second = take(pool, least);
        CHECK(first.memory != second.memory);
        CHECK(reinterpret_cast<std::uintptr_t>(first.memory) % alignof(std::max_align_t) == 0);
        give(pool, first);
        give(pool, second);
        const std::size_t before = allocations::made;
        const block third = take(pool, least);  // the one given back last is warm
        const block fourth = take(pool, least);
        CHECK(third.memory == second.memory);
        CHECK(fourth.memory == first.memory);
        CHECK(allocations::made == before);
        const block fifth = take(pool, least);
        CHECK(allocations::made == before + 1);
        for (const block& each : {third, fourth, fifth}) give(pool, each);
    }
}

TEST_CASE("block_pool: one size does not serve another" * doctest::skip(!allocations::counted)) {
    block_pool pool;
    give(pool, take(pool, 128));
    give(pool, take(pool, 512));
    for (const std::size_t size : {192U, 256U, 384U}) {
        const std::size_t before = allocations::made;
        const block between = take(pool, size);
        CHECK(allocations::made == before + 1);
        give(pool, between);
    }
}

TEST_CASE("block_pool: what it keeps is bounded" * doctest::skip(!allocations::counted)) {
    CAPTURE(most_kept);  // doctest's own memory for captures is there from now on
    const std::size_t live_before = allocations::live;
    for (const std::size_t size : {std::size_t{128}, 4 * kibibyte, 128 * kibibyte, largest}) {
        CAPTURE(size);
        block_pool pool;
        std::vector<block> blocks;
        blocks.reserve(2 * most_kept / size);
        const std::size_t live_then = allocations::live;
        while (blocks.size() != 2 * most_kept / size) blocks.push_back(take(pool, size));
        for (const block& each : blocks) give(pool, each);
        CHECK((allocations::live - live_then) * size == most_kept);

        // What is taken out of it makes room again.
        const std::size_t made_then = allocations::made;
        for (int round = 0; round != 5; ++round) {
            blocks.clear();
            while (blocks.size() != most_kept / size) blocks.push_back(take(pool, size));
            for (const block& each : blocks) give(pool, each);
        }
        CHECK(allocations::made == made_then);
        CHECK((allocations::live - live_then) * size == most_kept);
    }
    CHECK(allocations::live == live_before);
}

TEST_CASE("block_pool: a burst of one size does not cost the others their blocks for ever") {
    block_pool pool;
    std::vector<block> burst;
    while (burst.size() != most_kept / 4 / kibibyte) burst.push_back(take(pool, 4 * kibibyte));
    for (const block& each : burst) give(pool, each);
    for (int warming = 0; warming != 10; ++warming) give(pool, take(pool, 64 * kibibyte));
    const std::size_t before = allocations::made;
    for (int message = 0; message != 100; ++message) give(pool, take(pool, 64 * kibibyte));
    CHECK(allocations::made == before);
}

TEST_CASE("block_pool: the largest are not kept") {
    block_pool pool;
    const std::size_t live_before = allocations::live;
    give(pool, take(pool, largest + 1));
    give(pool, take(pool, 10 * largest));
    CHECK(allocations::live == live_before);
}

TEST_CASE("block_pool: random traffic, no two blocks overlap and all are given back") {
    const std::size_t live_before = allocations::live;
    {
        block_pool pool;
        struct filled {
            block memory;
            unsigned char with;
        };
        std::vector<filled> held;
        held.reserve(64);
        std::mt19937_64 dice{7};
        bool intact = true;
        for (int step = 0; step != 20'000; ++step) {
            if (held.size() < 64 && dice() % 2 == 0) {
                const block taken = take(pool, std::size_t{1} << dice() % 20);
                const auto with = static_cast<unsigned char>(step);
                const std::size_t touched = std::min<std::size_t>(taken.size, 600);
                std::memset(taken.memory, with, touched);
                held.push_back({taken, with});
            } else if (!held.empty()) {
                const std::size_t i = dice() % held.size();
                const auto* const data = static_cast<const unsigned char*>(held[i].memory.memory);
                const std::size_t touched = std::min<std::size_t>(held[i].memory.size, 600);
                intact = intact && std::all_of(data, data + touched,
                                               [&](unsigned char c) { return c == held[i].with; });
                give(pool, held[i].memory);
                held[i] = held.back();
                held.pop_back();
            }
        }
        CHECK(intact);
        for (const filled& each : held) give(pool, each.memory);
    }
    CHECK(allocations::live == live_before);
}

TEST_CASE("62 block_pool: no memory is said, and changes nothing" *
          doctest::skip(!allocations::counted)) {
    block_pool pool;
    for (const std::size_t least : {std::size_t{1}, 4 * kibibyte, 2 * largest}) {
        allocations::fail_in = 1;
        CHECK_THROWS_AS(pool.allocate(least), std::bad_alloc);
        allocations::fail_in = 0;
        give(pool, take(pool, least));
    }
    allocations::fail_in = 1;  // a kept block needs none
    give(pool, take(pool, 4 * kibibyte));
    CHECK(allocations::fail_in == 1);
    allocations::fail_in = 0;
}
