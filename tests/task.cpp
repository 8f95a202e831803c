// What a coroutine returns, and what it receives.
#include <chrono>
#include <memory>
#include <ostream>  // doctest prints error codes
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <doctest/doctest.h>

#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/task.hpp>

using namespace std::chrono_literals;
using tcp::received;
using tcp::task;

namespace {

static_assert(!std::is_copy_constructible_v<task<>>);
static_assert(!std::is_copy_assignable_v<task<>>);
static_assert(std::is_nothrow_move_constructible_v<task<int>>);
static_assert(std::is_nothrow_move_assignable_v<task<int>>);
static_assert(sizeof(task<>) == sizeof(void*));
static_assert(!std::is_convertible_v<received, bool>);
static_assert(std::is_convertible_v<received, tcp::bytes>);

task<> count(std::shared_ptr<int> counter) {
    ++*counter;
    co_return;
}
task<std::string> text(std::shared_ptr<int> counter) {
    ++*counter;
    co_return "a string that is too long to be inside the object";
}
task<std::unique_ptr<int>> moved(std::unique_ptr<int> number) { co_return number; }
task<const char*> pointer() { co_return "pointed to"; }

struct without_default {
    explicit without_default(int n) : number{n} {}
    int number;
};
task<without_default> made(int n) { co_return without_default{n}; }

}  // namespace

TEST_CASE("task: one that is never awaited does not begin, and lets go of what it was given") {
    const auto counter = std::make_shared<int>(0);
    {
        const auto never = count(counter);
        CHECK(counter.use_count() == 2);
        auto first = text(counter);
        auto second = std::move(first);
        second = text(counter);
        CHECK(counter.use_count() == 3);
        first = std::move(second);
        CHECK(counter.use_count() == 3);
    }
    CHECK(counter.use_count() == 1);
    CHECK(*counter == 0);
}

TEST_CASE("task: values of all kinds, in the coroutine of a simulated connection") {
    tcp::simulation world;
    const auto counter = std::make_shared<int>(0);
    bool done = false;
    const auto handler = [&](tcp::connection&) -> task<> {
        co_await count(counter);
        CHECK(*counter == 1);
        CHECK((co_await text(counter)).size() == 49);
        const auto kept = co_await moved(std::make_unique<int>(7));
        CHECK(*kept == 7);
        const std::string pointed = co_await pointer();
        CHECK(pointed == "pointed to");
        const auto thing = co_await made(9);
        CHECK(thing.number == 9);
        auto named = count(counter);
        co_await std::move(named);
        CHECK(*counter == 3);
        done = true;
    };
    tcp::server<std::remove_const_t<decltype(handler)>, tcp::simulated_engine> server{
        handler, {}, world};
    server.bind(7);
    server.listen();
    auto client = world.connect(7);
    client.shutdown_send();
    server.run_for(1s);
    CHECK(done);
    CHECK(client.ended());
    CHECK(counter.use_count() == 1);
}

TEST_CASE("received: bytes, the end, and errors") {
    const received end;
    CHECK_FALSE(end);
    CHECK(end.error() == std::error_code{});
    CHECK(end.size() == 0);
    CHECK(end.text().empty());

    const received some{tcp::as_bytes("some")};
    CHECK(some);
    CHECK(some.error() == std::error_code{});
    CHECK(some.text() == "some");
    CHECK(some.data().size() == 4);
    const tcp::bytes seen = some;
    CHECK(seen.data() == some.data().data());

    const received none{tcp::bytes{}};  // of receive_exactly(0)
    CHECK(none);
    CHECK(none.size() == 0);

    for (const tcp::error why : {tcp::error::receive_limit, tcp::error::incomplete}) {
        const received failed{why};
        CHECK_FALSE(failed);
        CHECK(failed.error() == why);
        CHECK(failed.size() == 0);
    }
}
