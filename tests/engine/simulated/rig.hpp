// What the tests of the simulated engine stand on: a world, an engine in it, and a sink that writes
// down every event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/simulation.hpp>

namespace simulated_tests {

/// Writes down events as "received 0 hello", where the number is the slot. Opens what is accepted,
/// unless told not to.
struct recorder {
    tcp::simulated_engine& engine;
    bool opens = true;
    std::uint32_t slots = 0;       // the next slot to open
    std::uint32_t generation = 1;  // of what it opens
    std::vector<std::string> log{};
    std::vector<int> sockets{};
    std::vector<tcp::endpoint> peers{};
    std::string data{};                               // all that was received, of all connections
    std::function<void(const std::string&)> react{};  // called within each event

    void write(std::string event) {
        log.push_back(event);
        if (react) react(event);
    }
    static std::string name(const char* event, tcp::connection_id id) {
        return std::string(event) + ' ' + std::to_string(id.slot);
    }

    void accepted(tcp::listener_id listener, int socket, const tcp::endpoint& peer) {
        sockets.push_back(socket);
        peers.push_back(peer);
        if (opens) engine.open({slots++, generation}, socket);
        write("accepted " + std::to_string(listener));
    }
    void accept_failed(tcp::listener_id listener, int error) {
        write("accept_failed " + std::to_string(listener) + ' ' + std::to_string(error));
    }
    void received(tcp::connection_id id, tcp::bytes bytes) {
        data += tcp::as_text(bytes);
        write(name("received", id) + ' ' + std::string(tcp::as_text(bytes)));
    }
    void ended(tcp::connection_id id) { write(name("ended", id)); }
    void failed(tcp::connection_id id, int error) {
        write(name("failed", id) + ' ' + std::to_string(error));
    }
    void writable(tcp::connection_id id) { write(name("writable", id)); }
    void sent(tcp::connection_id id, std::size_t count, int error) {
        write(name("sent", id) + ' ' + std::to_string(count) + ' ' + std::to_string(error));
    }
    void closed(tcp::connection_id id) { write(name("closed", id)); }
    void woken() { write("woken"); }
};

struct rig {
    tcp::simulation world;
    tcp::simulated_engine engine;
    recorder sink{engine};

    explicit rig(const tcp::simulation::faults& weather = {}, const tcp::options& set = {},
                 std::uint64_t seed = 1)
        : world{seed, weather}, engine{set, world} {}

    tcp::endpoint listen(const tcp::endpoint& where = 7, int backlog = 16,
                         tcp::accept_mode mode = tcp::accept_mode::many) {
        std::error_code failure;
        const tcp::endpoint bound = engine.bind(where, failure);
        REQUIRE(!failure);
        engine.listen(listeners, backlog, failure);
        REQUIRE(!failure);
        engine.arm_accept(listeners++, mode);
        return bound;
    }

    /// Lets the engine work for so long, and gives the events since the last call.
    std::vector<std::string> run(tcp::duration length = tcp::duration::milliseconds(100)) {
        const tcp::duration deadline = engine.now() + length;
        while (engine.now() < deadline) engine.wait(deadline - engine.now(), sink);
        return take();
    }

    /// One call of wait() that lets no time pass.
    std::vector<std::string> poll() {
        engine.wait({}, sink);
        return take();
    }

    std::vector<std::string> take() { return std::exchange(sink.log, {}); }

    /// A client that is connected and was opened as `id`.
    tcp::simulation::client open() {
        auto client = world.connect(7);
        run();
        REQUIRE(client.connected());
        return client;
    }

    tcp::send_outcome send(tcp::connection_id to, std::string_view text) {
        const tcp::bytes piece = tcp::as_bytes(text);
        return engine.send(to, {&piece, 1});
    }

    tcp::listener_id listeners = 0;
};

using events = std::vector<std::string>;
using tcp::duration;

inline constexpr tcp::connection_id first{0, 1};

inline duration milliseconds(std::int64_t count) { return duration::milliseconds(count); }

}  // namespace simulated_tests

// Prints what was there instead.
namespace doctest {
template <>
struct StringMaker<std::vector<std::string>> {
    static String convert(const std::vector<std::string>& lines) {
        std::string all;
        for (const std::string& line : lines) all += '[' + line.substr(0, 60) + "] ";
        return all.c_str();
    }
};
}  // namespace doctest
