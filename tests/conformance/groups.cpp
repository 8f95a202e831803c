// Behaviour 41 and what a group promises: what is sent to it reaches its members, those alone, in
// order, and stands in memory once.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <tcp/connection_handle.hpp>
#include <tcp/group.hpp>
#include <tcp/shared_bytes.hpp>

#include "beds.hpp"
#include "resident_memory.hpp"

using namespace std::chrono_literals;
using conformance::difference;
using conformance::pattern;
using tcp::closed_by;
using tcp::group;
using tcp::shared_bytes;
using tests::resident_bytes;
using tests::sanitized;

static_assert(!std::is_copy_constructible_v<group>);
static_assert(!std::is_copy_assignable_v<group>);
static_assert(std::is_nothrow_default_constructible_v<group::member>);
static_assert(std::is_nothrow_copy_constructible_v<group::member>);
static_assert(std::is_nothrow_copy_assignable_v<group::member>);

namespace {

/// What all guests of a test share. It outlives the server.
struct hall {
    group* a = nullptr;
    group* b = nullptr;
    std::vector<tcp::close_reason> closes;
    std::vector<tcp::connection_handle> handles;
    std::size_t opens = 0;
    std::size_t obeyed = 0;
    std::size_t wrong = 0;  // copies that were in a group
};

/// Does what its peer says, letter by letter.
struct guest {
    explicit guest(hall& h) : in{&h} {}
    guest(const guest&) = default;

    hall* in;
    group::member one;
    group::member other;

    void on_open(tcp::connection& peer) {
        in->wrong += one.joined() || other.joined() ? 1 : 0;
        ++in->opens;
        in->handles.push_back(peer.handle());
    }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        for (const char letter : tcp::as_text(data)) {
            obey(peer, letter);
            ++in->obeyed;
        }
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) { in->closes.push_back(why); }

private:
    void obey(tcp::connection& peer, char letter) {
        switch (letter) {
            case 'a': return one.join(*in->a, peer);
            case 'b': return one.join(*in->b, peer);
            case 'A': return other.join(*in->a, peer);
            case 'B': return other.join(*in->b, peer);
            case 'l': return one.leave();
            case 'L': return other.leave();
            case 'j': in->wrong += one.joined() ? 0 : 1; return;
            case 'n': in->wrong += one.joined() ? 1 : 0; return;
            case 's':
                in->a->send("said. ");
                CHECK(peer.send("first. "));
                return;
            case 'c': return peer.close();
            case 'r': return peer.abort();
            case 'k': copy(); return;
            default: return;
        }
    }
    void copy() {
        const std::size_t before = in->a->size();
        const group::member made{one};
        group::member moved{std::move(one)};
        group::member assigned;
        assigned = one;
        in->wrong += made.joined() || moved.joined() || assigned.joined() ? 1 : 0;
        one = made;  // stays where it is
        in->wrong += one.joined() && in->a->size() == before ? 0 : 1;
        const guest whole{*this};
        in->wrong += whole.one.joined() || whole.other.joined() ? 1 : 0;
    }
};

/// A bed with two groups, and guests.
template <class Bed>
struct rooms {
    group a, b;
    hall shared;
    Bed bed;

    rooms() {
        shared.a = &a;
        shared.b = &b;
    }
    rooms(const rooms&) = delete;
    rooms& operator=(const rooms&) = delete;
    ~rooms() {
        CHECK(shared.opens == shared.closes.size());
        CHECK(shared.wrong == 0);
        CHECK(a.size() == 0);
        CHECK(b.size() == 0);
        if constexpr (Bed::simulated) {
            CHECK(bed.world.open_sockets() == 0);
            for (const std::string& sentence : bed.world.violations()) CHECK(sentence == "");
        }
    }

    /// Connects, and lets the server open it.
    template <class Server>
    typename Bed::client enter(Server& server, const tcp::endpoint& where, bool narrow = false) {
        const std::size_t before = shared.opens;
        auto client = narrow ? bed.connect_narrow(where) : bed.connect(where);
        REQUIRE(bed.until(server, [&] { return shared.opens == before + 1; }));
        return client;
    }

    /// Has these letters obeyed.
    template <class Server>
    void tell(Server& server, typename Bed::client& client, std::string_view letters) {
        const std::size_t before = shared.obeyed;
        client.send(letters);
        REQUIRE(bed.until(server, [&] { return shared.obeyed == before + letters.size(); }));
    }
};

}  // namespace

TEST_ON_BEDS("41 what a group is sent reaches its members, those alone, in order", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto first = on.enter(server, where), second = on.enter(server, where),
         outside = on.enter(server, where);
    CHECK(on.a.size() == 0);
    on.a.send("nobody hears this");
    on.tell(server, first, "naj");
    CHECK(on.a.size() == 1);
    on.tell(server, second, "a");
    CHECK(on.a.size() == 2);
    CHECK(on.b.size() == 0);
    on.b.send("nor this");
    std::string expected;
    for (std::size_t i = 0; i != 200; ++i) {
        std::string text = pattern(i % 50 == 49 ? 20'000 : i % 60, i + 1);
        expected += text;
        if (i % 3 == 0)
            on.a.send(tcp::as_bytes(text));
        else if (i % 3 == 1)
            on.a.send(std::string_view{text});
        else
            on.a.send(shared_bytes{text});
        text.assign(text.size(), '!');
        if (i % 7 == 0) on.bed.run(server, 1ms);
    }
    on.a.send("");
    on.a.send(shared_bytes{});
    on.a.send("the end");
    expected += "the end";
    CHECK(on.bed.until(server, [&] {
        return first.received_size() >= expected.size() &&
               second.received_size() >= expected.size();
    }));
    on.bed.run(server, 5ms);
    CHECK(difference(first.received(), expected) == "");
    CHECK(difference(second.received(), expected) == "");
    CHECK(outside.received() == "");
}

TEST_ON_BEDS("41 handles and groups: what one place sends arrives in that order", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto first = on.enter(server, where), second = on.enter(server, where);
    on.tell(server, first, "a");
    on.tell(server, second, "aB");
    std::string of_first, of_second;
    for (int i = 0; i != 100; ++i) {
        const std::string text = std::to_string(i) + ' ';
        if (i % 3 == 0) {
            on.a.send(text);
            of_first += text;
        } else if (i % 3 == 1) {
            on.b.send(text);
        } else {
            CHECK(on.shared.handles[1].send(text));
        }
        of_second += text;
    }
    CHECK(on.bed.until(server, [&] {
        return first.received_size() >= of_first.size() &&
               second.received_size() >= of_second.size();
    }));
    CHECK(first.received() == of_first);
    CHECK(second.received() == of_second);
}

TEST_ON_BEDS("41 a member sends to its group in a hook, and gets it, too, after the hook", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto first = on.enter(server, where), second = on.enter(server, where);
    on.tell(server, first, "a");
    on.tell(server, second, "a");
    first.send("s");
    CHECK(on.bed.until(server,
                       [&] { return first.received_size() == 13 && second.received_size() == 6; }));
    CHECK(first.received() == "first. said. ");
    CHECK(second.received() == "said. ");
    // Not a member itself.
    on.tell(server, first, "l");
    first.send("s");
    CHECK(on.bed.until(
        server, [&] { return first.received_size() == 20 && second.received_size() == 12; }));
    CHECK(first.received() == "first. said. first. ");
}

TEST_ON_BEDS("41 joining twice, joining another, leaving, being in two groups", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto client = on.enter(server, where), other = on.enter(server, where);
    on.tell(server, other, "aB");
    std::string expected, of_other;
    const auto say = [&](std::size_t in_a, std::size_t in_b) {
        CHECK(on.a.size() == in_a + 1);
        CHECK(on.b.size() == in_b + 1);
        on.a.send("a");
        on.b.send("b");
        expected += std::string(in_a, 'a') + std::string(in_b, 'b');
        of_other += "ab";
        REQUIRE(on.bed.until(server, [&] { return other.received_size() >= of_other.size(); }));
        REQUIRE(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
        CHECK(client.received() == expected);
        CHECK(other.received() == of_other);
    };
    say(0, 0);
    on.tell(server, client, "aa");
    say(1, 0);
    on.tell(server, client, "bj");
    say(0, 1);
    on.tell(server, client, "lnl");
    say(0, 0);
    on.tell(server, client, "aB");
    say(1, 1);
    on.tell(server, client, "A");  // in the same one twice, by two members
    CHECK(on.a.size() == 3);
    say(2, 0);
    on.tell(server, client, "ln");
    say(1, 0);
    on.tell(server, client, "L");
    say(0, 0);
    on.bed.run(server, 3ms);
    CHECK(client.received() == expected);
}

TEST_ON_BEDS("41 copies of a member are in no group", Bed, CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto client = on.enter(server, where);
    on.tell(server, client, "ak");
    CHECK(on.a.size() == 1);
    on.a.send("once");
    CHECK(on.bed.until(server, [&] { return client.received_size() >= 4; }));
    on.bed.run(server, 3ms);
    CHECK(client.received() == "once");
}

TEST_ON_BEDS("41 who ends leaves, the others stay", Bed, CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto stays = on.enter(server, where);
    on.tell(server, stays, "a");
    std::string expected;
    for (const char way : std::string_view{"crfx"}) {
        CAPTURE(way);
        auto before = on.enter(server, where), ends = on.enter(server, where),
             behind = on.enter(server, where);
        for (auto* each : {&before, &ends, &behind}) on.tell(server, *each, "aB");
        CHECK(on.a.size() == 4);
        const std::size_t closes = on.shared.closes.size();
        switch (way) {
            case 'f': ends.shutdown_send(); break;
            case 'x': ends.reset(); break;
            default: ends.send(std::string(1, way));
        }
        REQUIRE(on.bed.until(server, [&] {
            if (ends.ended()) ends.shutdown_send();
            return on.shared.closes.size() == closes + 1;
        }));
        CHECK(on.a.size() == 3);
        CHECK(on.b.size() == 2);
        on.a.send("after");
        expected += "after";
        CHECK(on.bed.until(server, [&] {
            return stays.received_size() >= expected.size() && before.received_size() == 5 &&
                   behind.received_size() == 5;
        }));
        CHECK(ends.received_size() == 0);
        for (auto* each : {&before, &behind}) each->reset();
        REQUIRE(on.bed.until(server, [&] { return on.shared.closes.size() == closes + 3; }));
        CHECK(on.a.size() == 1);
        CHECK(on.b.size() == 0);
    }
    CHECK(stays.received() == expected);
}

TEST_ON_BEDS("41 a member that ends between a send and its arrival", Bed, CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 5; ++i) {
        clients.push_back(on.enter(server, where));
        on.tell(server, clients.back(), "a");
    }
    for (const std::size_t i : {0U, 2U, 4U})
        CHECK(on.shared.handles[i].post([](tcp::connection& peer) { peer.abort(); }));
    on.a.send("to the rest");
    CHECK(on.bed.until(server, [&] {
        return clients[1].received_size() == 11 && clients[3].received_size() == 11 &&
               on.shared.closes.size() == 3;
    }));
    for (const auto& why : on.shared.closes) CHECK(why.unsent == 0);
    // Who has closed gets no more, and ends gracefully all the same.
    CHECK(on.shared.handles[1].post([](tcp::connection& peer) { peer.close(); }));
    on.a.send("too late");
    CHECK(on.bed.until(server, [&] { return clients[1].ended(); }));
    on.a.send("later still");
    on.bed.run(server, 3ms);
    clients[1].shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.shared.closes.size() == 4; }));
    CHECK(on.shared.closes[3].by == closed_by::handler_closed);
    CHECK_FALSE(clients[1].was_reset());
    CHECK(clients[1].received() == "to the rest");
    CHECK(on.a.size() == 1);
}

TEST_ON_BEDS("41 the group is destroyed before its members, with mail under way", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    auto client = on.enter(server, where), other = on.enter(server, where);
    for (int round = 0; round != 3; ++round) {
        auto passing = std::make_unique<group>();
        on.shared.a = passing.get();
        on.tell(server, client, "a");
        on.tell(server, other, "aA");
        CHECK(passing->size() == 3);
        passing->send("under way");
        on.shared.a = nullptr;
        passing.reset();
        on.bed.run(server, 5ms);
        if (round == 0) on.tell(server, client, "l");
        if (round == 1) on.tell(server, client, "b");
        if (round == 1) CHECK(on.b.size() == 1);
    }
    on.shared.a = &on.a;
    on.tell(server, client, "a");
    CHECK(on.b.size() == 0);
    on.a.send("!");
    CHECK(on.bed.until(server, [&] { return client.received().ends_with('!'); }));
}

TEST_ON_BEDS("41 the server is destroyed before the group, with mail under way", Bed,
             CONFORMANCE_BEDS) {
    rooms<Bed> on;
    for (int round = 0; round != 2; ++round) {
        auto server = on.bed.make(guest{on.shared});
        const auto where = on.bed.listen(server);
        auto client = on.enter(server, where), other = on.enter(server, where);
        on.tell(server, client, "a");
        on.tell(server, other, "a");
        on.a.send(shared_bytes{"under way"});
        if (round == 1) server.stop();
    }
    CHECK(on.a.size() == 0);
    on.a.send("nobody");
    auto server = on.bed.make(guest{on.shared});
    auto client = on.enter(server, on.bed.listen(server));
    on.tell(server, client, "a");
    on.a.send("again");
    CHECK(on.bed.until(server, [&] { return client.received_size() == 5; }));
    CHECK(client.received() == "again");
}

TEST_CASE("41 a group of two servers (S)") {
    rooms<conformance::simulated_bed> on;
    auto first = on.bed.make(guest{on.shared}), second = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(first);
    const tcp::endpoint elsewhere = second.bind(tcp::endpoint::parse("127.0.0.1:8"));
    second.listen();
    auto one = on.enter(first, where), two = on.enter(second, elsewhere);
    on.tell(first, one, "a");
    on.tell(second, two, "a");
    CHECK(on.a.size() == 2);
    on.a.send("both");
    CHECK(on.bed.until(first, [&] { return one.received_size() == 4; }));
    CHECK(two.received_size() == 0);  // its server has not run
    CHECK(on.bed.until(second, [&] { return two.received_size() == 4; }));
    first.stop();
    CHECK_FALSE(first.poll());
    CHECK(on.a.size() == 1);
    on.a.send("one");
    CHECK(on.bed.until(second, [&] { return two.received_size() == 7; }));
    CHECK(one.received() == "both");
}

TEST_ON_BEDS("41 a slow member is ended alone, at send_queue_limit", Bed, CONFORMANCE_BEDS) {
    rooms<Bed> on;
    constexpr std::size_t limit = 300'000, size = 10'000, count = 200;
    auto server =
        on.bed.make(guest{on.shared}, {.send_queue_limit = limit, .kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    auto first = on.enter(server, where), slow = on.enter(server, where, true),
         last = on.enter(server, where);
    for (auto* each : {&first, &slow, &last}) on.tell(server, *each, "a");
    slow.pause_receive();
    std::string expected;
    for (std::size_t i = 0; i != count; ++i) {
        const std::string text = pattern(size, i + 1);
        expected += text;
        on.a.send(text);
        REQUIRE(on.bed.until(server, [&] {
            return first.received_size() == expected.size() &&
                   last.received_size() == expected.size();
        }));
    }
    REQUIRE(on.shared.closes.size() == 1);
    CHECK(on.shared.closes[0].by == closed_by::limit);
    CHECK(on.shared.closes[0].reached == tcp::limit::send_queue);
    // What was queued, without the one that found it above the limit.
    CHECK(on.shared.closes[0].unsent > limit);
    CHECK(on.shared.closes[0].unsent <= limit + size);
    CHECK(on.a.size() == 2);
    CHECK(difference(first.received(), expected) == "");
    CHECK(difference(last.received(), expected) == "");
    slow.resume_receive();
    CHECK(on.bed.until(server, [&] { return slow.was_reset(); }));
}

TEST_ON_BEDS("41 one buffer to 10,000 connections", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t members = Bed::simulated ? 10'000 : 200;  // descriptors are few
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    while (clients.size() != members) {  // as many at a time as may wait
        const std::size_t next = std::min<std::size_t>(clients.size() + 2'000, members);
        while (clients.size() != next) {
            clients.push_back(on.bed.connect(where));
            clients.back().send("a");
        }
        REQUIRE(on.bed.until(server, [&] { return on.a.size() == next; }));
    }
    const std::string text = pattern(1'000);
    for (int i = 0; i != 3; ++i) on.a.send(text);
    CHECK(on.bed.until(server, [&] {
        for (auto& client : clients)
            if (client.received_size() < 3 * text.size()) return false;
        return true;
    }));
    std::size_t wrong = 0;
    for (auto& client : clients) wrong += client.received() == text + text + text ? 0 : 1;
    CHECK(wrong == 0);
    CHECK(server.statistics().bytes_sent == members * 3 * text.size());
}

TEST_ON_BEDS("41 what 100 members do not read stands in memory once", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t members = 100, size = 1024 * 1024;
    rooms<Bed> on;
    if constexpr (Bed::simulated) {  // what the network holds is little
        auto weather = on.bed.world.current_faults();
        weather.client_window = 4'000;
        weather.send_capacity = 4'000;
        weather.segment_min = weather.segment_max = 1'460;
        on.bed.world.set_faults(weather);
    }
    auto server = on.bed.make(guest{on.shared}, {.kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (std::size_t i = 0; i != members; ++i) {
        clients.push_back(on.bed.connect_narrow(where));
        clients.back().send("a");
    }
    REQUIRE(on.bed.until(server, [&] { return on.a.size() == members; }));
    for (auto& client : clients) client.pause_receive();

    const std::string text = pattern(size);
    const std::size_t before = resident_bytes();
    for (int i = 0; i != 2; ++i) on.a.send(text);
    on.bed.run(server, 20ms);
    const std::size_t after = resident_bytes();
    CHECK(server.statistics().bytes_sent < members * size / 2);  // it is queued
    // A queue of their own would be 200 MiB.
    if (!sanitized) CHECK(after < before + 40 * size);

    const std::size_t closes = on.shared.closes.size();
    for (std::size_t i = 1; i != members; ++i) clients[i].reset();
    REQUIRE(on.bed.until(server, [&] { return on.shared.closes.size() == closes + members - 1; }));
    clients[0].resume_receive();
    CHECK(on.bed.until(server, [&] { return clients[0].received_size() == 2 * size; }));
    CHECK(difference(clients[0].received(), text + text) == "");
}

// ---- several threads (K) ----

TEST_ON_BEDS("41 another thread sends while connections join and leave (K)", Bed, SYSTEM_BEDS) {
    rooms<Bed> on;
    auto server = on.bed.make(guest{on.shared});
    const auto where = on.bed.listen(server);
    std::vector<conformance::kernel_client> clients;
    for (int i = 0; i != 8; ++i) clients.push_back(on.enter(server, where));
    std::atomic<bool> enough{false};
    std::thread sender{[&] {
        for (std::size_t i = 0; !enough; ++i) {
            on.a.send(std::to_string(i % 10));
            if (i % 32 == 0) std::this_thread::sleep_for(200us);
        }
    }};
    for (auto& client : clients) {
        client.send("a");
        on.bed.until(server, [&] { return client.received_size() > 500; });
        client.send("l");
        on.bed.run(server, 5ms);
    }
    CHECK(on.a.size() == 0);
    enough = true;
    sender.join();
    for (auto& client : clients) {
        const std::string got = client.received();
        CHECK(got.size() > 500);
        std::size_t gaps = 0;
        for (std::size_t i = 1; i < got.size(); ++i)
            gaps += (got[i] - got[i - 1] + 10) % 10 == 1 ? 0 : 1;
        CHECK(gaps == 0);
    }
}

TEST_ON_BEDS("41 who joins in on_close only leaves where it was", Bed, CONFORMANCE_BEDS) {
    struct moves {
        group* from;
        group* to;
        std::vector<std::size_t>* sizes;
        group::member in = {};
        void on_open(tcp::connection& peer) { in.join(*from, peer); }
        void on_close(tcp::connection& peer, const tcp::close_reason&) {
            sizes->push_back(from->size());
            in.join(*to, peer);
            sizes->push_back(from->size());
            sizes->push_back(to->size());
        }
    };
    group from, to;
    std::vector<std::size_t> sizes;
    Bed bed;
    auto server = bed.make(moves{&from, &to, &sizes});
    const auto where = bed.listen(server);
    auto client = bed.connect(where);
    REQUIRE(bed.until(server, [&] { return from.size() == 1; }));
    client.shutdown_send();
    REQUIRE(bed.until(server, [&] { return !sizes.empty(); }));
    CHECK(sizes == std::vector<std::size_t>{1, 0, 0});
}
