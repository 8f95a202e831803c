// Virtual time, wait() and wake() of the simulated engine.
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "rig.hpp"

using namespace simulated_tests;
using namespace std::chrono_literals;

TEST_CASE("virtual time stands still but for wait() and advance()") {
    rig r;
    CHECK(r.engine.now() == duration{});
    CHECK(r.poll().empty());
    CHECK(r.engine.now() == duration{});
    r.engine.wait(24h, r.sink);
    CHECK(r.engine.now() == duration{24h});
    r.world.advance(1h);
    CHECK(r.engine.now() == duration{25h});
    CHECK(r.world.now() == r.engine.now());
}

TEST_CASE("wait() ends at the first event, not later") {
    rig r{{.latency_min = 1ms, .latency_max = 1ms}};
    r.listen();
    r.world.connect(7);
    r.engine.wait(1h, r.sink);
    CHECK(r.take() == events{"accepted 0"});
    CHECK(r.engine.now() == duration{1ms});
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("scripts run at their time, in the order in which they were given") {
    rig r;
    std::string order;
    r.world.after(2s, [&] { order += 'c'; });
    r.world.after(1s, [&] {
        order += 'a';
        r.world.after(0s, [&] { order += 'b'; });
        CHECK(r.world.now() == duration{1s});
    });
    r.world.after(2s, [&] { order += 'd'; });
    r.engine.wait(1s, r.sink);
    CHECK(order == "ab");
    r.engine.wait(duration{24h}, r.sink);
    CHECK(order == "abcd");
}

TEST_CASE("an exception of a script leaves wait(), and the world goes on") {
    rig r;
    r.listen();
    r.world.connect(7);
    r.world.after(0s, [] { throw std::runtime_error("from the script"); });
    CHECK_THROWS_AS(r.engine.wait(1s, r.sink), std::runtime_error);
    CHECK(r.run() == events{"accepted 0"});
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("an exception of the sink leaves wait(), and the rest of the batch comes later") {
    rig r;
    r.listen();
    auto one = r.world.connect(7), two = r.world.connect(7);
    r.run();
    one.send("a");
    two.send("b");
    r.sink.react = [](const std::string&) { throw std::runtime_error("from the sink"); };
    CHECK_THROWS_AS(r.engine.wait(1s, r.sink), std::runtime_error);
    r.sink.react = nullptr;
    CHECK(r.run() == events{"received 0 a", "received 1 b"});
    for (std::uint32_t slot : {0u, 1u}) r.engine.close({slot, 1}, tcp::close_mode::reset);
}

TEST_CASE("several wakes become one event, which ends wait()") {
    rig r;
    r.engine.wake();
    r.engine.wake();
    r.engine.wait(1h, r.sink);
    CHECK(r.take() == events{"woken"});
    CHECK(r.engine.now() == duration{});
    r.world.after(1s, [&] { r.engine.wake(); });
    r.engine.wait(duration::max(), r.sink);
    CHECK(r.take() == events{"woken"});
    CHECK(r.engine.now() == duration{1s});
}

TEST_CASE("waiting for ever for nothing is a violation") {
    rig r;
    CHECK_THROWS_WITH_AS(r.engine.wait(duration::max(), r.sink),
                         doctest::Contains("nothing will ever happen in this simulation"),
                         std::logic_error);
    CHECK(r.world.violations().size() == 1);
}

TEST_CASE("unless a wake from another thread is expected") {
    rig r;
    r.world.expect_outside_wakes();
    for (int i = 0; i != 100; ++i) {
        std::thread other{[&] { r.engine.wake(); }};
        r.engine.wait(duration::max(), r.sink);
        other.join();
        CHECK(r.take() == events{"woken"});
    }
    CHECK(r.engine.now() == duration{});
}

TEST_CASE("spurious returns and late timeouts, as the faults say") {
    SUBCASE("early with nothing") {
        rig r{{.spurious_wait_per_mille = 500}};
        int early = 0;
        for (int i = 0; i != 100; ++i) {
            const duration before = r.engine.now();
            r.engine.wait(1s, r.sink);
            early += r.engine.now() == before;
        }
        CHECK(early > 20);
        CHECK(early < 80);
    }
    SUBCASE("late") {
        rig r{{.oversleep_max = 5ms}};
        bool late = false;
        for (int i = 0; i != 100; ++i) {
            const duration before = r.engine.now();
            r.engine.wait(1s, r.sink);
            CHECK(r.engine.now() >= before + 1s);
            CHECK(r.engine.now() <= before + 1005ms);
            late = late || r.engine.now() > before + 1s;
        }
        CHECK(late);
        const duration before = r.engine.now();
        r.engine.wait(0s, r.sink);
        CHECK(r.engine.now() == before);
    }
}

TEST_CASE("two engines share a world and its time") {
    rig r;
    tcp::simulated_engine other{tcp::options{}, r.world};
    recorder sink{other};
    std::error_code failure;
    other.bind(8, failure);
    other.listen(0, 16, failure);
    other.arm_accept(0, tcp::accept_mode::many);
    r.listen();
    auto client = r.world.connect(8);
    client.send("hello");
    CHECK(r.run().empty());
    CHECK(other.now() == r.engine.now());
    while (sink.log.size() < 2) other.wait(duration{}, sink);
    CHECK(sink.log == events{"accepted 0", "received 0 hello"});
    other.close(first, tcp::close_mode::graceful);
}

TEST_CASE("the events of a batch come in any order when the faults say so") {
    bool turned = false, straight = false;
    for (std::uint64_t seed = 1; seed != 20; ++seed) {
        rig r{{.shuffle_per_mille = 1000}, {}, seed};
        r.listen();
        auto one = r.world.connect(7), two = r.world.connect(7);
        r.run();
        one.send("a");
        two.send("b");
        const events seen = r.run();
        CHECK(seen.size() == 2);
        (seen == events{"received 0 a", "received 1 b"} ? straight : turned) = true;
        for (std::uint32_t slot : {0u, 1u}) r.engine.close({slot, 1}, tcp::close_mode::reset);
    }
    CHECK(turned);
    CHECK(straight);
}
