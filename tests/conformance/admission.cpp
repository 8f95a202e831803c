// Behaviours 15, 20 and 61: who is not served is refused as documented, counted, and taken again
// later; and what waits for all together has a limit.
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/access_list.hpp>
#include <tcp/detail/address_counts.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/observer.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::scripted;
using conformance::stage;
using tcp::refused_by;

namespace {

/// The address that clients come from.
template <class Bed>
constexpr const char* clients_of = Bed::simulated ? "10.0.0.2" : "127.0.0.1";

/// Answers each byte with a piece, one in each call.
struct amplifier {
    static constexpr std::size_t piece = 64 * 1024;

    std::size_t* answered;
    std::vector<const tcp::connection*>* peers;

    void on_open(tcp::connection& peer) { peers->push_back(&peer); }
    std::size_t on_data(tcp::connection& peer, tcp::bytes) {
        peer.send(conformance::pattern(piece));
        ++*answered;
        return 1;
    }
};

/// Echoes, and cannot be copied while this is set.
class uncopied {
public:
    explicit uncopied(const bool& fails) : fails_{&fails} {}
    uncopied(const uncopied& other) : fails_{other.fails_} {
        if (*fails_) throw 1;
    }
    uncopied& operator=(const uncopied&) = delete;
    ~uncopied() = default;
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }

private:
    const bool* fails_;
};

/// Counts who is paused and who goes on.
struct counting : tcp::observer {
    int pauses = 0, resumptions = 0;
    void paused(const tcp::connection&) noexcept override { ++pauses; }
    void resumed(const tcp::connection&) noexcept override { ++resumptions; }
};

}  // namespace

TEST_ON_BEDS("15 max_connections: one more is reset and counted, and has its place later", Bed,
             CONFORMANCE_BEDS) {
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
    CHECK_THROWS_WITH_AS(tcp::server<tcp::echo>{tcp::options{.max_connections_per_address = 0}},
                         doctest::Contains("max_connections_per_address"), std::system_error);
}

TEST_CASE("refused_by: every reason has its words") {
    for (std::size_t i = 0; i != tcp::refused_by_count; ++i)
        CHECK(to_text(static_cast<refused_by>(i)) != "unknown");
    CHECK(to_text(static_cast<refused_by>(tcp::refused_by_count)) == "unknown");
}

TEST_ON_BEDS("15 max_connections_per_address: counted, and the place is free again later", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does}, {.max_connections_per_address = 2});
    const auto where = on.bed.listen(server);
    const auto refused = [&] {
        return server.statistics().refused_by[static_cast<std::size_t>(refused_by::address_limit)];
    };
    auto first = on.bed.connect(where);
    on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    for (std::size_t i = 1; i != 4; ++i) {
        auto more = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return more.was_reset(); }));
        CHECK(refused() == i);
    }
    // However one ends, its place is free.
    first.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 3; }));
    on.does.peers.back()->abort();
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 2; }));
    auto fourth = on.bed.connect(where);
    fourth.send("mine");
    CHECK(on.bed.until(server, [&] { return fourth.received() == "mine"; }));
    CHECK(refused() == 3);
    CHECK(server.statistics().open == 2);
}

TEST_ON_BEDS("15 max_connections_per_address: who is refused for it takes no place of others", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    auto server =
        on.bed.make(scripted{on.does}, {.max_connections = 3, .max_connections_per_address = 1});
    const auto where = on.bed.listen(server);
    on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    for (int i = 0; i != 5; ++i) {
        auto more = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return more.was_reset(); }));
    }
    const auto counted = server.statistics();
    CHECK(counted.refused_by[static_cast<std::size_t>(refused_by::address_limit)] == 5);
    CHECK(counted.refused_by[static_cast<std::size_t>(refused_by::connection_limit)] == 0);
    on.does.peers.back()->abort();
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    auto later = on.bed.connect(where);
    later.send("mine");
    CHECK(on.bed.until(server, [&] { return later.received() == "mine"; }));
}

TEST_ON_BEDS("15 who gets no handler takes no place, neither of all nor of its address", Bed,
             CONFORMANCE_BEDS) {
    for (const bool by_address : {false, true}) {
        CAPTURE(by_address);
        tcp::options limits;
        if (by_address)
            limits.max_connections_per_address = 1;
        else
            limits.max_connections = 2;
        bool fails = false;
        Bed bed;
        auto server = bed.make(uncopied{fails}, limits);
        const auto where = bed.listen(server);
        fails = true;
        for (int i = 0; i != 4; ++i) {
            auto client = bed.connect(where);
            REQUIRE(bed.until(server, [&] { return client.was_reset(); }));
        }
        const auto counted = server.statistics();
        CHECK(counted.refused_by[static_cast<std::size_t>(refused_by::handler_failed)] == 4);
        fails = false;
        auto client = bed.connect(where);
        client.send("at last");
        CHECK(bed.until(server, [&] { return client.received() == "at last"; }));
    }
}

TEST_CASE("15 max_connections_per_address: the largest number is no limit, and counts nothing") {
    CHECK(tcp::address_limit{}.make() == nullptr);
    CHECK(tcp::address_limit{SIZE_MAX}.make() == nullptr);
    const std::unique_ptr<tcp::detail::address_counts> counts{tcp::address_limit{1}.make()};
    REQUIRE(counts != nullptr);
    const auto peer = tcp::endpoint::parse("192.0.2.1:7");
    CHECK(counts->enter(peer));
    CHECK(!counts->enter(peer));
}

TEST_ON_BEDS("15 max_connections_per_address: addresses do not count for one another", Bed,
             SYSTEM_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{}, {.max_connections_per_address = 1});
    server.bind("0.0.0.0:0");
    const auto port = std::to_string(server.bind("127.0.0.9:0").port());
    server.listen();
    const auto from = [&](const char* own) {
        tcp::detail::descriptor fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        const auto here = tcp::endpoint::parse(std::string{own} + ":0");
        const auto there = tcp::endpoint::parse("127.0.0.9:" + port);
        REQUIRE(::bind(fd.get(), here.data(), here.size()) == 0);
        REQUIRE(::connect(fd.get(), there.data(), there.size()) == 0);
        server.run_for(20ms);
        return fd;
    };
    const auto one = from("127.0.0.2"), two = from("127.0.0.3"), again = from("127.0.0.2");
    CHECK(server.statistics().open == 2);
    CHECK(server.statistics().refused == 1);
}

TEST_CASE("15 max_connections_per_address: clients of a unix-domain socket are nobody else") {
    using tcp::endpoint;
    using tcp::detail::address_key;
    const address_key local{endpoint::parse("unix:@somebody")};
    CHECK(local == address_key{endpoint::parse("unix:/path")});
    for (const char* other : {"[::1]:1", "[::]:1", "0.0.0.0:1", "127.0.0.1:1", "255.255.255.255:1"})
        CHECK(!(local == address_key{endpoint::parse(other)}));
    CHECK(address_key{endpoint::parse("[2001:db8:0:1::1]:1")} ==
          address_key{endpoint::parse("[2001:db8:0:1::2]:2")});
}

TEST_CASE("15 max_connections_per_address: the networks of one site are spread over the table") {
    std::vector<int> buckets(1024);
    for (int network = 0; network != 65'536; ++network) {
        sockaddr_in6 v6{};
        v6.sin6_family = AF_INET6;
        v6.sin6_addr.s6_addr[0] = 0x20;
        v6.sin6_addr.s6_addr[6] = static_cast<unsigned char>(network >> 8);
        v6.sin6_addr.s6_addr[7] = static_cast<unsigned char>(network & 0xff);
        const auto peer =
            tcp::endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
        const std::uint64_t hash = tcp::detail::address_key{peer}.hash();
        ++buckets[static_cast<std::size_t>(hash >> 32) % buckets.size()];
    }
    CHECK(*std::max_element(buckets.begin(), buckets.end()) < 2 * 64);
}

TEST_ON_BEDS("20 admit: asked with the address, before a handler is made", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    int asked = 0;
    bool let_in = false;
    auto server = on.bed.make(scripted{on.does}, {.admit = [&](const tcp::endpoint& peer) {
                                  ++asked;
                                  CHECK(peer.address() == clients_of<Bed>);
                                  CHECK(peer.port() != 0);
                                  return let_in;
                              }});
    const auto where = on.bed.listen(server);
    auto stranger = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return stranger.was_reset(); }));
    CHECK(on.does.opens == 0);
    CHECK(on.does.alive == 1);  // the prototype
    const auto counted = server.statistics();
    CHECK(counted.refused_by[static_cast<std::size_t>(refused_by::admission)] == 1);
    CHECK(counted.accepted == 0);
    let_in = true;
    auto friendly = on.bed.connect(where);
    friendly.send("hello");
    CHECK(on.bed.until(server, [&] { return friendly.received() == "hello"; }));
    CHECK(asked == 2);
}

TEST_ON_BEDS("20 admit: what it throws is a no", Bed, CONFORMANCE_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{}, {.admit = [](const tcp::endpoint&) -> bool { throw 1; }});
    const auto where = bed.listen(server);
    auto client = bed.connect(where);
    CHECK(bed.until(server, [&] { return client.was_reset(); }));
}

TEST_ON_BEDS("20 admit: an access_list", Bed, CONFORMANCE_BEDS) {
    Bed bed;
    auto inside = bed.make(tcp::echo{}, {.admit = tcp::access_list{clients_of<Bed>}});
    auto outside = bed.make(tcp::echo{}, {.admit = tcp::access_list{"192.168.0.0/16"}});
    const auto where = bed.listen(inside);
    auto client = bed.connect(where);
    client.send("in");
    CHECK(bed.until(inside, [&] { return client.received() == "in"; }));
    if constexpr (!Bed::simulated) {  // another listener in the same world
        const auto elsewhere = bed.listen(outside);
        auto refused = bed.connect(elsewhere);
        CHECK(bed.until(outside, [&] { return refused.was_reset(); }));
    }
}

TEST_ON_BEDS("61 memory_limit: those for whom something waits stop reading, nobody dies", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t limit = 256 * 1024;
    constexpr std::size_t clients = 8, pieces = 40, piece = amplifier::piece;
    std::size_t answered = 0;
    std::vector<const tcp::connection*> peers;
    Bed bed;
    auto server =
        bed.make(amplifier{&answered, &peers},
                 {.high_mark = 16 * piece, .memory_limit = limit, .kernel_send_buffer = 16 * 1024});
    const auto where = bed.listen(server);
    std::vector<typename Bed::client> all;
    for (std::size_t i = 0; i != clients; ++i) {
        all.push_back(bed.connect_narrow(where));
        all.back().pause_receive();
        all.back().send(std::string(pieces, 'x'));
    }
    bed.run(server, 300ms);
    REQUIRE(peers.size() == clients);
    std::size_t waiting = 0;
    for (const tcp::connection* peer : peers) waiting += peer->send_queue_size();
    CHECK(waiting > limit / 2);
    CHECK(waiting <= limit + clients * piece);  // without the limit: 16 pieces for each
    CHECK(server.statistics().pauses != 0);
    for (auto& client : all) client.resume_receive();
    CHECK(bed.until(server, [&] {
        return std::all_of(all.begin(), all.end(), [&](auto& client) {
            return client.received().size() == pieces * piece;
        });
    }));
    CHECK(answered == clients * pieces);
    CHECK(server.statistics().open == clients);
}

TEST_ON_BEDS("61 memory_limit: at the low mark nobody goes on while others have too much", Bed,
             SIMULATED_BEDS) {
    constexpr std::size_t low = 256 * 1024;
    counting seen;
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes) {
        peer.send(std::string(1'000'000, 'm'));
    };
    auto server = on.bed.make(
        scripted{on.does},
        {.high_mark = 2 * low, .low_mark = low, .observer = &seen, .memory_limit = 100'000});
    const auto where = on.bed.listen(server);
    auto stuck = on.bed.connect_narrow(where);
    auto slow = on.bed.connect_narrow(where);
    stuck.pause_receive();
    slow.pause_receive();
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    stuck.send("?");
    REQUIRE(on.bed.until(server, [&] { return seen.pauses == 1; }));
    slow.send("?");
    REQUIRE(on.bed.until(server, [&] { return seen.pauses == 2; }));
    const auto of_slow = [&] {
        std::size_t least = SIZE_MAX;
        for (const tcp::connection* peer : on.does.peers)
            least = std::min(least, peer->send_queue_size());
        return least;
    };
    REQUIRE(on.bed.until(server, [&] {
        slow.receive(2'000);
        return of_slow() <= low;
    }));
    CHECK(of_slow() > 0);
    CHECK(seen.resumptions == 0);
    slow.resume_receive();
    REQUIRE(on.bed.until(server, [&] { return of_slow() == 0; }));  // then it keeps nobody waiting
    CHECK(seen.resumptions == 1);
    CHECK(seen.pauses == 2);
}
