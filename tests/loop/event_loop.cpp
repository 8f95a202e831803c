// A loop by itself: what it owes those that others hand over to it.
#include <cstddef>
#include <string>
#include <system_error>

#include <sys/socket.h>

#include <doctest/doctest.h>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/echo.hpp>
#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/loop/event_loop.hpp>
#include <tcp/loop/handler_source.hpp>
#include <tcp/loop/loop_team.hpp>
#include <tcp/options.hpp>

#include "blocking_client.hpp"

using tcp::refused_by;
using tcp::detail::descriptor;

TEST_CASE("event_loop: who arrives at one that has stopped is reset, counted, and has no place") {
    const tcp::options settings{.max_connections = 1, .max_connections_per_address = 1};
    tcp::detail::loop_team team{settings};
    const tcp::detail::handler_source<tcp::echo> handlers{tcp::echo{}};
    tcp::detail::event_loop<tcp::echo, tcp::epoll_engine> loop{settings, handlers, team};
    loop.begin_run();
    std::error_code failure;
    const tcp::endpoint where = loop.engine().bind(tcp::endpoint::parse("127.0.0.1:0"), failure);
    loop.engine().listen(0, 8, failure);
    REQUIRE(!failure);
    loop.set_listeners(1);
    // What another loop does for it: it takes a place for the connection, and counts it as this
    // one's.
    const tests::blocking_client client{where};
    for (int left = 1'000; left != 0 && loop.counters().accepted.read() == 0; --left) {
        loop.accept_many();
        loop.turn(tcp::duration::milliseconds(10));
    }
    CHECK(loop.as_member.connections.load_relaxed() == 1);
    loop.shut();
    CHECK(loop.as_member.connections.load_relaxed() == 0);
    CHECK(client.over());

    int pair[2] = {};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    const descriptor theirs{pair[0]};
    const auto peer = tcp::endpoint::parse("192.0.2.1:7");
    refused_by why{};
    REQUIRE(team.enter(peer, why));
    loop.as_member.connections.fetch_add(1);
    loop.arrived(pair[1], peer);
    char more = 0;
    CHECK(::recv(theirs.get(), &more, 1, 0) == 0);  // it was closed
    CHECK(loop.counters().refused_by[static_cast<std::size_t>(refused_by::stopping)].read() == 1);
    CHECK(loop.as_member.connections.load_relaxed() == 0);
    CHECK(team.enter(peer, why));  // neither limit has anything of it
    loop.end_run();
}
