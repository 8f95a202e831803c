// The echo server, on every bed.
#include <doctest/doctest.h>

#include <string>

#include "beds.hpp"

TEST_CASE_TEMPLATE("21 one-byte segments: exact bytes", Bed, CONFORMANCE_BEDS) {
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

TEST_CASE_TEMPLATE("27 megabytes in any cutting: in order, once", Bed, CONFORMANCE_BEDS) {
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
