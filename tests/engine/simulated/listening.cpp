// Listeners of the simulated engine: binding, the queue, accepting and its failures.
#include <cerrno>
#include <string>
#include <system_error>

#include "rig.hpp"

using namespace simulated_tests;

namespace {

tcp::endpoint bind_to(rig& r, const tcp::endpoint& where, std::error_code& failure) {
    const tcp::endpoint bound = r.engine.bind(where, failure);
    CHECK(bool(bound) == !failure);
    return bound;
}

}  // namespace

TEST_CASE("port 0 becomes a port, another each time") {
    rig r;
    const tcp::endpoint one = r.listen(0), two = r.listen(0);
    CHECK(one.port() != 0);
    CHECK(two.port() != 0);
    CHECK(one.port() != two.port());
    CHECK(r.world.open_listeners() == 2);
    r.world.connect(two.port());
    CHECK(r.run() == events{"accepted 1"});
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a port in use is refused where the addresses overlap") {
    rig r;
    std::error_code failure;
    const auto v4 = tcp::endpoint::parse("127.0.0.1:80"),
               other = tcp::endpoint::parse("127.0.0.2:80");
    bind_to(r, v4, failure);
    CHECK(!failure);
    bind_to(r, v4, failure);
    CHECK(failure == std::errc::address_in_use);
    bind_to(r, other, failure);
    CHECK(!failure);
    bind_to(r, tcp::endpoint::parse("[::1]:80"), failure);
    CHECK(!failure);
    bind_to(r, 80, failure);
    CHECK(failure == std::errc::address_in_use);
    bind_to(r, tcp::endpoint::parse("0.0.0.0:80"), failure);
    CHECK(failure == std::errc::address_in_use);
    bind_to(r, {}, failure);
    CHECK(failure == std::errc::invalid_argument);

    // In the whole world, not only in one engine.
    tcp::simulated_engine neighbour{tcp::options{}, r.world};
    neighbour.bind(v4, failure);
    CHECK(failure == std::errc::address_in_use);
}

TEST_CASE("an IPv6 wildcard takes IPv4 too, unless it was told not to") {
    std::error_code failure;
    const auto all4 = tcp::endpoint::parse("0.0.0.0:80"), all6 = tcp::endpoint::parse("[::]:80");
    {
        rig r;
        bind_to(r, all6, failure);
        bind_to(r, all4, failure);
        CHECK(failure == std::errc::address_in_use);
    }
    rig r{{}, {.ipv6_only = true}};
    r.listen(all6);
    auto lost = r.world.connect(tcp::endpoint::parse("10.0.0.1:80"));
    r.run();
    CHECK(lost.refused());
    auto client = r.world.connect(80);
    CHECK(r.run() == events{"accepted 0"});
    CHECK(client.local_endpoint().to_string() == "[fd00::2]:49153");
    CHECK(client.remote_endpoint().to_string() == "[fd00::1]:80");
    bind_to(r, all4, failure);
    CHECK(!failure);
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("the listener with the very address comes before the one with all") {
    rig r;
    r.listen(tcp::endpoint::parse("10.0.0.1:80"));
    r.listen(tcp::endpoint::parse("10.0.0.9:80"));
    r.listen(tcp::endpoint::parse("[::]:81"));
    r.world.connect(tcp::endpoint::parse("10.0.0.9:80"));
    CHECK(r.run() == events{"accepted 1"});
    r.world.connect(tcp::endpoint::parse("10.0.0.9:81"));
    CHECK(r.run() == events{"accepted 2"});
    auto nobody = r.world.connect(tcp::endpoint::parse("10.0.0.8:80"));
    CHECK(r.run().empty());
    CHECK(nobody.refused());
    r.engine.close({0, 1}, tcp::close_mode::graceful);
    r.engine.close({1, 1}, tcp::close_mode::graceful);
}

TEST_CASE("unix-domain endpoints") {
    rig r;
    const auto path = tcp::endpoint::parse("unix:/run/test");
    r.listen(path);
    auto client = r.world.connect(path);
    client.send("hi");
    CHECK(r.run() == events{"accepted 0", "received 0 hi"});
    CHECK(client.local_endpoint().family() == tcp::address_family::local);
    CHECK(r.engine.local_endpoint(first) == path);
    auto wrong = r.world.connect(tcp::endpoint::parse("unix:/run/other"));
    r.run();
    CHECK(wrong.refused());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("nobody listens: refused") {
    rig r;
    auto client = r.world.connect(7);
    r.run();
    CHECK(client.refused());
    CHECK_FALSE(client.connected());
    CHECK_FALSE(client.send("x"));
    CHECK_THROWS_AS(r.world.connect({}), std::invalid_argument);
}

TEST_CASE("who listens counts when the request arrives") {
    rig r;
    auto client = r.world.connect(7);
    r.listen();
    r.run();
    CHECK(client.connected());
    r.engine.close(first, tcp::close_mode::graceful);
}

TEST_CASE("a full backlog refuses") {
    rig r;
    std::error_code failure;
    r.engine.bind(7, failure);
    r.engine.listen(0, 2, failure);
    auto one = r.world.connect(7), two = r.world.connect(7), three = r.world.connect(7);
    CHECK(r.run().empty());
    CHECK(one.connected());
    CHECK(two.connected());
    CHECK(three.refused());
    r.engine.arm_accept(0, tcp::accept_mode::many);
    CHECK(r.run() == events{"accepted 0", "accepted 0"});

    rig narrow{{.backlog_max = 1}};
    narrow.engine.bind(7, failure);
    narrow.engine.listen(0, 100, failure);
    narrow.world.connect(7);
    auto late = narrow.world.connect(7);
    narrow.run();
    CHECK(late.refused());
    for (std::uint32_t slot = 0; slot != 2; ++slot)
        r.engine.close({slot, 1}, tcp::close_mode::reset);
}

TEST_CASE("accept_mode::one accepts one and pauses") {
    rig r;
    r.listen(7, 16, tcp::accept_mode::one);
    r.world.connect(7);
    r.world.connect(7);
    CHECK(r.run() == events{"accepted 0"});
    r.engine.arm_accept(0, tcp::accept_mode::one);
    CHECK(r.run() == events{"accepted 0"});
    r.world.connect(7);
    CHECK(r.run().empty());
    r.engine.arm_accept(0, tcp::accept_mode::many);
    r.engine.pause_accept(0);
    CHECK(r.run().empty());
    r.engine.arm_accept(0, tcp::accept_mode::many);
    CHECK(r.run() == events{"accepted 0"});
    for (std::uint32_t slot = 0; slot != 3; ++slot)
        r.engine.close({slot, 1}, tcp::close_mode::reset);
}

TEST_CASE("a listener paused within accepted delivers no further one") {
    rig r;
    r.listen();
    r.world.connect(7);
    r.world.connect(7);
    r.sink.react = [&](const std::string&) { r.engine.pause_accept(0); };
    CHECK(r.run() == events{"accepted 0"});
    r.engine.close(first, tcp::close_mode::reset);
}

TEST_CASE("descriptors exhausted: EMFILE until a socket is closed, and the client waits") {
    rig r{{.socket_limit = 2}};
    r.listen();
    r.world.connect(7);
    auto two = r.world.connect(7);
    r.sink.react = [&](const std::string& event) {
        if (event.starts_with("accept_failed")) r.engine.pause_accept(0);
    };
    const std::string failure = "accept_failed 0 " + std::to_string(EMFILE);
    CHECK(r.run() == events{"accepted 0", failure});
    CHECK(two.connected());
    r.engine.arm_accept(0, tcp::accept_mode::many);
    CHECK(r.run() == events{failure});
    r.engine.close(first, tcp::close_mode::graceful);
    r.engine.arm_accept(0, tcp::accept_mode::many);
    CHECK(r.run() == events{"accepted 0"});
    r.engine.close({1, 1}, tcp::close_mode::graceful);

    std::error_code error;
    r.engine.bind(8, error);
    CHECK(!error);
    r.engine.bind(9, error);
    CHECK(error == std::errc::too_many_files_open);
}

TEST_CASE("accept fails as the faults say") {
    SUBCASE("for want of something: the client stays in the queue") {
        rig r{{.accept_failed_per_mille = 1000}};
        r.listen();
        r.sink.react = [&](const std::string&) { r.engine.pause_accept(0); };
        auto client = r.world.connect(7);
        const events seen = r.run();
        REQUIRE(seen.size() == 1);
        CHECK(seen[0].starts_with("accept_failed 0 "));
        CHECK_FALSE(client.was_reset());
        r.world.set_faults({});
        r.sink.react = nullptr;
        r.engine.arm_accept(0, tcp::accept_mode::many);
        CHECK(r.run() == events{"accepted 0"});
        r.engine.close(first, tcp::close_mode::graceful);
    }
    SUBCASE("ECONNABORTED: the client is gone and nobody is told") {
        rig r{{.accept_aborted_per_mille = 1000}};
        r.listen();
        auto client = r.world.connect(7);
        CHECK(r.run().empty());
        CHECK(client.was_reset());
        CHECK(r.world.open_sockets() == 0);
    }
}

TEST_CASE("closing the listeners resets who waits, and frees the port") {
    rig r;
    std::error_code failure;
    r.engine.bind(7, failure);
    r.engine.listen(0, 16, failure);
    auto waiting = r.world.connect(7);
    r.run();
    CHECK(waiting.connected());
    r.engine.close_listeners();
    CHECK(r.world.open_listeners() == 0);
    auto late = r.world.connect(7);
    CHECK(r.run().empty());
    CHECK(waiting.was_reset());
    CHECK(late.refused());

    rig successor;
    tcp::simulated_engine next{tcp::options{}, r.world};
    next.bind(7, failure);
    CHECK(!failure);
}
