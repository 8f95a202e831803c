// Closing with the simulated engine: at once or later, in order or hard, and what becomes of what
// is on its way.
#include <string>

#include "rig.hpp"

using namespace simulated_tests;
using tcp::close_mode;

TEST_CASE("a graceful close delivers what was sent, then FIN") {
    rig r;
    r.listen();
    auto client = r.open();
    r.send(first, "goodbye");
    CHECK(r.engine.close(first, close_mode::graceful));
    CHECK(r.run().empty());
    CHECK(client.received() == "goodbye");
    CHECK(client.ended());
    CHECK_FALSE(client.was_reset());
}

TEST_CASE("a reset drops what has not arrived") {
    rig r;
    r.listen();
    auto client = r.open();
    r.send(first, "arrives");
    r.run();
    r.send(first, "does not");
    CHECK(r.engine.close(first, close_mode::reset));
    r.run();
    CHECK(client.received() == "arrives");
    CHECK(client.was_reset());
    CHECK_FALSE(client.ended());
    CHECK_FALSE(client.send("x"));
}

TEST_CASE("closing with unread input is a reset that destroys the reply on its way") {
    rig r;
    r.listen();
    auto client = r.open();
    r.engine.pause_receive(first);
    client.send("unread");
    r.run();
    r.send(first, "reply");
    CHECK(r.engine.close(first, close_mode::graceful));
    r.run();
    CHECK(client.was_reset());
    CHECK(client.received().empty());
}

TEST_CASE(
    "what comes after the close is answered with a reset, which destroys what is on its way") {
    rig r{{.client_window = 10}};
    r.listen();
    auto client = r.open();
    client.pause_receive();
    r.send(first, "a reply that does not fit the window");
    r.run();
    CHECK(r.engine.close(first, close_mode::graceful));
    client.send("one more request");
    r.run();
    client.resume_receive();
    r.run();
    CHECK(client.was_reset());
    CHECK(client.received() == "a reply th");
}

TEST_CASE("a lingering close loses nothing") {
    rig r{{.client_window = 10}};
    r.listen();
    auto client = r.open();
    r.send(first, "a reply that does not fit the window");
    r.engine.shutdown_send(first);
    client.send("one more request");
    client.on_event([](tcp::simulation::client& self, tcp::simulation::client_event what) {
        if (what == tcp::simulation::client_event::ended) self.close();
    });
    CHECK(r.run() == events{"received 0 one more request", "ended 0"});
    CHECK(r.engine.close(first, close_mode::graceful));
    r.run();
    CHECK(client.received() == "a reply that does not fit the window");
    CHECK_FALSE(client.was_reset());
}

TEST_CASE("a close that ends later delivers one closed event and nothing else") {
    rig r{{.late_close_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    CHECK_FALSE(r.engine.close(first, close_mode::graceful));
    CHECK(r.world.open_sockets() == 1);
    client.send("too late");
    CHECK(r.run() == events{"closed 0"});
    CHECK(r.world.open_sockets() == 0);
    CHECK(r.run().empty());
}

TEST_CASE("within closed the slot is free again") {
    rig r{{.late_close_per_mille = 1000}};
    r.listen();
    r.open();
    r.sink.opens = false;
    r.world.connect(7);
    r.run();
    r.sink.react = [&](const std::string& event) {
        if (event == "closed 0") CHECK(r.engine.open({0, 2}, r.sink.sockets.at(1)) == 0);
    };
    CHECK_FALSE(r.engine.close(first, close_mode::graceful));
    CHECK(r.run() == events{"closed 0"});
    CHECK_FALSE(r.engine.close({0, 2}, close_mode::reset));
    r.sink.react = nullptr;
    CHECK(r.run() == events{"closed 0"});
}

TEST_CASE("a close cancels the send in flight, and its bytes are held until closed") {
    bool some = false, none = false;
    for (std::uint64_t seed = 1; seed != 20; ++seed) {
        rig r{{.in_flight_per_mille = 1000, .late_close_per_mille = 500}, {}, seed};
        r.listen();
        auto client = r.open();
        const std::string text = "cancelled";
        r.send(first, text);
        CHECK_FALSE(r.engine.close(first, close_mode::graceful));
        CHECK(r.run() == events{"closed 0"});
        CHECK(text.starts_with(client.received()));
        CHECK(client.ended());
        some = some || !client.received().empty();
        none = none || client.received().empty();
    }
    CHECK(some);
    CHECK(none);
}

TEST_CASE("a close drops the sent and the writable event that were to come") {
    rig r{{.in_flight_per_mille = 1000, .completion_max = duration::nanoseconds(1)}};
    r.listen();
    r.open();
    const std::string text = "landed";
    r.send(first, text);
    r.world.advance(milliseconds(1));
    CHECK_FALSE(r.engine.close(first, close_mode::graceful));
    CHECK(r.run() == events{"closed 0"});

    rig other{{.blocked_send_per_mille = 1000}};
    other.listen();
    other.open();
    other.send(first, text);
    CHECK(other.engine.close(first, close_mode::graceful));
    CHECK(other.run().empty());
}

TEST_CASE("a client closes with unread input: it resets") {
    rig r;
    r.listen();
    auto client = r.open();
    client.pause_receive();
    r.send(first, "unread");
    r.run();
    client.close();
    CHECK(r.run() == events{"failed 0 " + std::to_string(ECONNRESET)});
    r.engine.close(first, close_mode::graceful);
}

TEST_CASE("an engine that is destroyed resets its clients, and the world says what was forgotten") {
    tcp::simulation world;
    {
        tcp::simulated_engine engine{tcp::options{}, world};
        recorder sink{engine};
        std::error_code failure;
        engine.bind(7, failure);
        engine.listen(0, 1, failure);
        engine.arm_accept(0, tcp::accept_mode::many);
        world.connect(7);
        engine.wait(milliseconds(1), sink);
        CHECK(sink.log == events{"accepted 0"});
    }
    REQUIRE(world.violations().size() == 1);
    CHECK(world.violations()[0].find("destroyed with 1 open sockets") != std::string::npos);
    CHECK(world.open_sockets() == 0);
    CHECK(world.open_listeners() == 0);
}
