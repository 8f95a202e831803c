// The echo server, on every bed.
#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "beds.hpp"

TEST_ON_BEDS("21 one-byte segments: exact bytes", Bed, CONFORMANCE_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const auto where = bed.listen(server);
    auto client = bed.connect(where);
    std::string sent;
    for (int i = 0; i != 200; ++i) {
        const char c = static_cast<char>('a' + i % 26);
        sent += c;
        client.send(std::string_view{&c, 1});
        bed.until(server, [&] { return client.received() == sent; });
    }
    CHECK(client.received() == sent);
    client.shutdown_send();
    CHECK(bed.until(server, [&] { return client.ended(); }));
    CHECK_FALSE(client.was_reset());
    CHECK(server.statistics().bytes_received == 200);
    CHECK(server.statistics().bytes_sent == 200);
    CHECK(bed.until(server, [&] { return server.statistics().open == 0; }));
}

TEST_ON_BEDS("27 megabytes in any cutting: in order, once", Bed, CONFORMANCE_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const auto where = bed.listen(server);
    auto client = bed.connect(where);
    std::string sent;
    for (unsigned i = 0; sent.size() < 3'000'000; ++i) sent += std::to_string(i * 2654435761u);
    client.send(sent);
    client.shutdown_send();
    CHECK(bed.until(server, [&] { return client.ended(); }));
    CHECK(client.received() == sent);
}

TEST_ON_BEDS("options::spin changes nothing but who waits", Bed, CONFORMANCE_BEDS) {
    using namespace std::chrono_literals;
    for (const tcp::duration spin :
         {tcp::duration{1us}, tcp::duration{300us}, tcp::duration{50ms}}) {
        Bed bed;
        auto server = bed.make(tcp::echo{}, {.idle_timeout = 200ms, .spin = spin});
        const auto where = bed.listen(server);
        auto client = bed.connect(where);
        std::string sent;
        for (int i = 0; i != 20; ++i) {
            client.send("ping");
            sent += "ping";
            REQUIRE(bed.until(server, [&] { return client.received() == sent; }));
        }
        const tcp::duration begin = conformance::now_of(bed);
        server.run_for(30ms);  // neither shorter nor, on a machine with nothing else to do, longer
        const tcp::duration lasted = conformance::now_of(bed) - begin;
        CHECK(lasted >= 30ms);
        CHECK(lasted <= 2s);
        CHECK(bed.until(server, [&] { return server.statistics().open == 0; }));
        CHECK(server.statistics().timeouts == 1);
    }
}

TEST_ON_BEDS("options::spin: what was spent on looking is not slept again", Bed, SYSTEM_BEDS) {
    using namespace std::chrono_literals;
    Bed bed;
    auto server = bed.make(tcp::echo{}, {.spin = 1500ms});
    bed.listen(server);
    const auto begin = std::chrono::steady_clock::now();
    server.run_for(1600ms);
    const auto lasted = std::chrono::steady_clock::now() - begin;
    CHECK(lasted >= 1600ms);
    CHECK(lasted < 2900ms);
}
