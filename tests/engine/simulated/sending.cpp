// Sending with the simulated engine: done, blocked, in flight, failed, and the bytes that are lent
// meanwhile.
#include <cerrno>
#include <string>
#include <vector>

#include "rig.hpp"

using namespace simulated_tests;
using state = tcp::send_outcome::state;

TEST_CASE("a send that fits is done") {
    rig r;
    r.listen();
    auto client = r.open();
    const std::vector<tcp::bytes> pieces{tcp::as_bytes("one, "), {}, tcp::as_bytes("two")};
    const auto outcome = r.engine.send(first, pieces);
    CHECK(outcome.is == state::done);
    CHECK(outcome.taken == 8);
    CHECK(r.run().empty());
    CHECK(client.received() == "one, two");
    CHECK(client.received_size() == 8);
    CHECK(client.take() == "one, two");
    CHECK(client.received().empty());
    CHECK(client.received_size() == 8);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a client that does not read blocks the server: one writable event when it reads again") {
    rig r{{.client_window = 600, .send_capacity = 900}};
    r.listen();
    auto client = r.open();
    client.pause_receive();
    const std::string much(5000, 'm');
    auto outcome = r.send(first, much);
    CHECK(outcome.is == state::blocked);
    CHECK(outcome.taken == 900);
    CHECK(r.run() == events{"writable 0"});  // 600 have arrived, more than a third is free
    outcome = r.send(first, much);
    CHECK(outcome.is == state::blocked);
    CHECK(outcome.taken == 600);
    outcome = r.send(first, much);
    CHECK(outcome.is == state::blocked);
    CHECK(outcome.taken == 0);
    CHECK(r.run().empty());
    CHECK(client.received_size() == 0);

    SUBCASE("slowly") {
        CHECK(client.receive(100) == 100);
        CHECK(r.run().empty());
        CHECK(client.receive(200) == 200);
        CHECK(r.run() == events{"writable 0"});
    }
    SUBCASE("at once") {
        client.resume_receive();
        CHECK(r.run() == events{"writable 0"});
        CHECK(client.received_size() == 1500);
    }
    SUBCASE("or resets") {
        client.reset();
        const events seen = r.run();
        CHECK(seen.size() == 2);
        CHECK(std::find(seen.begin(), seen.end(), "writable 0") != seen.end());
    }
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("options::kernel_send_buffer is the capacity") {
    rig r{{}, {.kernel_send_buffer = 100}};
    r.listen();
    r.open();
    CHECK(r.send(first, std::string(500, 'x')).taken == 100);
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("a blocked send though there was room") {
    rig r{{.blocked_send_per_mille = 1000}};
    r.listen();
    r.open();
    const auto outcome = r.send(first, "abc");
    CHECK(outcome.is == state::blocked);
    CHECK(outcome.taken == 0);
    CHECK(r.run() == events{"writable 0"});
    CHECK(r.run().empty());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("short sends are either over or blocked") {
    rig r{{.short_send_per_mille = 1000}};
    r.listen();
    r.open();
    int over = 0, blocked = 0;
    for (int i = 0; i != 100; ++i) {
        const auto outcome = r.send(first, "0123456789");
        CHECK(outcome.taken >= 1);
        CHECK(outcome.taken <= 9);
        over += outcome.is == state::done;
        blocked += outcome.is == state::blocked;
        const events seen = r.run(milliseconds(2));
        CHECK(seen.size() == (outcome.is == state::blocked ? 1 : 0));
    }
    CHECK(over + blocked == 100);
    CHECK(over > 10);
    CHECK(blocked > 10);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a spurious writable event comes though nothing can be sent") {
    rig r{{.client_window = 1, .send_capacity = 1, .spurious_writable_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    client.pause_receive();
    CHECK(r.send(first, "ab").taken == 1);
    CHECK(r.run() == events{"writable 0"});
    CHECK(r.send(first, "b").taken == 1);
    CHECK(r.send(first, "c").taken == 0);
    CHECK(r.run() == events{"writable 0"});
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("a send in flight ends in one sent event") {
    rig r{{.in_flight_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    const std::string text = "in flight";
    const auto outcome = r.send(first, text);
    CHECK(outcome.is == state::in_flight);
    CHECK(outcome.taken == 0);
    CHECK(r.run() == events{"sent 0 9 0"});
    CHECK(client.received() == text);

    SUBCASE("short") {
        r.world.set_faults({.short_send_per_mille = 1000, .in_flight_per_mille = 1000});
        r.send(first, text);
        const events seen = r.run();
        REQUIRE(seen.size() == 1);
        CHECK(seen[0] < "sent 0 9 0");
    }
    SUBCASE("when there is room again") {
        r.world.set_faults({.client_window = 5, .send_capacity = 5, .in_flight_per_mille = 1000});
        client.pause_receive();
        r.send(first, text);
        CHECK(r.run() == events{"sent 0 5 0"});
        r.send(first, text);
        CHECK(r.run() == events{"sent 0 5 0"});
        r.send(first, text);
        CHECK(r.run().empty());
        client.resume_receive();
        CHECK(r.run() == events{"sent 0 5 0"});
    }
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a reset ends a send in flight, and the send reports it") {
    rig r{{.client_window = 1, .send_capacity = 1, .in_flight_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    client.pause_receive();
    const std::string text = "abc";
    for (int i = 0; i != 2; ++i) {
        r.send(first, text);
        CHECK(r.run() == events{"sent 0 1 0"});
    }
    r.send(first, text);
    CHECK(r.run().empty());
    r.engine.pause_receive(first);
    client.reset();
    CHECK(r.run() == events{"sent 0 0 " + std::to_string(ECONNRESET)});
    r.engine.resume_receive(first);
    CHECK(r.run() == events{"ended 0"});
    CHECK(r.send(first, text).error == EPIPE);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("sending to a peer that is gone fails") {
    rig r;
    r.listen();
    auto client = r.open();
    SUBCASE("after its reset: ECONNRESET, whoever sees it first, then EPIPE") {
        r.engine.pause_receive(first);
        client.reset();
        r.run();
        auto outcome = r.send(first, "x");
        CHECK(outcome.is == state::failed);
        CHECK(outcome.error == ECONNRESET);
        CHECK(r.send(first, "x").error == EPIPE);
        r.engine.resume_receive(first);
        CHECK(r.run() == events{"ended 0"});
    }
    SUBCASE("after receiving reported the reset: EPIPE") {
        client.reset();
        r.run();
        CHECK(r.send(first, "x").error == EPIPE);
    }
    SUBCASE("a closed client answers with a reset") {
        client.close();
        CHECK(r.run() == events{"ended 0"});
        CHECK(r.send(first, "first").is == state::done);
        CHECK(r.run() == events{"failed 0 " + std::to_string(EPIPE)});
        CHECK(r.send(first, "second").error == EPIPE);
        CHECK(client.received().empty());
    }
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("received bytes stay for the event, and for a send in flight until it has ended") {
    rig r{{.in_flight_per_mille = 1000}};
    r.listen();
    auto client = r.open();
    tcp::bytes seen;
    struct keeping_sink : recorder {
        tcp::bytes* kept;
        bool sends;
        keeping_sink(rig& on, tcp::bytes& where, bool echo)
            : recorder{on.engine}, kept{&where}, sends{echo} {}
        void received(tcp::connection_id id, tcp::bytes got) {
            *kept = got;
            CHECK(tcp::as_text(got) == "precious");
            if (sends) CHECK(engine.send(id, {&got, 1}).is == state::in_flight);
        }
        void sent(tcp::connection_id id, std::size_t count, int error) {
            CHECK(tcp::as_text(*kept) == "precious");
            recorder::sent(id, count, error);
            CHECK(tcp::as_text(*kept) == "precious");
        }
    };
    client.send("precious");
    SUBCASE("lent") {
        keeping_sink sink{r, seen, true};
        while (sink.log.empty()) r.engine.wait(milliseconds(10), sink);
        CHECK(sink.log == events{"sent 0 8 0"});
        r.run();
        CHECK(client.received() == "precious");
    }
    SUBCASE("not lent") {
        keeping_sink sink{r, seen, false};
        r.engine.wait(milliseconds(10), sink);
    }
    // Whoever reads them later reads nonsense.
    CHECK(tcp::as_text(seen) == std::string(8, static_cast<char>(0xdd)));
    r.engine.close(first, tcp::close_mode::graceful);
}
