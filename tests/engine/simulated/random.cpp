// Chance, and a careful echo in all weathers: the same seed gives the same run, and no byte is
// lost.
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "rig.hpp"

using namespace simulated_tests;

TEST_CASE("the generator is xoshiro256** seeded by splitmix64") {
    // Computed apart from this, with the algorithms as published (https://prng.di.unimi.it).
    tcp::simulated::random dice{42};
    CHECK(dice.next() == 0x15780b2e0c2ec716U);
    CHECK(dice.next() == 0x6104d9866d113a7eU);
    CHECK(dice.next() == 0xae17533239e499a1U);
}

TEST_CASE("draws stay in their bounds and reach them") {
    tcp::simulated::random dice{1};
    bool least = false, most = false;
    for (int i = 0; i != 1000; ++i) {
        const auto drawn = dice.between(3, 7);
        REQUIRE(drawn >= 3);
        REQUIRE(drawn <= 7);
        least = least || drawn == 3;
        most = most || drawn == 7;
        const auto scaled = dice.magnitude(10, 5000);
        REQUIRE(scaled >= 10);
        REQUIRE(scaled <= 5000);
        REQUIRE(dice.magnitude(1, 1) == 1);
        REQUIRE(dice.below(1) == 0);
        REQUIRE(dice.below(0) == 0);
        REQUIRE(dice.between(9, 2) == 9);
        REQUIRE_FALSE(dice.chance(0));
        REQUIRE(dice.chance(1000));
    }
    CHECK(least);
    CHECK(most);
    dice.magnitude(0, UINT64_MAX);
    dice.between(0, UINT64_MAX);
}

namespace {

// The smallest loop that keeps the rules of engine/concept.hpp: it echoes, and closes when the peer
// has finished.
struct echoing_sink {
    struct connection {
        std::string queue;
        bool waits = false, ended = false;
    };
    tcp::simulated_engine& engine;
    std::map<std::uint32_t, connection> all{};
    std::map<std::uint32_t, std::uint32_t> generations{};
    std::size_t failures = 0;
    bool paused = false;

    tcp::connection_id id(std::uint32_t slot) { return {slot, generations[slot]}; }

    void accepted(tcp::listener_id, int socket, const tcp::endpoint&) {
        std::uint32_t slot = 0;
        while (all.contains(slot)) ++slot;
        ++generations[slot];
        if (engine.open(id(slot), socket) != 0)
            ++failures;
        else
            all[slot];
    }
    void accept_failed(tcp::listener_id, int) {
        engine.pause_accept(0);
        paused = true;
    }
    void received(tcp::connection_id from, tcp::bytes data) {
        REQUIRE(from == id(from.slot));
        connection& c = all.at(from.slot);
        // Bytes of a send in flight must stay in place: what comes meanwhile is kept apart.
        if (c.waits)
            later[from.slot] += tcp::as_text(data);
        else
            c.queue += tcp::as_text(data);
        flush(from.slot);
    }
    void ended(tcp::connection_id from) {
        all.at(from.slot).ended = true;
        flush(from.slot);
    }
    void failed(tcp::connection_id from, int) { drop(from.slot); }
    void writable(tcp::connection_id from) {
        all.at(from.slot).waits = false;
        flush(from.slot);
    }
    void sent(tcp::connection_id from, std::size_t count, int error) {
        connection& c = all.at(from.slot);
        c.waits = false;
        if (error != 0) return drop(from.slot);
        c.queue.erase(0, count);
        flush(from.slot);
    }
    void closed(tcp::connection_id from) { all.erase(from.slot); }
    void woken() {}

    void flush(std::uint32_t slot) {
        connection& c = all.at(slot);
        if (!c.waits) c.queue += std::exchange(later[slot], {});
        while (!c.waits && !c.queue.empty()) {
            const tcp::bytes piece = tcp::as_bytes(c.queue);
            const auto outcome = engine.send(id(slot), {&piece, 1});
            if (outcome.is == tcp::send_outcome::state::failed) return drop(slot);
            c.waits = outcome.is != tcp::send_outcome::state::done;
            if (outcome.is != tcp::send_outcome::state::in_flight) c.queue.erase(0, outcome.taken);
        }
        if (!c.waits && c.ended) drop(slot, tcp::close_mode::graceful);
    }
    void drop(std::uint32_t slot, tcp::close_mode how = tcp::close_mode::reset) {
        later.erase(slot);
        if (engine.close(id(slot), how)) all.erase(slot);
    }
    std::map<std::uint32_t, std::string> later{};
};

std::uint64_t echo_world(std::uint64_t seed, const tcp::simulation::faults* weather = nullptr) {
    CAPTURE(seed);
    tcp::simulated::random dice{seed};
    tcp::simulation world{seed,
                          weather != nullptr ? *weather : tcp::simulation::faults::wild(dice)};
    const bool losses = world.current_faults().reset_per_mille != 0;
    tcp::simulated_engine engine{tcp::options{}, world};
    echoing_sink sink{engine};
    std::error_code failure;
    engine.bind(7, failure);
    engine.listen(0, 64, failure);
    engine.arm_accept(0, tcp::accept_mode::many);

    std::vector<tcp::simulation::client> clients;
    std::vector<std::string> texts;
    for (std::uint64_t i = dice.between(1, 6); i != 0; --i) {
        std::string text(static_cast<std::size_t>(dice.magnitude(1, 4000)), '\0');
        for (char& c : text) c = static_cast<char>(dice.next());
        auto client = world.connect(7);
        client.send(text);
        client.shutdown_send();
        clients.push_back(client);
        texts.push_back(text);
    }
    // Everything ends by itself; the longest way is one byte for each round trip.
    for (int round = 0; round != 100 && (round == 0 || world.open_sockets() != 0); ++round) {
        const duration deadline = engine.now() + milliseconds(10'000);
        while (engine.now() < deadline) {
            engine.wait(deadline - engine.now(), sink);
            if (std::exchange(sink.paused, false))
                world.after(milliseconds(1), [&] { engine.arm_accept(0, tcp::accept_mode::many); });
        }
    }
    world.advance(milliseconds(1000));
    CHECK(world.open_sockets() == 0);
    CHECK(sink.all.empty());
    CHECK(world.violations().empty());
    for (std::size_t i = 0; i != clients.size(); ++i) {
        const auto& client = clients[i];
        REQUIRE(texts[i].starts_with(client.received()));
        if (client.ended()) CHECK(client.received() == texts[i]);
        if (!losses) CHECK((client.ended() || client.refused() || client.was_reset()));
    }
    return world.fingerprint();
}

}  // namespace

TEST_CASE("a careful loop gets every byte through in any weather") {
    for (std::uint64_t seed = 1; seed != 300; ++seed) echo_world(seed);
}

TEST_CASE("in benign weather nobody is refused or reset") {
    const tcp::simulation::faults benign;
    echo_world(1, &benign);
}

TEST_CASE("the same seed gives the same run, another seed another one") {
    for (std::uint64_t seed = 1; seed != 20; ++seed) {
        CHECK(echo_world(seed) == echo_world(seed));
        CHECK(echo_world(seed) != echo_world(seed + 100));
    }
}
