// Peers that are gone while nobody receives from them, sends that fail on a connection that lives,
// and what timers and stop() owe to other connections.
#include <sys/socket.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/task.hpp>
#include <tcp/timer.hpp>

#include "beds.hpp"
#include "blocking_client.hpp"
#include "child_process.hpp"

using namespace std::chrono_literals;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;

TEST_ON_BEDS("a peer that is gone is over though receiving is paused, once a send has failed", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    tcp::connection_handle peer;
    on.does.on_data = [&](tcp::connection& c, tcp::bytes) {
        c.pause_receive();
        peer = c.handle();
    };
    auto server = on.bed.make(scripted{on.does}, {.close_timeout = 100ms});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("!");
    REQUIRE(on.bed.until(server, [&] { return peer.open(); }));
    client.reset();
    CHECK(on.bed.until(server, [&] {
        peer.send("are you there?");
        return !on.does.closes.empty();
    }));
    REQUIRE(on.does.closes.size() == 1);
    CHECK(on.does.closes[0].by == closed_by::peer_reset);
    CHECK(server.statistics().open == 0);
}

TEST_ON_BEDS("a coroutine that only sends hears that its peer is gone", Bed, CONFORMANCE_BEDS) {
    for (const bool said_something : {false, true}) {
        CAPTURE(said_something);
        Bed bed;
        int ticks = 0;
        bool over = false;
        const auto ticker = [&ticks, &over](tcp::connection& peer) -> tcp::task<> {
            while (co_await peer.sleep_for(10ms)) {
                ++ticks;
                co_await peer.send("tick");
            }
            over = true;
        };
        auto server = bed.make(ticker, {.close_timeout = 100ms});
        auto client = bed.connect(bed.listen(server));
        if (said_something) client.send("!");
        REQUIRE(bed.until(server, [&] { return ticks > 3; }));
        client.reset();
        CHECK(bed.until(server, [&] { return over; }));
        CHECK(server.statistics().open == 0);
    }
}

TEST_CASE("a send that the system refuses ends the connection, whatever the peer does") {
    tests::in_child([](tests::findings& found) {
        tcp::server<tcp::echo, tcp::epoll_engine> server{tcp::echo{},
                                                         tcp::options{.close_timeout = 100ms}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        bool permitted = true;
        std::thread runner{
            [&] {  // the filter is this thread's: the client sends without MSG_DONTWAIT
                permitted =
                    tests::refuse_call(SYS_sendto, 3, MSG_NOSIGNAL | MSG_DONTWAIT, ENOBUFS) &&
                    tests::refuse_call(SYS_sendto, 3, MSG_NOSIGNAL, ENOBUFS);
                server.run();
            }};
        const tests::blocking_client client{where};
        client.send("hello");
        const bool over = client.over();
        server.stop();
        runner.join();
        if (!permitted) return found.not_permitted("seccomp");
        found.check(over, "it is open still");
        found.check(server.statistics().bytes_sent == 0, "something was sent");
    });
}

TEST_CASE("after a send that the system refused, a handler that closes waits for no peer") {
    struct closing {
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (tcp::as_text(data) == "close") return peer.close();
            peer.send(data);
        }
    };
    tests::in_child([](tests::findings& found) {
        tcp::server<closing, tcp::epoll_engine> server{closing{},
                                                       tcp::options{.close_timeout = 120s}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        bool permitted = true;
        std::thread runner{[&] {  // as above
            permitted = tests::refuse_call(SYS_sendto, 3, MSG_NOSIGNAL | MSG_DONTWAIT, ENOBUFS) &&
                        tests::refuse_call(SYS_sendto, 3, MSG_NOSIGNAL, ENOBUFS);
            server.run();
        }};
        const tests::blocking_client client{where};
        client.send("hello");
        for (int left = 2'000; left != 0 && server.statistics().bytes_received != 5; --left)
            std::this_thread::sleep_for(5ms);
        client.send("close");
        const bool over = client.over();
        server.stop();
        runner.join();
        if (!permitted) return found.not_permitted("seccomp");
        found.check(over, "it is open still");
        found.check(server.statistics().bytes_received == 10, "it did not hear what came");
    });
}

namespace {

/// The first connection is sent something by the timer of the second.
struct neighbours {
    struct seen {
        tcp::connection* first = nullptr;
        tcp::server<neighbours, tcp::epoll_engine>* stops = nullptr;
        bool rang = false;
    };
    seen* all;
    tcp::timer timer{};

    void on_open(tcp::connection& peer) {
        if (all->first == nullptr) {
            all->first = &peer;
            return;
        }
        timer.start(peer, 1ms, [this](tcp::connection&) {
            all->rang = true;
            all->first->send("bye");
            if (all->stops != nullptr) all->stops->stop();
        });
    }
};

}  // namespace

TEST_CASE("what a timer asks of another connection is done before the turn ends") {
    for (const bool stops : {false, true}) {
        CAPTURE(stops);
        neighbours::seen all;
        tcp::server<neighbours, tcp::epoll_engine> server{neighbours{&all}};
        if (stops) all.stops = &server;
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        const tests::blocking_client first{where};
        while (all.first == nullptr) server.poll();
        const tests::blocking_client second{where};
        while (!all.rang) server.poll();
        CHECK(server.statistics().bytes_sent == 3);
        CHECK(first.receive(3) == "bye");
        server.stop();
        server.poll();
        CHECK(first.over());
    }
}

// As far as the system takes it at once.
TEST_ON_BEDS("what a handle sends before stop() leaves", Bed, SYSTEM_BEDS, conformance::fair_bed) {
    stage<Bed> on;
    tcp::connection_handle peer;
    on.does.on_open = [&](tcp::connection& c) { peer = c.handle(); };
    auto server = on.bed.make(scripted{on.does});
    const auto client = on.bed.connect(on.bed.listen(server));
    REQUIRE(on.bed.until(server, [&] { return peer.open(); }));
    CHECK(!client.ended());
    CHECK(peer.send("bye"));
    server.stop();
    CHECK_FALSE(server.poll());
    CHECK(server.statistics().bytes_sent == 3);
}

TEST_CASE("no more than the limit of a send queue is under way from handles") {
    struct known {
        tcp::connection_handle* peer;
        tcp::close_reason* how;
        void on_open(tcp::connection& c) const { *peer = c.handle(); }
        void on_close(tcp::connection&, const tcp::close_reason& why) const { *how = why; }
    };
    constexpr std::size_t limit = 100'000, piece = 1'000;
    tcp::connection_handle peer;
    tcp::close_reason how;
    tcp::server<known> server{known{&peer, &how}, tcp::options{.send_queue_limit = limit}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const tests::blocking_client client{where};
    while (!peer.open()) server.poll();
    std::size_t sent = 0;
    tcp::send_result last;
    for (; last && sent != 1'000 * piece; sent += last ? piece : 0)
        last = peer.send(std::string(piece, 'x'));
    CHECK(last.error() == tcp::error::send_queue_limit);
    CHECK(sent == limit + piece);
    CHECK(peer.post([](tcp::connection&) {}));  // it has no bytes
    while (server.statistics().open != 0) server.poll();
    CHECK(how.by == closed_by::limit);
    CHECK(how.reached == tcp::limit::send_queue);
    CHECK(how.unsent == sent);
    CHECK(client.over());
}

TEST_CASE("a send of a handle that is refused ends the connection, however fast the loop is") {
    struct known {
        std::atomic<bool>* there;
        tcp::connection_handle* peer;
        void on_open(tcp::connection& c) const {
            *peer = c.handle();
            *there = true;
        }
    };
    std::atomic<bool> there{false};
    tcp::connection_handle peer;
    tcp::server<known> server{known{&there, &peer}, tcp::options{.send_queue_limit = 64}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread runner{[&] { server.run(); }};
    for (int i = 0; i != 200; ++i) {
        const tests::blocking_client client{where};
        while (!there) std::this_thread::yield();
        there = false;
        tcp::send_result last;
        for (int sent = 0; last && sent != 100'000; ++sent) last = peer.send("0123456789");
        CHECK(!last);
        while (server.statistics().open != 0) std::this_thread::yield();
        CHECK(!peer.open());
    }
    server.stop();
    runner.join();
}
