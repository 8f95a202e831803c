// What a loop owes a connection that keeps it busy, and one that it ends.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/task.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t pieces = 65'536;
const std::string answer(200, 'x');  // above every high mark here

/// A peer that sends as much as it likes and takes all answers at once.
tcp::simulation::faults eager_peer() {
    tcp::simulation::faults weather;
    weather.server_window = 16 << 20;
    weather.send_capacity = 1 << 30;
    return weather;
}

tcp::options small_marks() {
    return {.high_mark = 100, .low_mark = 50, .receive_limit = 10'000, .receive_buffer = pieces};
}

/// Serves a peer that has sent 8 MB.
template <class Handler>
struct busy {
    explicit busy(Handler handler, const tcp::options& set = small_marks())
        : server{std::move(handler), set, world} {
        server.bind(7);
        server.listen();
        world.connect(7).send(std::string(8 << 20, 'r'));
        world.advance(1s);
    }

    tcp::simulation world{1, eager_peer()};
    tcp::server<Handler, tcp::simulated_engine> server;
};

/// One message in each call.
struct one_each {
    std::size_t* most;
    std::size_t on_data(tcp::connection& peer, tcp::bytes) const {
        *most = std::max(*most, peer.unread_size());
        peer.send(answer);
        return 1;
    }
};

struct paused_streamer {
    std::size_t* most;
    void on_open(tcp::connection& peer) const {
        peer.pause_receive();
        peer.send(answer);
    }
    void on_writable(tcp::connection& peer) const {
        *most = std::max(*most, peer.unread_size());
        peer.send(answer);
    }
};

/// Names its connection, and sends this.
struct named {
    std::size_t size = 0;
    tcp::connection_handle* name = nullptr;
    void on_open(tcp::connection& peer) const {
        if (name != nullptr) *name = peer.handle();
        if (size == 0) return;
        peer.send(std::string(size, 'x'));
        peer.close();
    }
};

}  // namespace

TEST_CASE("busy: who answers one message in each call is not shown more than it takes") {
    std::size_t most = 0;
    busy<one_each> it{one_each{&most}};
    for (int turn = 0; turn != 100; ++turn) it.server.poll();
    CHECK(most > 0);
    CHECK(most <= pieces + 10'000);
    const std::uint64_t before = it.server.statistics().bytes_sent;
    it.server.poll();
    CHECK(it.server.statistics().bytes_sent > before);  // it goes on
}

TEST_CASE("busy: nor is a coroutine that waits for each answer to leave") {
    std::size_t most = 0;
    const auto talk = [&most](tcp::connection& peer) -> tcp::task<> {
        while (co_await peer.receive_exactly(1)) {
            if (!co_await peer.send(answer)) co_return;
            most = std::max(most, peer.unread_size());
        }
    };
    busy<std::remove_const_t<decltype(talk)>> it{talk};
    for (int turn = 0; turn != 100; ++turn) it.server.poll();
    CHECK(most > 0);
    CHECK(most <= pieces + 10'000);
}

TEST_CASE("busy: who streams can pause receiving") {
    std::size_t most = 0;
    busy<paused_streamer> it{paused_streamer{&most}};
    for (int turn = 0; turn != 100; ++turn) it.server.poll();
    CHECK(most <= pieces);
    CHECK(it.server.statistics().bytes_received <= pieces);
}

TEST_CASE("busy: the lifetime ends who streams") {
    std::size_t most = 0;
    tcp::options set = small_marks();
    set.lifetime = 1s;
    busy<paused_streamer> it{paused_streamer{&most}, set};
    for (int turn = 0; turn != 200; ++turn) {
        it.world.advance(10ms);
        it.server.poll();
    }
    CHECK(it.server.statistics().closed == 1);
    CHECK(it.server.statistics().timeouts == 1);
}

TEST_CASE("busy: what the loop does not receive is not the peer's delay") {
    for (const bool rate : {false, true}) {
        std::size_t most = 0;
        tcp::options set = small_marks();
        if (rate)
            set.min_receive_rate = 20'000;
        else
            set.receive_timeout = 1s;
        busy<one_each> it{one_each{&most}, set};
        for (int turn = 0; turn != 1'000; ++turn) {
            it.world.advance(10ms);
            it.server.poll();
        }
        CHECK(it.server.statistics().closed == 0);
    }
}

TEST_CASE("the lifetime ends who reads slowly behind close()") {
    for (const tcp::duration close_timeout : {tcp::duration{300ms}, tcp::duration::max()}) {
        tcp::simulation world;
        tcp::server<named, tcp::simulated_engine> server{
            named{4'000'000},
            {.close_timeout = close_timeout, .lifetime = 1s, .kernel_send_buffer = 4096},
            world};
        server.bind(7);
        server.listen();
        auto client = world.connect(7);
        client.pause_receive();
        while (server.statistics().closed == 0 && world.now() < 10s) {
            client.receive(2500);
            server.run_for(10ms);
        }
        CHECK(world.now() < 1500ms);
        CHECK(server.statistics().timeouts == 1);
        world.advance(1s);
        CHECK(client.was_reset());
    }
}

TEST_CASE("a coroutine that waits for room goes on at the low mark") {
    tcp::simulation world;  // the system takes 128 KiB at once
    std::size_t left = 1'000'000;
    const auto talk = [&left](tcp::connection& peer) -> tcp::task<> {
        static_cast<void>(co_await peer.send(std::string(178 * 1024, 'x')));
        left = peer.send_queue_size();
    };
    tcp::server<std::remove_const_t<decltype(talk)>, tcp::simulated_engine> server{talk, {}, world};
    server.bind(7);
    server.listen();
    const auto client = world.connect(7);
    server.run_for(1s);
    CHECK(left <= tcp::options{}.low_mark);
    CHECK(client.received().size() == 178 * 1024);
}

TEST_CASE("what a script of a simulation sends through a handle arrives then") {
    tcp::simulation world;
    tcp::connection_handle name;
    tcp::server<named, tcp::simulated_engine> server{named{0, &name}, {}, world};
    server.bind(7);
    server.listen();
    const auto client = world.connect(7);
    server.run_for(10ms);
    tcp::duration arrived;
    world.after(1s, [&] { CHECK(name.send("tick")); });
    world.after(2s, [&] { arrived = client.received() == "tick" ? world.now() : arrived; });
    server.run_for(10s);
    CHECK(arrived > tcp::duration{});
}

TEST_CASE("who waits is served by a drain, though accepting failed a moment ago") {
    tcp::simulation::faults weather;
    weather.accept_failed_per_mille = 1000;
    tcp::simulation world{1, weather};
    tcp::server<tcp::echo, tcp::simulated_engine> server{{}, {}, world};
    server.bind(7);
    server.listen();
    auto client = world.connect(7);
    client.send("x");
    client.shutdown_send();
    server.run_for(10ms);
    world.set_faults({});
    server.drain(1s);
    server.run();
    world.advance(1s);
    CHECK(client.received() == "x");
}
