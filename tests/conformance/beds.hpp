// Where the conformance suite runs: the same tests on real sockets and in simulated worlds.
//
//   TEST_CASE_TEMPLATE("1 what is promised", Bed, CONFORMANCE_BEDS) {
//       Bed bed;
//       typename Bed::template server<my_handler> server = bed.make(my_handler{...}, {.low_mark = 1});
//       const auto where = bed.listen(server);
//       auto client = bed.connect(where);
//       client.send("hello");
//       CHECK(bed.until(server, [&] { return client.received() == "hello"; }));
//   }
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "kernel_client.hpp"

namespace conformance {

using namespace std::chrono_literals;

/// Real sockets on the loopback interface.
template <class Engine>
class kernel_bed {
public:
    static constexpr bool simulated = false;
    using client = kernel_client;
    template <class Handler>
    using server = tcp::server<Handler, Engine>;

    template <class Handler>
    server<Handler> make(Handler prototype = {}, const tcp::options& options = {}) {
        return server<Handler>{std::move(prototype), options};
    }
    template <class Server>
    tcp::endpoint listen(Server& s) {
        const tcp::endpoint where = s.bind("127.0.0.1:0");
        s.listen();
        return where;
    }
    client connect(const tcp::endpoint& to) {
        clients_.emplace_back(to);
        return clients_.back();
    }

    /// A client that can take little before the server's sends block.
    client connect_narrow(const tcp::endpoint& to) {
        clients_.emplace_back(to, 4096);
        return clients_.back();
    }

    /// Runs the server and the clients until this holds. False when it does not within some seconds.
    template <class Server, class Predicate>
    bool until(Server& s, Predicate holds, std::chrono::milliseconds most = 20s) {
        const auto end = std::chrono::steady_clock::now() + most;
        for (;;) {
            bool moved = false;
            for (client& c : clients_) moved = c.pump() || moved;
            if (holds()) return true;
            if (std::chrono::steady_clock::now() > end) return false;
            if (moved)
                s.poll();
            else
                s.run_for(1ms);
        }
    }

    /// Lets both run for so long.
    template <class Server>
    void run(Server& s, std::chrono::milliseconds length) {
        until(s, [] { return false; }, length);
    }

private:
    std::vector<client> clients_;
};

/// A simulated world with this weather.
template <class Weather>
class simulated_bed {
public:
    static constexpr bool simulated = true;
    using client = tcp::simulation::client;
    template <class Handler>
    using server = tcp::server<Handler, tcp::simulated_engine>;

    template <class Handler>
    server<Handler> make(Handler prototype = {}, const tcp::options& options = {}) {
        return server<Handler>{std::move(prototype), options, world};
    }
    template <class Server>
    tcp::endpoint listen(Server& s) {
        const tcp::endpoint where = s.bind(tcp::endpoint::parse("127.0.0.1:7"));
        s.listen();
        return where;
    }
    client connect(const tcp::endpoint& to) { return world.connect(to); }
    client connect_narrow(const tcp::endpoint& to) { return world.connect(to); }

    template <class Server, class Predicate>
    bool until(Server& s, Predicate holds, std::chrono::milliseconds most = 300s) {
        const tcp::duration end = world.now() + most;
        while (!holds()) {
            if (world.now() > end) return false;
            if (!s.run_for(1ms)) world.advance(1ms);
        }
        return true;
    }
    template <class Server>
    void run(Server& s, std::chrono::milliseconds length) {
        until(s, [] { return false; }, length);
    }

    tcp::simulation world{Weather::seed, Weather::make()};
};

/// Nothing goes wrong, but buffers are small.
struct fair_weather {
    static constexpr std::uint64_t seed = 1;
    static tcp::simulation::faults make() { return {}; }
};

/// Everything ends later, as with io_uring, in small pieces and another order.
struct late_weather {
    static constexpr std::uint64_t seed = 2;
    static tcp::simulation::faults make() {
        tcp::simulation::faults f;
        f.segment_min = 1;
        f.segment_max = 4000;
        f.short_send_per_mille = 300;
        f.in_flight_per_mille = 1000;
        f.late_close_per_mille = 1000;
        f.late_receive_per_mille = 500;
        f.more_receives_per_mille = 500;
        f.shuffle_per_mille = 500;
        return f;
    }
};

/// Sends are cut short or block, and waits end early.
struct rough_weather {
    static constexpr std::uint64_t seed = 3;
    static tcp::simulation::faults make() {
        tcp::simulation::faults f;
        f.latency_min = tcp::duration{};
        f.latency_max = 5ms;
        f.segment_min = 1;
        f.short_send_per_mille = 500;
        f.blocked_send_per_mille = 300;
        f.in_flight_per_mille = 300;
        f.spurious_writable_per_mille = 300;
        f.late_close_per_mille = 300;
        f.spurious_wait_per_mille = 200;
        f.send_capacity = 8 * 1024;
        return f;
    }
};

using epoll_bed = kernel_bed<tcp::epoll_engine>;
using fair_bed = simulated_bed<fair_weather>;
using late_bed = simulated_bed<late_weather>;
using rough_bed = simulated_bed<rough_weather>;

#define CONFORMANCE_BEDS \
    conformance::epoll_bed, conformance::fair_bed, conformance::late_bed, conformance::rough_bed

}  // namespace conformance
