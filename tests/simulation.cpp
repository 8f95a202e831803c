// The public side of tcp/simulation.hpp: a user's handler, tested without sockets and without
// waiting.
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

using namespace std::chrono_literals;

namespace {

using event = tcp::simulation::client_event;

// Answers each line with its length.
struct line_lengths {
    std::size_t on_data(tcp::connection& peer, tcp::bytes data) {
        const std::string_view text = tcp::as_text(data);
        std::size_t taken = 0;
        for (auto end = text.find('\n'); end != text.npos; end = text.find('\n', taken)) {
            peer.send(std::to_string(end - taken) + '\n');
            taken = end + 1;
        }
        return taken;
    }
};

template <class Handler = tcp::echo>
struct served {
    tcp::simulation world;
    tcp::server<Handler, tcp::simulated_engine> server;

    explicit served(const tcp::simulation::faults& weather = {}, const tcp::options& set = {},
                    std::uint64_t seed = 1)
        : world{seed, weather}, server{Handler{}, set, world} {
        server.bind(7);
        server.listen();
    }
};

}  // namespace

TEST_CASE("the program of the first comment") {
    tcp::simulation world;
    tcp::server<tcp::echo, tcp::simulated_engine> server{{}, {}, world};
    server.bind(7);
    server.listen();
    auto client = world.connect(7);
    client.send("hello");
    server.run_for(1s);
    CHECK(client.received() == "hello");
    CHECK(world.now() == tcp::duration{1s});
    CHECK(world.violations().empty());
    CHECK(server.engine() == "simulated");
}

TEST_CASE("a handler meets its data cut anywhere") {
    for (std::uint64_t seed = 1; seed != 50; ++seed) {
        served<line_lengths> s{
            {.latency_min = 1us, .latency_max = 5ms, .segment_min = 1, .segment_max = 9}, {}, seed};
        auto client = s.world.connect(7);
        client.send("one\n\nthree and four\nfive");
        s.server.run_for(1s);
        CHECK(client.received() == "3\n0\n14\n");
        client.send(" and a half\n");
        s.server.run_for(1s);
        CHECK(client.take() == "3\n0\n14\n15\n");
    }
}

TEST_CASE("a day passes at once") {
    served s;
    auto client = s.world.connect(7);
    s.server.run_for(24h);
    client.send("still there");
    s.server.run_for(24h);
    CHECK(client.received() == "still there");
    CHECK(s.world.now() == tcp::duration{48h});
}

TEST_CASE("a client that sends and finishes gets everything back, then the end") {
    served s{{.latency_min = 1ms, .latency_max = 9ms, .server_window = 1000, .client_window = 700}};
    auto client = s.world.connect(7);
    std::string text;
    for (int i = 0; i != 20'000; ++i) text += std::to_string(i);
    client.send(text);
    client.shutdown_send();
    s.server.run_for(1h);
    CHECK(client.received() == text);
    CHECK(client.received_size() == text.size());
    CHECK(client.acknowledged_size() == text.size());
    CHECK(client.ended());
    CHECK_FALSE(client.was_reset());
    CHECK(s.world.open_sockets() == 0);
}

TEST_CASE("what a client did is seen in the statistics") {
    served s;
    auto resets = s.world.connect(7), closes = s.world.connect(7), stays = s.world.connect(7);
    s.server.run_for(1s);
    CHECK(s.world.open_sockets() == 3);
    resets.reset();
    closes.close();
    s.server.run_for(1s);
    const auto seen = s.server.statistics();
    CHECK(seen.accepted == 3);
    CHECK(seen.closed_by[static_cast<std::size_t>(tcp::closed_by::peer_reset)] == 1);
    CHECK(seen.closed_by[static_cast<std::size_t>(tcp::closed_by::peer_finished)] == 1);
    CHECK(s.world.open_sockets() == 1);
    CHECK_FALSE(stays.ended());
}

TEST_CASE("a client that does not read holds the server back") {
    served s{{.server_window = 1000, .client_window = 1000, .send_capacity = 1000},
             {.high_mark = 5000, .low_mark = 2000, .receive_buffer = 500}};
    auto client = s.world.connect(7);
    client.pause_receive();
    client.send(std::string(100'000, 'x'));
    s.server.run_for(1s);
    CHECK(client.received_size() == 0);
    CHECK(client.acknowledged_size() < 10'000);
    CHECK(client.receive(10) == 10);
    CHECK(client.receive() == 990);
    CHECK(client.receive() == 0);
    client.resume_receive();
    s.server.run_for(1h);
    CHECK(client.received_size() == 100'000);
}

TEST_CASE("scripts and events of clients run in virtual time") {
    served s;
    std::vector<event> events;
    std::vector<std::string> answers;
    auto client = s.world.connect(7);
    client.on_event([&](tcp::simulation::client& self, event what) {
        events.push_back(what);
        if (what == event::connected) self.send("first");
        if (what != event::received) return;
        answers.push_back(self.take());
        if (answers.back() == "first") self.send("second");
        if (answers.back() == "second") self.shutdown_send();
    });
    s.world.after(10s, [&] { s.world.connect(7).send("unheard"); });
    s.server.run_for(5s);
    CHECK(answers == std::vector<std::string>{"first", "second"});
    CHECK(events == std::vector{event::connected, event::received, event::received, event::ended});
    CHECK(s.server.statistics().accepted == 1);
    s.server.run_for(6s);
    CHECK(s.server.statistics().accepted == 2);
}

TEST_CASE("an event function may replace itself and throw") {
    served s;
    auto client = s.world.connect(7);
    client.on_event([](tcp::simulation::client& self, event) {
        self.on_event([](tcp::simulation::client&, event) { throw std::runtime_error("second"); });
    });
    client.send("hello");
    CHECK_THROWS_WITH_AS(s.server.run_for(1s), "second", std::runtime_error);
    client.on_event(nullptr);
    s.server.run_for(1s);
    CHECK(client.received() == "hello");
}

TEST_CASE("run() ends when a script stops the server, and says so when nothing ever would") {
    served s;
    s.world.after(3s, [&] { s.server.stop(); });
    s.server.run();
    CHECK(s.world.now() == tcp::duration{3s});

    served hangs;
    CHECK_THROWS_WITH_AS(hangs.server.run(), doctest::Contains("nothing will ever happen"),
                         std::logic_error);
}

TEST_CASE("two servers in one world, and time that passes without any") {
    tcp::simulation world;
    tcp::server<tcp::echo, tcp::simulated_engine> one{{}, {}, world};
    tcp::server<line_lengths, tcp::simulated_engine> two{{}, {}, world};
    one.bind(1);
    two.bind(2);
    one.listen();
    two.listen();
    auto a = world.connect(1), b = world.connect(2), nobody = world.connect(3);
    a.send("a\n");
    b.send("b\n");
    for (int i = 0; i != 100; ++i) {
        world.advance(1ms);
        one.poll();
        two.poll();
    }
    CHECK(a.received() == "a\n");
    CHECK(b.received() == "1\n");
    CHECK(nobody.refused());
    CHECK(world.open_listeners() == 2);
}

TEST_CASE("a destroyed server leaves nothing open") {
    tcp::simulation world;
    auto client = world.connect(7);
    {
        tcp::server<tcp::echo, tcp::simulated_engine> server{{}, {}, world};
        server.bind(7);
        server.listen();
        server.run_for(1s);
        CHECK(world.open_sockets() == 1);
    }
    CHECK(world.open_sockets() == 0);
    CHECK(world.open_listeners() == 0);
    world.advance(1s);
    CHECK((client.ended() || client.was_reset()));
    CHECK(world.violations().empty());
}

TEST_CASE(
    "a script that throws while run() is ending: handles still know that the server is gone") {
    struct known {
        tcp::connection_handle* kept;
        void on_open(tcp::connection& peer) const { *kept = peer.handle(); }
        static void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    };
    tcp::simulation::faults weather;
    weather.late_close_per_mille = 1000;
    weather.completion_max = 5ms;
    tcp::simulation world{3, weather};
    tcp::connection_handle kept;
    {
        tcp::server<known, tcp::simulated_engine> server{known{&kept}, {}, world};
        server.bind(7);
        server.listen();
        auto client = world.connect(7);
        client.send("hello");
        server.run_for(10ms);
        world.after(10us, [] { throw std::runtime_error("from a script"); });
        server.stop();
        CHECK_THROWS_AS(server.run(), std::runtime_error);
    }
    CHECK(kept.send("nobody is there").error() == tcp::error::not_open);
}

TEST_CASE("the trace tells what happened, and the fingerprint is the same for the same run") {
    const auto run = [](std::uint64_t seed, std::vector<std::string>* lines) {
        tcp::simulated::random dice{seed};
        tcp::simulation world{seed, {.latency_min = 1us, .latency_max = 1ms}};
        if (lines != nullptr)
            world.trace([lines](std::string_view line) { lines->emplace_back(line); });
        tcp::server<tcp::echo, tcp::simulated_engine> server{{}, {}, world};
        server.bind(7);
        server.listen();
        world.connect(7).send("hello");
        world.after(500ms, [] {});
        server.run_for(1s);
        return world.fingerprint();
    };
    std::vector<std::string> lines;
    CHECK(run(1, &lines) == run(1, nullptr));
    CHECK(run(1, nullptr) != run(2, nullptr));
    REQUIRE(lines.size() == 5);
    CHECK(lines[0].find("us, connection 1: connection request at the server") != std::string::npos);
    CHECK(lines[2].find("us, connection 1: data at the server, 5 bytes") != std::string::npos);
    CHECK(lines[4] == "500000 us: script");
}

TEST_CASE("the world's chance is fixed by its seed and apart from the network's") {
    tcp::simulation one{5}, two{5}, other{6};
    CHECK(one.seed() == 5);
    const auto drawn = one.random().next();
    CHECK(drawn == two.random().next());
    CHECK(drawn != other.random().next());
    CHECK(drawn != tcp::simulated::random{5}.next());
}

TEST_CASE("the weather may change") {
    served s{{.latency_min = 1h, .latency_max = 1h}};
    auto client = s.world.connect(7);
    s.server.run_for(90min);
    CHECK_FALSE(client.connected());
    s.world.set_faults({});
    CHECK(s.world.current_faults().latency_max < 1s);
    s.server.run_for(1h);
    CHECK(client.connected());
    client.send("fast now");
    s.server.run_for(1s);
    CHECK(client.received() == "fast now");
}

TEST_CASE("copies of a client are the same client") {
    tcp::simulation world;
    auto one = world.connect(7), other = world.connect(7);
    auto copy = one;
    CHECK(copy == one);
    CHECK_FALSE(copy == other);
    CHECK(one.number() == 1);
    CHECK(other.number() == 2);
}
