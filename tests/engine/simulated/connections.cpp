// Connections of the simulated engine: accepted, received, ended, failed.
#include <cerrno>
#include <string>

#include "rig.hpp"

using namespace simulated_tests;

TEST_CASE("a client is accepted, opened and heard") {
    rig r;
    r.listen();
    auto client = r.world.connect(7);
    client.send("hello");
    CHECK_FALSE(client.connected());
    CHECK(r.run() == events{"accepted 0", "received 0 hello"});
    CHECK(client.connected());
    CHECK(client.acknowledged_size() == 5);
    CHECK(r.world.open_sockets() == 1);
    CHECK(r.engine.close(first, tcp::close_mode::graceful));
    CHECK(r.world.open_sockets() == 0);
    r.run();
    CHECK(client.ended());
    CHECK_FALSE(client.was_reset());
}

TEST_CASE("the addresses of both sides") {
    rig r;
    r.listen();
    auto client = r.open();
    CHECK(client.local_endpoint().to_string() == "10.0.0.2:49152");
    CHECK(r.sink.peers.at(0) == client.local_endpoint());
    CHECK(r.engine.remote_endpoint(first) == client.local_endpoint());
    CHECK(r.engine.local_endpoint(first).to_string() == "10.0.0.1:7");
    CHECK(client.remote_endpoint() == r.engine.local_endpoint(first));
    CHECK(r.world.connect(7).local_endpoint().to_string() == "10.0.0.2:49153");

    const auto chosen = tcp::endpoint::parse("192.0.2.9:1234");
    CHECK(r.world.connect(7, chosen).local_endpoint() == chosen);
    const auto without_port = tcp::endpoint::parse("192.0.2.9:0");
    CHECK(r.world.connect(7, without_port).local_endpoint().address() == "192.0.2.9");
    CHECK(r.world.connect(7, without_port).local_endpoint().port() != 0);
    r.run();
    CHECK(r.sink.peers.at(2) == chosen);
}

TEST_CASE("after a reset the system no longer knows the peer's address") {
    rig r;
    r.listen();
    auto client = r.open();
    client.reset();
    CHECK(r.run() == events{"failed 0 " + std::to_string(ECONNRESET)});
    CHECK_FALSE(r.engine.remote_endpoint(first));
    CHECK(r.engine.local_endpoint(first));
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a refused socket is reset, and its number is used again") {
    rig r;
    r.sink.opens = false;
    r.listen();
    auto client = r.world.connect(7);
    r.run();
    CHECK(r.world.open_sockets() == 1);
    r.engine.refuse(r.sink.sockets.at(0));
    CHECK(r.world.open_sockets() == 0);
    CHECK(r.run().empty());
    CHECK(client.connected());
    CHECK(client.was_reset());

    r.sink.opens = true;
    r.world.connect(7);
    r.run();
    CHECK(r.sink.sockets.at(1) == r.sink.sockets.at(0));
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("open fails as the faults say, and the socket is closed") {
    rig r{{.open_failed_per_mille = 1000}};
    r.sink.opens = false;
    r.listen();
    auto client = r.world.connect(7);
    r.run();
    CHECK(r.engine.open(first, r.sink.sockets.at(0)) == ENOMEM);
    CHECK(r.world.open_sockets() == 0);
    r.run();
    CHECK(client.was_reset());
}

TEST_CASE("data and FIN arrive together") {
    rig r;
    r.listen();
    auto client = r.open();
    client.send("last words");
    client.shutdown_send();
    CHECK_FALSE(client.send("more"));
    r.engine.wait(milliseconds(1), r.sink);
    CHECK(r.take() == events{"received 0 last words", "ended 0"});
    CHECK(r.run().empty());

    SUBCASE("and the other half still works") {
        CHECK(r.send(first, "reply").is == tcp::send_outcome::state::done);
        r.engine.shutdown_send(first);
        r.run();
        CHECK(client.received() == "reply");
        CHECK(client.ended());
    }
    r.engine.close(first, tcp::close_mode::graceful);
    r.run();
    CHECK_FALSE(client.was_reset());
}

TEST_CASE("the server half-closes and still receives") {
    rig r;
    r.listen();
    auto client = r.open();
    r.engine.shutdown_send(first);
    r.run();
    CHECK(client.ended());
    client.send("late");
    CHECK(r.run() == events{"received 0 late"});
    CHECK(r.send(first, "x").is == tcp::send_outcome::state::failed);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("what arrived before a reset is delivered before it") {
    rig r;
    r.listen();
    auto client = r.open();
    client.send("swan song");
    client.reset();
    CHECK(r.run() == events{"received 0 swan song", "failed 0 " + std::to_string(ECONNRESET)});
    CHECK(r.run().empty());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("nothing is delivered while paused, and nothing is lost") {
    rig r;
    r.listen();
    auto client = r.open();
    r.engine.pause_receive(first);
    client.send("data");

    SUBCASE("data") {
        CHECK(r.run().empty());
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"received 0 data"});
    }
    SUBCASE("data and FIN") {
        client.shutdown_send();
        CHECK(r.run().empty());
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"received 0 data", "ended 0"});
    }
    SUBCASE("data and RST") {
        client.reset();
        CHECK(r.run().empty());
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"received 0 data", "failed 0 " + std::to_string(ECONNRESET)});
    }
    SUBCASE("paused again in the event") {
        r.sink.react = [&](const std::string&) { r.engine.pause_receive(first); };
        client.shutdown_send();
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"received 0 data"});
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"ended 0"});
    }
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("what was under way may come after the pause, and only that") {
    rig r{{.segment_min = 4, .segment_max = 4, .receive_max = 4, .late_receive_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    client.send("one.two.");
    client.shutdown_send();
    r.world.advance(milliseconds(1));
    r.engine.pause_receive(first);

    SUBCASE("all of it was") {
        CHECK(r.run() == events{"received 0 one.", "received 0 two.", "ended 0"});
    }
    SUBCASE("what comes later waits") {
        rig other{{.late_receive_per_mille = 1000}};
        other.listen();
        auto late = other.open();
        late.send("early");
        other.world.advance(milliseconds(1));
        other.engine.pause_receive(first);
        late.send("late");
        CHECK(other.run() == events{"received 0 early"});
        other.engine.resume_receive(first);
        CHECK(other.run() == events{"received 0 late"});
        other.engine.close(first, tcp::close_mode::graceful);
    }
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a paused server closes the client's window") {
    rig r{{.server_window = 1000}};
    r.listen();
    auto client = r.open();
    r.engine.pause_receive(first);
    client.send(std::string(3000, 'x'));
    r.run();
    CHECK(client.sent_size() == 3000);
    CHECK(client.acknowledged_size() == 1000);
    r.engine.resume_receive(first);
    r.run();
    CHECK(r.sink.data == std::string(3000, 'x'));
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("options::kernel_receive_buffer is the window, options::receive_buffer the most shown") {
    rig r{{}, {.receive_buffer = 100, .kernel_receive_buffer = 250}};
    r.listen();
    auto client = r.open();
    r.engine.pause_receive(first);
    client.send(std::string(1000, 'x'));
    r.run();
    CHECK(client.acknowledged_size() == 250);
    r.engine.resume_receive(first);
    for (const std::string& event : r.run()) CHECK(event.size() <= 100 + 11);
    CHECK(r.sink.data.size() == 1000);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("segments of one byte arrive one by one") {
    rig r{{.latency_min = {}, .segment_min = 1, .segment_max = 1}};
    r.listen();
    auto client = r.open();
    client.send("abcdefghij");
    CHECK(r.run().size() > 1);
    CHECK(r.sink.data == "abcdefghij");
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a client that reset while it waited is accepted, with its address, and then failed") {
    rig r;
    std::error_code failure;
    r.engine.bind(7, failure);
    r.engine.listen(0, 16, failure);
    auto client = r.world.connect(7);
    client.send("hi");
    r.run();
    client.reset();
    r.run();
    r.engine.arm_accept(0, tcp::accept_mode::many);
    CHECK(r.run() ==
          events{"accepted 0", "received 0 hi", "failed 0 " + std::to_string(ECONNRESET)});
    CHECK(r.sink.peers.at(0) == client.local_endpoint());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("somebody between resets both sides in mid-stream") {
    rig r{{.reset_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    client.send("cut");
    CHECK(r.run() == events{"received 0 cut", "failed 0 " + std::to_string(ECONNRESET)});
    CHECK(client.was_reset());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a client that vanishes is never heard of again") {
    rig r;
    r.listen();
    auto client = r.open();
    client.vanish();
    client.send("unheard");
    CHECK(r.send(first, "unheard").is == tcp::send_outcome::state::done);
    CHECK(r.run().empty());
    CHECK(client.received().empty());
    r.engine.close(first, tcp::close_mode::graceful);
    r.run();
    CHECK_FALSE(client.ended());
}

TEST_CASE("a slot is used again under another generation, and no event reaches the wrong one") {
    rig r{{.more_receives_per_mille = 1000}};
    r.listen();
    auto one = r.open();
    one.send("for the first");
    r.world.advance(milliseconds(1));
    CHECK(r.engine.close(first, tcp::close_mode::reset));
    r.sink.slots = 0;
    r.sink.generation = 2;
    auto two = r.open();
    two.send("for the second");
    CHECK(r.run() == events{"received 0 for the second"});
    CHECK(r.engine.remote_endpoint({0, 2}) == two.local_endpoint());
    CHECK(r.engine.close({0, 2}, tcp::close_mode::graceful));
}

TEST_CASE("events of one batch that were closed by an earlier one are not delivered") {
    rig r;
    r.listen();
    auto one = r.world.connect(7), two = r.world.connect(7);
    r.run();
    one.send("a");
    two.send("b");
    r.sink.react = [&](const std::string& event) {
        if (event == "received 0 a") r.engine.close({1, 1}, tcp::close_mode::reset);
        if (event == "received 1 b") r.engine.close({0, 1}, tcp::close_mode::reset);
    };
    CHECK(r.run().size() == 1);
    CHECK(r.world.open_sockets() == 1);
    r.engine.close({one.was_reset() ? 1u : 0u, 1}, tcp::close_mode::reset);
}
