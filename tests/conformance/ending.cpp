// Behaviours 43 and 45 to 54: however a connection ends, it ends once, and both sides learn how.
#include <doctest/doctest.h>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcp/detail/clock.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::difference;
using conformance::now_of;
using conformance::pattern;
using conformance::scripted;
using conformance::scripted_without_end;
using conformance::stage;
using tcp::closed_by;

namespace {

using sizes = std::initializer_list<std::size_t>;

enum class hook { open, data, writable, end, close };
enum class act { close, abort, throw_exception, throw_number };

constexpr hook every_hook[] = {hook::open, hook::data, hook::writable, hook::end, hook::close};
constexpr act every_act[] = {act::close, act::abort, act::throw_exception, act::throw_number};

void perform(act what, tcp::connection& peer) {
    switch (what) {
        case act::close: return peer.close();
        case act::abort: return peer.abort();
        case act::throw_exception: throw std::runtime_error{"a handler failed"};
        case act::throw_number: throw 42;
    }
}

closed_by reason_of(act what) {
    if (what == act::close) return closed_by::handler_closed;
    return what == act::abort ? closed_by::handler_aborted : closed_by::handler_threw;
}

// A server that sends much for each word, so that the marks are crossed, and closes at the end.
constexpr std::size_t reply_size = 600'000;
const tcp::options small_marks{.high_mark = 60'000, .low_mark = 20'000, .kernel_send_buffer = 4096};

void reply_and_close_at_end(conformance::script& does) {
    does.on_data = [](tcp::connection& peer, tcp::bytes) {
        if (peer.send_queue_size() == 0) peer.send(std::string(reply_size, 'r'));
    };
    does.on_end = [](tcp::connection& peer) { peer.close(); };
}

// Everything a client does in the life of a connection: it asks, reads late, finishes.
template <class Stage, class Server, class Client>
bool live(Stage& on, Server& server, Client& client, const bool& performed) {
    client.pause_receive();
    client.send("?");
    bool reading = false;
    return on.bed.until(server, [&] {
        const bool over = !on.does.closes.empty();
        if (!reading && (performed || server.statistics().pauses != 0)) {
            reading = true;
            client.resume_receive();
        }
        if (client.ended() || client.received_size() >= reply_size) client.shutdown_send();
        return over && (client.ended() || client.was_reset());
    });
}

}  // namespace

// ---- 43 ----

TEST_ON_BEDS("43 close(), abort() or a throw inside every hook: one on_close", Bed,
             CONFORMANCE_BEDS) {
    for (const hook where : every_hook) {
        for (const act what : every_act) {
            CAPTURE(static_cast<int>(where));
            CAPTURE(static_cast<int>(what));
            stage<Bed> on;
            reply_and_close_at_end(on.does);
            bool performed = false;
            const auto also = [what, &performed](auto& f) {
                f = [what, &performed, before = f](tcp::connection& peer, auto... more) {
                    if (before) before(peer, more...);
                    performed = true;
                    perform(what, peer);
                };
            };
            switch (where) {
                case hook::open: also(on.does.on_open); break;
                case hook::data: also(on.does.on_data); break;
                case hook::writable: also(on.does.on_writable); break;
                case hook::end: on.does.on_end = {}, also(on.does.on_end); break;
                case hook::close: also(on.does.on_close); break;
            }
            auto server = on.bed.make(scripted{on.does}, small_marks);
            auto client = on.bed.connect_narrow(on.bed.listen(server));
            REQUIRE(live(on, server, client, performed));
            REQUIRE(on.does.closes.size() == 1);
            CHECK(on.does.opens == 1);
            CHECK(on.does.alive == 1);  // the prototype
            const bool too_late = where == hook::close;
            CHECK(on.does.closes[0].by == (too_late ? closed_by::handler_closed : reason_of(what)));
            const bool hard = what != act::close && !too_late;
            CHECK(client.was_reset() == hard);
            CHECK(client.ended() != hard);
            if (what == act::close || too_late || where == hook::end)
                CHECK(client.received_size() == (where == hook::open ? 0 : reply_size));
            const auto counted = server.statistics();
            CHECK(counted.open == 0);
            CHECK(counted.closed == 1);
            CHECK(counted.closed_by[static_cast<std::size_t>(on.does.closes[0].by)] == 1);
            // Nothing comes after it.
            on.bed.run(server, 3ms);
            CHECK(on.does.closes.size() == 1);
        }
    }
}

TEST_ON_BEDS("43 the same without on_end", Bed, CONFORMANCE_BEDS) {
    for (const hook where : {hook::open, hook::data, hook::writable, hook::close}) {
        for (const act what : every_act) {
            CAPTURE(static_cast<int>(where));
            CAPTURE(static_cast<int>(what));
            stage<Bed> on;
            reply_and_close_at_end(on.does);
            bool performed = false;
            const auto then = [&, what](tcp::connection& peer, auto&&...) {
                performed = true;
                perform(what, peer);
            };
            if (where == hook::open) on.does.on_open = then;
            if (where == hook::data) on.does.on_data = then;
            if (where == hook::writable) on.does.on_writable = then;
            if (where == hook::close) on.does.on_close = then;
            auto server = on.bed.make(scripted_without_end{on.does}, small_marks);
            auto client = on.bed.connect_narrow(on.bed.listen(server));
            REQUIRE(live(on, server, client, performed));
            REQUIRE(on.does.closes.size() == 1);
            CHECK(on.does.closes[0].by ==
                  (where == hook::close ? closed_by::peer_finished : reason_of(what)));
            CHECK(client.was_reset() == (what != act::close && where != hook::close));
        }
    }
}

TEST_ON_BEDS("43 one hook ends all the others, which have data and hooks of their own", Bed,
             CONFORMANCE_BEDS) {
    for (const act what : {act::close, act::abort}) {
        CAPTURE(static_cast<int>(what));
        stage<Bed> on;
        tcp::connection* survivor = nullptr;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
            if (survivor == nullptr) survivor = &peer;
            peer.send(data);
            for (tcp::connection* each : on.does.peers)
                if (each != survivor) perform(what, *each);
        };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        std::vector<typename Bed::client> clients;
        for (int i = 0; i != 12; ++i) clients.push_back(on.bed.connect(where));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 12; }));
        for (auto& c : clients) c.send("all at once");
        const auto over = [](auto& c) { return c.ended() || c.was_reset(); };
        REQUIRE(on.bed.until(server, [&] {
            for (auto& c : clients)
                if (c.ended()) c.shutdown_send();
            return on.does.closes.size() == 11;
        }));
        CHECK(on.bed.until(
            server, [&] { return std::count_if(clients.begin(), clients.end(), over) == 11; }));
        REQUIRE(on.does.peers.size() == 1);
        CHECK(on.does.peers[0] == survivor);
        for (const auto& why : on.does.closes) CHECK(why.by == reason_of(what));
        if (what == act::close)
            for (auto& c : clients) CHECK_FALSE(c.was_reset());
        auto& left = *std::find_if_not(clients.begin(), clients.end(), over);
        left.shutdown_send();
        CHECK(on.bed.until(server, [&] { return left.ended(); }));
        CHECK(on.does.ends == 1);
    }
}

TEST_ON_BEDS("43 a handler that throws leaves the others alone", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [](tcp::connection& peer, tcp::bytes data) {
        peer.send(data);
        if (tcp::as_text(data) == "bad") throw std::runtime_error{"a bad request"};
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto good = on.bed.connect(where);
    for (int i = 0; i != 5; ++i) {
        auto bad = on.bed.connect(where);
        bad.send("bad");
        good.send("good");
        CHECK(on.bed.until(server, [&] { return bad.was_reset(); }));
        CHECK(bad.received_size() == 0);
    }
    CHECK(on.bed.until(server, [&] { return good.received_size() == 20; }));
    CHECK(server.statistics().closed_by[static_cast<std::size_t>(closed_by::handler_threw)] == 5);
}

// ---- 45 ----

TEST_ON_BEDS("45 the peer half-closes: what was queued and what is still sent arrives", Bed,
             CONFORMANCE_BEDS) {
    for (const bool by_close : {true, false}) {
        CAPTURE(by_close);
        stage<Bed> on;
        std::string expected;
        const auto say = [&](tcp::connection& peer, std::size_t size) {
            const std::string text = pattern(size, expected.size() + 1);
            expected += text;
            CHECK(peer.send(text));
        };
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            if (peer.send_queue_size() == 0 && expected.empty()) say(peer, 300'000);
        };
        on.does.on_end = [&](tcp::connection& peer) { say(peer, 100'000); };
        on.does.on_writable = [&](tcp::connection& peer) {
            if (on.does.ends == 0) return;
            if (expected.size() < 900'000)
                say(peer, 100'000);
            else if (by_close)
                peer.close();
            else
                peer.shutdown_send();
        };
        auto server = on.bed.make(scripted{on.does}, small_marks);
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.pause_receive();
        client.send("?");
        REQUIRE(on.bed.until(server, [&] { return server.statistics().pauses != 0; }));
        client.shutdown_send();
        on.bed.run(server, 5ms);
        client.resume_receive();
        CHECK(on.bed.until(server, [&] { return client.ended() && on.does.peers.empty(); }));
        CHECK(expected.size() >= 900'000);
        CHECK(difference(client.received(), expected) == "");
        CHECK_FALSE(client.was_reset());
        CHECK(on.does.ends == 1);
        REQUIRE(on.does.closes.size() == 1);
        CHECK(on.does.closes[0].by ==
              (by_close ? closed_by::handler_closed : closed_by::peer_finished));
        CHECK(on.does.closes[0].unsent == 0);
        CHECK_FALSE(on.does.closes[0].error);
    }
}

TEST_ON_BEDS("45 after the peer's end the connection stays as long as the handler wants", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection&, tcp::bytes data) {
        tcp::connection& finished = *on.does.peers[0];
        if (tcp::as_text(data) == "tell") CHECK(finished.send("told. "));
        if (tcp::as_text(data) == "end") finished.close();
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return on.does.ends == 1; }));
    auto other = on.bed.connect(where);
    for (std::size_t i = 1; i != 4; ++i) {
        other.send("tell");
        REQUIRE(on.bed.until(server, [&] { return client.received_size() == i * 6; }));
        on.bed.run(server, 10ms);
        CHECK(on.does.closes.empty());
    }
    other.send("end");
    CHECK(on.bed.until(server, [&] { return client.ended() && on.does.closes.size() == 1; }));
    CHECK(client.received() == "told. told. told. ");
    CHECK(on.does.closes[0].by == closed_by::handler_closed);
}

TEST_ON_BEDS("45 without on_end: what was queued is sent, then closed", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string reply = pattern(900'000);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        if (peer.send_queue_size() == 0) peer.send(reply);
    };
    auto server = on.bed.make(scripted_without_end{on.does}, small_marks);
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return server.statistics().pauses != 0; }));
    on.bed.run(server, 10ms);
    CHECK(on.does.closes.empty());
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.ended() && on.does.closes.size() == 1; }));
    CHECK(difference(client.received(), reply) == "");
    CHECK(on.does.closes[0].by == closed_by::peer_finished);
    CHECK(on.does.closes[0].unsent == 0);
}

// ---- 46, 47 ----

TEST_ON_BEDS("46 the server half-closes: it still receives", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_open = [](tcp::connection& peer) {
        peer.send("ready");
        peer.shutdown_send();
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(client.received() == "ready");
    const std::string sent = pattern(700'000);
    client.send(std::string_view{sent}.substr(0, 10));
    REQUIRE(on.bed.until(server, [&] { return on.does.received.size() == 10; }));
    CHECK(on.does.closes.empty());
    client.send(std::string_view{sent}.substr(10));
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(difference(on.does.received, sent) == "");
    CHECK(on.does.ends == 1);
    CHECK(on.does.closes[0].by == closed_by::peer_finished);
    CHECK_FALSE(client.was_reset());
}

TEST_ON_BEDS("46 a half-close waits for the queue", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string reply = pattern(500'000);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        if (on.does.received.size() != 1) return;
        peer.send(reply);
        peer.shutdown_send();
        CHECK_FALSE(peer.send("more"));
    };
    auto server =
        on.bed.make(scripted{on.does},
                    {.high_mark = 1'000'000, .low_mark = 20'000, .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
    client.send("and this");
    REQUIRE(on.bed.until(server, [&] { return on.does.received == "?and this"; }));
    CHECK_FALSE(client.ended());
    client.resume_receive();
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(difference(client.received(), reply) == "");
    CHECK(on.does.closes.empty());
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::peer_finished);
}

TEST_ON_BEDS("47 both half-closes at once, twice, with close", Bed, CONFORMANCE_BEDS) {
    struct way {
        void (*server)(tcp::connection&);
        bool client_finishes_first;
        closed_by by;
    };
    constexpr auto half = [](tcp::connection& peer) { peer.shutdown_send(); };
    constexpr auto half_twice = [](tcp::connection& peer) {
        peer.shutdown_send();
        peer.shutdown_send();
    };
    constexpr auto half_and_close = [](tcp::connection& peer) {
        peer.shutdown_send();
        peer.close();
        peer.close();
    };
    constexpr auto close_and_half = [](tcp::connection& peer) {
        peer.close();
        peer.shutdown_send();
        peer.close();
    };
    const way ways[] = {
        {half, true, closed_by::peer_finished},
        {half, false, closed_by::peer_finished},
        {half_twice, true, closed_by::peer_finished},
        {half_twice, false, closed_by::peer_finished},
        {half_and_close, true, closed_by::handler_closed},
        {half_and_close, false, closed_by::handler_closed},
        {close_and_half, true, closed_by::handler_closed},
        {close_and_half, false, closed_by::handler_closed},
    };
    for (const way& each : ways) {
        CAPTURE(&each - ways);
        stage<Bed> on;
        on.does.on_open = [&](tcp::connection& peer) {
            peer.send("hello");
            each.server(peer);
        };
        // The end comes again in the hook that is told of the other's.
        on.does.on_end = [&](tcp::connection& peer) { each.server(peer); };
        auto server = on.bed.make(scripted{on.does});
        auto client = on.bed.connect(on.bed.listen(server));
        client.send("hello");
        if (each.client_finishes_first) client.shutdown_send();
        CHECK(on.bed.until(server, [&] {
            if (client.ended()) client.shutdown_send();
            return on.does.closes.size() == 1 && client.ended();
        }));
        CHECK(client.received() == "hello");
        CHECK_FALSE(client.was_reset());
        CHECK(on.does.closes[0].by == each.by);
        CHECK(on.does.closes[0].unsent == 0);
    }
}

// ---- 48 ----

TEST_ON_BEDS("48 close with unread input: the reply is not destroyed", Bed, CONFORMANCE_BEDS) {
    for (const bool paused : {false, true}) {
        CAPTURE(paused);
        stage<Bed> on;
        const std::string reply = pattern(400'000);
        std::size_t seen = 0;
        on.does.on_open = [&](tcp::connection& peer) {
            if (paused && on.does.opens == 1) peer.pause_receive();
        };
        on.does.on_data = [&](tcp::connection&, tcp::bytes) {
            if (seen != 0) return;
            seen = on.does.received.size();
            CHECK(on.does.peers[0]->send(reply));
            on.does.peers[0]->close();
        };
        auto server = on.bed.make(scripted{on.does}, {.receive_buffer = 4096});
        const auto where = on.bed.listen(server);
        auto client = on.bed.connect_narrow(where);
        client.pause_receive();
        client.send(pattern(3'000'000, 2));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
        if (paused) {
            // What was uploaded waits in the kernel. Another connection says when to close.
            auto other = on.bed.connect(where);
            on.bed.run(server, 10ms);
            CHECK(on.does.received.empty());
            other.send("!");
        }
        REQUIRE(on.bed.until(server, [&] { return seen != 0; }));
        CHECK(seen <= 4096);
        on.bed.run(server, 10ms);
        client.resume_receive();
        CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
        CHECK(difference(client.received(), reply) == "");
        CHECK(client.ended());
        CHECK_FALSE(client.was_reset());
        client.shutdown_send();
        CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        CHECK(on.does.closes[0].by == closed_by::handler_closed);
        CHECK(on.does.closes[0].unsent == 0);
        // What came after close() was read and dropped.
        CHECK(on.does.received.size() == seen);
        CHECK_FALSE(client.was_reset());
    }
}

TEST_ON_BEDS("48 close() in on_open to a client that has sent already", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_open = [](tcp::connection& peer) {
        peer.send("busy, come back later");
        peer.close();
    };
    auto server = on.bed.make(scripted_without_end{on.does});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 20; ++i) {
        clients.push_back(on.bed.connect(where));
        clients.back().send(pattern(100'000));
    }
    CHECK(on.bed.until(server, [&] {
        for (auto& c : clients)
            if (c.ended()) c.shutdown_send();
        return on.does.closes.size() == 20;
    }));
    for (auto& c : clients) {
        CHECK(c.received() == "busy, come back later");
        CHECK_FALSE(c.was_reset());
    }
    CHECK(on.does.received.empty());
}

// ---- 49 ----

TEST_ON_BEDS("49 abort: the peer sees a reset", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t queued : sizes{0, 1'000'000}) {
        CAPTURE(queued);
        stage<Bed> on;
        std::size_t taken = 0;
        auto server =
            on.bed.make(scripted{on.does}, {.high_mark = 2'000'000, .kernel_send_buffer = 4096});
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
            if (tcp::as_text(data) == "queue") {
                peer.send(std::string(queued, 'q'));
            } else {
                taken = static_cast<std::size_t>(server.statistics().bytes_sent);
                peer.send("more");
                peer.abort();
                peer.abort();
                peer.close();
            }
        };
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.pause_receive();
        client.send("queue");
        REQUIRE(on.bed.until(server, [&] { return on.does.received == "queue"; }));
        on.bed.run(server, 20ms);
        client.send("abort");
        REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        CHECK(on.does.closes[0].by == closed_by::handler_aborted);
        CHECK_FALSE(on.does.closes[0].error);
        CHECK(on.does.closes[0].unsent == queued + 4 - taken);
        client.resume_receive();
        CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
        CHECK_FALSE(client.ended());
        CHECK(client.received_size() <= queued);
    }
}

TEST_ON_BEDS("49 what a hook sent before abort() or a throw counts as unsent", Bed,
             CONFORMANCE_BEDS) {
    for (const act what : {act::abort, act::throw_exception}) {
        for (const int kind : {0, 1, 2}) {
            CAPTURE(static_cast<int>(what));
            CAPTURE(kind);
            stage<Bed> on;
            on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
                if (kind != 1) peer.send(data);  // lent
                if (kind != 0) peer.send("copied");
                perform(what, peer);
            };
            auto server = on.bed.make(scripted{on.does});
            auto client = on.bed.connect(on.bed.listen(server));
            client.send("?");
            CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
            CHECK(client.received_size() == 0);
            CHECK(server.statistics().bytes_sent == 0);
            REQUIRE(on.does.closes.size() == 1);
            CHECK(on.does.closes[0].unsent == (kind == 0 ? 1U : kind == 1 ? 6U : 7U));
        }
    }
}

TEST_ON_BEDS("49 abort after close(), or a throw: a reset too, not a FIN that looks complete", Bed,
             CONFORMANCE_BEDS) {
    for (const act what : {act::abort, act::throw_exception}) {
        CAPTURE(static_cast<int>(what));
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            peer.send(std::string(1'000'000, 'x'));
            peer.close();
            perform(what, peer);
        };
        auto server = on.bed.make(scripted{on.does}, {.kernel_send_buffer = 4096});
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.send("?");
        CHECK(on.bed.until(server, [&] { return client.was_reset() || client.ended(); }));
        CHECK(client.was_reset());
        CHECK_FALSE(client.ended());
        CHECK(client.received_size() < 1'000'000);
        REQUIRE(on.does.closes.size() == 1);
        CHECK(on.does.closes[0].by == reason_of(what));
        CHECK(on.does.closes[0].unsent > 0);
    }
}

TEST_ON_BEDS("49 abort of a connection that close() left with a queue", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        if (tcp::as_text(data) == "abort") return on.does.peers[0]->abort();
        peer.send(std::string(1'000'000, 'x'));
        peer.close();
    };
    auto server =
        on.bed.make(scripted{on.does}, {.close_timeout = 100s, .kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect_narrow(where);
    client.pause_receive();
    client.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
    auto other = on.bed.connect(where);
    other.send("abort");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::handler_aborted);
    CHECK(on.does.closes[0].unsent > 0);
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.was_reset() || client.ended(); }));
    CHECK(client.was_reset());
    CHECK_FALSE(client.ended());
}

TEST_ON_BEDS("49 abort of a connection that close() left with nothing but a peer to wait for", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        if (tcp::as_text(data) == "abort") return on.does.peers[0]->abort();
        peer.send("reply");
        peer.close();
    };
    auto server = on.bed.make(scripted{on.does}, {.close_timeout = 100s});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where);
    client.send("?");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    on.bed.run(server, 5ms);
    CHECK(on.does.closes.empty());
    auto other = on.bed.connect(where);
    other.send("abort");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::handler_aborted);
    CHECK(on.does.closes[0].unsent == 0);
    CHECK(client.received() == "reply");
    if constexpr (Bed::simulated)
        CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
    else
        CHECK(on.bed.until(server, [&] {  // behind the FIN recv(2) does not tell
            pollfd reset{.fd = client.descriptor(), .events = 0, .revents = 0};
            return ::poll(&reset, 1, 0) == 1 && (reset.revents & POLLERR) != 0;
        }));
}

// ---- 50 ----

TEST_ON_BEDS("50 close while a receive is armed: the peer sees FIN within 50 ms (K)", Bed,
             SYSTEM_BEDS) {
    for (const bool has_input : {false, true}) {
        CAPTURE(has_input);
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        on.does.on_data = [&](tcp::connection&, tcp::bytes data) {
            if (tcp::as_text(data) == "now") on.does.peers[0]->close();
        };
        conformance::kernel_client idle{where}, other{where};
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
        if (has_input) {
            idle.send("something");
            REQUIRE(on.bed.until(server, [&] { return on.does.received == "something"; }));
        }
        const std::size_t before = on.does.received.size();
        other.send("now");
        REQUIRE(on.bed.until(server, [&] { return on.does.received.size() != before; }));
        // From here on the server does not run: what it did by now must do.
        pollfd fin{.fd = idle.descriptor(), .events = POLLRDHUP, .revents = 0};
        CHECK(::poll(&fin, 1, 50) == 1);
        CHECK((fin.revents & POLLRDHUP) != 0);
        CHECK((fin.revents & POLLERR) == 0);
        idle.close();
        CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    }
}

// ---- 51 ----

TEST_ON_BEDS("51 descriptors and slots used again at once: no event reaches another", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    struct life {
        std::string token;
        bool ended = false;
    };
    std::map<tcp::connection*, life> lives;
    std::size_t mixed_up = 0, number = 0;
    on.does.on_open = [&](tcp::connection& peer) { lives[&peer] = {}; };
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        life& mine = lives[&peer];
        // Every byte of a client is the same letter, its own.
        for (const char c : tcp::as_text(data)) {
            if (mine.token.empty()) mine.token = c;
            if (mine.token[0] != c) ++mixed_up;
        }
        peer.send(std::string(3'000, mine.token[0]));
        switch (number++ % 5) {
            case 0: return peer.abort();
            case 1: return peer.close();
            case 2: throw 1;
            // While that one has events in the same batch.
            case 3: return on.does.peers[number % on.does.peers.size()]->abort();
            default: return;
        }
    };
    on.does.on_end = [&](tcp::connection& peer) {
        if (lives[&peer].token.empty()) ++mixed_up;  // each client sends before it finishes
        peer.close();
    };
    on.does.on_writable = [&](tcp::connection&) { ++mixed_up; };  // nobody passes the high mark
    // A buffer smaller than what comes: connections wait for their turns with input left.
    auto server = on.bed.make(scripted{on.does}, {.receive_buffer = 512, .close_timeout = 60s});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    std::vector<char> letters;
    for (int round = 0; round != 60; ++round) {
        for (int i = 0; i != 10; ++i) {
            letters.push_back(static_cast<char>('A' + (round * 10 + i) % 58));
            clients.push_back(on.bed.connect(where));
            clients.back().send(std::string(2'000, letters.back()));
        }
        on.bed.run(server, 1ms);
        for (auto& c : clients) c.shutdown_send();
    }
    CHECK(on.bed.until(server,
                       [&] { return on.does.opens == clients.size() && on.does.peers.empty(); }));
    for (std::size_t i = 0; i != clients.size(); ++i)
        CHECK(clients[i].received().find_first_not_of(letters[i]) == std::string::npos);
    CHECK(mixed_up == 0);
}

TEST_ON_BEDS("51 a slot that is used again remembers nothing", Bed, CONFORMANCE_BEDS) {
    // What the one before has behind it: its own end, or the peer's.
    using past = void (*)(tcp::connection&);
    constexpr auto nothing = [](tcp::connection&) {};
    constexpr auto close = [](tcp::connection& peer) { peer.close(); };
    constexpr auto half = [](tcp::connection& peer) { peer.shutdown_send(); };
    constexpr auto queue = [](tcp::connection& peer) { peer.send(std::string(60'000, 'q')); };
    constexpr auto queue_abort = [](tcp::connection& peer) {
        peer.send(std::string(60'000, 'q'));
        peer.pause_receive();
        peer.abort();
    };
    constexpr auto queue_close = [](tcp::connection& peer) {
        peer.send(std::string(60'000, 'q'));
        peer.close();
    };
    constexpr auto pause_throw = [](tcp::connection& peer) {
        peer.pause_receive();
        throw 1;
    };
    constexpr auto too_much = [](tcp::connection& peer) {
        while (peer.send(std::string(60'000, 'q'))) {}
    };
    const past pasts[] = {nothing,     close,       half,        queue,
                          queue_abort, queue_close, pause_throw, too_much};
    for (const past& before : pasts) {
        for (const bool reset : {false, true}) {
            CAPTURE(&before - pasts);
            CAPTURE(reset);
            stage<Bed> on;
            tcp::connection* slot = nullptr;
            on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
                slot = &peer;
                before(peer);
            };
            on.does.on_end = [](tcp::connection& peer) { peer.close(); };
            tcp::options options = small_marks;
            options.send_queue_limit = 100'000;
            options.close_timeout = 100s;
            auto server = on.bed.make(scripted{on.does}, options);
            const auto where = on.bed.listen(server);
            auto first = on.bed.connect_narrow(where);
            first.pause_receive();
            first.send("?");
            REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
            if (reset)
                first.reset();
            else
                first.shutdown_send();
            first.resume_receive();
            REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
            on.bed.run(server, 10ms);  // some engines let go later

            const auto counted = server.statistics();
            const std::size_t writables = on.does.writables;
            on.does.on_open = [&](tcp::connection& peer) {
                CHECK(&peer == slot);
                CHECK_FALSE(peer.receive_paused());
                CHECK(peer.send_queue_size() == 0);
            };
            on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
                if (on.does.received != "??") return;
                CHECK(peer.send(std::string(reply_size, 'r')));
                peer.pause_receive();
            };
            on.does.on_writable = [](tcp::connection& peer) { peer.resume_receive(); };
            on.does.on_end = [](tcp::connection& peer) { peer.shutdown_send(); };
            auto second = on.bed.connect_narrow(where);
            second.pause_receive();
            second.send("?");
            REQUIRE(on.bed.until(server, [&] { return on.does.received == "??"; }));
            second.send("more");
            second.shutdown_send();
            on.bed.run(server, 10ms);
            CHECK(on.does.received == "??");
            second.resume_receive();
            CHECK(on.bed.until(server, [&] { return second.ended(); }));
            CHECK(on.does.received == "??more");
            CHECK(second.received() == std::string(reply_size, 'r'));
            CHECK(server.statistics().pauses == counted.pauses + 1);
            CHECK(on.does.writables == writables + 1);
            REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 2; }));
            CHECK(on.does.closes[1].by == closed_by::peer_finished);
            CHECK_FALSE(on.does.closes[1].error);
            CHECK(on.does.closes[1].reached == tcp::limit::none);
            CHECK(on.does.closes[1].unsent == 0);
        }
    }
}

TEST_ON_BEDS("51 the descriptor and the slot are really used again in the batch (K)", Bed,
             SYSTEM_BEDS) {
    if constexpr (Bed::puts_off) return;  // a slot is free a batch later
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.receive_buffer = 100});
    const auto where = on.bed.listen(server);
    conformance::kernel_client first{where};
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    tcp::connection* const slot = on.does.peers[0];
    // The first has more than a buffer, so it waits for another turn in the same batch; and it is
    // gone by then, with a successor in its place that has sent nothing.
    on.does.on_data = [](tcp::connection& peer, tcp::bytes) { peer.abort(); };
    std::size_t strays = 0;
    on.does.on_open = [&](tcp::connection& peer) {
        CHECK(&peer == slot);
        on.does.on_data = [&](tcp::connection&, tcp::bytes) { ++strays; };
        on.does.on_end = [&](tcp::connection&) { ++strays; };
        on.does.on_writable = [&](tcp::connection&) { ++strays; };
    };
    first.send(std::string(1'000, 'x'));
    conformance::kernel_client second{where};
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    on.bed.run(server, 5ms);
    CHECK(on.does.closes.size() == 1);
    CHECK(on.does.received.size() == 100);
    CHECK(strays == 0);
    second.send("mine");
    CHECK(on.bed.until(server, [&] { return strays == 1; }));
}

// ---- 52 ----

namespace {

// How far apart the stack was in all calls of on_close: recursion would show.
struct stack_span {
    void note() {
        const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
        lowest = std::min(lowest, here);
        highest = std::max(highest, here);
    }
    std::uintptr_t size() const { return highest < lowest ? 0 : highest - lowest; }
    std::uintptr_t lowest = UINTPTR_MAX, highest = 0;
};

constexpr std::size_t most_stack = 32 * 1024;

enum class ending { stopped, drained, closed_by_one, aborted_by_one, deadline };

// The least that a test of so many connections can count.
struct tally {
    std::vector<tcp::connection*> peers;
    std::size_t opens = 0, closes = 0, by[tcp::closed_by_count] = {};
    stack_span stack;
    bool one_spoke = false;
};
struct tallied {
    tally* all;
    ending how;

    void on_open(tcp::connection& peer) {
        ++all->opens;
        all->peers.push_back(&peer);
    }
    void on_data(tcp::connection&, tcp::bytes) {
        all->one_spoke = true;
        for (tcp::connection* each : all->peers)
            if (how == ending::aborted_by_one)
                each->abort();
            else
                each->close();
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) {
        ++all->closes;
        ++all->by[static_cast<std::size_t>(why.by)];
        all->stack.note();
    }
};

// Opens so many connections, ends them all at once and gives the time that took.
template <class Bed>
std::int64_t end_at_once(std::size_t count, ending how) {
    tally all;
    Bed bed;
    const tcp::duration at_most = how == ending::deadline ? tcp::duration{20ms} : 100s;
    auto server = bed.make(tallied{&all, how}, {.close_timeout = at_most});
    const auto where = bed.listen(server);
    std::vector<typename Bed::client> clients;
    clients.reserve(count);
    while (clients.size() != count) {
        const std::size_t next = std::min(count, clients.size() + 2'000);
        while (clients.size() != next) clients.push_back(bed.connect(where));
        REQUIRE(bed.until(server, [&] { return all.opens == next; }));
    }

    const tcp::duration start = tcp::detail::thread_time();
    closed_by by = closed_by::handler_closed;
    switch (how) {
        case ending::stopped:
            server.stop();
            by = closed_by::server_stopping;
            break;
        case ending::drained:
            server.drain({});
            by = closed_by::drain_deadline;
            break;
        case ending::aborted_by_one: by = closed_by::handler_aborted; break;
        case ending::deadline:  // with everything sent: no failure
        case ending::closed_by_one: break;
    }
    if (how != ending::stopped && how != ending::drained) clients[0].send("!");
    bool finished = false;
    for (int i = 0; i != 20'000 && all.closes != count; ++i) {
        server.run_for(1ms);
        if (how != ending::closed_by_one || !all.one_spoke || std::exchange(finished, true))
            continue;
        for (auto& c : clients) c.close();
    }
    const std::int64_t took = (tcp::detail::thread_time() - start).nanoseconds();
    CHECK(all.closes == count);
    CHECK(all.by[static_cast<std::size_t>(by)] == count);
    CHECK(all.stack.size() < most_stack);
    return took;
}

}  // namespace

TEST_ON_BEDS("52 20,000 closes at once: no recursion, and linear (S)", Bed, SIMULATED_BEDS) {
    for (const ending how : {ending::stopped, ending::drained, ending::closed_by_one,
                             ending::aborted_by_one, ending::deadline}) {
        CAPTURE(static_cast<int>(how));
        // Twenty times as many cost twenty times as much, or a few times that, as they fit no
        // cache; not four hundred times.
        std::int64_t few = INT64_MAX, many = INT64_MAX;
        for (int i = 0; i != 3; ++i) few = std::min(few, end_at_once<Bed>(1'000, how));
        for (int i = 0; i != 2; ++i) many = std::min(many, end_at_once<Bed>(20'000, how));
        CHECK(many / 20 < few * 12);
    }
}

TEST_ON_BEDS("52 as many closes at once as there are descriptors (K)", Bed, SYSTEM_BEDS) {
    rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    // Both ends are in this process.
    const std::size_t most = std::min<std::size_t>(descriptors.rlim_cur, 20'000);
    REQUIRE(most > 400);
    const std::size_t count = (most - 200) / 2;
    for (const ending how : {ending::stopped, ending::aborted_by_one, ending::closed_by_one}) {
        CAPTURE(static_cast<int>(how));
        end_at_once<Bed>(count, how);
    }
}

TEST_ON_BEDS("52 each on_close ends another connection: no recursion", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    stack_span stack;
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        stack.note();
        if (!on.does.peers.empty()) on.does.peers.back()->abort();
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 1'000; ++i) clients.push_back(on.bed.connect(where));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1'000; }));
    clients[500].reset();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1'000; }));
    CHECK(stack.size() < most_stack);
}

// ---- 53 ----

TEST_ON_BEDS("53 an administrator's kill (ss -K): system_error, and the peer sees a reset (K)", Bed,
             SYSTEM_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where), bystander = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2 && client.connected(); }));
    const std::string ports = std::to_string(where.port()) +
                              " and dport = :" + std::to_string(client.local_endpoint().port());
    const std::string kill =
        "ss -K -t -n -H src 127.0.0.1 and dst 127.0.0.1 and sport = :" + ports + " 2>/dev/null";
    std::string killed;
    if (FILE* const out = ::popen(kill.c_str(), "r"); out != nullptr) {
        char line[512];
        while (std::fgets(line, sizeof line, out) != nullptr) killed += line;
        ::pclose(out);
    }
    if (killed.find("ESTAB") == std::string::npos) {
        MESSAGE("skipped: ss -K is not there, or may not end a connection");
        return;
    }
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::system_error);
    CHECK(on.does.closes[0].error == std::errc::connection_aborted);
    CHECK(on.does.ends == 0);
    CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
    CHECK_FALSE(client.ended());
    CHECK(on.does.peers.size() == 1);
    CHECK_FALSE(bystander.was_reset());
}

// ---- 54 ----

TEST_ON_BEDS("54 close to a peer that never reads ends at close_timeout", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t queued = 1'000'000;
    stage<Bed> on;
    tcp::duration closed_at, taken_at, over_at;
    const auto now = [&] { return now_of(on.bed); };
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        peer.send(std::string(queued, 'x'));
        closed_at = now();
        peer.close();
    };
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) { over_at = now(); };
    auto server =
        on.bed.make(scripted{on.does}, {.close_timeout = 150ms, .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    std::uint64_t taken = 0;
    REQUIRE(on.bed.until(server, [&] {
        if (std::exchange(taken, server.statistics().bytes_sent) != taken) taken_at = now();
        return on.does.closes.size() == 1;
    }));
    CHECK(on.does.closes[0].by == closed_by::deadline);
    CHECK(on.does.closes[0].passed == tcp::deadline::close);
    CHECK(server.statistics().timeouts == 1);
    CHECK(on.does.closes[0].unsent == queued - server.statistics().bytes_sent);
    CHECK(on.does.closes[0].unsent > 0);
    CHECK_FALSE(on.does.closes[0].error);
    CHECK(over_at - closed_at >= 150ms);
    if constexpr (Bed::simulated) CHECK(over_at - taken_at <= 154ms);
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
    CHECK_FALSE(client.ended());
}

TEST_ON_BEDS("54 close to a peer that vanished ends at close_timeout (S)", Bed, SIMULATED_BEDS) {
    for (const std::size_t queued : sizes{0, 500'000}) {
        CAPTURE(queued);
        stage<Bed> on;
        auto server = on.bed.make(scripted{on.does});
        auto client = on.bed.world.connect(on.bed.listen(server));
        tcp::duration start;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            peer.send(std::string(queued, 'x'));
            peer.close();
            start = on.bed.world.now();
            client.vanish();
        };
        client.send("?");
        REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        CHECK(on.bed.world.now() - start >= 5s);
        CHECK(on.bed.world.now() - start <= 5'100ms);
        // With all sent only the peer's own end is missing.
        CHECK(on.does.closes[0].by ==
              (queued != 0 ? closed_by::deadline : closed_by::handler_closed));
        CHECK((on.does.closes[0].passed == tcp::deadline::close) == (queued != 0));
        CHECK((on.does.closes[0].unsent != 0) == (queued != 0));
    }
}

TEST_ON_BEDS("54 with everything sent by close_timeout the rest is the system's", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string reply = pattern(20'000);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        peer.send(reply);
        peer.close();
    };
    auto server = on.bed.make(scripted{on.does}, {.close_timeout = 100ms});
    auto client = on.bed.connect(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::handler_closed);
    CHECK(on.does.closes[0].passed == tcp::deadline::none);
    CHECK(on.does.closes[0].unsent == 0);
    // The client reads only now.
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
    CHECK(difference(client.received(), reply) == "");
    CHECK(client.ended());
    CHECK_FALSE(client.was_reset());
}

TEST_ON_BEDS("54 a close_timeout of 0 waits for no peer", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t queued : sizes{0, 5, 1'000'000}) {
        CAPTURE(queued);
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            peer.send(std::string(queued, 'x'));
            peer.close();
        };
        auto server = on.bed.make(scripted{on.does},
                                  {.close_timeout = tcp::duration{}, .kernel_send_buffer = 4096});
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.pause_receive();
        client.send("?");
        REQUIRE(on.bed.until(server, [&] { return !on.does.received.empty(); }));
        // The deadline is the next tick, which may be another turn.
        REQUIRE(on.bed.until(
            server, [&] { return on.does.closes.size() == 1; }, 2s));
        const auto why = on.does.closes[0];
        CHECK(why.unsent == queued - server.statistics().bytes_sent);
        if (queued == 0) CHECK(why.unsent == 0);
        if (queued == 1'000'000) CHECK(why.unsent != 0);
        const bool complete = why.unsent == 0;
        CHECK(why.by == (complete ? closed_by::handler_closed : closed_by::deadline));
        CHECK((why.passed == tcp::deadline::close) == !complete);
        client.resume_receive();
        CHECK(on.bed.until(server, [&] { return client.ended() || client.was_reset(); }));
        CHECK(client.ended() == complete);
        CHECK(client.was_reset() == !complete);
        if (complete) CHECK(client.received_size() == queued);
    }
}

TEST_ON_BEDS("54 many close deadlines: each at its own time, those that finish spared", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        peer.send(std::string(300'000, 'x'));
        peer.close();
    };
    auto server =
        on.bed.make(scripted{on.does}, {.close_timeout = 400ms, .kernel_send_buffer = 4096});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    std::vector<tcp::duration> asked, over;
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason& why) {
        if (why.by == closed_by::deadline) over.push_back(now_of(on.bed));
    };
    for (std::size_t i = 0; i != 20; ++i) {
        clients.push_back(on.bed.connect_narrow(where));
        if (i % 2 == 1) clients.back().pause_receive();
        clients.back().send("?");
        REQUIRE(on.bed.until(server, [&] { return on.does.received.size() == i + 1; }));
        if (i % 2 == 1) asked.push_back(now_of(on.bed));
        on.bed.run(server, 2ms);
    }
    CHECK(on.bed.until(server, [&] {
        for (std::size_t i = 0; i != 20; ++i)
            if (clients[i].ended())
                clients[i].shutdown_send();
            else
                clients[i].send("more");  // bytes after close() move no deadline
        return on.does.closes.size() == 20;
    }));
    const auto counted = server.statistics();
    const auto finished = counted.closed_by[static_cast<std::size_t>(closed_by::handler_closed)];
    const auto late = counted.closed_by[static_cast<std::size_t>(closed_by::deadline)];
    CHECK(finished + late == 20);
    CHECK(late >= 10);
    if constexpr (!Bed::simulated) return;  // a busy machine may be late with the others too
    REQUIRE(late == 10);
    for (std::size_t i = 0; i != 10; ++i) {
        CHECK(over[i] - asked[i] >= 395ms);
        CHECK(over[i] - asked[i] <= 600ms);  // the system takes some for a while
    }
}

// ---- resets ----

TEST_ON_BEDS("30 a reset in mid-message: one on_close that says so", Bed, CONFORMANCE_BEDS) {
    for (const bool queued : {false, true}) {
        CAPTURE(queued);
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            if (queued && peer.send_queue_size() == 0) peer.send(std::string(900'000, 'x'));
        };
        auto server =
            on.bed.make(scripted{on.does}, {.high_mark = 1'000'000, .kernel_send_buffer = 4096});
        const auto where = on.bed.listen(server);
        for (std::size_t i = 1; i != 6; ++i) {
            on.does.received.clear();
            auto client = on.bed.connect_narrow(where);
            client.pause_receive();
            client.send("half of a mess");
            REQUIRE(on.bed.until(server, [&] { return on.does.received == "half of a mess"; }));
            client.reset();
            REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == i; }));
            CHECK(on.does.closes.back().by == closed_by::peer_reset);
            CHECK(on.does.closes.back().error);
            CHECK((on.does.closes.back().unsent != 0) == queued);
        }
        CHECK(on.does.ends == 0);
        const auto counted = server.statistics();
        CHECK(counted.closed_by[static_cast<std::size_t>(closed_by::peer_reset)] == 5);
        CHECK(counted.accepted == 5);
        CHECK(counted.open == 0);
    }
}

TEST_ON_BEDS("a reset after the peer's end, while the handler takes its time", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        if (peer.send_queue_size() == 0) peer.send(std::string(900'000, 'x'));
    };
    auto server =
        on.bed.make(scripted{on.does}, {.high_mark = 1'000'000, .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?");
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return on.does.ends == 1; }));
    CHECK(on.does.closes.empty());
    client.reset();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.does.closes[0].by == closed_by::peer_reset);
    CHECK(on.does.closes[0].unsent != 0);
    CHECK(on.does.ends == 1);
}

TEST_ON_BEDS("a reset after close(): with a queue it is the reason, without it is none", Bed,
             CONFORMANCE_BEDS) {
    for (const std::size_t queued : sizes{0, 1'000'000}) {
        CAPTURE(queued);
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            if (on.does.closes.empty()) peer.send(std::string(queued, 'x'));
            peer.close();
        };
        auto server =
            on.bed.make(scripted{on.does}, {.close_timeout = 100s, .kernel_send_buffer = 4096});
        auto client = on.bed.connect_narrow(on.bed.listen(server));
        client.pause_receive();
        client.send("?");
        REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
        on.bed.run(server, 10ms);
        client.reset();
        REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        CHECK(on.does.closes[0].by ==
              (queued != 0 ? closed_by::peer_reset : closed_by::handler_closed));
        CHECK((on.does.closes[0].unsent != 0) == (queued != 0));
    }
}

TEST_ON_BEDS("a reset that the reply of the last hook meets: the reason, though it closes", Bed,
             CONFORMANCE_BEDS) {
    for (const bool copied : {false, true}) {
        CAPTURE(copied);
        stage<Bed> on;
        // The question and the reset behind it are both there when the hook answers and closes.
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
            if (copied)
                peer.send("!");
            else
                peer.send(data);
            peer.close();
        };
        auto server = on.bed.make(scripted{on.does});
        auto client = on.bed.connect(on.bed.listen(server));
        REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1 && client.connected(); }));
        client.send("?");
        client.reset();
        if constexpr (Bed::simulated) on.bed.world.advance(50ms);
        REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
        REQUIRE(on.does.received == "?");
        CHECK(on.does.closes[0].by == closed_by::peer_reset);
        CHECK(on.does.closes[0].error);
        CHECK(on.does.closes[0].unsent == 1);
    }
}
