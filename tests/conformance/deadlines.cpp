// Behaviours 55, 56, 58 and 59: deadlines end who is idle, slow or stuck, and spare the others;
// timers end with their connection.
#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <tcp/timer.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::now_of;
using conformance::script;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;
using tcp::deadline;

namespace {

// How late a deadline may be: a tick, and what the bed adds. A real machine may be busy.
template <class Bed>
constexpr tcp::duration tolerance = Bed::simulated ? 30ms : 2s;

struct told {
    deadline which;
    tcp::duration when;
};

// A handler that is told of deadlines, and so decides.
struct patient {
    std::vector<told>* all;
    std::function<void(tcp::connection&, deadline)> then;
    std::function<tcp::duration()> now;

    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_end(tcp::connection& peer) { peer.close(); }
    void on_timeout(tcp::connection& peer, deadline which) {
        all->push_back({which, now()});
        if (then) then(peer, which);
    }
};

// Does this again and again, and lets the server run so long each time, until it has closed a
// connection. How long that took.
template <class Bed, class Server, class F>
tcp::duration time_to_close(stage<Bed>& on, Server& server, std::chrono::milliseconds each,
                            F again) {
    const tcp::duration begin = now_of(on.bed);
    while (on.does.closes.empty()) {
        again();
        on.bed.run(server, each);
        REQUIRE(now_of(on.bed) - begin < 60s);
    }
    CHECK(on.does.closes[0].by == closed_by::deadline);
    return now_of(on.bed) - begin;
}

}  // namespace

TEST_ON_BEDS("55 the idle deadline ends who does nothing, and spares who does something", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    auto server = on.bed.make(scripted{on.does}, {.idle_timeout = 200ms});
    const auto where = on.bed.listen(server);
    auto active = on.bed.connect(where);
    auto idle = on.bed.connect(where);
    idle.send("last words");
    REQUIRE(on.bed.until(server, [&] { return idle.received() == "last words"; }));
    const tcp::duration begin = now_of(on.bed);
    std::string sent;
    while (!idle.ended()) {
        active.send("x");
        sent += 'x';
        REQUIRE(on.bed.until(server, [&] { return active.received() == sent || idle.ended(); }));
        on.bed.run(server, 20ms);
        REQUIRE(now_of(on.bed) - begin < 10s);
    }
    const tcp::duration lasted = now_of(on.bed) - begin;
    CHECK(lasted <= tcp::duration{200ms} + tolerance<Bed> + tcp::duration{20ms});
    CHECK_FALSE(active.ended());
    CHECK_FALSE(idle.was_reset());  // it missed nothing
    REQUIRE(on.does.closes.size() == 1);
    CHECK(on.does.closes[0].by == closed_by::deadline);
    CHECK(on.does.closes[0].passed == deadline::idle);
    CHECK(on.does.closes[0].unsent == 0);
    CHECK(to_text(on.does.closes[0]) == "deadline: idle");
    CHECK(server.statistics().timeouts == 1);
}

TEST_ON_BEDS("55 the idle deadline spares who is sent something and says nothing", Bed,
             SIMULATED_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.idle_timeout = 200ms});
    const auto where = on.bed.listen(server);
    auto silent = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    for (int i = 0; i != 20; ++i) {
        REQUIRE(on.does.closes.empty());
        on.does.peers[0]->send("x");
        on.bed.run(server, 30ms);
    }
    CHECK(on.does.closes.empty());
    CHECK(silent.received() == std::string(20, 'x'));
}

TEST_ON_BEDS("55 a deadline is never early, and late by a tick (invariant I)", Bed,
             SIMULATED_BEDS) {
    for (const auto length : {1ms, 2ms, 63ms, 64ms, 65ms, 1'000ms, 4'096ms, 20'000ms}) {
        CAPTURE(length.count());
        Bed bed;
        std::vector<told> all;
        tcp::duration opened{};
        auto server =
            bed.make(patient{&all, {}, [&] { return bed.world.now(); }}, {.idle_timeout = length});
        const auto where = bed.listen(server);
        auto client = bed.connect(where);
        REQUIRE(bed.until(server, [&] { return server.statistics().open == 1; }));
        opened = bed.world.now();
        REQUIRE(bed.until(
            server, [&] { return all.size() == 3; }, 20'000s));
        // It began within the millisecond before it was seen, and begins anew each time.
        tcp::duration before = opened - tcp::duration{1ms};
        for (const told& one : all) {
            CHECK(one.which == deadline::idle);
            CHECK(one.when - before >= length);
            before = one.when;
        }
        CHECK(before - opened <= tcp::duration{length * 3} + tcp::duration{30ms});
        CHECK_FALSE(client.ended());
    }
}

TEST_ON_BEDS("55 on_timeout decides: what it does not end goes on", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::vector<told> all;
    patient handler{&all, {}, [&] { return now_of(on.bed); }};
    handler.then = [&](tcp::connection& peer, deadline) {
        if (all.size() == 3) peer.close();
    };
    auto server = on.bed.make(handler, {.idle_timeout = 50ms});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    client.send("a");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(all.size() == 3);
    CHECK(client.received() == "a");
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    const auto counted = server.statistics();
    CHECK(counted.closed_by[static_cast<std::size_t>(closed_by::handler_closed)] == 1);
    CHECK(counted.timeouts == 3);
}

TEST_ON_BEDS("71 an on_timeout that throws ends its own connection", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::vector<told> all;
    patient handler{&all, {}, [&] { return now_of(on.bed); }};
    handler.then = [](tcp::connection&, deadline) { throw 1; };
    auto server = on.bed.make(handler, {.receive_timeout = 100ms});
    const auto where = on.bed.listen(server);
    auto quiet = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return quiet.was_reset(); }));
    CHECK(all.size() == 1);
    CHECK(all[0].which == deadline::receive);
    REQUIRE(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    CHECK(server.statistics().closed_by[static_cast<std::size_t>(closed_by::handler_threw)] == 1);
}

TEST_ON_BEDS("55 the receive deadline: sending does not help, pausing does not count", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_open = [](tcp::connection& peer) { peer.pause_receive(); };
    auto server = on.bed.make(scripted{on.does}, {.receive_timeout = 100ms});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    on.bed.run(server, 300ms);
    CHECK(on.does.closes.empty());  // paused all the time

    tcp::connection& peer = *on.does.peers[0];
    peer.resume_receive();
    CHECK(time_to_close(on, server, 20ms, [&] { peer.send("tick"); }) >= 100ms);
    CHECK(on.does.closes[0].passed == deadline::receive);
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
}

TEST_ON_BEDS("42 the send deadline ends a reader that has stopped, and says what was unsent", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes) {
        peer.send(std::string(8'000'000, 'r'));
    };
    auto server =
        on.bed.make(scripted{on.does}, {.send_timeout = 200ms, .kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    auto stuck = on.bed.connect_narrow(where);
    stuck.pause_receive();
    stuck.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::deadline);
    CHECK(on.does.closes[0].passed == deadline::send);
    CHECK(on.does.closes[0].unsent > 0);
    stuck.resume_receive();
    CHECK(on.bed.until(server, [&] {
        return stuck.was_reset();
    }));  // so that it does not take what it has for all there is
}

TEST_ON_BEDS("42 a slow reader that takes something now and then is spared", Bed, SIMULATED_BEDS) {
    stage<Bed> on;
    constexpr std::size_t size = 400'000;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes) { peer.send(std::string(size, 'r')); };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does}, {.send_timeout = 1s});
    const auto where = on.bed.listen(server);
    auto slow = on.bed.connect_narrow(where);
    slow.pause_receive();
    slow.send("?");
    const tcp::duration begin = now_of(on.bed);
    while (slow.received_size() < size && on.does.closes.empty()) {
        slow.receive(8'000);
        on.bed.run(server, 100ms);
        REQUIRE(now_of(on.bed) - begin < 300s);
    }
    CHECK(on.does.closes.empty());
    CHECK(slow.received_size() == size);
}

TEST_ON_BEDS("42 the send deadline begins before one that the connection waits for already", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server =
        on.bed.make(scripted{on.does},
                    {.idle_timeout = 60s, .send_timeout = 200ms, .kernel_send_buffer = 16 * 1024});
    const auto where = on.bed.listen(server);
    auto stuck = on.bed.connect_narrow(where);
    stuck.pause_receive();
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    on.bed.run(server, 20ms);  // the timer is set for the idle deadline
    const tcp::duration begin = now_of(on.bed);
    on.does.peers[0]->send(std::string(8'000'000, 'r'));
    REQUIRE(on.bed.until(server, [&] { return !on.does.closes.empty(); }));
    CHECK(on.does.closes[0].passed == deadline::send);
    CHECK(now_of(on.bed) - begin < 30s);
}

TEST_ON_BEDS("42 the send deadline counts from when something waits, not from the send before", Bed,
             SIMULATED_BEDS) {
    for (const bool later : {false, true}) {
        CAPTURE(later);
        stage<Bed> on;
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        auto server = on.bed.make(scripted{on.does}, {.send_timeout = 1s});
        const auto where = on.bed.listen(server);
        auto client = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        auto faults = on.bed.world.current_faults();
        faults.completion_max = 50ms;
        faults.spurious_writable_per_mille = 0;
        std::string sent;
        for (int round = 0; round != 10; ++round) {
            // Each send ends later, or finds no room for some time.
            faults.in_flight_per_mille = later ? 1000 : 0;
            faults.blocked_send_per_mille = later ? 0 : 1000;
            on.bed.world.set_faults(faults);
            client.send("x");
            sent += 'x';
            on.bed.run(server, 60ms);
            faults.blocked_send_per_mille = 0;
            on.bed.world.set_faults(faults);
            REQUIRE(on.bed.until(
                server, [&] { return client.received() == sent || !on.does.closes.empty(); }));
            REQUIRE(on.does.closes.empty());
            on.bed.run(server, 5s);
        }
    }
}

TEST_ON_BEDS("55 the lifetime ends even who is busy", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    auto server = on.bed.make(scripted{on.does}, {.lifetime = 150ms});
    const auto where = on.bed.listen(server);
    auto busy = on.bed.connect(where);
    CHECK(time_to_close(on, server, 10ms, [&] { busy.send("x"); }) >= 150ms);
    CHECK(on.does.closes[0].passed == deadline::lifetime);
}

TEST_ON_BEDS("55 a deadline in the tick in which another's hook closes: the close stands", Bed,
             CONFORMANCE_BEDS) {
    // How long before the deadline the hook is due; both are looked at in one turn of the loop.
    const auto leads = Bed::simulated ? std::vector{0ms, 20ms} : std::vector{50ms};
    for (const auto lead : leads) {
        CAPTURE(lead.count());
        constexpr auto length = 400ms;
        tcp::timer alarm;
        stage<Bed> on;
        tcp::connection* a = nullptr;
        tcp::connection* b = nullptr;
        tcp::duration opened{};
        tcp::close_reason why;
        std::size_t others = 0;  // the first one's deadline may pass, too, where time is real
        on.does.on_open = [&](tcp::connection& peer) {
            if (on.does.opens == 1) {
                a = &peer;
                return;
            }
            b = &peer;
            opened = now_of(on.bed);
            alarm.start(*a, length - lead, [b](tcp::connection&) {
                b->send("bye");
                b->close();
            });
        };
        on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason& reason) {
            if (&peer == b)
                why = reason;
            else
                ++others;
        };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(scripted{on.does}, {.idle_timeout = length});
        const auto where = on.bed.listen(server);
        auto first = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        auto second = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
        on.bed.run(server, 5ms);
        first.send("x");  // so that its own deadline comes later
        REQUIRE(on.bed.until(server, [&] { return on.does.received == "x"; }));
        REQUIRE(on.bed.wait([&] { return now_of(on.bed) - opened > length + 2ms; }));
        server.poll();
        CHECK_FALSE(alarm.waiting());
        CHECK(server.statistics().timeouts == others);
        CHECK(on.bed.until(server, [&] { return second.ended(); }));
        CHECK(second.received() == "bye");
        CHECK_FALSE(second.was_reset());
        second.shutdown_send();
        REQUIRE(on.bed.until(server, [&] { return why.by == closed_by::handler_closed; }));
        CHECK(why.passed == deadline::none);
        CHECK(why.unsent == 0);
    }
}

TEST_ON_BEDS("56 a slow drip is ended by the minimum rate, fast and silent ones are not", Bed,
             SIMULATED_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.min_receive_rate = 100});
    const auto where = on.bed.listen(server);
    auto drip = on.bed.connect(where);
    auto fast = on.bed.connect(where);
    auto silent = on.bed.connect(where);
    const tcp::duration lasted = time_to_close(on, server, 100ms, [&] {
        drip.send("d");
        fast.send(std::string(30, 'f'));
    });
    CHECK(lasted >= 5s);
    CHECK(lasted <= 6s);
    CHECK(drip.ended());
    CHECK(on.does.closes[0].passed == deadline::receive_rate);
    for (int i = 0; i != 300; ++i) {
        fast.send(std::string(30, 'f'));
        on.bed.run(server, 100ms);
    }
    CHECK(on.does.closes.size() == 1);
    CHECK_FALSE(silent.ended());
}

TEST_ON_BEDS("55 many deadlines at once: whichever comes first", Bed, SIMULATED_BEDS) {
    const tcp::options all{
        .idle_timeout = 3s, .receive_timeout = 2s, .send_timeout = 1s, .lifetime = 10s};
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, all);
    const auto where = on.bed.listen(server);
    auto silent = on.bed.connect(where);
    auto busy = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] {
        busy.send("x");
        return on.does.closes.size() == 2;
    }));
    CHECK(on.does.closes[0].passed == deadline::receive);
    CHECK(on.does.closes[1].passed == deadline::lifetime);
    CHECK(
        on.bed.until(server, [&] { return silent.ended() && (busy.ended() || busy.was_reset()); }));
}

TEST_ON_BEDS("58 timers of a connection that is over, while the engine still holds it", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t count = 40;
    enum class how { aborted, closed, reset };
    for (const how ending : {how::aborted, how::closed, how::reset}) {
        CAPTURE(static_cast<int>(ending));
        struct {
            const Bed* bed = nullptr;
            bool over = false;  // the other one's on_close was called
            std::size_t before = 0, after = 0, own = 0, while_held = 0;
        } seen;
        // The first connection's, one for each tick: calls to the second one, and to itself.
        tcp::timer of_other[count], of_itself[count];
        stage<Bed> on;
        seen.bed = &on.bed;
        if constexpr (Bed::simulated) {
            auto late = on.bed.world.current_faults();
            late.late_close_per_mille = 1000;
            late.completion_max = 20ms;
            on.bed.world.set_faults(late);
        }
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            tcp::connection& other = *on.does.peers[1];
            for (std::size_t i = 0; i != count; ++i) {
                const tcp::duration when = std::chrono::milliseconds(i + 1);
                of_other[i].start(other, when, [&seen](tcp::connection& c) {
                    ++(seen.over ? seen.after : seen.before);
                    c.send("t");
                });
                of_itself[i].start(peer, when, [&seen](tcp::connection&) {
                    ++seen.own;
                    if constexpr (Bed::simulated)
                        if (seen.over && seen.bed->world.open_sockets() == 2) ++seen.while_held;
                });
            }
        };
        on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) { seen.over = true; };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        auto first = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        auto second = on.bed.connect(where);
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
        first.send("x");
        REQUIRE(on.bed.until(server, [&] { return seen.before >= 5; }));
        if (ending == how::aborted) on.does.peers[1]->abort();
        if (ending == how::closed) {
            on.does.peers[1]->close();
            second.shutdown_send();
        }
        if (ending == how::reset) second.reset();
        REQUIRE(on.bed.until(server, [&] { return seen.own == count && seen.over; }));
        CHECK(seen.after == 0);
        CHECK(on.does.closes.size() == 1);
        CHECK(on.does.peers.size() == 1);
        if (Bed::simulated) CHECK(seen.while_held > 0);
        for (const tcp::timer& one : of_other) CHECK_FALSE(one.waiting());
        CHECK_FALSE(first.ended());
    }
}

TEST_ON_BEDS("58 a timer that is started in its own call: what the call captured stays", Bed,
             CONFORMANCE_BEDS) {
    static std::vector<long> seen;  // a capture has room for two words
    seen.clear();
    tcp::timer alarm;
    struct again {
        tcp::timer* alarm;
        long mark;
        void operator()(tcp::connection& peer) const {
            if (mark < 5) alarm->start(peer, 1ms, again{alarm, mark + 1});
            seen.push_back(mark);  // the new one lies where this one lay
        }
    };
    stage<Bed> on;
    on.does.on_open = [&](tcp::connection& peer) { alarm.start(peer, 1ms, again{&alarm, 1}); };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return seen.size() == 5; }));
    CHECK(seen == std::vector<long>{1, 2, 3, 4, 5});
    CHECK_FALSE(client.ended());
}

TEST_ON_BEDS("58 two timers in one tick, each ends the connection of the other: one is called", Bed,
             CONFORMANCE_BEDS) {
    int called = 0;
    tcp::timer alarms[2];
    stage<Bed> on;
    struct ends_the_other {
        script* does;
        int* called;
        void operator()(tcp::connection& peer) const {
            ++*called;
            for (tcp::connection* one : does->peers)
                if (one != &peer) one->abort();
        }
    };
    on.does.on_data = [&](tcp::connection&, tcp::bytes) {
        for (std::size_t i = 0; i != 2; ++i)
            alarms[i].start(*on.does.peers[i], 5ms, ends_the_other{&on.does, &called});
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto first = on.bed.connect(where);
    on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    first.send("x");
    REQUIRE(on.bed.until(server, [&] { return !on.does.received.empty(); }));
    // Both are looked at in one turn, also where the clock ticked between the two.
    REQUIRE(on.bed.wait([begin = now_of(on.bed), &on] { return now_of(on.bed) - begin > 10ms; }));
    server.poll();
    CHECK(on.bed.until(server, [&] { return !on.does.closes.empty(); }));
    on.bed.run(server, 20ms);
    CHECK(called == 1);
    CHECK(on.does.closes.size() == 1);
}

TEST_ON_BEDS("55 a peer that reads slowly is not one that reads nothing", Bed, CONFORMANCE_BEDS) {
    // The system says that there is room when much has left: long after the peer took the first.
    constexpr std::size_t queued = 600'000;
    const auto seed = [](deadline which) { return static_cast<std::uint64_t>(which) + 1; };
    for (const deadline which : {deadline::close, deadline::send, deadline::idle}) {
        CAPTURE(static_cast<int>(which));
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            peer.send(conformance::pattern(queued, seed(which)));
            if (which == deadline::close) peer.close();
        };
        tcp::options settings{.kernel_send_buffer = 300'000};
        if (which == deadline::close) settings.close_timeout = 300ms;
        if (which == deadline::send) settings.send_timeout = 300ms;
        if (which == deadline::idle) settings.idle_timeout = 300ms;
        auto server = on.bed.make(scripted{on.does}, settings);
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.pause_receive();
        client.send("?");
        REQUIRE(on.bed.until(server, [&] { return !on.does.received.empty(); }));
        while (on.does.closes.empty() && server.statistics().bytes_sent < queued) {
            client.receive(2500);
            on.bed.run(server, 10ms);
        }
        CHECK(on.does.closes.empty());
        client.resume_receive();
        CHECK(on.bed.until(
            server, [&] { return client.received_size() == queued; }, 5s));
        CHECK(conformance::difference(client.received(),
                                      conformance::pattern(queued, seed(which))) == "");
    }
}
