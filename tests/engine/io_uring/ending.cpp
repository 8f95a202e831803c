// What the io_uring engine must not do at the ends: mix up those who share a buffer, lose itself
// over fork(2), wait for ever, go on listening, or end the program when there is no descriptor.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"

using namespace std::chrono_literals;
using tests::blocking_client;

namespace {

using echo_server = tcp::server<tcp::echo, tcp::io_uring_engine>;

void elsewhere(const std::function<void()>& call) { std::thread{call}.join(); }

/// From now on a new ring finds no descriptor. By the call: a sanitizer needs descriptors itself.
bool no_more_rings() {
    using namespace tcp::detail::io_uring;
    return tests::refuse_call(setup_call, 0, static_cast<int>(ring::submissions), EMFILE);
}

}  // namespace

TEST_CASE("who sent much and then little gets nobody else's bytes") {
    echo_server server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 20; ++i) clients.emplace_back(where);
    const auto text_of = [](std::size_t client, std::size_t size) {
        return std::string(size, static_cast<char>('a' + client));
    };
    for (const std::size_t size : {40'000U, 40'000U, 10U, 10U, 10U, 10U, 10U, 10U}) {
        for (std::size_t i = 0; i != clients.size(); ++i) CHECK(clients[i].send(text_of(i, size)));
        // All of it is there at once, so that many are received in one batch.
        const std::uint64_t before = server.statistics().bytes_sent;
        for (int i = 0; i != 1000 && server.statistics().bytes_sent != before + 20 * size; ++i)
            server.run_for(1ms);
        for (std::size_t i = 0; i != clients.size(); ++i)
            CHECK(clients[i].receive(size) == text_of(i, size));
    }
}

TEST_CASE("a server that was made before fork(2) serves in the child") {
    echo_server server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    tests::in_child([&](tests::findings& found) {
        const blocking_client client{where};
        for (int i = 0; i != 300; ++i) {
            found.check(client.send("hello"), "it cannot be sent");
            const auto all = static_cast<std::uint64_t>(i + 1) * 5;
            for (int turn = 0; turn != 1000 && server.statistics().bytes_sent != all; ++turn)
                server.run_for(1ms);
            found.check(client.receive(5) == "hello", "no echo");
        }
    });
    // The parent's own still serves, and is destroyed.
    const blocking_client client{where};
    CHECK(client.send("hello"));
    for (int turn = 0; turn != 100; ++turn) server.run_for(1ms);
    CHECK(client.receive(5) == "hello");
}

TEST_CASE("destroyed on another thread with a send that was aborted") {
    struct known {
        tcp::connection_handle* peer;
        void on_open(tcp::connection& c) const { *peer = c.handle(); }
    };
    tcp::connection_handle peer;
    auto server = std::make_unique<tcp::server<known, tcp::io_uring_engine>>(known{&peer});
    const tcp::endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    const blocking_client client{where};
    elsewhere([&] {
        while (!peer.open()) server->run_for(1ms);
    });
    CHECK(peer.send("something"));
    CHECK(peer.post([](tcp::connection& c) { c.abort(); }));
    server.reset();
    CHECK(client.over());
}

TEST_CASE("nobody can connect once a server has stopped") {
    for (const std::size_t open : {0U, 59U, 60U, 61U, 80U, 100U, 120U, 500U}) {
        CAPTURE(open);
        echo_server server;
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        std::vector<blocking_client> clients;
        for (std::size_t i = 0; i != open; ++i) clients.emplace_back(where);
        while (server.statistics().open != open) server.run_for(1ms);
        server.stop();
        CHECK_FALSE(server.poll());
        CHECK(blocking_client{where}.refused());
        echo_server next;
        CHECK(next.bind(where) == where);
    }
}

TEST_CASE("without a descriptor left it is destroyed on another thread all the same") {
    for (const bool stopped : {true, false}) {
        for (const std::size_t count : {1U, 600U}) {  // 600: more than the ring has room for
            tests::in_child([&](tests::findings& found) {
                std::optional<echo_server> server{std::in_place};
                const tcp::endpoint where = server->bind("127.0.0.1:0");
                server->listen();
                std::vector<blocking_client> clients;
                for (std::size_t i = 0; i != count; ++i) clients.emplace_back(where);
                elsewhere([&] {
                    while (server->statistics().open != count) server->run_for(1ms);
                    if (stopped) server->stop();
                    server->run_for(1ms);
                });
                if (!no_more_rings()) return found.not_permitted("seccomp");
                server.reset();
                for (const blocking_client& client : clients)
                    found.check(client.over(), "a connection is open still");
            });
        }
    }
}

TEST_CASE("several loops stop without a descriptor left") {
    tests::in_child([](tests::findings& found) {
        echo_server server{tcp::options{.threads = 3}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        if (!no_more_rings()) return found.not_permitted("seccomp");  // nor do the threads below
        std::thread runner{[&] { server.run(); }};
        const blocking_client one{where}, two{where}, three{where};
        found.check(one.echoes("1") && two.echoes("2") && three.echoes("3"), "no echo");
        server.stop();
        runner.join();
        found.check(one.over() && two.over() && three.over(), "a connection is open still");
    });
}

TEST_CASE("a reset leaves at once, and not when the server is next run") {
    struct resets {
        void on_data(tcp::connection& peer, tcp::bytes) const { peer.abort(); }
    };
    tcp::server<resets, tcp::io_uring_engine> server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client client{where};
    while (server.statistics().open != 1) server.poll();
    CHECK(client.send("hello"));
    while (server.statistics().open != 0) server.poll();
    CHECK(client.over());
}

TEST_CASE("peers that fail behind their end are noticed, however many completions there were") {
    struct waits {
        void on_data(tcp::connection&, tcp::bytes) const {}
        void on_end(tcp::connection&) const {}
    };
    constexpr std::size_t busy = 1'500, ended = 50;
    tcp::server<waits, tcp::io_uring_engine> server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> active, passive;
    const auto open = [&](std::vector<blocking_client>& which, std::size_t count) {
        const std::size_t before = server.statistics().open;
        for (std::size_t i = 0; i != count; ++i) which.emplace_back(where);
        while (server.statistics().open != before + count) server.poll();
    };
    open(active, busy);
    open(passive, ended);
    for (const blocking_client& one : passive) one.shutdown_send();
    for (int i = 0; i != 20; ++i) server.run_for(1ms);
    for (const blocking_client& one : active) CHECK(one.send("hello"));
    elsewhere([&] {  // all completions at once
        while (server.statistics().bytes_received != 5 * busy) server.run_for(1ms);
        for (blocking_client& one : passive) one.reset();
        for (int i = 0; i != 2'000 && server.statistics().open != busy; ++i) server.run_for(1ms);
        CHECK(server.statistics().open == busy);
    });
}
