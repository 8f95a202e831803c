// A world to test handlers in: an in-memory network with virtual time, a seed and faults. No socket
// is opened and no real time passes.
//
//     tcp::simulation world;
//     tcp::server<my_handler, tcp::simulated_engine> server{{}, {}, world};
//     server.bind(7);
//     server.listen();
//     auto client = world.connect(7);
//     client.send("hello");
//     server.run_for(1s);
//     CHECK(client.received() == "hello");
//
// The same seed and the same calls give the same run, event by event. A world, its clients and its
// servers are for one thread; only what a server documents so, stop() and its like, may come from
// another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/simulated/client.hpp>
#include <tcp/engine/simulated/faults.hpp>
#include <tcp/engine/simulated/misuse.hpp>
#include <tcp/engine/simulated/network.hpp>
#include <tcp/engine/simulated/random.hpp>
#include <tcp/engine/simulated/simulated_engine.hpp>

namespace tcp::inline v0_1 {

/// One simulated world. It must outlive the servers and the clients in it.
class simulation {
public:
    using client = simulated::client;
    using client_event = simulated::client_event;
    using faults = simulated::faults;
    using random_generator = simulated::random;
    using reaction = simulated::reaction;

    /// A world without anybody in it, whose chance is fixed by the seed, and with these faults;
    /// none if left out.
    explicit simulation(std::uint64_t seed = 1, const faults& weather = {})
        : network_{seed, weather}, dice_{~seed} {}

    /// A client that begins to connect now, before or after the server's listen(): what counts is
    /// who listens when its request arrives. It gets an address unless it brings one. Throws
    /// std::invalid_argument for an empty endpoint.
    client connect(const endpoint& to, const endpoint& from = {}) {
        return client{network_, network_.connect(to, from)};
    }

    /// The virtual time since the beginning.
    duration now() const noexcept { return duration::nanoseconds(network_.now()); }

    /// Lets so much virtual time pass without any server: what was sent arrives, scripts run.
    /// Servers see it all at their next turn.
    void advance(duration length) { network_.happen_until((now() + length).nanoseconds()); }

    /// Calls a function when so much virtual time has passed. It may do everything but wait: it is
    /// called from within a server's run() or advance(). An exception that leaves it leaves that
    /// call.
    void after(duration delay, std::function<void()> script) {
        network_.after(delay, std::move(script));
    }

    /// The one it was made with: print it when a test fails.
    std::uint64_t seed() const noexcept { return network_.seed(); }

    /// Chance for scripts, fixed by the seed; drawing from it changes nothing else.
    random_generator& random() noexcept { return dice_; }

    /// The faults, and other ones from now on.
    const faults& current_faults() const noexcept { return network_.weather; }
    void set_faults(const faults& weather) { network_.set_weather(weather); }

    /// Sockets that servers have accepted and not closed, and sockets that they listen on. None at
    /// the end.
    std::size_t open_sockets() const noexcept { return network_.open_sockets; }
    std::size_t open_listeners() const noexcept { return network_.listeners.size(); }

    /// What was done against the rules so far: of engine/concept.hpp by a loop, or of this world.
    /// Each is a sentence. Unless on_violation() says otherwise, the first one is thrown, as a
    /// std::logic_error, where it happens.
    const std::vector<std::string>& violations() const noexcept {
        return network_.misuses.sentences();
    }
    void on_violation(reaction how) noexcept { network_.misuses.answer_with(how); }

    /// How often a server may wait at the same virtual time without anything moving: more is a
    /// violation.
    void set_spin_limit(std::uint64_t waits) noexcept { network_.spin_limit = waits; }

    /// With this, a server that waits for ever while nothing is under way waits for stop(), a send
    /// of a handle or the value of a promise, from another thread, in real time. Without, that is a
    /// violation: it would hang the test.
    void expect_outside_wakes(bool expected = true) noexcept { network_.outside_wakes = expected; }

    /// Calls a function with a line for each thing that happens, to see what led to a failure:
    /// "1200 us, connection 2: data at the server, 17 bytes".
    void trace(std::function<void(std::string_view)> line) { network_.trace = std::move(line); }

    /// A number for all that has happened: the same in two runs that were the same.
    std::uint64_t fingerprint() const noexcept { return network_.fingerprint(); }

    /// What a simulated_engine is made with, so that `server{{}, {}, world}` is enough.
    // NOLINTNEXTLINE(google-explicit-constructor)
    operator simulated::network&() noexcept { return network_; }

private:
    simulated::network network_;
    random_generator dice_;
};

}  // namespace tcp::inline v0_1
