// A ring belongs to one thread, a server to none: what is under way goes on when another thread
// runs the server.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>
#include <tcp/timer.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"

using namespace std::chrono_literals;
using tests::blocking_client;

namespace {

template <class Handler>
using server_of = tcp::server<Handler, tcp::io_uring_engine>;

/// Calls it on a thread of its own.
void elsewhere(const std::function<void()>& call) { std::thread{call}.join(); }

/// The tcp::echo, and how often on_close was called.
struct counted_echo {
    int* closes;
    void on_data(tcp::connection& peer, tcp::bytes data) const { peer.send(data); }
    void on_close(tcp::connection&, const tcp::close_reason&) const { ++*closes; }
};

/// Echoes once; then the system serves the loop that it is on no more.
struct last_echo {
    std::thread::id runner;
    bool on_the_first;
    std::atomic<bool>* permitted;
    void on_data(tcp::connection& peer, tcp::bytes data) const {
        using tcp::detail::io_uring::enter_call;
        peer.send(data);
        if ((std::this_thread::get_id() == runner) != on_the_first) return;
        *permitted = tests::refuse_call(enter_call, 2, 0, EPERM) &&
                     tests::refuse_call(enter_call, 2, 1, EPERM);
        if (!*permitted) throw "seccomp";
    }
};

}  // namespace

TEST_CASE("a server goes on on another thread") {
    int closes = 0;
    server_of<counted_echo> server{counted_echo{&closes}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 50; ++i) clients.emplace_back(where);
    for (int round = 0; round != 6; ++round) {
        CAPTURE(round);
        for (const blocking_client& one : clients) CHECK(one.send("0123456789"));
        const auto serve = [&] {
            for (int i = 0; i != 20; ++i) server.run_for(1ms);
        };
        if (round % 2 == 0)
            serve();
        else
            elsewhere(serve);
        for (const blocking_client& one : clients) CHECK(one.receive(10) == "0123456789");
        clients.emplace_back(where);
    }
    CHECK(closes == 0);
    elsewhere([&] { server.stop(); });
    elsewhere([&] { CHECK_FALSE(server.poll()); });
    CHECK(closes == 55);  // the last one was not accepted
    for (std::size_t i = 0; i != 55; ++i) CHECK(clients[i].over());
}

TEST_CASE("what waits for room is sent on another thread") {
    int closes = 0;
    server_of<counted_echo> server{counted_echo{&closes}, {.kernel_send_buffer = 4096}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client client{where};
    const std::string text(3'000'000, 'x');
    std::thread sender{[&] { CHECK(client.send(text)); }};
    std::string got;
    std::thread receiver{[&] { got = client.receive(text.size()); }};
    const auto serve = [&] { server.run_for(1ms); };
    for (int round = 0; server.statistics().bytes_sent < text.size() && round != 4'000; ++round) {
        serve();
        elsewhere(serve);
    }
    sender.join();
    receiver.join();
    CHECK(got == text);
    CHECK(server.statistics().open == 1);
}

TEST_CASE("a server that one thread has run is destroyed on another") {
    for (const bool in_time : {true, false}) {
        int closes = 0;
        std::vector<blocking_client> clients;
        {
            server_of<counted_echo> server{counted_echo{&closes}};
            const tcp::endpoint where = server.bind("127.0.0.1:0");
            server.listen();
            for (int i = 0; i != 2'000; ++i) clients.emplace_back(where);
            elsewhere([&] {
                while (server.statistics().open != clients.size()) server.run_for(1ms);
                for (const blocking_client& one : clients) one.send("hello");
                if (in_time)
                    while (server.statistics().bytes_sent != clients.size() * 5)
                        server.run_for(1ms);
            });
        }
        CHECK(closes == 2'000);
        for (const blocking_client& one : clients) {
            if (in_time) CHECK(one.receive(5) == "hello");
            CHECK(one.over());
        }
    }
}

TEST_CASE("several loops hand over connections") {
    server_of<tcp::echo> server{tcp::echo{}, {.threads = 3}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread runner{[&] { server.run(); }};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 30; ++i) {
        clients.emplace_back(where);
        CHECK(clients.back().send("hello"));
        CHECK(clients.back().receive(5) == "hello");
    }
    for (std::size_t loop = 0; loop != 3; ++loop) CHECK(server.statistics(loop).open == 10);
    server.stop();
    runner.join();
    for (const blocking_client& one : clients) CHECK(one.over());
}

TEST_CASE("one of several loops that cannot go on ends the server, and run() says why") {
    for (const bool on_the_first : {false, true}) {
        CAPTURE(on_the_first);
        tests::in_child([=](tests::findings& found) {
            std::atomic<bool> permitted{true};
            const last_echo echo{std::this_thread::get_id(), on_the_first, &permitted};
            std::optional<server_of<last_echo>> server{std::in_place, echo,
                                                       tcp::options{.threads = 2}};
            const tcp::endpoint where = server->bind("127.0.0.1:0");
            server->listen();
            bool ended = false;
            std::thread clients{[&] {
                const blocking_client one{where}, two{where};
                one.send("1");
                two.send("2");
                one.receive(1);
                two.receive(1);
                if (!permitted) server->stop();
                ended = one.over() && two.over();
            }};
            std::error_code why;
            try {
                server->run();
            } catch (const std::system_error& e) {
                why = e.code();
            }
            server.reset();
            clients.join();
            if (!permitted) return found.not_permitted("seccomp");
            found.check(why == std::errc::operation_not_permitted, "run() gave " + why.message());
            found.check(ended, "a connection is open still");
        });
    }
}

TEST_CASE("who connects while one loop of several is busy is accepted by another") {
    struct slow {
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (tcp::as_text(data) == "sleep") std::this_thread::sleep_for(2s);
            peer.send(data);
        }
    };
    server_of<slow> server{slow{}, {.threads = 2}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread runner{[&] { server.run(); }};
    const blocking_client first{where}, second{where};
    CHECK(first.echoes("1"));
    CHECK(second.echoes("2"));
    CHECK(first.send("sleep"));
    std::this_thread::sleep_for(20ms);
    const auto begin = std::chrono::steady_clock::now();
    const auto opens = [&](std::uint64_t count) {
        while (server.statistics().open != count) std::this_thread::sleep_for(1ms);
    };
    for (int i = 0; i != 4; ++i) {  // each time the other loop has fewer, or as many
        const blocking_client client{where};
        opens(3);
        CHECK(client.finishes());
        opens(2);
    }
    CHECK(std::chrono::steady_clock::now() - begin < 1s);
    server.stop();
    runner.join();
}

TEST_CASE("what came to the ring of one thread is delivered on another, in order, and once") {
    constexpr std::size_t count = 130;  // more than a loop has buffers
    const auto text = [](std::size_t of, int part) {
        std::string all;
        // The first one fills several buffers, and all together fill more than there are.
        const std::size_t size = part == 1 ? 40'000 : 100;
        while (all.size() < size) all += std::to_string(of) + (part == 1 ? "a" : "b");
        return all;
    };
    struct handler {
        const std::function<void()>* then;
        std::atomic<std::size_t>* ends;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (tcp::as_text(data) == "go") (*then)();
            peer.send(data);
        }
        void on_end(tcp::connection&) const { ++*ends; }
    };
    std::vector<blocking_client> clients;
    const std::function<void()> all_send = [&] {
        for (std::size_t i = 0; i != count; ++i) clients[i].send(text(i, 1));
        std::this_thread::sleep_for(20ms);
    };
    std::atomic<std::size_t> ends{0};
    server_of<handler> server{handler{&all_send, &ends}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    for (std::size_t i = 0; i != count + 1; ++i) clients.emplace_back(where);
    while (server.statistics().open != clients.size()) server.poll();
    clients.back().send("go");
    // What is handed over behind the last hook completes in this ring and is delivered by no turn.
    while (server.statistics().bytes_received != 2) server.poll();
    for (std::size_t i = 0; i != count; ++i) clients[i].send(text(i, 2));
    std::thread runner{[&] { server.run(); }};
    CHECK(clients.back().receive(2) == "go");
    for (std::size_t i = 0; i != count; ++i) {
        const std::string expected = text(i, 1) + text(i, 2);
        const bool same = clients[i].receive(expected.size()) == expected;
        CHECK(same);
        if (!same) break;  // the others would make it wait as long
    }
    // And everything is asked for once: nobody's end comes twice.
    for (const blocking_client& one : clients) one.shutdown_send();
    for (int left = 2'000; left != 0 && ends < clients.size(); --left)
        std::this_thread::sleep_for(10ms);
    std::this_thread::sleep_for(50ms);
    CHECK(ends == clients.size());
    server.stop();
    runner.join();
}

TEST_CASE("stop() is heard of after more was done in a turn than the ring has room for") {
    constexpr std::size_t count = 1'200;
    struct {
        std::vector<tcp::connection*> peers;  // of the runner
        tcp::timer alarm;
        std::atomic<bool> full{false}, woken{false}, over{false};
    } seen;
    struct handler {
        decltype(seen)* at;
        void on_open(tcp::connection& peer) const { at->peers.push_back(&peer); }
        void on_data(tcp::connection& peer, tcp::bytes) const {
            for (tcp::connection* const one : at->peers) one->send("1");
            // At the end of the turn all have been sent, and no completion is delivered. A wake
            // that finds no room for its own ends the poll for the next.
            at->alarm.start(peer, 1ms, [seen = at](tcp::connection&) {
                seen->full = true;
                while (!seen->woken) std::this_thread::sleep_for(1ms);
            });
            std::this_thread::sleep_for(20ms);
        }
    };
    server_of<handler> server{handler{&seen}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread runner{[&] {
        server.run();
        seen.over = true;
    }};
    std::vector<blocking_client> clients;
    for (std::size_t i = 0; i != count; ++i) clients.emplace_back(where);
    while (server.statistics().open != count) std::this_thread::sleep_for(1ms);
    clients[0].send("go");
    while (!seen.full) std::this_thread::sleep_for(1ms);
    server.pause_accept();
    seen.woken = true;
    for (const blocking_client& one : clients) CHECK(one.receive(1) == "1");
    std::this_thread::sleep_for(20ms);  // the loop sleeps
    server.stop();
    for (int left = 500; left != 0 && !seen.over; --left) std::this_thread::sleep_for(10ms);
    CHECK(seen.over);
    clients.clear();  // or it would never be over
    runner.join();
}
