// Receives of coroutines that wait for so long and no longer.
#include <chrono>
#include <cstddef>
#include <functional>
#include <ostream>  // doctest prints error codes
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <tcp/task.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::now_of;
using conformance::stage;
using tcp::connection;
using tcp::task;

namespace {

using handler = std::function<task<>(connection&)>;

/// What receives gave, one after the other, as "3 abc", "late", "end" or an error's sentence.
struct diary {
    std::vector<std::string> lines;

    void note(const tcp::received& got) {
        if (got)
            lines.push_back(std::to_string(got.size()) + ' ' + std::string{got.text()});
        else if (got.error() == tcp::error::timed_out)
            lines.push_back("late");
        else
            lines.push_back(got.error() ? got.error().message() : "end");
    }
};

using lines = std::vector<std::string>;

}  // namespace

TEST_ON_BEDS("receive within a time: never early, and the connection goes on", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    diary d;
    tcp::duration took;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        const tcp::duration begin = now_of(on.bed);
        d.note(co_await peer.receive().within(40ms));
        took = now_of(on.bed) - begin;
        co_await peer.send("well?");
        d.note(co_await peer.receive().within(1h));
        d.note(co_await peer.receive().within(0ms));
        d.note(co_await peer.receive_exactly(2).within(-5s));
        d.note(co_await peer.receive_until("\n").within(1ms));
        co_await peer.send("bye");
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    REQUIRE(on.bed.until(server, [&] { return client.received() == "well?"; }));
    CHECK(took >= 40ms);
    CHECK(d.lines == lines{"late"});
    client.send("x");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(client.received() == "well?bye");
    CHECK(d.lines == lines{"late", "1 x", "late", "late", "late"});
}

TEST_ON_BEDS("receive within a time: what came of a late receive is for the next one", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    diary d;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        d.note(co_await peer.receive_until("\n").within(30ms));
        co_await peer.send(".");
        d.note(co_await peer.receive_until("\n").within(1h));
        d.note(co_await peer.receive_exactly(4).within(30ms));
        co_await peer.send(":");
        d.note(co_await peer.receive_exactly(4).within(1h));
        co_await peer.send("!");
        d.note(co_await peer.receive_exactly(100).within(30ms));
        std::string rest;
        while (rest.size() < 3) {
            const auto more = co_await peer.receive();
            if (!more) break;
            rest += more.text();
        }
        d.lines.push_back(rest);
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("a l");
    REQUIRE(on.bed.until(server, [&] { return client.received() == "."; }));
    client.send("ine\nof");
    REQUIRE(on.bed.until(server, [&] { return client.received_size() >= 2; }));
    client.send("four");
    REQUIRE(on.bed.until(server, [&] { return client.received_size() >= 3; }));
    client.send("x");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(client.received() == ".:!");
    CHECK(d.lines == lines{"late", "7 a line\n", "late", "4 offo", "late", "urx"});
}

TEST_ON_BEDS("receive within a time: what comes in time, and then the time has no say any more",
             Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    diary d;
    bool slept = false;
    tcp::duration took;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        d.note(co_await peer.receive_exactly(1).within(200ms));
        d.note(co_await peer.receive_exactly(1).within(200ms));
        const tcp::duration begin = now_of(on.bed);
        slept = co_await peer.sleep_for(250ms);
        took = now_of(on.bed) - begin;
        co_await peer.send("awake");
        d.note(co_await peer.receive());
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("12");
    REQUIRE(on.bed.until(server, [&] { return client.received() == "awake"; }));
    client.send("3");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(slept);
    CHECK(took >= 250ms);
    CHECK(d.lines == lines{"1 1", "1 2", "1 3"});
}

TEST_ON_BEDS("receive within a time: it has no say in what the same expression awaits next", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    diary d;
    bool both = false;
    const std::function<task<std::string>(connection&, tcp::received)> more =
        [](connection& peer, tcp::received) -> task<std::string> {
        const auto got = co_await peer.receive();
        co_return std::string{got ? got.text() : "the end"};
    };
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        d.lines.push_back(co_await more(peer, co_await peer.receive_exactly(1).within(200ms)));
        co_await peer.send("?");
        both = (co_await peer.receive_exactly(1).within(200ms)) &&
               (co_await peer.receive_exactly(1).within(1h));
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("a");
    on.bed.run(server, 300ms);
    client.send("b");
    REQUIRE(on.bed.until(server, [&] { return client.received() == "?"; }));
    CHECK(d.lines == lines{"b"});
    client.send("c");
    on.bed.run(server, 300ms);
    client.send("d");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(both);
}

TEST_ON_BEDS("receive within a time: what is thrown behind a late one ends its connection", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        if (!co_await peer.receive().within(1ms)) throw std::runtime_error{"it is late"};
    }});
    on.bed.connect(on.bed.listen(server));
    REQUIRE(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    CHECK(server.statistics().closed_by[static_cast<std::size_t>(tcp::closed_by::handler_threw)] ==
          1);
}

TEST_ON_BEDS("receive within a time: the end comes before the time", Bed, CONFORMANCE_BEDS) {
    for (const bool resets : {false, true}) {
        CAPTURE(resets);
        stage<Bed> on;
        diary d;
        bool came_back = false;
        auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
            d.note(co_await peer.receive_until("\n").within(1h));
            co_await peer.receive().within(1ms);  // behind the end: it is not come back from
            came_back = true;
        }});
        auto client = on.bed.connect(on.bed.listen(server));
        client.send("half a l");
        REQUIRE(on.bed.until(server, [&] { return server.statistics().bytes_received == 8; }));
        if (resets)
            client.reset();
        else
            client.shutdown_send();
        REQUIRE(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
        CHECK(d.lines.size() == 1);
        CHECK((resets || d.lines[0] == std::error_code{tcp::error::incomplete}.message()));
        // After "incomplete" the half is there for a receive that follows at once.
        CHECK(came_back == !resets);
    }
}

TEST_ON_BEDS("receive within a time: a paused connection receives again, and is late all the same",
             Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    diary d;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        peer.pause_receive();
        co_await peer.sleep_for(20ms);
        d.note(co_await peer.receive_exactly(5).within(1h));
        peer.pause_receive();
        d.note(co_await peer.receive().within(20ms));
        co_await peer.send("?");
        d.note(co_await peer.receive_exactly(4));
    }});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("first");
    REQUIRE(on.bed.until(server, [&] { return client.received() == "?"; }));
    client.send("last");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(d.lines == lines{"5 first", "late", "4 last"});
}

TEST_ON_BEDS("receive within a time: more than may be received is told at once", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::size_t refused = 0;
    auto server =
        on.bed.make(handler{[&](connection& peer) -> task<> {
                        // Whoever does not mind is closed in the end, and no timer wakes it up.
                        for (;;) {
                            const auto got = co_await peer.receive_exactly(101).within(1ms);
                            refused += got.error() == tcp::error::receive_limit ? 1 : 1'000'000;
                        }
                    }},
                    {.receive_limit = 100});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("x");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    CHECK(refused >= 1);
    CHECK(refused < 2000);
}

TEST_ON_BEDS("receive within a time: the server stops while many wait, in tasks of tasks", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    int begun = 0, over = 0;
    struct local {
        int& count;
        ~local() { ++count; }
    };
    const std::function<task<>(connection&, int)> wait = [&](connection& peer,
                                                             int depth) -> task<> {
        const local seen{over};
        if (depth != 0) co_await wait(peer, depth - 1);
        while (!co_await peer.receive_until("\n").within(3ms)) ++begun;
    };
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> { co_await wait(peer, 3); }});
    const auto where = on.bed.listen(server);
    for (int i = 0; i != 20; ++i) on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return begun >= 100; }));
    server.stop();
    REQUIRE(on.bed.until(server, [&] { return server.statistics().open == 0; }));
    CHECK(over == 20 * 4);
}

TEST_ON_BEDS("receive within a time: of another connection it throws", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    connection* first = nullptr;
    std::vector<std::error_code> codes;
    auto server = on.bed.make(handler{[&](connection& peer) -> task<> {
        if (first == nullptr) {
            first = &peer;
        } else {
            try {
                co_await first->receive().within(1s);
            } catch (const std::system_error& e) {
                codes.push_back(e.code());
            }
        }
        co_await peer.receive();
    }});
    const auto where = on.bed.listen(server);
    auto one = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return first != nullptr; }));
    auto other = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return !codes.empty(); }));
    CHECK(codes[0] == std::errc::invalid_argument);
    one.shutdown_send();
    other.shutdown_send();
    CHECK(on.bed.until(server, [&] { return server.statistics().closed == 2; }));
}
