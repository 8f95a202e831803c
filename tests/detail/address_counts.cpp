// How many connections each address has: nothing is left of those that are gone.
#include <tcp/detail/address_counts.hpp>

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/admission.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>

#include "count_allocations.hpp"

using tcp::endpoint;
using tcp::detail::address_counts;

namespace {

endpoint peer_of(std::uint32_t number) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = number;
    return endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
}

}  // namespace

TEST_CASE("address_counts: who has no connection takes no memory, however many there were") {
    constexpr std::uint32_t peers = 10'000;
    const std::vector<char> connections(peers);  // named by their addresses
    const std::unique_ptr<address_counts> counts{tcp::address_limit{2}.make()};
    REQUIRE(counts != nullptr);
    const auto come_and_go = [&](std::uint32_t number, bool served) {
        const endpoint peer = peer_of(number);
        if (!counts->enter(peer)) return false;
        if (served) {
            const char* const connection = &connections[number];
            counts->opened(connection, peer);
            counts->closed(connection);
        } else {
            counts->leave(peer);
        }
        return true;
    };
    REQUIRE(come_and_go(0, true));  // from here on the tables have their first size
    for (const bool served : {false, true}) {
        CAPTURE(served);
        const std::size_t live_before = allocations::live, made_before = allocations::made;
        std::size_t refused = 0;
        for (std::uint32_t i = 0; i != peers; ++i) refused += come_and_go(i, served) ? 0 : 1;
        const std::size_t live_after = allocations::live, made_after = allocations::made;
        CHECK(refused == 0);
        if (!allocations::counted) continue;
        CHECK(live_after == live_before);
        CHECK(made_after - made_before == (served ? 2 : 1) * peers);  // no table grows
    }
}

TEST_CASE("address_counts: many at the same time, each up to its limit, and all of it comes back") {
    constexpr std::uint32_t peers = 1'000;
    const std::vector<char> connections(2 * peers);
    const std::size_t live_before = allocations::live;
    {
        const std::unique_ptr<address_counts> counts{tcp::address_limit{2}.make()};
        REQUIRE(counts != nullptr);
        std::size_t wrong = 0;
        for (int round = 0; round != 3; ++round) {
            for (std::uint32_t i = 0; i != 2 * peers; ++i) {
                const endpoint peer = peer_of(i % peers);
                wrong += counts->enter(peer) ? 0 : 1;
                counts->opened(&connections[i], peer);
            }
            for (std::uint32_t i = 0; i != peers; ++i) wrong += counts->enter(peer_of(i)) ? 1 : 0;
            for (const char& connection : connections) counts->closed(&connection);
        }
        CHECK(wrong == 0);
    }
    CHECK(allocations::live == live_before);
}
