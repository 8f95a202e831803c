// tcp::promise and tcp::future: what a coroutine waits for that another thread, or a later moment,
// gives it.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <tcp/promise.hpp>
#include <tcp/task.hpp>

#include "beds.hpp"
#include "blocking_client.hpp"

using namespace std::chrono_literals;
using conformance::stage;
using tcp::connection;
using tcp::promise;
using tcp::task;
using tests::blocking_client;

namespace {

using handler = std::function<task<>(connection&)>;

/// A value that counts how many of it there are.
class counted {
public:
    explicit counted(int& alive) : alive_{&alive} { ++*alive_; }
    counted(counted&& other) noexcept : alive_{other.alive_} { ++*alive_; }
    counted& operator=(counted&&) = delete;
    ~counted() { --*alive_; }

private:
    int* alive_;
};

/// What can be made of a number below ten.
struct digit {
    digit(int from) : is{from} {
        if (from > 9) throw std::out_of_range{"no digit"};
    }
    int is;
};

task<std::unique_ptr<int>> ask(connection& peer, int number) {
    promise<std::unique_ptr<int>> made{peer};
    auto answer = made.get_future();
    made.set_value(std::make_unique<int>(number));
    auto got = co_await answer;
    co_return got ? std::move(*got) : nullptr;
}

}  // namespace

TEST_ON_BEDS("promise: set later, and what comes meanwhile waits", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::optional<promise<std::string>> open;
    std::string heard;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        for (int i = 0; i != 2; ++i) {
            const auto word = co_await peer.receive_exactly(3);
            if (!word) co_return;
            open.emplace(peer);
            auto future = open->get_future();
            const auto answer = co_await future;
            co_await peer.send(answer.value_or("none"));
            try {
                co_await future;
                heard = "twice";
            } catch (const std::system_error& e) {
                if (e.code() != std::errc::invalid_argument) heard = "another error";
            }
        }
        const auto rest = co_await peer.receive();
        heard += rest.text();
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("onetwothree");
    for (const std::string answer : {"first", "second"}) {
        REQUIRE(on.bed.until(server, [&] { return open.has_value(); }));
        on.bed.run(server, 5ms);
        CHECK(heard.empty());
        promise<std::string> moved = std::move(*open);
        CHECK_FALSE(open->set_value("of one that was moved from"));
        open.reset();
        CHECK(moved.set_value(answer));
        CHECK_FALSE(moved.set_value("of one that has set it"));
    }
    REQUIRE(on.bed.until(server, [&] { return client.ended() || client.received_size() >= 11; }));
    CHECK(client.received() == "firstsecond");
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    CHECK(heard == "three");
}

TEST_ON_BEDS("promise: set at once, not at all, long before, or assigned over", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::vector<int> got;
    int slept = 0;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        for (int i = 0; i != 1000; ++i) {
            const auto unique = co_await ask(peer, i);
            got.push_back(unique != nullptr ? *unique : -1);
        }
        std::optional<promise<int>> one{peer};
        auto dropped = one->get_future();
        one.reset();
        const auto from_dropped = co_await dropped;
        got.push_back(from_dropped.value_or(-2));

        promise<int> early{peer};
        auto waits = early.get_future();
        early.set_value(7);
        slept = co_await peer.sleep_for(20ms) ? 1 : 0;
        const auto from_waits = co_await waits;
        got.push_back(from_waits.value_or(-3));

        promise<int> before{peer}, after{peer};
        auto of_before = before.get_future();
        auto of_after = after.get_future();
        before = std::move(after);
        const auto from_of_before = co_await of_before;
        got.push_back(from_of_before.value_or(-4));
        before.set_value(8);
        const auto from_of_after = co_await of_after;
        got.push_back(from_of_after.value_or(-5));
        try {
            auto of_nobody = before.get_future();
            co_await of_nobody;
        } catch (const std::system_error&) {
            got.push_back(-6);
        }
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    REQUIRE(got.size() == 1005);
    for (int i = 0; i != 1000; ++i) CHECK(got[static_cast<std::size_t>(i)] == i);
    const std::vector<int> rest{got.begin() + 1000, got.end()};
    CHECK(rest == std::vector<int>{-2, 7, -4, 8, -6});
    CHECK(slept == 1);
}

TEST_ON_BEDS("promise: the end of the connection comes first", Bed, CONFORMANCE_BEDS) {
    enum class how { client_resets, server_stops, server_is_destroyed };
    for (const how ending : {how::client_resets, how::server_stops, how::server_is_destroyed}) {
        CAPTURE(static_cast<int>(ending));
        int alive = 0, empty = 0, after = 0;
        std::optional<promise<counted>> open;
        {
            stage<Bed> on;
            auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
                co_await peer.send("?");
                open.emplace(peer);
                auto value = open->get_future();
                if (!co_await value) ++empty;
                promise<counted> late{peer};
                if (!co_await late.get_future()) ++after;  // it is not come back from
                ++after;
            }});
            auto client = on.bed.connect(on.bed.listen(server));
            REQUIRE(on.bed.until(server, [&] { return open.has_value(); }));
            if (ending == how::client_resets) {
                REQUIRE(on.bed.until(server, [&] { return client.received() == "?"; }));
                client.send("x");
                client.reset();
                on.bed.run(server, 50ms);
            }
            if (ending != how::server_is_destroyed) {
                server.stop();
                server.poll();
                CHECK(empty == 1);
                CHECK_FALSE(open->set_value(counted{alive}));
                CHECK(alive == 0);
            }
        }
        CHECK(empty == 1);
        CHECK(after == 0);
        CHECK_FALSE(open->set_value(counted{alive}));
        open.reset();
        CHECK(alive == 0);
    }
}

TEST_ON_BEDS("promise: a value that nobody takes is destroyed, and so is one that cannot be made",
             Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    int alive = 0;
    std::vector<int> got;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        {
            promise<counted> unread{peer};
            auto future = unread.get_future();
            unread.set_value(counted{alive});
        }
        promise<digit> made{peer};
        auto future = made.get_future();
        CHECK_THROWS_AS(made.set_value(10), std::out_of_range);
        CHECK(made.set_value(4));
        const auto value = co_await future;
        got.push_back(value ? value->is : -1);
        promise<counted> dropped{peer};  // and its future, while it waits for something else
        dropped.set_value(counted{alive});
        co_await peer.sleep_for(1ms);
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(got == std::vector<int>{4});
    CHECK(alive == 0);
}

TEST_ON_BEDS("promise: of an earlier connection in the same place", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::optional<tcp::future<counted>> kept;
    std::optional<promise<counted>> open;
    std::string said;
    int alive = 0;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        if (!kept) {
            open.emplace(peer);
            kept.emplace(open->get_future());
            co_return;
        }
        try {
            co_await *kept;
        } catch (const std::system_error& e) {
            said = e.what();
        }
    }});
    const auto at = on.bed.listen(server);
    for (int i = 0; i != 2; ++i) {
        auto client = on.bed.connect(at);
        client.shutdown_send();
        REQUIRE(
            on.bed.until(server, [&] { return client.ended() && server.statistics().open == 0; }));
    }
    CHECK(said.find("of this future is over") != said.npos);
    CHECK_FALSE(open->set_value(counted{alive}));
    CHECK(alive == 0);  // though its future is still there
}

TEST_ON_BEDS("promise: of another connection", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    connection* first = nullptr;
    std::error_code said;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        if (first == nullptr) {
            first = &peer;
            co_await peer.receive();
            co_return;
        }
        promise<int> foreign{*first};
        auto future = foreign.get_future();
        try {
            co_await future;
        } catch (const std::system_error& e) {
            said = e.code();
        }
    }});
    const auto at = on.bed.listen(server);
    auto stays = on.bed.connect(at);
    REQUIRE(on.bed.until(server, [&] { return first != nullptr; }));
    auto client = on.bed.connect(at);
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(said == std::errc::invalid_argument);
    stays.shutdown_send();
    CHECK(on.bed.until(server, [&] { return stays.ended(); }));
}

TEST_ON_BEDS("promise: answers of other threads, of which some clients do not wait (K)", Bed,
             SYSTEM_BEDS) {
    stage<Bed> on;
    std::atomic<int> wrong{0}, none{0};
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        std::vector<std::jthread> workers;  // joined by their destructors
        for (int i = 0;; ++i) {
            const auto word = co_await peer.receive_exactly(1);
            if (!word) break;
            const char said = word.text()[0];
            promise<char> made{peer};
            auto future = made.get_future();
            workers.emplace_back([said, i, made = std::move(made)]() mutable {
                if (i % 3 == 0) std::this_thread::sleep_for(100us);
                if (i % 7 != 6) made.set_value(said);
            });
            const auto answer = co_await future;
            if (answer && *answer != said) ++wrong;
            if (!answer) ++none;
            co_await peer.send(std::string(1, answer.value_or('-')));
        }
    }});
    const auto at = on.bed.listen(server);
    std::thread runner{[&] { server.run(); }};
    for (int round = 0; round != 50; ++round) {
        const blocking_client stays{at};
        std::vector<std::unique_ptr<blocking_client>> leave;
        for (int i = 0; i != 4; ++i) {
            leave.push_back(std::make_unique<blocking_client>(at));
            leave.back()->send("abcdefgh");
        }
        stays.send("01234567");
        leave.clear();  // while they are asked for
        CHECK(stays.receive(8) == "012345-7");
    }
    server.stop();
    runner.join();
    CHECK(wrong == 0);
    CHECK(none >= 50);
}

TEST_ON_BEDS("promise: destroyed as soon as its value is there (K)", Bed, SYSTEM_BEDS) {
    stage<Bed> on;
    int sum = 0;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        std::vector<std::jthread> workers;
        for (int i = 0; i != 300; ++i) {
            promise<int> made{peer};  // gone while its worker is still on its way out of it
            auto future = made.get_future();
            workers.emplace_back([&made] { made.set_value(1); });
            const auto one = co_await future;
            sum += one.value_or(0);
        }
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(sum == 300);
}
