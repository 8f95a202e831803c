// What a server has counted, after histories that are known. loop/loop_counters.cpp has the sums.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/statistics.hpp>

using namespace std::chrono_literals;
using tcp::closed_by;

namespace {

static_assert(std::is_same_v<tcp::statistics, tcp::v0_1::statistics>);
static_assert(std::is_aggregate_v<tcp::statistics>);
static_assert(std::is_trivially_copyable_v<tcp::statistics>);
static_assert(std::extent_v<decltype(tcp::statistics::closed_by)> == tcp::closed_by_count);

/// Does what it is told: "close", "abort", "throw"; sends back everything else.
struct obedient {
    void on_data(tcp::connection& peer, tcp::bytes data) {
        if (tcp::as_text(data) == "close") return peer.close();
        if (tcp::as_text(data) == "abort") return peer.abort();
        if (tcp::as_text(data) == "throw") throw std::runtime_error("as told");
        peer.send(data);
    }
};

struct reluctant : obedient {
    void on_open(tcp::connection&) { throw std::runtime_error("no"); }
};

/// Cannot always be made.
struct rare : obedient {
    static rare make() { throw std::runtime_error("none left"); }
};

template <class Handler>
struct served {
    tcp::simulation world;
    tcp::server<Handler, tcp::simulated_engine> server;

    template <class Source = Handler>
    explicit served(Source source = {}, const tcp::options& settings = {},
                    const tcp::simulation::faults& weather = {})
        : world{1, weather}, server{source, settings, world} {
        server.bind(7);
        server.listen();
    }

    tcp::simulation::client connect(const std::string& text = {}) {
        auto client = world.connect(7);
        client.send(text);
        return client;
    }
    tcp::statistics after(std::chrono::milliseconds length = 100ms) {
        server.run_for(length);
        return server.statistics();
    }
};

std::uint64_t closed(const tcp::statistics& s, closed_by why) {
    return s.closed_by[static_cast<std::size_t>(why)];
}

/// What is so whatever happened.
void check_sums(const tcp::statistics& s) {
    std::uint64_t sum = 0;
    for (const std::uint64_t each : s.closed_by) sum += each;
    CHECK(s.closed == sum);
    CHECK(s.accepted == s.open + s.closed);
}

}  // namespace

TEST_CASE("statistics: nothing at first, and nothing for a server that only listens") {
    const tcp::statistics none;
    const tcp::statistics fresh = served<obedient>{}.after();
    for (const tcp::statistics& s : {none, fresh}) {
        CHECK(s.accepted + s.refused + s.open + s.closed == 0);
        CHECK(s.bytes_received + s.bytes_sent + s.accept_errors + s.pauses == 0);
        for (const std::uint64_t each : s.closed_by) CHECK(each == 0);
    }
}

TEST_CASE("statistics: connections and bytes") {
    served<obedient> on;
    auto first = on.connect("hello");
    auto second = on.connect();
    tcp::statistics s = on.after();
    CHECK(s.accepted == 2);
    CHECK(s.open == 2);
    CHECK(s.closed == 0);
    CHECK(s.bytes_received == 5);
    CHECK(s.bytes_sent == 5);

    second.send("wide world");
    first.close();
    s = on.after();
    CHECK(s.accepted == 2);
    CHECK(s.open == 1);
    CHECK(s.closed == 1);
    CHECK(s.bytes_received == 15);
    CHECK(s.bytes_sent == 15);
    CHECK(s.refused == 0);
    CHECK(s.accept_errors == 0);
    CHECK(s.pauses == 0);
    check_sums(s);
}

TEST_CASE("statistics: each end is counted with its reason") {
    served<obedient> on;
    auto finishes = on.connect("hi"), resets = on.connect("hi"), closes = on.connect("close");
    on.connect("abort");
    on.connect("throw");
    on.connect();  // stays
    on.after();
    finishes.shutdown_send();
    resets.reset();
    closes.close();
    tcp::statistics s = on.after();
    CHECK(closed(s, closed_by::peer_finished) == 1);
    CHECK(closed(s, closed_by::peer_reset) == 1);
    CHECK(closed(s, closed_by::handler_closed) == 1);
    CHECK(closed(s, closed_by::handler_aborted) == 1);
    CHECK(closed(s, closed_by::handler_threw) == 1);
    CHECK(s.closed == 5);
    CHECK(s.open == 1);
    check_sums(s);

    on.server.stop();
    s = on.after();
    CHECK(closed(s, closed_by::server_stopping) == 1);
    CHECK(s.open == 0);
    check_sums(s);
}

TEST_CASE("statistics: the drain's deadline") {
    served<obedient> on;
    on.connect("hi");
    on.after();
    on.server.drain(10ms);
    const tcp::statistics s = on.after();
    CHECK(closed(s, closed_by::drain_deadline) == 1);
    CHECK(s.open == 0);
    check_sums(s);
}

TEST_CASE(
    "statistics: a throwing on_open is an accepted connection, a handler not made a refused") {
    served<reluctant> opens;
    opens.connect();
    tcp::statistics s = opens.after();
    CHECK(s.accepted == 1);
    CHECK(s.refused == 0);
    CHECK(closed(s, closed_by::handler_threw) == 1);
    check_sums(s);

    served<rare> makes{&rare::make};
    makes.connect();
    s = makes.after();
    CHECK(s.accepted == 0);
    CHECK(s.refused == 1);
    CHECK(s.open + s.closed == 0);
    check_sums(s);
}

TEST_CASE("statistics: limits, the close deadline and pauses") {
    const tcp::simulation::faults narrow{
        .server_window = 1000, .client_window = 1000, .send_capacity = 1000};
    served<obedient> marks{
        {}, {.high_mark = 5'000, .low_mark = 2'000, .receive_buffer = 500}, narrow};
    auto client = marks.connect(std::string(50'000, 'x'));
    client.pause_receive();
    CHECK(marks.after().pauses == 1);
    CHECK(marks.after().pauses == 1);
    client.resume_receive();
    tcp::statistics s = marks.after(10s);
    CHECK(s.bytes_received == 50'000);
    CHECK(s.bytes_sent == 50'000);
    CHECK(s.pauses == 1);
    client.pause_receive();
    client.send(std::string(50'000, 'y'));
    CHECK(marks.after(10s).pauses == 2);

    struct floods {
        void on_open(tcp::connection& peer) {
            for (int i = 0; i != 100; ++i) peer.send("0123456789");
        }
    };
    served<floods> limited{{}, {.send_queue_limit = 50}, narrow};
    limited.connect();
    s = limited.after();
    CHECK(closed(s, closed_by::limit) == 1);
    check_sums(s);

    served<floods> deaf{{}, {.close_timeout = 1s}, {.client_window = 10, .send_capacity = 10}};
    auto asleep = deaf.connect();
    asleep.pause_receive();
    deaf.after();
    asleep.shutdown_send();  // so the server closes, with something unsent
    s = deaf.after(5s);
    CHECK(closed(s, closed_by::deadline) == 1);
    check_sums(s);
}

TEST_CASE("statistics: a copy does not change any more") {
    served<obedient> on;
    auto client = on.connect("hi");
    const tcp::statistics before = on.after();
    client.send("more");
    on.after();
    CHECK(before.bytes_received == 2);
    CHECK(on.server.statistics().bytes_received == 6);
}
