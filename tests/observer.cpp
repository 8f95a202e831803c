// The observer: told once of each thing, on a simulated network.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/observer.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/task.hpp>

using namespace std::chrono_literals;

namespace {

struct notes final : tcp::observer {
    std::vector<std::string> said;

    void opened(const tcp::connection&, const tcp::endpoint& peer) noexcept override {
        said.push_back("opened " + peer.address());
    }
    void closed(const tcp::connection&, const tcp::close_reason& why) noexcept override {
        said.push_back("closed: " + std::string{to_text(why)});
    }
    void threw(const tcp::connection&, const std::exception_ptr& what) noexcept override {
        try {
            std::rethrow_exception(what);
        } catch (const std::exception& thrown) {
            said.push_back(std::string{"threw "} + thrown.what());
        }
    }
    void refused(const tcp::endpoint& peer, tcp::refused_by by) noexcept override {
        said.push_back("refused " + peer.address() + ": " + std::string{to_text(by)});
    }
    void accept_failed(int error) noexcept override {
        said.push_back(error == EMFILE ? "no descriptors" : "accept failed");
    }
    void paused(const tcp::connection&) noexcept override { said.push_back("paused"); }
    void resumed(const tcp::connection&) noexcept override { said.push_back("resumed"); }
};

using server = tcp::server<tcp::echo, tcp::simulated_engine>;
using lines = std::vector<std::string>;

}  // namespace

TEST_CASE("observer: opened, closed and refused") {
    tcp::simulation world{1};
    notes told;
    server one{tcp::echo{}, tcp::options{.max_connections = 1, .observer = &told}, world};
    const auto where = one.bind(7);
    one.listen();
    auto first = world.connect(where);
    one.run_for(50ms);
    auto second = world.connect(where);
    one.run_for(50ms);
    first.shutdown_send();
    one.run_for(50ms);
    CHECK(told.said ==
          lines{"opened 10.0.0.2", "refused 10.0.0.2: connection limit", "closed: peer finished"});
    CHECK(second.was_reset());
}

TEST_CASE("observer: what left a hook") {
    struct thrower {
        void on_data(tcp::connection&, tcp::bytes) { throw std::runtime_error{"on_data"}; }
        void on_close(tcp::connection&, const tcp::close_reason&) {
            throw std::runtime_error{"on_close"};
        }
    };
    tcp::simulation world{1};
    notes told;
    tcp::server<thrower, tcp::simulated_engine> one{{}, tcp::options{.observer = &told}, world};
    const auto where = one.bind(7);
    one.listen();
    world.connect(where).send("x");
    one.run_for(50ms);
    CHECK(told.said ==
          lines{"opened 10.0.0.2", "threw on_data", "threw on_close", "closed: handler threw"});
}

TEST_CASE("observer: what left a coroutine") {
    const auto talk = [](tcp::connection& peer) -> tcp::task<> {
        static_cast<void>(co_await peer.receive());
        throw std::runtime_error{"no such word"};
    };
    tcp::simulation world{1};
    notes told;
    tcp::server<decltype(talk), tcp::simulated_engine> one{talk, tcp::options{.observer = &told},
                                                           world};
    const auto where = one.bind(7);
    one.listen();
    world.connect(where).send("x");
    one.run_for(50ms);
    CHECK(told.said == lines{"opened 10.0.0.2", "threw no such word", "closed: handler threw"});
}

TEST_CASE("observer: paused and resumed, in turns") {
    tcp::simulation world{1};
    notes told;
    server one{tcp::echo{}, tcp::options{.high_mark = 4096, .low_mark = 1024, .observer = &told},
               world};
    const auto where = one.bind(7);
    one.listen();
    auto client = world.connect(where);
    client.pause_receive();
    client.send(std::string(1'000'000, 'x'));
    one.run_for(1s);
    CHECK(told.said == lines{"opened 10.0.0.2", "paused"});
    client.resume_receive();
    one.run_for(10s);
    CHECK(client.received().size() == 1'000'000);
    REQUIRE(told.said.size() % 2 == 1);
    for (std::size_t i = 1; i != told.said.size(); ++i)
        CHECK(told.said[i] == (i % 2 == 1 ? "paused" : "resumed"));
}

TEST_CASE("observer: descriptors that run out") {
    tcp::simulation world{1, [] {
                              tcp::simulation::faults weather;
                              weather.socket_limit = 2;
                              return weather;
                          }()};
    notes told;
    server one{tcp::echo{}, tcp::options{.observer = &told}, world};
    const auto where = one.bind(7);
    one.listen();
    std::vector<tcp::simulation::client> clients;
    for (int i = 0; i != 4; ++i) clients.push_back(world.connect(where));
    one.run_for(100ms);
    CHECK(std::count(told.said.begin(), told.said.end(), "no descriptors") != 0);
}
