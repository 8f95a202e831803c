// Behaviours 44, 64 and 65: a server ends when it is told to, from wherever, and leaves nothing.
#include <doctest/doctest.h>

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "beds.hpp"
#include "blocking_client.hpp"
#include "child_process.hpp"
#include "handled_signal.hpp"

using namespace std::chrono_literals;
using conformance::now_of;
using conformance::script;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;
using tests::blocking_client;
using tests::handled_signal;
using tests::open_descriptors;

namespace {

using sizes = std::initializer_list<std::size_t>;

enum class hook { open, data, writable, end, close };
constexpr hook every_hook[] = {hook::open, hook::data, hook::writable, hook::end, hook::close};

// A server in whose connections every hook is called, and does this in one of them, once.
template <class F>
void in_hook(script& does, hook where, F then) {
    does.on_data = [](tcp::connection& peer, tcp::bytes) {
        if (peer.send_queue_size() == 0) peer.send(std::string(300'000, 'r'));
    };
    does.on_end = [](tcp::connection& peer) { peer.close(); };
    const auto first_time = [then, done = false](tcp::connection& peer, auto&&...) mutable {
        if (!std::exchange(done, true)) then(peer);
    };
    switch (where) {
        case hook::open: does.on_open = first_time; break;
        case hook::data: does.on_data = first_time; break;
        case hook::writable: does.on_writable = first_time; break;
        case hook::end: does.on_end = first_time; break;
        case hook::close: does.on_close = first_time; break;
    }
}
const tcp::options small_marks{.high_mark = 60'000, .low_mark = 20'000, .kernel_send_buffer = 4096};

// What the client does so that every hook is called: it asks, reads late, finishes.
template <class Bed>
class lively_client {
public:
    lively_client(Bed& bed, const tcp::endpoint& where) : client_{bed.connect_narrow(where)} {
        client_.pause_receive();
        client_.send("?");
    }
    template <class Server>
    void go_on(const Server* server) {
        if (!reading_ && (server == nullptr || server->statistics().pauses != 0)) {
            reading_ = true;
            client_.resume_receive();
        }
        if (client_.received_size() >= 300'000 || client_.ended()) client_.shutdown_send();
    }
    bool over() const { return client_.ended() || client_.was_reset(); }

private:
    typename Bed::client client_;
    bool reading_ = false;
};

std::size_t count_of(const tcp::statistics& counted, closed_by by) {
    return static_cast<std::size_t>(counted.closed_by[static_cast<std::size_t>(by)]);
}

std::error_code error_of(const auto& call) {
    std::error_code failure;
    call(failure);
    return failure;
}

}  // namespace

// ---- 44: inside a hook ----

TEST_ON_BEDS("44 stop() inside every hook", Bed, CONFORMANCE_BEDS) {
    for (const hook where : every_hook) {
        CAPTURE(static_cast<int>(where));
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does}, small_marks);
        const auto at = on.bed.listen(server);
        std::vector<typename Bed::client> idle;
        for (int i = 0; i != 3; ++i) idle.push_back(on.bed.connect(at));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 3; }));
        bool told = false;
        in_hook(on.does, where, [&](tcp::connection&) {
            server.stop();
            server.stop();
            told = true;
        });
        lively_client<Bed> client{on.bed, at};
        REQUIRE(on.bed.until(server, [&] {
            client.go_on(&server);
            return told && on.does.peers.empty();
        }));
        CHECK(on.does.closes.size() == 4);
        const bool ended_before = where == hook::close;
        CHECK(count_of(server.statistics(), closed_by::server_stopping) == (ended_before ? 3 : 4));
        CHECK(server.statistics().open == 0);
        CHECK_FALSE(server.poll());
        CHECK_FALSE(server.run_for(1h));
        server.run();
        CHECK(on.bed.until(server, [&] {
            client.go_on(static_cast<decltype(&server)>(nullptr));
            return client.over() && std::all_of(idle.begin(), idle.end(),
                                                [](auto& c) { return c.ended() || c.was_reset(); });
        }));
        CHECK(on.does.closes.size() == 4);
    }
}

TEST_ON_BEDS("44 drain() inside every hook", Bed, CONFORMANCE_BEDS) {
    for (const hook where : every_hook) {
        CAPTURE(static_cast<int>(where));
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does}, small_marks);
        const auto at = on.bed.listen(server);
        auto idle = on.bed.connect(at);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        tcp::duration told_at = tcp::duration::max();
        in_hook(on.does, where, [&](tcp::connection& peer) {
            server.drain(100ms);
            told_at = now_of(on.bed);
            if (where != hook::close) peer.close();
        });
        lively_client<Bed> client{on.bed, at};
        bool serving = true;
        REQUIRE(on.bed.until(server, [&] {
            client.go_on(told_at == tcp::duration::max() ? &server : nullptr);
            return told_at != tcp::duration::max() && !(serving = server.poll());
        }));
        CHECK(now_of(on.bed) - told_at >= 100ms);  // the idle one does not finish
        CHECK(on.does.closes.size() == 2);
        CHECK(on.does.closes.back().by == closed_by::drain_deadline);
        CHECK(on.bed.until(server, [&] { return idle.ended() || idle.was_reset(); }));
        server.run();
        CHECK_FALSE(server.run_for(1h));
    }
}

TEST_ON_BEDS("44 destruction of the server inside every hook", Bed, CONFORMANCE_BEDS) {
    for (const hook where : every_hook) {
        CAPTURE(static_cast<int>(where));
        stage<Bed> on;
        using server = typename Bed::template server<scripted>;
        std::unique_ptr<server> only{new server(on.bed.make(scripted{on.does}, small_marks))};
        const auto at = on.bed.listen(*only);
        std::vector<typename Bed::client> idle;
        for (int i = 0; i != 3; ++i) idle.push_back(on.bed.connect(at));
        REQUIRE(on.bed.until(*only, [&] { return on.does.opens == 3; }));
        in_hook(on.does, where, [&](tcp::connection& peer) {
            only.reset();
            // The connection is there to the end of its hook.
            peer.send("the last");
            CHECK(peer.send_queue_size() <= 400'000);
        });
        lively_client<Bed> client{on.bed, at};
        REQUIRE(on.bed.until(*only, [&] {
            client.go_on(only.get());
            return only == nullptr;
        }));
        CHECK(on.does.closes.size() == 4);
        CHECK(on.does.alive == 0);
        std::size_t stopped = 0;
        for (const auto& why : on.does.closes) stopped += why.by == closed_by::server_stopping;
        CHECK(stopped == (where == hook::close ? 3 : 4));
    }
}

TEST_ON_BEDS("44 destruction of a stopped server inside on_close", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    using server = typename Bed::template server<scripted>;
    std::unique_ptr<server> only{new server(on.bed.make(scripted{on.does}))};
    const auto at = on.bed.listen(*only);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 3; ++i) clients.push_back(on.bed.connect(at));
    REQUIRE(on.bed.until(*only, [&] { return on.does.opens == 3; }));
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        if (on.does.closes.size() == 2) only.reset();
    };
    only->stop();
    server& running = *only;
    running.run();
    CHECK(only == nullptr);
    CHECK(on.does.closes.size() == 3);
    CHECK(on.does.alive == 0);
}

TEST_ON_BEDS("44 destruction of the server inside a hook that run() and accept() called (K)", Bed,
             SYSTEM_BEDS) {
    for (const bool accepts : {false, true}) {
        CAPTURE(accepts);
        stage<Bed> on;
        using server = typename Bed::template server<scripted>;
        std::unique_ptr<server> only{new server(on.bed.make(scripted{on.does}))};
        const auto at = on.bed.listen(*only);
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
            peer.send(data);
            only.reset();
        };
        conformance::kernel_client client{at};
        while (!client.connected()) client.pump();
        client.send("bye");
        server& running = *only;
        if (accepts) {
            CHECK(running.accept().by == closed_by::server_stopping);
        } else {
            running.run();
        }
        CHECK(only == nullptr);
        CHECK(on.does.alive == 0);
        const auto end = std::chrono::steady_clock::now() + 20s;
        while (!client.ended() && std::chrono::steady_clock::now() < end) client.pump();
        CHECK(client.received() == "bye");  // sent when the hook returned
    }
}

// ---- 44: before, twice, at the wrong time ----

TEST_ON_BEDS("44 stop() before run(): it returns at once, and the server stays stopped", Bed,
             CONFORMANCE_BEDS) {
    for (const bool twice : {false, true}) {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        auto client = on.bed.connect(at);
        server.stop();
        if (twice) server.stop();
        server.run();
        CHECK_FALSE(server.poll());
        CHECK_FALSE(server.run_for(1h));
        server.run();
        CHECK(error_of([&](auto& failure) { server.bind(at, failure); }) == tcp::error::stopped);
        CHECK(error_of([&](auto& failure) { server.listen(failure); }) == tcp::error::stopped);
        CHECK(on.bed.until(server, [&] { return client.refused() || client.was_reset(); }));
        CHECK(on.does.opens == 0);
    }
    stage<Bed> on;  // not even bound
    auto server = on.bed.make(scripted{on.does});
    server.stop();
    server.run();
    CHECK_FALSE(server.poll());
}

TEST_ON_BEDS("44 stop() before, in and after accept()", Bed, CONFORMANCE_BEDS) {
    {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        on.bed.listen(server);
        server.stop();
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK_FALSE(server.poll());
    }
    {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        on.does.on_open = [&](tcp::connection&) { server.stop(); };
        auto client = on.bed.connect(at);
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK(on.does.closes.size() == 1);
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
    }
    {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        on.bed.listen(server);
        server.drain({});
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK(server.accept().by == closed_by::server_stopping);
        server.run();
    }
    {
        // Drained while one is connected, who is served to the end.
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        auto client = on.bed.connect(on.bed.listen(server));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1 && client.connected(); }));
        server.drain(1h);
        CHECK(server.poll());
        client.reset();
        CHECK(server.accept().by == closed_by::server_stopping);
        REQUIRE(on.does.closes.size() == 1);
        CHECK(on.does.closes[0].by == closed_by::peer_reset);
        CHECK_FALSE(server.poll());
    }
}

TEST_ON_BEDS("accept() tells how its own connection ended, not another one", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does});
    const auto at = on.bed.listen(server);
    auto before = on.bed.connect(at);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1 && before.connected(); }));
    // One that poll() accepted ends while accept() waits for one of its own.
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        if (on.does.closes.size() != 1) return;
        auto mine = on.bed.connect(at);
        mine.send("hello");
        mine.shutdown_send();
    };
    before.reset();
    CHECK(server.accept().by == closed_by::handler_closed);
    CHECK(on.does.opens == 2);
    CHECK(on.does.received == "hello");
    CHECK(on.does.closes.size() == 2);
}

TEST_ON_BEDS("44 a stopped server keeps what it counted", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("hello");
    REQUIRE(on.bed.until(server, [&] { return client.received() == "hello"; }));
    server.stop();
    server.run();
    const auto counted = server.statistics();
    CHECK(counted.accepted == 1);
    CHECK(counted.open == 0);
    CHECK(counted.closed == 1);
    CHECK(counted.bytes_received == 5);
    CHECK(counted.bytes_sent == 5);
    CHECK(count_of(counted, closed_by::server_stopping) == 1);
}

TEST_ON_BEDS("44 destroying a server with open connections: every on_close says so", Bed,
             CONFORMANCE_BEDS) {
    for (const std::size_t queued : sizes{0, 500'000}) {
        CAPTURE(queued);
        stage<Bed> on;
        std::vector<typename Bed::client> clients;
        {
            auto server = on.bed.make(scripted{on.does}, small_marks);
            const auto at = on.bed.listen(server);
            on.does.on_open = [&](tcp::connection& peer) { peer.send(std::string(queued, 'q')); };
            on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason&) {
                CHECK_FALSE(peer.send("stale"));
                peer.close();
                server.stop();  // the loop is there to the end
                CHECK(server.statistics().open > 0);
                // To those that are still there; they get no further.
                if (queued != 0)
                    for (tcp::connection* each : on.does.peers) each->send("too late");
            };
            for (int i = 0; i != 5; ++i) {
                clients.push_back(on.bed.connect_narrow(at));
                clients.back().pause_receive();
            }
            REQUIRE(on.bed.until(server, [&] { return on.does.opens == 5; }));
            CHECK(on.does.closes.empty());
            clients.push_back(on.bed.connect(at));  // waits to be accepted
        }
        REQUIRE(on.does.closes.size() == 5);
        for (const auto& why : on.does.closes) {
            CHECK(why.by == closed_by::server_stopping);
            if (queued != 0) CHECK(why.unsent > 0);
        }
        CHECK(on.does.alive == 0);
        // What was cut short must not look complete.
        for (auto& c : clients) c.resume_receive();
        if constexpr (Bed::simulated) on.bed.world.advance(1s);
        for (std::size_t i = 0; i != 5; ++i) {
            CHECK(clients[i].was_reset() == (queued != 0));
            CHECK(clients[i].ended() == (queued == 0));
        }
        CHECK((clients[5].was_reset() || clients[5].refused()));
    }
}

TEST_ON_BEDS("44 a server that is being destroyed is not run by its last hooks", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::vector<std::error_code> failures;
    {
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
            failures.push_back(error_of([&](auto& f) { CHECK_FALSE(server.poll(f)); }));
            failures.push_back(error_of([&](auto& f) { server.run(f); }));
            failures.push_back(error_of([&](auto& f) { server.accept(f); }));
        };
        on.bed.connect(at);
        on.bed.connect(at);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    }
    CHECK(failures.size() == 6);
    for (const auto& failure : failures) CHECK(failure == tcp::error::already_running);
    CHECK(on.does.closes.size() == 2);
}

TEST_ON_BEDS("44 run() twice at once, from a hook: already_running", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    std::vector<std::error_code> failures;
    bool thrown = false;
    on.does.on_open = [&](tcp::connection&) {
        failures = {error_of([&](auto& failure) { server.run(failure); }),
                    error_of([&](auto& failure) { CHECK_FALSE(server.run_for(1ms, failure)); }),
                    error_of([&](auto& failure) { CHECK_FALSE(server.poll(failure)); }),
                    error_of([&](auto& failure) { server.accept(failure); })};
        try {
            server.run();
        } catch (const std::system_error& error) {
            thrown = error.code() == tcp::error::already_running;
        }
    };
    auto client = on.bed.connect(on.bed.listen(server));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    CHECK(failures.size() == 4);
    for (const auto& failure : failures) CHECK(failure == tcp::error::already_running);
    CHECK(thrown);
    CHECK(on.does.closes.empty());  // the one that runs goes on
    client.send("still there");
    CHECK(on.bed.until(server, [&] { return on.does.received == "still there"; }));
}

TEST_ON_BEDS("what poll() and run_for() return, and how long they take", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    std::error_code failure;
    CHECK_FALSE(server.poll(failure));
    CHECK(failure == tcp::error::not_listening);
    CHECK_FALSE(server.run_for(1ms, failure));
    CHECK(failure == tcp::error::not_listening);
    server.run(failure);
    CHECK(failure == tcp::error::not_listening);
    CHECK_THROWS_AS(server.poll(), std::system_error);

    const auto at = on.bed.listen(server);
    const tcp::duration start = now_of(on.bed);
    CHECK(server.poll(failure));
    CHECK_FALSE(failure);
    if constexpr (Bed::simulated) CHECK(now_of(on.bed) == start);
    CHECK(server.run_for(tcp::duration{}));
    CHECK(server.run_for(-1s));
    if constexpr (Bed::simulated) CHECK(now_of(on.bed) == start);
    CHECK(server.run_for(20ms));
    CHECK(now_of(on.bed) - start >= 20ms);
    if constexpr (Bed::simulated) CHECK(now_of(on.bed) - start == 20ms);

    // The time is kept with events in between, and poll() waits for none.
    auto client = on.bed.connect(at);
    on.does.on_open = [](tcp::connection& peer) { peer.send("!"); };
    const tcp::duration middle = now_of(on.bed);
    CHECK(server.run_for(20ms));
    CHECK(now_of(on.bed) - middle >= 20ms);
    if constexpr (Bed::simulated) CHECK(now_of(on.bed) - middle == 20ms);
    CHECK(on.bed.until(server, [&] { return client.received() == "!"; }));

    on.does.on_data = [&](tcp::connection&, tcp::bytes) { server.stop(); };
    client.send("!");
    while (server.run_for(1h)) {}
    CHECK(on.does.closes.size() == 1);
    CHECK_FALSE(server.poll(failure));
    CHECK_FALSE(failure);  // to have stopped is no error
    CHECK_FALSE(server.run_for(1ms, failure));
    CHECK_FALSE(failure);
}

TEST_ON_BEDS("run() without a client ends by stop() and drain() (S)", Bed, SIMULATED_BEDS) {
    for (const bool drained : {false, true}) {
        CAPTURE(drained);
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        on.bed.listen(server);
        on.bed.world.after(5s, [&] {
            if (drained)
                server.drain(1h);
            else
                server.stop();
        });
        server.run();
        CHECK(on.bed.world.now() == 5s);
    }
}

// ---- 65 ----

TEST_ON_BEDS("65 drain: nobody new, those connected finish, then run() returns", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does});
    const auto at = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 4; ++i) clients.push_back(on.bed.connect(at));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 4; }));
    server.drain(1h);
    server.drain(2h);
    CHECK(server.poll());
    if constexpr (Bed::simulated) CHECK(on.bed.world.open_listeners() == 0);
    auto late = on.bed.connect(at);
    REQUIRE(on.bed.until(server, [&] { return late.refused(); }));
    for (std::size_t i = 0; i != 4; ++i) {
        clients[i].send("served");
        CHECK(on.bed.until(server, [&] { return clients[i].received() == "served"; }));
        CHECK(server.poll());
        clients[i].shutdown_send();
        CHECK(on.bed.until(server, [&] { return clients[i].ended(); }));
        CHECK(on.bed.until(server, [&] { return on.does.closes.size() == i + 1; }));
        CHECK_FALSE(clients[i].was_reset());
    }
    CHECK_FALSE(server.poll());
    server.run();
    CHECK(on.does.opens == 4);
    CHECK(count_of(server.statistics(), closed_by::handler_closed) == 4);
    std::error_code failure;
    server.bind(at, failure);
    CHECK(failure);
}

TEST_ON_BEDS("65 drain: who waits to be accepted is connected, and is served", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t count = 150;  // more than one batch
    for (const bool running : {true, false}) {
        CAPTURE(running);
        stage<Bed> on;
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        if (running) server.poll();
        std::vector<typename Bed::client> clients;
        for (std::size_t i = 0; i != count; ++i) {
            clients.push_back(on.bed.connect(at));
            clients[i].send("served");
            clients[i].shutdown_send();
        }
        REQUIRE(on.bed.wait([&] {
            for (const auto& client : clients)
                if (!client.connected()) return false;
            return true;
        }));
        server.drain(1h);
        server.run();
        CHECK(on.does.opens == count);
        REQUIRE(on.bed.wait([&] {
            for (const auto& client : clients)
                if (!client.ended() && !client.was_reset()) return false;
            return true;
        }));
        for (const auto& client : clients) CHECK(client.received() == "served");
        CHECK(server.statistics().accepted == count);
    }
}

TEST_ON_BEDS("65 drain: those left at the deadline are closed with that reason", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto at = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 6; ++i) clients.push_back(on.bed.connect(at));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 6; }));
    const tcp::duration start = now_of(on.bed);
    server.drain(150ms);
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    clients[0].shutdown_send();
    clients[1].reset();
    tcp::duration over;
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) { over = now_of(on.bed); };
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 2; }));
    server.run();
    CHECK(on.does.closes.size() == 6);
    CHECK(over - start >= 150ms);
    if constexpr (Bed::simulated) CHECK(over - start <= 151ms);
    const auto counted = server.statistics();
    CHECK(count_of(counted, closed_by::drain_deadline) == 4);
    CHECK(count_of(counted, closed_by::handler_closed) == 1);
    CHECK(count_of(counted, closed_by::peer_reset) == 1);
    CHECK(counted.open == 0);
    CHECK(on.bed.until(server, [&] {
        return std::all_of(clients.begin() + 2, clients.end(),
                           [](auto& c) { return c.ended() || c.was_reset(); });
    }));
}

TEST_ON_BEDS("65 drain in every order with stop() and itself", Bed, CONFORMANCE_BEDS) {
    const auto ended_by = [](auto&& end) {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        auto client = on.bed.connect(on.bed.listen(server));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        end(server);
        server.run();
        REQUIRE(on.does.closes.size() == 1);
        CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
        return on.does.closes[0].by;
    };
    CHECK(ended_by([](auto& s) { s.drain({}); }) == closed_by::drain_deadline);
    CHECK(ended_by([](auto& s) { s.drain(-5s); }) == closed_by::drain_deadline);
    CHECK(ended_by([](auto& s) { s.drain(1h), s.drain(1ms); }) == closed_by::drain_deadline);
    CHECK(ended_by([](auto& s) { s.drain(1h), s.poll(), s.drain({}); }) ==
          closed_by::drain_deadline);
    CHECK(ended_by([](auto& s) { s.drain(tcp::duration::max()), s.poll(), s.drain({}); }) ==
          closed_by::drain_deadline);
    CHECK(ended_by([](auto& s) { s.drain(1h), s.stop(); }) == closed_by::server_stopping);
    CHECK(ended_by([](auto& s) { s.drain(1h), s.poll(), s.stop(); }) == closed_by::server_stopping);
    CHECK(ended_by([](auto& s) { s.stop(), s.drain(1h); }) == closed_by::server_stopping);
    CHECK(ended_by([](auto& s) { s.pause_accept(), s.poll(), s.drain({}), s.resume_accept(); }) ==
          closed_by::drain_deadline);
}

TEST_ON_BEDS("65 drain with nobody connected: run() returns at once", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto at = on.bed.listen(server);
    server.drain(1h);
    const tcp::duration start = now_of(on.bed);
    server.run();
    if constexpr (Bed::simulated) CHECK(now_of(on.bed) == start);
    auto late = on.bed.connect(at);
    CHECK(on.bed.until(server, [&] { return late.refused(); }));
    CHECK_FALSE(server.poll());
}

TEST_ON_BEDS("65 what is queued is sent while the server drains", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string reply = conformance::pattern(600'000);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        peer.send(reply);
        peer.close();
    };
    auto server =
        on.bed.make(scripted{on.does}, {.close_timeout = 100s, .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
    server.drain(100s);
    CHECK(server.poll());
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(conformance::difference(client.received(), reply) == "");
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return !server.poll(); }));
    REQUIRE(on.does.closes.size() == 1);
    CHECK(on.does.closes[0].by == closed_by::handler_closed);
}

// ---- 44: from other threads (K) ----

TEST_ON_BEDS("44 stop() from another thread while the server runs (K)", Bed, SYSTEM_BEDS) {
    for (int round = 0; round != 40; ++round) {
        stage<Bed> on;
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        std::thread runner{[&] { server.run(); }};
        std::vector<blocking_client> clients;
        // In some rounds the server has only just begun, or not yet.
        for (int i = 0; i != round % 4; ++i) clients.emplace_back(at);
        for (const auto& c : clients) CHECK(c.echoes("ping"));
        std::thread others[2];
        for (std::thread& other : others) other = std::thread{[&] { server.stop(); }};
        server.stop();
        runner.join();
        for (std::thread& other : others) other.join();
        CHECK(on.does.closes.size() == clients.size());
        for (const auto& why : on.does.closes) CHECK(why.by == closed_by::server_stopping);
        for (const auto& c : clients) CHECK(c.over());
        CHECK_FALSE(server.poll());
    }
}

TEST_ON_BEDS("44 destruction from another thread while the server runs (K)", Bed, SYSTEM_BEDS) {
    for (int round = 0; round != 100; ++round) {
        stage<Bed> on;
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        using server = typename Bed::template server<scripted>;
        std::optional<server> one;
        // The type has no move: made in its place.
        struct maker {
            stage<Bed>& on;
            operator server() const { return on.bed.make(scripted{on.does}); }
        };
        one.emplace(maker{on});
        const auto at = on.bed.listen(*one);
        const bool accepts = round % 2 == 1;
        std::thread runner{[&running = *one, accepts] {
            if (accepts)
                running.accept();
            else
                running.run();
        }};
        // It runs for certain when it has answered.
        const blocking_client client{at};
        CHECK(client.echoes("ping"));
        one.reset();
        // Everything is over when the destructor returns, whatever the other thread does then.
        CHECK(on.does.closes.size() == 1);
        CHECK(on.does.alive == 0);
        runner.join();
        CHECK(client.over());
    }
}

TEST_ON_BEDS("44 drain() from another thread while the server runs (K)", Bed, SYSTEM_BEDS) {
    for (const bool finish : {true, false}) {
        CAPTURE(finish);
        stage<Bed> on;
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        std::thread runner{[&] { server.run(); }};
        const blocking_client client{at}, other{at};
        CHECK(client.echoes("ping"));
        CHECK(other.echoes("ping"));
        server.drain(finish ? 1h : 1ms);
        if (finish) {
            // The loop has closed its listeners when a new client is refused.
            while (!blocking_client{at}.refused()) {}
            CHECK(client.echoes("ping"));
            client.shutdown_send();
            CHECK(client.over());
            CHECK(other.echoes("ping"));
            other.shutdown_send();
        }
        runner.join();
        CHECK(other.over());
        CHECK(on.does.closes.size() >= 2);  // who came before the listener was closed was served
        for (const auto& why : on.does.closes)
            CHECK(why.by == (finish ? closed_by::handler_closed : closed_by::drain_deadline));
    }
}

TEST_ON_BEDS("44 run() while another thread runs the server: already_running (K)", Bed,
             SYSTEM_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const auto at = bed.listen(server);
    std::thread runner{[&] { server.run(); }};
    const blocking_client client{at};
    CHECK(client.echoes("ping"));
    CHECK(error_of([&](auto& f) { server.run(f); }) == tcp::error::already_running);
    CHECK(error_of([&](auto& f) { server.run_for(1h, f); }) == tcp::error::already_running);
    CHECK(error_of([&](auto& f) { server.poll(f); }) == tcp::error::already_running);
    CHECK(error_of([&](auto& f) { server.accept(f); }) == tcp::error::already_running);
    CHECK_THROWS_AS(server.run(), std::system_error);
    CHECK(client.echoes("ping"));
    server.stop();
    runner.join();
    server.run();  // nobody runs it now, and it has stopped
}

TEST_ON_BEDS("statistics() from another thread while the server runs (K)", Bed, SYSTEM_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const auto at = bed.listen(server);
    std::thread runner{[&] { server.run(); }};
    std::atomic<bool> enough{false};
    std::size_t fell = 0, read = 0;
    std::thread reader{[&] {
        tcp::statistics last;
        while (!enough.load()) {
            const auto now = server.statistics();
            if (now.accepted < last.accepted || now.closed < last.closed ||
                now.bytes_received < last.bytes_received || now.bytes_sent < last.bytes_sent)
                ++fell;
            last = now;
            ++read;
        }
    }};
    for (int i = 0; i != 50; ++i) {
        const blocking_client client{at};
        for (int j = 0; j != 10; ++j) CHECK(client.echoes("ping"));
        client.shutdown_send();
        CHECK(client.over());
    }
    enough.store(true);
    reader.join();
    server.stop();
    runner.join();
    CHECK(fell == 0);
    CHECK(read > 0);
    const auto counted = server.statistics();
    CHECK(counted.accepted == 50);
    CHECK(counted.closed == 50);
    CHECK(counted.bytes_received == 2'000);
    CHECK(counted.bytes_sent == 2'000);
}

TEST_CASE("a simulated server is woken by stop() and drain() of another thread (S)") {
    for (const bool drained : {false, true}) {
        tcp::simulation world;
        world.expect_outside_wakes();
        tcp::server<tcp::echo, tcp::simulated_engine> server{tcp::echo{}, {}, world};
        server.bind(7);
        server.listen();
        std::thread other{[&] {
            if (drained)
                server.drain(1h);
            else
                server.stop();
        }};
        server.run();
        other.join();
        CHECK_FALSE(server.poll());
    }
}

// ---- signals ----

namespace {

template <class Bed>
std::atomic<typename Bed::template server<scripted>*> to_stop{nullptr};

template <class Bed>
void stop_it(int) {
    if (auto* const server = to_stop<Bed>.load()) server->stop();
}

}  // namespace

TEST_ON_BEDS("44 stop() in a signal handler (K)", Bed, SYSTEM_BEDS) {
    const handled_signal handled{SIGUSR2, stop_it<Bed>};
    for (int round = 0; round != 20; ++round) {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        const auto at = on.bed.listen(server);
        to_stop<Bed> = &server;
        SUBCASE("raised before run()") {
            ::raise(SIGUSR2);
            server.run();
        }
        SUBCASE("raised in a hook") {
            on.does.on_open = [](tcp::connection&) { ::raise(SIGUSR2); };
            const blocking_client client{at};
            server.run();
            CHECK(client.over());
        }
        SUBCASE("sent to the thread that sleeps in run()") {
            on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
            std::thread runner{[&] { server.run(); }};
            const blocking_client client{at};
            CHECK(client.echoes("ping"));
            ::pthread_kill(runner.native_handle(), SIGUSR2);
            runner.join();
            CHECK(client.over());
        }
        CHECK_FALSE(server.poll());
        for (const auto& why : on.does.closes) CHECK(why.by == closed_by::server_stopping);
        to_stop<Bed> = nullptr;
    }
}

TEST_ON_BEDS("44 signals that stop nothing are survived (K)", Bed, SYSTEM_BEDS) {
    const handled_signal handled{SIGUSR2, stop_it<Bed>};
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const auto at = bed.listen(server);
    std::thread runner{[&] { server.run(); }};
    const blocking_client client{at};
    for (int i = 0; i != 200; ++i) {
        ::pthread_kill(runner.native_handle(), SIGUSR2);
        CHECK(client.echoes("ping"));
    }
    server.stop();
    runner.join();
    CHECK(client.over());
}

// ---- nothing is left ----

TEST_ON_BEDS("no descriptor is left by a server that is a local variable (K)", Bed, SYSTEM_BEDS) {
    { const Bed warm; }
    const auto before = open_descriptors();
    REQUIRE_FALSE(before.empty());
    const auto use = [](int how) {
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        if (how == 0) return;  // not even bound
        const auto at = server.bind("127.0.0.1:0");
        server.bind("127.0.0.1:0");
        if (how == 1) return;
        server.listen();
        std::vector<blocking_client> clients;
        for (int i = 0; i != 3; ++i) clients.emplace_back(at);
        if (how == 2) return;  // three wait to be accepted
        while (on.does.opens != 3) server.run_for(1ms);
        if (how == 3) return;
        if (how == 4) server.stop();
        if (how == 5) server.drain({});
        if (how >= 4 && how <= 5) return server.run();
        if (how == 6) throw std::runtime_error{"something else failed"};
        if (how == 7) server.bind(at);  // throws: it listens already
    };
    for (int how = 0; how != 8; ++how) {
        CAPTURE(how);
        bool threw = false;
        try {
            use(how);
        } catch (const std::exception&) {
            threw = true;
        }
        CHECK(threw == (how >= 6));
        CHECK(open_descriptors() == before);
    }
    // A server that could not be made.
    tcp::options contradictory;
    contradictory.low_mark = contradictory.high_mark + 1;
    CHECK_THROWS_AS(tcp::server<>{contradictory}, std::system_error);
    CHECK(open_descriptors() == before);
    {
        tcp::server<> taken;
        const auto at = taken.bind("127.0.0.1:0");
        taken.listen();
        tcp::server<> second;
        std::error_code failure;
        second.bind(at, failure);
        if (!failure) second.listen(failure);
        CHECK(failure == std::errc::address_in_use);
    }
    CHECK(open_descriptors() == before);
}

TEST_ON_BEDS("no descriptor is left while a stopped or drained server is still there (K)", Bed,
             SYSTEM_BEDS) {
    const auto before = open_descriptors();
    for (const bool drained : {false, true}) {
        CAPTURE(drained);
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        const auto made = open_descriptors();
        const auto at = on.bed.listen(server);
        {
            std::vector<blocking_client> clients;
            for (int i = 0; i != 10; ++i) clients.emplace_back(at);
            while (on.does.opens != 10) server.run_for(1ms);
        }
        if (drained)
            server.drain({});
        else
            server.stop();
        server.run();
        // The listener and the connections are gone; what the loop itself needs stays.
        CHECK(open_descriptors() == made);
    }
    CHECK(open_descriptors() == before);
}
