// Where handlers come from: copies of a prototype, or what a factory returns.
#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <doctest/doctest.h>

#include <tcp/loop/handler_source.hpp>

#include "allocations.hpp"

using tcp::detail::handler_source;

namespace {

/// Counts what is done to all of its kind.
struct counted {
    static inline int alive = 0, copies = 0, moves = 0;
    static inline bool copy_throws = false;
    static void start() {
        alive = copies = moves = 0;
        copy_throws = false;
    }

    int value = 0;

    explicit counted(int v = 0) : value{v} { ++alive; }
    counted(const counted& from) : value{from.value} {
        if (copy_throws) throw std::runtime_error("copy");
        ++alive;
        ++copies;
    }
    counted(counted&& from) noexcept : value{std::exchange(from.value, -1)} {
        ++alive;
        ++moves;
    }
    counted& operator=(const counted&) = delete;
    ~counted() { --alive; }
};

struct move_only {
    std::unique_ptr<int> state;
};

struct immovable {
    explicit immovable(int v) : value{v} {}
    immovable(const immovable&) = delete;
    immovable& operator=(const immovable&) = delete;
    int value;
};

/// Memory for one handler, as a slot has it.
template <class Handler>
class room {
public:
    explicit room(const handler_source<Handler>& from) { from.make(storage_); }
    room(const room&) = delete;
    room& operator=(const room&) = delete;
    ~room() { get().~Handler(); }
    Handler& get() { return *std::launder(reinterpret_cast<Handler*>(storage_)); }
    Handler* operator->() { return &get(); }

private:
    alignas(Handler) std::byte storage_[sizeof(Handler)];
};

using source_of_counted = handler_source<counted>;
static_assert(!std::is_copy_constructible_v<source_of_counted>);
static_assert(!std::is_move_constructible_v<source_of_counted>);
static_assert(!std::is_copy_assignable_v<source_of_counted>);
static_assert(!std::is_convertible_v<counted, source_of_counted>);

}  // namespace

TEST_CASE("handler_source: each handler is a copy of the prototype") {
    counted::start();
    {
        const source_of_counted source{counted{7}};
        CHECK(counted::alive == 1);  // the prototype
        CHECK(counted::copies == 0);
        CHECK(counted::moves == 1);
        {
            room first{source}, second{source};
            CHECK(counted::copies == 2);
            CHECK(counted::moves == 1);
            CHECK(first->value == 7);
            first->value = 8;  // neither the prototype nor the other has to do with it
            CHECK(second->value == 7);
            room third{source};
            CHECK(third->value == 7);
            CHECK(counted::alive == 4);
        }
        CHECK(counted::alive == 1);
    }
    CHECK(counted::alive == 0);
}

TEST_CASE("handler_source: a prototype that stays the caller's is copied once") {
    counted::start();
    counted mine{5};
    const counted& read_only = mine;
    {
        const source_of_counted source{mine};
        const source_of_counted another{read_only};
        CHECK(counted::copies == 2);
        mine.value = 6;
        CHECK(room { source } -> value == 5);
        CHECK(room { another } -> value == 5);
    }
    CHECK(counted::alive == 1);
}

TEST_CASE("handler_source: the prototype is copied as const") {
    struct picky {
        int value = 0;
        picky() = default;
        picky(picky&) : value{1} {}
        picky(const picky&) : value{2} {}
        picky(picky&&) : value{3} {}
    };
    const handler_source<picky> source{picky{}};
    CHECK(room { source } -> value == 2);
}

TEST_CASE("handler_source: a factory is called once for each handler, and keeps its state") {
    counted::start();
    int calls = 0;
    {
        const source_of_counted source{[&calls, next = 0]() mutable {
            ++calls;
            return counted{++next};
        }};
        CHECK(calls == 0);
        room first{source}, second{source};
        CHECK(calls == 2);
        CHECK(first->value == 1);
        CHECK(second->value == 2);
        CHECK(counted::copies == 0);
        CHECK(counted::moves == 0);
    }
    CHECK(counted::alive == 0);
}

TEST_CASE("handler_source: a factory makes what can be neither copied nor moved") {
    const handler_source<move_only> unique{[] { return move_only{std::make_unique<int>(3)}; }};
    CHECK(*room { unique } -> state == 3);
    const handler_source<immovable> fixed{[] { return immovable{4}; }};
    CHECK(room { fixed } -> value == 4);
}

TEST_CASE("handler_source: every kind of factory") {
    struct functor {
        int value;
        counted operator()() const { return counted{value}; }
    };
    struct only_mutable {
        std::unique_ptr<int> value;
        counted operator()() { return counted{++*value}; }
    };
    static constexpr auto make = [] { return counted{9}; };
    counted (*const pointer)() = +make;

    CHECK(room {
        source_of_counted {
            functor { 5 }
        }
    } -> value == 5);
    CHECK(room {
        source_of_counted {
            only_mutable { std::make_unique<int>(5) }
        }
    } -> value == 6);
    CHECK(room {
        source_of_counted { pointer }
    } -> value == 9);
    CHECK(room {
        source_of_counted { *pointer }
    } -> value == 9);
    CHECK(room {
        source_of_counted { make }
    } -> value == 9);
    CHECK(room {
        source_of_counted {
            [] { return 11; }
        }
    } -> value == 11);  // what a handler is made of
}

TEST_CASE("handler_source: a factory that stays the caller's is copied") {
    int next = 0;
    const auto factory = [&next, own = 10]() mutable { return counted{++next + ++own}; };
    const source_of_counted source{factory};
    CHECK(room { source } -> value == 12);
    CHECK(room { source } -> value == 14);
}

TEST_CASE("handler_source: a prototype that could be called is a prototype") {
    struct both {
        int value = 1;
        both operator()() const { return both{2}; }
    };
    const handler_source<both> source{both{}};
    CHECK(room { source } -> value == 1);
}

TEST_CASE("18 handler_source: what a copy or a factory throws comes out, and nothing is left") {
    counted::start();
    {
        const source_of_counted prototype{counted{1}};
        alignas(counted) std::byte storage[sizeof(counted)];
        counted::copy_throws = true;
        CHECK_THROWS_WITH(prototype.make(storage), "copy");
        counted::copy_throws = false;
        CHECK(counted::alive == 1);
        CHECK(room { prototype } -> value == 1);

        const source_of_counted factory{[calls = 0]() mutable {
            if (++calls % 2 != 0) throw std::runtime_error("factory");
            return counted{calls};
        }};
        CHECK_THROWS_WITH(factory.make(storage), "factory");
        CHECK(room { factory } -> value == 2);
        CHECK_THROWS_WITH(factory.make(storage), "factory");
    }
    CHECK(counted::alive == 0);

    // A prototype that cannot be taken in.
    const counted mine{1};
    counted::copy_throws = true;
    const std::size_t live_before = allocations::live;
    CHECK_THROWS_WITH(source_of_counted{mine}, "copy");
    counted::copy_throws = false;
    CHECK(allocations::live == live_before);
    CHECK(counted::alive == 1);
}

TEST_CASE("handler_source: the state of a factory lives as long as the source") {
    const auto shared = std::make_shared<int>(1);
    {
        const source_of_counted source{[shared] { return counted{*shared}; }};
        CHECK(shared.use_count() == 2);
        CHECK(room { source } -> value == 1);
        CHECK(shared.use_count() == 2);
    }
    CHECK(shared.use_count() == 1);
}

TEST_CASE("handler_source: making a handler allocates nothing of its own") {
    const source_of_counted prototype{counted{1}};
    const source_of_counted factory{[] { return counted{2}; }};
    const std::size_t before = allocations::made;
    {
        room one{prototype};
        room two{factory};
        CHECK(one->value + two->value == 3);
    }
    CHECK(allocations::made == before);
}

TEST_CASE("handler_source: a handler with an alignment of its own") {
    struct alignas(64) wide {
        int value = 3;
    };
    const handler_source<wide> source{wide{}};
    room one{source};
    CHECK(one->value == 3);
}
