// Behaviours 38, 40, 51 and 69 to 72 of handles: what is sent and posted from anywhere arrives
// once, in order, at the connection that was meant, or is reported.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <tcp/connection_handle.hpp>
#include <tcp/shared_bytes.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::difference;
using conformance::pattern;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;
using tcp::connection_handle;
using tcp::shared_bytes;

static_assert(std::is_nothrow_default_constructible_v<connection_handle>);
static_assert(std::is_nothrow_copy_constructible_v<connection_handle>);
static_assert(std::is_nothrow_move_constructible_v<connection_handle>);
static_assert(std::is_nothrow_copy_assignable_v<connection_handle>);
static_assert(std::is_nothrow_move_assignable_v<connection_handle>);

namespace {

/// A stage that has a handle for every connection, in the order of on_open.
template <class Bed>
struct handle_stage : stage<Bed> {
    handle_stage() {
        this->does.on_open = [this](tcp::connection& peer) { handles.push_back(peer.handle()); };
    }
    std::vector<connection_handle> handles;
};

/// Connects, and lets the server open it.
template <class Bed, class Server>
typename Bed::client opened(handle_stage<Bed>& on, Server& server, const tcp::endpoint& where,
                            bool narrow = false) {
    const std::size_t before = on.does.opens;
    auto client = narrow ? on.bed.connect_narrow(where) : on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == before + 1; }));
    return client;
}

bool not_open(tcp::send_result result) { return !result && result.error() == tcp::error::not_open; }

/// Nothing can be sent or posted, and what was posted is destroyed at once.
bool is_over(const connection_handle& one) {
    auto held = std::make_shared<int>();  // not const: a captured copy is to be moved
    return not_open(one.send("late")) && not_open(one.send(tcp::as_bytes("late"))) &&
           not_open(one.send(std::string_view{})) && not_open(one.send(shared_bytes{"late"})) &&
           not_open(one.post([held](tcp::connection&) { FAIL("called"); })) &&
           held.use_count() == 1 && !one.open();
}

std::string numbers(std::size_t first, std::size_t end) {
    std::string all;
    for (; first != end; ++first) all += std::to_string(first) + ' ';
    return all;
}

}  // namespace

// ---- sending ----

TEST_ON_BEDS("40 a handle's sends of every kind arrive, in order", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.kernel_send_buffer = 4096});
    auto client = opened(on, server, on.bed.listen(server));
    const connection_handle to = on.handles[0];
    CHECK(to.open());
    std::string expected;
    for (std::size_t i = 0; i != 40; ++i) {
        const std::size_t size = i % 8 == 7 ? 30'000 : i * 13 % 300;
        std::string text = pattern(size, i + 1);
        expected += text;
        switch (i % 4) {
            case 0: CHECK(to.send(tcp::as_bytes(text))); break;
            case 1: CHECK(to.send(std::string_view{text})); break;
            case 2:
                CHECK(to.send("a literal"));
                expected.resize(expected.size() - size);
                expected += "a literal";
                break;
            default: CHECK(to.send(shared_bytes{text}));
        }
        text.assign(text.size(), '!');  // the caller's bytes are the caller's again
        if (i % 5 == 0) on.bed.run(server, 1ms);
    }
    CHECK(to.send(""));
    CHECK(to.send(tcp::bytes{}));
    CHECK(to.send(shared_bytes{}));
    CHECK(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
    on.bed.run(server, 5ms);
    CHECK(difference(client.received(), expected) == "");
    CHECK(server.statistics().bytes_sent == expected.size());
}

TEST_ON_BEDS("40 what one place sends and posts arrives in that order", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    const connection_handle first = on.handles[0], second{first};
    constexpr std::size_t count = 1'000;
    for (std::size_t i = 0; i != count; ++i) {
        const std::string text = std::to_string(i) + ' ';
        switch (i % 3) {
            case 0: CHECK(first.send(text)); break;
            case 1: CHECK(second.send(shared_bytes{text})); break;
            default: CHECK(first.post([text](tcp::connection& peer) { peer.send(text); }));
        }
    }
    const std::string expected = numbers(0, count);
    CHECK(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
    CHECK(difference(client.received(), expected) == "");
}

TEST_ON_BEDS("40 from its own hook: after what the hook itself sent", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    std::string expected = "opened. later. ";
    on.does.on_open = [](tcp::connection& peer) {
        CHECK(peer.handle().send("later. "));
        CHECK(peer.send("opened. "));
    };
    std::size_t calls = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        const std::string number = std::to_string(++calls);
        const connection_handle own = peer.handle();
        CHECK(own.send(data));  // the data is gone when it arrives
        CHECK(peer.send(data));
        CHECK(own.post([number](tcp::connection& c) { c.send("post" + number); }));
        CHECK(peer.send("hook" + number));
        CHECK(own.send("handle" + number));
        expected += std::string{tcp::as_text(data)} + "hook" + number +
                    std::string{tcp::as_text(data)} + "post" + number + "handle" + number;
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    for (std::size_t i = 1; i != 6; ++i) {
        // One at a time: a second hook in the same batch comes before the mail of the first.
        client.send(std::string(1, static_cast<char>('a' + i)));
        REQUIRE(on.bed.until(
            server, [&] { return calls == i && client.received_size() >= expected.size(); }));
    }
    CHECK(difference(client.received(), expected) == "");
}

TEST_ON_BEDS("40 from the hooks of another connection, on_close too", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    on.does.on_data = [&](tcp::connection&, tcp::bytes) { CHECK(on.handles[0].send("data. ")); };
    on.does.on_end = [&](tcp::connection& peer) {
        CHECK(on.handles[0].send("end. "));
        peer.close();
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = opened(on, server, where);
    on.does.on_open = [&](tcp::connection&) { CHECK(on.handles[0].send("open. ")); };
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        if (on.does.closes.size() > 1) return;
        CHECK(on.handles[0].send("close. "));
        CHECK(on.handles[0].post([](tcp::connection& peer) { peer.send("post. "); }));
    };
    auto other = on.bed.connect(where);
    other.send("?");
    other.shutdown_send();
    const std::string expected = "open. data. end. close. post. ";
    CHECK(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
    CHECK(client.received() == expected);
    CHECK(other.received_size() == 0);
}

TEST_ON_BEDS("40 a handle's sends count for the marks and the limit of the queue", Bed,
             CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.high_mark = 600'000,
                                                  .low_mark = 1'000,
                                                  .send_queue_limit = 1'000'000,
                                                  .kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    auto marked = opened(on, server, where, true);
    auto limited = opened(on, server, where, true);
    marked.pause_receive();
    limited.pause_receive();
    const shared_bytes most{std::string(900'000, 'm')};
    CHECK(on.handles[0].send(most));
    // Both arrive before any of it leaves.
    for (int i = 0; i != 2; ++i) CHECK(on.handles[1].send(most));
    CHECK(on.handles[1].send(std::string(5, '!')).error() == tcp::error::send_queue_limit);
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::limit);
    CHECK(on.does.closes[0].reached == tcp::limit::send_queue);
    CHECK(on.does.closes[0].unsent == 2 * most.size());
    CHECK(is_over(on.handles[1]));
    limited.resume_receive();
    CHECK(on.bed.until(server, [&] { return limited.was_reset(); }));
    CHECK(server.statistics().pauses == 1);
    CHECK(on.does.writables == 0);
    marked.resume_receive();
    CHECK(on.bed.until(
        server, [&] { return marked.received_size() == most.size() && on.does.writables == 1; }));
}

// ---- who is named ----

TEST_CASE("38 a handle of nobody") {
    const connection_handle nobody, neither;
    CHECK(is_over(nobody));
    CHECK(nobody == neither);
    connection_handle copy{nobody};
    copy = nobody;
    CHECK(copy == nobody);
    CHECK(is_over(copy));
    const connection_handle moved{std::move(copy)};
    CHECK(moved == nobody);
    CHECK(is_over(moved));
}

TEST_ON_BEDS("38 copies, moves and comparison", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto first = opened(on, server, where);
    auto second = opened(on, server, where);
    const connection_handle a = on.handles[0], b = on.handles[1], nobody;
    CHECK(a != b);
    CHECK(a != nobody);
    CHECK(a == on.does.peers[0]->handle());
    connection_handle c{a};
    CHECK(c == a);
    CHECK(c.send("c"));
    connection_handle d{std::move(c)};
    CHECK(d == a);
    CHECK(c == nobody);  // NOLINT(bugprone-use-after-move)
    CHECK(is_over(c));
    CHECK(d.send("d"));
    d = b;
    CHECK(d == b);
    CHECK(d.send("D"));
    const connection_handle& same = d;
    d = same;
    CHECK(d == b);
    d = std::move(const_cast<connection_handle&>(same));
    CHECK(d == b);
    c = std::move(d);
    CHECK(c == b);
    CHECK(d == nobody);  // NOLINT(bugprone-use-after-move)
    CHECK(c.send("C"));
    c = connection_handle{};
    CHECK(c == nobody);
    CHECK(is_over(c));
    CHECK(a.open());
    CHECK(b.open());
    CHECK(
        on.bed.until(server, [&] { return second.received_size() + first.received_size() == 4; }));
    CHECK(first.received() == "cd");
    CHECK(second.received() == "DC");
}

TEST_ON_BEDS("38 after the end: not_open, in on_close already", Bed, CONFORMANCE_BEDS) {
    for (const bool aborted : {false, true}) {
        CAPTURE(aborted);
        handle_stage<Bed> on;
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
            CHECK(is_over(on.handles[0]));
            CHECK(is_over(connection_handle{on.handles[0]}));
        };
        auto server = on.bed.make(scripted{on.does});
        auto client = opened(on, server, on.bed.listen(server));
        const connection_handle copy = on.handles[0];
        CHECK(copy.open());
        if (aborted)
            CHECK(copy.post([](tcp::connection& peer) { peer.abort(); }));
        else
            client.shutdown_send();
        CHECK(copy.open());  // the server has not run since
        CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        CHECK(is_over(copy));
        CHECK(copy == on.handles[0]);
        CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
        CHECK(is_over(copy));
        CHECK(client.received_size() == 0);
        CHECK(on.does.closes[0].unsent == 0);  // nothing of what was refused
    }
}

TEST_ON_BEDS("38 after close() it is open until on_close", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    const connection_handle to = on.handles[0];
    CHECK(to.post([](tcp::connection& peer) { peer.close(); }));
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(to.open());
    bool called = false;
    CHECK(to.post([&](tcp::connection& peer) {
        called = true;
        CHECK(not_open(peer.send("too late")));
    }));
    CHECK(on.bed.until(server, [&] { return called; }));
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(is_over(to));
    CHECK(client.received_size() == 0);
    CHECK(on.does.closes[0].unsent == 0);
    CHECK_FALSE(client.was_reset());
}

TEST_ON_BEDS("38 in on_close the connection's handle names nobody", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    std::vector<connection_handle> of_the_dead;
    on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason&) {
        of_the_dead.push_back(peer.handle());
        CHECK(of_the_dead.back() == connection_handle{});
        CHECK(is_over(of_the_dead.back()));
    };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    for (std::size_t i = 0; i != 5; ++i) {
        auto client = opened(on, server, where);
        client.shutdown_send();
        REQUIRE(on.bed.until(server, [&] {
            for (const connection_handle& one : of_the_dead) CHECK(is_over(one));
            return on.does.closes.size() == i + 1 && client.ended();
        }));
        CHECK(client.received_size() == 0);
        CHECK(on.does.closes[i].unsent == 0);
    }
}

TEST_ON_BEDS("51 a connection in the same slot gets nothing of what stale handles send", Bed,
             CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    std::map<tcp::connection*, std::size_t> used;
    on.does.on_open = [&](tcp::connection& peer) {
        ++used[&peer];
        for (const connection_handle& stale : on.handles)
            if (!stale.open()) CHECK(is_over(stale));
        on.handles.push_back(peer.handle());
        for (std::size_t i = 0; i + 1 != on.handles.size(); ++i)
            CHECK(on.handles[i] != on.handles.back());
        peer.send("opened");
    };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    for (std::size_t round = 0; round != 30; ++round) {
        REQUIRE(on.bed.until(server, [&] { return client.received_size() == 6; }));
        // The next comes while this one ends, and while the engine still holds it.
        client.shutdown_send();
        auto next = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] {
            for (std::size_t i = 0; i != on.does.closes.size(); ++i) CHECK(is_over(on.handles[i]));
            return on.does.closes.size() == round + 1 && on.does.opens == round + 2;
        }));
        CHECK(client.received() == "opened");
        client = next;
    }
    CHECK(on.bed.until(server, [&] { return client.received_size() == 6; }));
    CHECK(client.received() == "opened");
    CHECK(used.size() < 5);
}

TEST_ON_BEDS("51 mail for one that ended is not for the next in its slot", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto held = std::make_shared<int>();
    tcp::connection* last = nullptr;
    std::size_t reused = 0, calls = 0;
    bool leave = false;
    on.does.on_open = [&](tcp::connection& peer) {
        reused += &peer == last && held.use_count() != 1 ? 1 : 0;  // the mail still waits
        if (leave) return peer.abort();
        CHECK(peer.send("mine"));
    };
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        last = &peer;
        const connection_handle own = peer.handle();
        CHECK(own.send("stale"));
        CHECK(own.send(shared_bytes{"stale, too"}));
        CHECK(own.post([&calls, held](tcp::connection&) { ++calls; }));
        peer.abort();
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    if constexpr (Bed::simulated) {  // its batches come in the order of arrival only now and then
        auto weather = on.bed.world.current_faults();
        weather.shuffle_per_mille = 1000;
        weather.late_close_per_mille /= 2;
        on.bed.world.set_faults(weather);
    }
    for (int round = 0; round != 40; ++round) {
        leave = false;
        auto first = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return first.received_size() == 4; }));
        leave = round % 2 == 1;
        // Both wait for the server, and come in one batch.
        first.send("!");
        on.bed.wait([] { return false; }, 3ms);
        auto second = on.bed.connect(where);
        on.bed.wait([] { return false; }, 3ms);
        const std::size_t closes = on.does.closes.size();
        REQUIRE(on.bed.until(server, [&] {
            return on.does.closes.size() == closes + (leave ? 2 : 1) &&
                   (leave || second.received_size() >= 4);
        }));
        on.bed.run(server, 3ms);
        std::size_t unsent = 0;
        for (std::size_t i = closes; i != on.does.closes.size(); ++i)
            unsent += on.does.closes[i].unsent;
        CHECK(unsent == 15);
        CHECK(calls == 0);
        CHECK(held.use_count() == 1);
        if (!leave) {
            CHECK(second.received() == "mine");
            CHECK(on.does.peers[0]->send_queue_size() == 0);
            second.reset();
            CHECK(on.bed.until(server, [&] { return on.does.peers.empty(); }));
        }
    }
    if constexpr (!Bed::puts_off) CHECK(reused != 0);
}

// ---- what does not leave ----

TEST_ON_BEDS("40 sent after close(): counted, and the end stays graceful", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) {
        CHECK(peer.send(data));
        peer.close();
        CHECK(peer.handle().send("12345"));
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    client.send("x");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    for (int i = 0; i != 3; ++i) {
        CHECK(on.handles[0].send("seven c"));
        CHECK(on.handles[0].send(shared_bytes{std::string(100'000, 's')}));
        CHECK(on.handles[0].post([](tcp::connection&) {}));
        on.bed.run(server, 2ms);
    }
    CHECK(on.handles[0].send(""));
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::handler_closed);
    CHECK(on.does.closes[0].unsent == 5 + 3 * 100'007);
    CHECK_FALSE(on.does.closes[0].error);
    CHECK_FALSE(client.was_reset());
    CHECK(client.received() == "x");
    on.bed.run(server, 2ms);
    CHECK(server.statistics().bytes_sent == 1);
}

TEST_ON_BEDS("40 sent in the hook that ends it: counted, and graceful where that was", Bed,
             CONFORMANCE_BEDS) {
    enum class way { close, close_after_end, abort, throwing };
    for (const way how : {way::close, way::close_after_end, way::abort, way::throwing}) {
        CAPTURE(static_cast<int>(how));
        handle_stage<Bed> on;
        const auto end = [how](tcp::connection& peer) {
            CHECK(peer.send("bye"));
            CHECK(peer.handle().send("12345"));
            CHECK(peer.handle().send(shared_bytes{"678"}));
            if (how == way::abort) return peer.abort();
            if (how == way::throwing) throw std::runtime_error{"a handler failed"};
            peer.close();
            CHECK(peer.handle().send("90"));
        };
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            if (how != way::close_after_end) end(peer);
        };
        on.does.on_end = [&](tcp::connection& peer) {
            if (how == way::close_after_end) end(peer);
        };
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        auto other = opened(on, server, where);
        auto client = opened(on, server, where);
        CHECK(on.handles[0].send("other"));
        client.send("x");
        if (how == way::close_after_end) client.shutdown_send();
        REQUIRE(on.bed.until(server, [&] {
            if (client.ended()) client.shutdown_send();
            return on.does.closes.size() == 1 && (client.ended() || client.was_reset());
        }));
        const bool graceful = how == way::close || how == way::close_after_end;
        CHECK(client.was_reset() != graceful);
        if (graceful) {
            CHECK(client.received() == "bye");
            CHECK(on.does.closes[0].by == closed_by::handler_closed);
            CHECK(on.does.closes[0].unsent == 10);
        } else {
            CHECK(client.received() == "");
            CHECK(on.does.closes[0].by ==
                  (how == way::abort ? closed_by::handler_aborted : closed_by::handler_threw));
            CHECK(on.does.closes[0].unsent == 11);
        }
        CHECK(on.bed.until(server, [&] { return other.received() == "other"; }));
    }
}

TEST_ON_BEDS("40 sent around a posted abort(): what was queued and what waits is unsent", Bed,
             CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto other = opened(on, server, where);
    auto client = opened(on, server, where);
    const connection_handle to = on.handles[1];
    CHECK(to.send("1"));
    CHECK(to.send(shared_bytes{"22"}));
    CHECK(on.handles[0].send("for the other"));
    CHECK(to.post([](tcp::connection& peer) { peer.abort(); }));
    CHECK(on.handles[0].send(", too"));
    CHECK(to.send("333"));
    CHECK(to.send(shared_bytes{"4444"}));
    CHECK(on.bed.until(server, [&] { return client.was_reset() && other.received_size() == 18; }));
    REQUIRE(on.does.closes.size() == 1);
    CHECK(on.does.closes[0].by == closed_by::handler_aborted);
    CHECK(on.does.closes[0].unsent == 10);
    CHECK(other.received() == "for the other, too");
}

TEST_ON_BEDS("40 sent after shutdown_send(): counted", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    CHECK(on.handles[0].send("sent"));
    CHECK(on.handles[0].post([](tcp::connection& peer) { peer.shutdown_send(); }));
    CHECK(on.handles[0].send("12345"));
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(on.handles[0].send(shared_bytes{"678"}));
    on.bed.run(server, 2ms);
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::peer_finished);
    CHECK(on.does.closes[0].unsent == 8);
    CHECK(client.received() == "sent");
    CHECK_FALSE(client.was_reset());
}

TEST_CASE("40 sent after the peer's reset, while what it sent before is still shown (S)") {
    handle_stage<conformance::simulated_bed> on;
    on.does.on_open = [&](tcp::connection& peer) {
        on.handles.push_back(peer.handle());
        peer.pause_receive();
    };
    auto server = on.bed.make(scripted{on.does}, {.min_receive_rate = 1});
    auto client = opened(on, server, on.bed.listen(server));
    const std::string sent = pattern(100'000);
    client.send(sent);
    on.bed.run(server, 100ms);
    client.reset();
    on.bed.run(server, 100ms);
    CHECK(on.handles[0].send("fails"));
    on.bed.run(server, 2ms);
    REQUIRE(on.does.closes.empty());
    CHECK(on.handles[0].send("too late"));
    on.bed.run(server, 2ms);
    REQUIRE(on.does.closes.empty());
    CHECK(on.handles[0].post([](tcp::connection& peer) { peer.resume_receive(); }));
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(difference(on.does.received, sent) == "");
    CHECK(on.does.closes[0].by == closed_by::peer_reset);
    CHECK(on.does.closes[0].unsent == 13);
}

TEST_ON_BEDS("40 sent while the server stops: sent or unsent", Bed, CONFORMANCE_BEDS) {
    for (const bool destroyed : {false, true}) {
        CAPTURE(destroyed);
        handle_stage<Bed> on;
        auto held = std::make_shared<int>();
        {
            auto server = on.bed.make(scripted{on.does});
            opened(on, server, on.bed.listen(server));
            CHECK(on.handles[0].send("seven c"));
            CHECK(on.handles[0].post([held](tcp::connection& peer) { peer.send("3 c"); }));
            CHECK(on.handles[0].send(shared_bytes{"mail"}));
            if (!destroyed) {
                server.stop();
                CHECK_FALSE(server.poll());
                // What the system took is lost with the reset.
                CHECK(server.statistics().bytes_sent + on.does.closes[0].unsent == 14);
            }
        }
        REQUIRE(on.does.closes.size() == 1);
        CHECK(on.does.closes[0].by == closed_by::server_stopping);
        CHECK(on.does.closes[0].unsent <= 14);
        CHECK(held.use_count() == 1);
        CHECK(is_over(on.handles[0]));
    }
}

// ---- posting ----

TEST_ON_BEDS("40 a post runs as a hook of its connection", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = opened(on, server, where);
    auto other = opened(on, server, where);
    const connection_handle to = on.handles[0];
    bool inside = false, nested = false;
    CHECK(to.post([&](tcp::connection& peer) {
        inside = true;
        CHECK(&peer == on.does.peers[0]);
        CHECK(peer.handle() == to);
        CHECK(peer.remote_endpoint() == client.local_endpoint());
        CHECK(peer.send("posted"));
        CHECK(on.does.peers[1]->send("another's"));
        CHECK(to.post([&](tcp::connection&) { nested = inside; }));
        inside = false;
    }));
    CHECK(on.bed.until(server,
                       [&] { return client.received_size() == 6 && other.received_size() == 9; }));
    CHECK(client.received() == "posted");
    CHECK(other.received() == "another's");
    CHECK_FALSE(nested);

    // It may do everything: pause, resume, finish.
    CHECK(to.post([](tcp::connection& peer) { peer.pause_receive(); }));
    on.bed.run(server, 2ms);
    client.send("paused?");
    on.bed.run(server, 10ms);
    CHECK(on.does.received == "");
    CHECK(to.post([](tcp::connection& peer) { peer.resume_receive(); }));
    CHECK(on.bed.until(server, [&] { return on.does.received == "paused?"; }));
    CHECK(to.post([](tcp::connection& peer) { peer.shutdown_send(); }));
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(to.open());
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::peer_finished);
}

TEST_ON_BEDS("71 a post that throws ends its connection only", Bed, CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = opened(on, server, where);
    auto other = opened(on, server, where);
    auto held = std::make_shared<int>();
    std::size_t calls = 0;
    CHECK(on.handles[0].post([held](tcp::connection& peer) {
        peer.send("lost");
        throw std::runtime_error{"a handler failed"};
    }));
    CHECK(on.handles[0].post([held, &calls](tcp::connection&) { ++calls; }));
    CHECK(on.handles[1].post([held](tcp::connection& peer) { peer.send("good"); }));
    CHECK(on.bed.until(server, [&] { return client.was_reset() && other.received_size() == 4; }));
    REQUIRE(on.does.closes.size() == 1);
    CHECK(on.does.closes[0].by == closed_by::handler_threw);
    CHECK(on.does.closes[0].unsent == 4);
    CHECK(is_over(on.handles[0]));
    CHECK(on.handles[1].open());
    CHECK(calls == 0);
    CHECK(held.use_count() == 1);
    CHECK(on.handles[1].post([](tcp::connection&) { throw 42; }));
    CHECK(on.bed.until(server, [&] { return other.was_reset(); }));
    CHECK(server.statistics().closed_by[static_cast<std::size_t>(closed_by::handler_threw)] == 2);
}

TEST_ON_BEDS("40 a post to one that ended meanwhile is destroyed and not called", Bed,
             CONFORMANCE_BEDS) {
    for (const bool from_inside : {false, true}) {
        CAPTURE(from_inside);
        handle_stage<Bed> on;
        auto held = std::make_shared<int>();
        std::size_t calls = 0;
        const auto post_two = [&](const connection_handle& to) {
            for (int i = 0; i != 2; ++i)
                CHECK(to.post([held, &calls](tcp::connection&) { ++calls; }));
        };
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            post_two(peer.handle());
            peer.abort();
        };
        auto server = on.bed.make(scripted{on.does});
        auto client = opened(on, server, on.bed.listen(server));
        if (from_inside) {
            client.send("!");
        } else {
            CHECK(on.handles[0].post([](tcp::connection& peer) { peer.abort(); }));
            post_two(on.handles[0]);
            CHECK(held.use_count() == 3);
        }
        CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
        on.bed.run(server, 2ms);
        CHECK(calls == 0);
        CHECK(held.use_count() == 1);
        CHECK(on.does.closes[0].unsent == 0);
    }
}

TEST_ON_BEDS("40 what is posted may be anything that can be moved and called", Bed,
             CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    const connection_handle to = on.handles[0];
    CHECK(to.post([p = std::make_unique<std::string>("unique ")](tcp::connection& peer) mutable {
        peer.send(std::move(*p));
        p.reset();
    }));
    CHECK(to.post(+[](tcp::connection& peer) { peer.send("pointer "); }));
    std::function<void(tcp::connection&)> f = [](tcp::connection& peer) { peer.send("function "); };
    CHECK(to.post(f));
    CHECK(to.post(std::move(f)));
    CHECK(to.post([](auto& peer) { peer.send("generic "); }));
    // One that holds the name it was posted to, and one that posts when it is destroyed.
    CHECK(to.post([to](tcp::connection&) { CHECK(to.send("itself ")); }));
    struct poster {
        explicit poster(const connection_handle& h) : to{h} {}
        ~poster() { to.send("destroyed "); }
        connection_handle to;
    };
    CHECK(to.post(
        [p = std::make_unique<poster>(to)](tcp::connection& peer) { peer.send("poster "); }));
    const std::string expected =
        "unique pointer function function generic poster itself destroyed ";
    CHECK(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
    CHECK(client.received() == expected);
}

TEST_ON_BEDS("40 a post that posts itself again lets the others have their turn", Bed,
             CONFORMANCE_BEDS) {
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = opened(on, server, where);
    auto other = opened(on, server, where);
    struct again {
        connection_handle to;
        std::size_t left;
        std::size_t* calls;
        void operator()(tcp::connection& peer) {
            ++*calls;
            if (left == 0) return void(peer.send("done"));
            CHECK(to.post(again{to, left - 1, calls}));
        }
    };
    std::size_t calls = 0;
    other.send("echo");
    on.bed.wait([] { return false; }, 5ms);
    CHECK(on.handles[0].post(again{on.handles[0], 3'000, &calls}));
    std::size_t calls_at_echo = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        if (calls_at_echo == 0) calls_at_echo = calls + 1;
        peer.send(data);
    };
    CHECK(on.bed.until(server,
                       [&] { return client.received() == "done" && other.received() == "echo"; }));
    CHECK(calls == 3'001);
    CHECK(calls_at_echo < 1'000);
}

TEST_ON_BEDS("69 10,000 posts to 10 connections at once: each is called once, in order", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t count = 10'000, connections = 10;
    handle_stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (std::size_t i = 0; i != connections; ++i) clients.push_back(opened(on, server, where));
    std::vector<std::string> expected(connections);
    std::size_t calls = 0, out_of_order = 0;
    for (std::size_t i = 0; i != count; ++i) {
        const std::string text = std::to_string(i) + ' ';
        expected[i % connections] += text;
        CHECK(on.handles[i % connections].post(
            [&calls, &out_of_order, i, text](tcp::connection& peer) {
                out_of_order += calls++ == i ? 0 : 1;
                peer.send(text);
            }));
    }
    CHECK(calls == 0);
    CHECK(on.bed.until(server, [&] {
        for (std::size_t i = 0; i != connections; ++i)
            if (clients[i].received_size() < expected[i].size()) return false;
        return true;
    }));
    CHECK(calls == count);
    CHECK(out_of_order == 0);
    for (std::size_t i = 0; i != connections; ++i)
        CHECK(difference(clients[i].received(), expected[i]) == "");
}

// ---- the server ----

TEST_ON_BEDS("40 handles outlive the server and say not_open", Bed, CONFORMANCE_BEDS) {
    std::vector<connection_handle> kept;
    {
        handle_stage<Bed> on;
        std::optional<typename Bed::client> client;
        {
            auto server = on.bed.make(scripted{on.does});
            const auto where = on.bed.listen(server);
            for (int i = 0; i != 3; ++i) client = opened(on, server, where);
            kept = on.handles;
            CHECK(kept[1].post([](tcp::connection& peer) { peer.abort(); }));
            CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        }
        for (const connection_handle& one : kept) CHECK(is_over(one));
    }
    CHECK(kept[0] != kept[2]);
    const connection_handle copy{kept[0]};
    for (const connection_handle& one : kept) CHECK(is_over(one));
    kept.clear();
    CHECK(is_over(copy));
}

TEST_ON_BEDS("40 the server is destroyed, or stops, in what is posted", Bed, CONFORMANCE_BEDS) {
    for (const bool destroyed : {false, true}) {
        CAPTURE(destroyed);
        handle_stage<Bed> on;
        using server_type = typename Bed::template server<scripted>;
        auto server = std::unique_ptr<server_type>{new server_type(on.bed.make(scripted{on.does}))};
        const auto where = on.bed.listen(*server);
        const auto client = opened(on, *server, where);
        const auto other = opened(on, *server, where);
        auto held = std::make_shared<int>();
        std::size_t calls = 0;
        CHECK(on.handles[0].post([&, held](tcp::connection& peer) {
            ++calls;
            if (destroyed)
                server.reset();
            else
                server->stop();
            CHECK(peer.handle().open());  // on_close is still to come
            CHECK(peer.handle().post([held](tcp::connection&) {}));
        }));
        CHECK(on.handles[0].post([&calls, held](tcp::connection&) { ++calls; }));
        CHECK(on.handles[1].send("other"));
        server_type* const running = server.get();
        CHECK_FALSE(running->run_for(10ms));
        CHECK(on.does.closes.size() == 2);
        for (const tcp::close_reason& why : on.does.closes)
            CHECK(why.by == closed_by::server_stopping);
        CHECK(calls >= 1);
        CHECK(client.received_size() == 0);
        CHECK(held.use_count() == 1);
        for (const connection_handle& one : on.handles) CHECK(is_over(one));
        on.bed.wait([&] { return other.was_reset() || other.ended(); });
        CHECK(on.does.closes[0].unsent + on.does.closes[1].unsent + other.received_size() == 5);
    }
}

// ---- other threads (K) ----

TEST_ON_BEDS("69 72 posts from another thread to a sleeping server: none lost, none late (K)", Bed,
             SYSTEM_BEDS) {
    using bed_type = Bed;
    handle_stage<bed_type> on;
    auto server = on.bed.make(scripted{on.does});
    auto client = opened(on, server, on.bed.listen(server));
    constexpr int count = 3'000;
    std::atomic<int> calls{0};
    int others = 0;
    const auto runner = std::this_thread::get_id();
    std::thread poster{[&, to = on.handles[0]] {
        const auto end = std::chrono::steady_clock::now() + 20s;
        for (int i = 0; i != count; ++i) {
            if (i % 100 == 0) std::this_thread::sleep_for(1ms);
            CHECK(to.post([&](tcp::connection&) {
                others += std::this_thread::get_id() == runner ? 0 : 1;
                ++calls;
            }));
            while (calls != i + 1 && std::chrono::steady_clock::now() < end)
                std::this_thread::yield();
            if (calls != i + 1) break;
        }
        CHECK(to.send("the last"));
        CHECK(to.post([](tcp::connection& peer) { peer.close(); }));
        server.drain(0s);
    }};
    server.run();
    poster.join();
    CHECK(calls.load() == count);
    CHECK(others == 0);
    on.bed.wait([&] { return client.ended() || client.was_reset(); });
    CHECK(client.received_size() + on.does.closes[0].unsent == 8);
}

TEST_ON_BEDS("40 sends from another thread that race the end: received or unsent or refused (K)",
             Bed, SYSTEM_BEDS) {
    using bed_type = Bed;
    for (std::size_t round = 0; round != 60; ++round) {
        const bool graceful = round % 3 != 0;
        handle_stage<bed_type> on;
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            graceful ? peer.close() : peer.abort();
        };
        auto server = on.bed.make(scripted{on.does});
        auto client = opened(on, server, on.bed.listen(server));
        std::atomic<std::size_t> accepted{0};
        std::thread sender{[&, to = on.handles[0], round] {
            const shared_bytes shared{"0123456789"};
            for (std::size_t i = 0;; ++i) {
                const bool went = i % 2 == round % 2 ? static_cast<bool>(to.send(shared))
                                                     : static_cast<bool>(to.send("0123456789"));
                if (!went) break;
                accepted += 10;
                if (i % 64 == 63) std::this_thread::sleep_for(100us);
            }
            CHECK(is_over(to));
        }};
        on.bed.until(server, [&] { return client.received_size() > round * 700; });
        if (round % 3 == 1)
            client.shutdown_send();
        else
            client.send("end");
        const bool over = on.bed.until(server, [&] {
            if (client.ended()) client.shutdown_send();
            return on.does.closes.size() == 1 && (client.ended() || client.was_reset());
        });
        if (!over) server.stop();
        sender.join();
        REQUIRE(over);
        CHECK(client.was_reset() != graceful);
        if (graceful)
            CHECK(client.received_size() + on.does.closes[0].unsent == accepted);
        else
            CHECK(server.statistics().bytes_sent + on.does.closes[0].unsent == accepted);
        const std::string& got = client.received();
        for (std::size_t i = 0; i < got.size(); i += 997)
            CHECK(got[i] == static_cast<char>('0' + i % 10));
    }
}
