// Behaviour 15: who is not served is refused as documented, counted, and taken again later.
#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::scripted;
using conformance::stage;
using tcp::refused_by;

TEST_CASE_TEMPLATE("15 max_connections: one more is reset and counted, and has its place later",
                   Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does}, {.max_connections = 2});
    const auto where = on.bed.listen(server);
    auto first = on.bed.connect(where);
    auto second = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    for (std::size_t i = 1; i != 4; ++i) {
        auto more = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return more.was_reset(); }));
        const auto counted = server.statistics();
        CHECK(counted.refused == i);
        CHECK(counted.refused_by[static_cast<std::size_t>(refused_by::connection_limit)] == i);
        CHECK(counted.accepted == 2);
    }
    first.send("still served");
    CHECK(on.bed.until(server, [&] { return first.received() == "still served"; }));
    second.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    auto later = on.bed.connect(where);
    later.send("my turn");
    CHECK(on.bed.until(server, [&] { return later.received() == "my turn"; }));
    CHECK(server.statistics().open == 2);
}

TEST_CASE("15 max_connections of 0 is refused, with its name") {
    CHECK_THROWS_WITH_AS(tcp::server<tcp::echo>{tcp::options{.max_connections = 0}},
                         doctest::Contains("max_connections"), std::system_error);
}

TEST_CASE("refused_by: every reason has its words") {
    for (std::size_t i = 0; i != tcp::refused_by_count; ++i)
        CHECK(to_text(static_cast<refused_by>(i)) != "unknown");
    CHECK(to_text(static_cast<refused_by>(tcp::refused_by_count)) == "unknown");
}
