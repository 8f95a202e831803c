// Timers of handlers, behaviour 58: in a simulated world, where time can be looked at.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/timer.hpp>

using namespace std::chrono_literals;
using tcp::duration;

namespace {

struct story {
    tcp::simulation world{1};
    std::vector<duration> calls{};
    std::vector<tcp::close_reason> closes{};
    std::function<void(tcp::timer&, tcp::connection&)> opened{};
    std::function<void(tcp::timer&, tcp::connection&)> called{};
};

struct waiter {
    story* of;
    tcp::timer timer{};

    void start(tcp::connection& peer, duration after) {
        timer.start(peer, after, [this](tcp::connection& c) {
            of->calls.push_back(of->world.now());
            if (of->called) of->called(timer, c);
        });
    }
    void on_open(tcp::connection& peer) {
        if (of->opened) of->opened(timer, peer);
    }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        start(peer, duration::milliseconds(std::stoll(std::string{tcp::as_text(data)})));
    }
    void on_end(tcp::connection&) {}
    void on_close(tcp::connection& peer, const tcp::close_reason& why) {
        of->closes.push_back(why);
        start(peer, {});  // does nothing
        if (timer.waiting()) of->calls.push_back(duration::max());
    }
};

struct rig {
    story told{};
    tcp::server<waiter, tcp::simulated_engine> server{waiter{&told}, {}, told.world};
    tcp::simulation::client client = connect();

    tcp::simulation::client connect() {
        server.bind(7);
        server.listen();
        return told.world.connect(7);
    }
    void wait_for(const std::string& milliseconds) {
        client.send(milliseconds);
        server.run_for(5ms);
    }
};

}  // namespace

TEST_CASE("58 timer: called once, never early, late by a tick") {
    for (const long long length : {1, 2, 63, 64, 100, 5'000, 1'000'000}) {
        CAPTURE(length);
        rig r;
        const duration before = r.told.world.now();
        r.wait_for(std::to_string(length));
        r.server.run_for(duration::milliseconds(length * 3));
        REQUIRE(r.told.calls.size() == 1);
        CHECK(r.told.calls[0] - before >= duration::milliseconds(length));
        CHECK(r.told.calls[0] - before <= duration::milliseconds(length + 2));
    }
}

TEST_CASE("58 timer: 0 and the past come with the next millisecond, the largest never") {
    for (const char* const length : {"0", "-5", "-9223372036854775807"}) {
        rig r;
        r.wait_for(length);
        CHECK(r.told.calls.size() == 1);
    }
    rig r;
    r.wait_for("9223372036854775807");
    r.server.run_for(24h * 365 * 10);
    CHECK(r.told.calls.empty());
}

TEST_CASE("58 timer: one of the past that starts itself again is called once a millisecond") {
    struct late {
        duration by;
        int* calls;
        tcp::timer timer{};
        void on_open(tcp::connection& peer) { again(peer); }
        void again(tcp::connection& peer) {
            timer.start(peer, by, [this](tcp::connection& c) {
                if (++*calls < 10'000) again(c);
            });
        }
    };
    for (const duration by : {duration::milliseconds(-10'000), duration::nanoseconds(INT64_MIN)}) {
        tcp::simulation world{1};
        int calls = 0;
        tcp::server<late, tcp::simulated_engine> server{late{by, &calls}, {}, world};
        server.bind(7);
        server.listen();
        server.run_for(10s);  // there is a past
        const auto client = world.connect(7);
        server.run_for(100ms);
        CHECK(calls > 50);
        CHECK(calls <= 100);
        CHECK(client.connected());
    }
}

TEST_CASE("58 timer: started again, stopped, and both in its own call") {
    SUBCASE("again") {
        rig r;
        r.wait_for("100");
        r.wait_for("1000");
        r.server.run_for(900ms);
        CHECK(r.told.calls.empty());
        r.server.run_for(200ms);
        CHECK(r.told.calls.size() == 1);
    }
    SUBCASE("in its own call") {
        rig r;
        r.told.called = [&](tcp::timer& timer, tcp::connection& peer) {
            CHECK_FALSE(timer.waiting());
            if (r.told.calls.size() == 10) return;
            story* const told = &r.told;
            timer.start(peer, 0s, [told, &timer](tcp::connection& c) {
                told->calls.push_back(told->world.now());
                if (told->calls.size() < 10) told->called(timer, c);
            });
            timer.stop();
            timer.stop();
            timer.start(peer, 0s, [told, &timer](tcp::connection& c) {
                told->calls.push_back(told->world.now());
                if (told->calls.size() < 10) told->called(timer, c);
            });
            CHECK(timer.waiting());
        };
        r.wait_for("1");
        r.server.run_for(100ms);
        CHECK(r.told.calls.size() == 10);
    }
}

TEST_CASE("timer: what it does is done as in a hook") {
    SUBCASE("it sends and closes") {
        rig r;
        r.told.called = [](tcp::timer&, tcp::connection& peer) {
            peer.send("bye");
            peer.close();
        };
        r.wait_for("10");
        r.client.shutdown_send();
        r.server.run_for(1s);
        CHECK(r.client.received() == "bye");
        CHECK(r.client.ended());
        REQUIRE(r.told.closes.size() == 1);
        CHECK(r.told.closes[0].by == tcp::closed_by::handler_closed);
    }
    SUBCASE("it throws") {
        rig r;
        r.told.called = [](tcp::timer&, tcp::connection&) { throw 1; };
        r.wait_for("10");
        r.server.run_for(1s);
        REQUIRE(r.told.closes.size() == 1);
        CHECK(r.told.closes[0].by == tcp::closed_by::handler_threw);
        CHECK(r.client.was_reset());
    }
}

TEST_CASE("timer: it ends with its connection, and does not reach the next one in the slot") {
    rig r;
    tcp::timer elsewhere;  // not a part of the handler
    int called = 0;
    r.told.opened = [&](tcp::timer&, tcp::connection& peer) {
        if (!elsewhere.waiting())
            elsewhere.start(peer, 2s, [&called](tcp::connection&) { ++called; });
    };
    r.wait_for("1000");
    r.client.reset();
    r.server.run_for(500ms);
    CHECK(r.told.closes.size() == 1);
    auto next = r.told.world.connect(7);
    r.server.run_for(5s);
    CHECK(r.told.calls.empty());
    CHECK(called == 0);
    CHECK(r.server.statistics().open == 1);
    CHECK_FALSE(next.ended());
}

TEST_CASE("timer: it may outlive its server") {
    tcp::timer elsewhere;
    {
        rig r;
        r.told.opened = [&](tcp::timer&, tcp::connection& peer) {
            elsewhere.start(peer, 2s, [](tcp::connection&) {});
        };
        r.server.run_for(100ms);
        CHECK(elsewhere.waiting());
    }
    CHECK_FALSE(elsewhere.waiting());
    elsewhere.stop();
}

TEST_CASE("timer: a copy does not wait") {
    rig r;
    r.told.opened = [&](tcp::timer& timer, tcp::connection& peer) {
        timer.start(peer, 1s, [](tcp::connection&) {});
        tcp::timer copy{timer};
        CHECK_FALSE(copy.waiting());
        copy = timer;
        CHECK_FALSE(copy.waiting());
        CHECK(timer.waiting());
    };
    r.server.run_for(10ms);
    CHECK(r.server.statistics().open == 1);
}
