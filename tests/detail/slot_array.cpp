// An array that grows while its items stay where they are.
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/detail/slot_array.hpp>

using tcp::detail::slot_array;

namespace {

/// Counts its kind; after some, no more can be made.
struct item {
    static inline int alive = 0;
    static inline int makes_left = -1;  // so many are made; -1: all

    std::uint64_t value = 42;

    item() {
        if (makes_left == 0) throw std::bad_alloc{};
        if (makes_left > 0) --makes_left;
        ++alive;
    }
    item(const item&) = delete;
    item& operator=(const item&) = delete;
    ~item() { --alive; }
};

static_assert(!std::is_copy_constructible_v<slot_array<item>>);
static_assert(!std::is_copy_assignable_v<slot_array<item>>);
static_assert(std::is_same_v<decltype(std::declval<const slot_array<item>&>()[0]), const item&>);

}  // namespace

TEST_CASE("slot_array: empty, and owns nothing") {
    const slot_array<item> none;
    CHECK(none.size() == 0);
    CHECK(item::alive == 0);
}

TEST_CASE("slot_array: grows to hold an index, by whole chunks") {
    {
        slot_array<item, 8> array;
        array.grow_to(0);
        CHECK(array.size() == 8);
        CHECK(item::alive == 8);
        for (std::size_t i = 0; i != 8; ++i) {
            array.grow_to(i);  // there already
            CHECK(array.size() == 8);
            CHECK(array[i].value == 42);
        }
        array.grow_to(8);
        CHECK(array.size() == 16);
        array.grow_to(99);
        CHECK(array.size() == 104);
        array.grow_to(0);
        CHECK(array.size() == 104);
        CHECK(item::alive == 104);
    }
    CHECK(item::alive == 0);
}

TEST_CASE("slot_array: 64 to a chunk unless told otherwise, and as few as one") {
    slot_array<int> usual;
    usual.grow_to(0);
    CHECK(usual.size() == 64);

    slot_array<int, 1> single;
    single.grow_to(4);
    CHECK(single.size() == 5);
    for (std::size_t i = 0; i != 5; ++i) single[i] = static_cast<int>(i);
    for (std::size_t i = 0; i != 5; ++i) CHECK(single[i] == static_cast<int>(i));
}

TEST_CASE("slot_array: items stay where they are, each has its own place") {
    slot_array<std::size_t, 4> array;
    std::vector<std::size_t*> places;
    for (std::size_t i = 0; i != 1'000; ++i) {
        array.grow_to(i);
        array[i] = i;
        places.push_back(&array[i]);
    }
    const auto& read_only = array;
    bool same = true;
    for (std::size_t i = 0; i != 1'000; ++i)
        same = same && &array[i] == places[i] && &read_only[i] == places[i] && *places[i] == i;
    CHECK(same);
}

TEST_CASE("slot_array: items with an alignment of their own") {
    struct alignas(64) wide {
        char c = 'x';
    };
    slot_array<wide, 4> array;
    array.grow_to(9);
    for (std::size_t i = 0; i != array.size(); ++i) {
        CHECK(reinterpret_cast<std::uintptr_t>(&array[i]) % 64 == 0);
        CHECK(array[i].c == 'x');
    }
}

TEST_CASE("62 slot_array: what was there stays when it cannot grow") {
    {
        slot_array<item, 4> array;
        for (std::size_t size = 0; size != 400; size += 4) {
            for (int makes = 0; makes != 4; ++makes) {
                item::makes_left = makes;
                CHECK_THROWS_AS(array.grow_to(size), std::bad_alloc);
                CHECK(array.size() == size);
                CHECK(item::alive == static_cast<int>(size));
            }
            item::makes_left = -1;
            array.grow_to(size);
            array[size].value = size;
        }
        bool kept = true;
        for (std::size_t i = 0; i != 400; i += 4) kept = kept && array[i].value == i;
        CHECK(kept);

        // Several chunks at once: those that could be made are there.
        item::makes_left = 10;
        CHECK_THROWS_AS(array.grow_to(999), std::bad_alloc);
        item::makes_left = -1;
        CHECK(array.size() >= 400);
        CHECK(array.size() == static_cast<std::size_t>(item::alive));
        CHECK(array[array.size() - 1].value == 42);
        CHECK(array[396].value == 396);
    }
    CHECK(item::alive == 0);
}
