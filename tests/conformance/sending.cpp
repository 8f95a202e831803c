// Behaviours 33 to 39: what a handler sends arrives, in order and once, or the handler is told.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "beds.hpp"
#include "resident_memory.hpp"

using namespace std::chrono_literals;
using conformance::difference;
using conformance::pattern;
using conformance::scripted;
using conformance::stage;
using tests::resident_bytes;
using tests::sanitized;

namespace {

using sizes = std::initializer_list<std::size_t>;

// Random sends of every kind, and what they must add up to at the peer.
class mixed_sends {
public:
    explicit mixed_sends(std::uint64_t seed) : dice_{seed} {}

    /// One send; slices of `data` are lent where the connection is the one whose hook runs.
    void one(tcp::connection& peer, tcp::bytes data, std::string& expected) {
        const std::size_t size = length();
        text_ = pattern(size, dice_.below(1'000'000));
        std::replace(text_.begin(), text_.end(), '\0', '0');
        switch (dice_.below(8)) {
            case 0: say(peer.send(tcp::as_bytes(text_))); break;
            case 1: say(peer.send(std::string_view{text_})); break;
            case 2: say(peer.send(text_.c_str())); break;
            case 3: say(peer.send(std::string{text_})); break;
            case 4: return whole(peer, data, expected);
            default: return slice(peer, data, expected);
        }
        expected += text_;
        std::fill(text_.begin(), text_.end(), '!');  // the caller's bytes are the caller's again
    }

    bool all_went() const noexcept { return refused_ == 0; }

private:
    // Seldom nothing, mostly little, now and then so much that a string is not copied.
    std::size_t length() {
        const auto kind = dice_.below(100);
        if (kind == 0) return 0;
        return kind < 92 ? dice_.between(1, 300) : dice_.between(4000, 9000);
    }
    void whole(tcp::connection& peer, tcp::bytes data, std::string& expected) {
        say(peer.send(data));
        expected += tcp::as_text(data);
    }
    // Often the one behind the last, as a protocol would; else any.
    void slice(tcp::connection& peer, tcp::bytes data, std::string& expected) {
        if (data.empty()) return;
        if (next_ >= data.size() || dice_.chance(400)) next_ = dice_.below(data.size());
        const std::size_t most = std::min<std::size_t>(data.size() - next_, 500);
        const tcp::bytes part = data.subspan(next_, dice_.between(1, most));
        next_ += part.size();
        whole(peer, part, expected);
    }
    void say(tcp::send_result result) noexcept { refused_ += result ? 0 : 1; }

    tcp::simulation::random_generator dice_;
    std::string text_;
    std::size_t next_ = 0;
    std::size_t refused_ = 0;
};

// Lets both run until this number stays as it is. Kernel buffers fill in their own time.
template <class Bed, class Server, class Number>
void settle(Bed& bed, Server& server, Number number) {
    for (int i = 0; i != 100; ++i) {
        const auto last = number();
        bed.run(server, 30ms);
        if (number() == last) return;
    }
    FAIL("it goes on and on");
}

// Long enough that the queue takes it over without a copy: a piece of its own.
std::string long_string(std::size_t number) { return pattern(4'200, number + 1); }

}  // namespace

// ---- 33 ----

TEST_ON_BEDS("33 short writes of any size: exact bytes", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string body = pattern(500'000);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        CHECK(peer.send(std::string_view{body}.substr(0, 200'000)));
        CHECK(peer.send(std::string{body, 200'000, 200'000}));
        CHECK(peer.send(std::string_view{body}.substr(400'000)));
        CHECK(peer.send(data));
    };
    auto server = on.bed.make(scripted{on.does}, {.kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("?!");
    std::size_t step = 1;
    CHECK(on.bed.until(server, [&] {
        step = step * 7 % 9973 + 1;
        client.receive(step);
        return client.received_size() >= body.size() + 2;
    }));
    CHECK(difference(client.received(), body + "?!") == "");
    CHECK(server.statistics().bytes_sent == body.size() + 2);
}

TEST_CASE("33 a system that takes so few bytes at a time: exact bytes (S)") {
    const std::string body = pattern(6'000);
    for (const std::size_t capacity : sizes{1, 2, 3, 5, 64, 1000, 4097, 5000}) {
        for (const unsigned in_flight : {0U, 400U, 1000U}) {
            CAPTURE(capacity);
            CAPTURE(in_flight);
            tcp::simulation::faults weather;
            weather.send_capacity = capacity;
            weather.short_send_per_mille = 500;
            weather.blocked_send_per_mille = 100;
            weather.spurious_writable_per_mille = 300;
            weather.in_flight_per_mille = in_flight;
            weather.latency_min = tcp::duration{};
            weather.latency_max = 50us;
            tcp::simulation world{capacity * 3 + in_flight, weather};
            conformance::script does;
            does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
                peer.send(tcp::as_bytes(body).subspan(0, 500));
                peer.send(data.subspan(2));
                peer.send(std::string{body, 500, 4'500});
                peer.send(data.subspan(0, 2));
                peer.send(tcp::as_bytes(body).subspan(5'000));
                peer.close();
            };
            tcp::server<scripted, tcp::simulated_engine> server{scripted{does}, {}, world};
            server.bind(7);
            server.listen();
            auto client = world.connect(7);
            client.send("lent");
            for (int i = 0; i != 10'000 && !client.ended(); ++i) server.run_for(1ms);
            const std::string_view all = body;
            const std::string expected = std::string{all.substr(0, 500)} + "nt" +
                                         std::string{all.substr(500, 4'500)} + "le" +
                                         std::string{all.substr(5'000)};
            CHECK(difference(client.received(), expected) == "");
            CHECK(client.ended());
            CHECK(does.wrong.empty());
        }
    }
}

// ---- 34 ----

TEST_ON_BEDS("34 a client that pipelines and never reads: the queue is bounded", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t high = 64 * 1024, buffer = 16 * 1024;
    stage<Bed> on;
    std::size_t most = 0, most_before = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        most_before = std::max(most_before, peer.send_queue_size());
        peer.send(data);
        most = std::max(most, peer.send_queue_size());
    };
    on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    auto server = on.bed.make(scripted{on.does}, {.high_mark = high,
                                                  .low_mark = high / 4,
                                                  .receive_buffer = buffer,
                                                  .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    const std::string sent = pattern(16'000'000);
    client.send(sent);
    REQUIRE(on.bed.until(server, [&] { return server.statistics().pauses != 0; }));
    settle(on.bed, server, [&] { return on.does.received.size(); });

    CHECK(most_before <= high);
    CHECK(most <= high + buffer);
    const auto counted = server.statistics();
    CHECK(counted.pauses == on.does.writables + 1);
    CHECK(on.does.received.size() < sent.size() / 2);
    // What the system did not take waits in the queue.
    CHECK(on.does.received.size() - counted.bytes_sent > high / 4);
    CHECK(on.does.received.size() - counted.bytes_sent <= high + buffer);

    client.resume_receive();
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(difference(client.received(), sent) == "");
    CHECK(most_before <= high);
    CHECK(most <= high + buffer);
}

TEST_ON_BEDS("34 clients that pipeline and hardly read: memory stays flat (K)", Bed, SYSTEM_BEDS) {
    constexpr std::size_t clients = 64, high = 64 * 1024, buffer = 16 * 1024;
    constexpr std::size_t most_each = 2 * 1024 * 1024;  // were nothing bounded
    Bed bed;
    auto server = bed.make(tcp::echo{}, {.high_mark = high,
                                         .low_mark = high / 4,
                                         .receive_buffer = buffer,
                                         .kernel_send_buffer = 16 * 1024,
                                         .kernel_receive_buffer = 16 * 1024});
    const auto where = bed.listen(server);
    std::vector<conformance::kernel_client> peers;
    for (std::size_t i = 0; i != clients; ++i) peers.emplace_back(where, 4096);
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    const auto in_time = [&] { return std::chrono::steady_clock::now() < deadline; };
    while (server.statistics().open != clients && in_time()) server.poll();

    static char block[64 * 1024];
    std::vector<std::size_t> sent(clients);
    const auto pipeline = [&] {
        for (bool moved = true; moved && in_time();) {
            moved = false;
            for (std::size_t i = 0; i != clients; ++i) {
                const ssize_t n = sent[i] >= most_each
                                      ? 0
                                      : ::send(peers[i].descriptor(), block, sizeof block,
                                               MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n > 0) sent[i] += static_cast<std::size_t>(n);
                moved = moved || n > 0;
            }
            for (int turn = 0; turn != 4; ++turn) server.poll();
        }
    };
    const auto queued = [&] {
        const auto now = server.statistics();
        return now.bytes_received - now.bytes_sent;
    };

    const std::size_t before = resident_bytes();
    pipeline();
    const std::size_t filled = resident_bytes();
    CHECK(server.statistics().pauses == clients);
    CHECK(queued() <= clients * (high + buffer));
    // A block of the queue is at most twice as large as what it holds.
    if (!sanitized) CHECK(filled <= before + clients * 2 * (high + buffer) + (4 << 20));

    for (int round = 0; round != 8; ++round) {
        std::fill(sent.begin(), sent.end(), 0);
        for (auto& peer : peers) {
            for (std::size_t taken = 0; taken < 64 * 1024 && in_time();) {
                const ssize_t n = ::recv(peer.descriptor(), block, sizeof block, MSG_DONTWAIT);
                if (n > 0) taken += static_cast<std::size_t>(n);
                server.poll();
            }
        }
        pipeline();
        CHECK(queued() <= clients * (high + buffer));
    }
    CHECK(in_time());
    if (!sanitized) CHECK(resident_bytes() <= filled + (4 << 20));
}

// ---- 35 ----

TEST_ON_BEDS("35 marks: one on_writable for each crossing, alternating", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t high = 60'000, low = 20'000;
    stage<Bed> on;
    std::size_t not_alternating = 0, above_low = 0, sent = 0, hooks = 0;
    auto server = on.bed.make(scripted{on.does},
                              {.high_mark = high, .low_mark = low, .kernel_send_buffer = 4096});
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        // Reading has stopped between a crossing of the high mark and its on_writable.
        if (server.statistics().pauses != on.does.writables) ++not_alternating;
        for (const std::byte asked : data)
            for (std::size_t n = static_cast<std::size_t>(asked); n != 0; --n) {
                peer.send(std::string_view{"0123456789"});
                sent += 10;
            }
        ++hooks;
    };
    on.does.on_writable = [&](tcp::connection& peer) {
        if (server.statistics().pauses != on.does.writables) ++not_alternating;
        if (peer.send_queue_size() > low) ++above_low;
    };
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    const std::string plenty(100, '\x7f'), little(3, '\x10');
    for (int crossing = 0; crossing != 7; ++crossing) {
        CAPTURE(crossing);
        // More than the system takes for a client that reads nothing.
        while (server.statistics().pauses == on.does.writables) {
            const std::size_t before = hooks;
            client.send(plenty);
            REQUIRE(on.bed.until(server, [&] { return hooks != before; }));
            settle(on.bed, server, [&] { return server.statistics().bytes_sent; });
        }
        const std::size_t hooks_before = hooks, writables_before = on.does.writables;
        client.send(little);  // waits for the low mark
        on.bed.run(server, 5ms);
        CHECK(hooks == hooks_before);
        CHECK(on.does.writables == writables_before);
        CHECK(server.statistics().pauses == writables_before + 1);
        REQUIRE(on.bed.until(server, [&] {
            client.receive(3'000);
            return on.does.writables == writables_before + 1 && hooks != hooks_before;
        }));
        CHECK(server.statistics().pauses == on.does.writables);
    }
    client.resume_receive();
    REQUIRE(on.bed.until(server, [&] { return client.received_size() == sent; }));
    CHECK(server.statistics().pauses == on.does.writables);
    CHECK(on.does.writables >= 7);
    CHECK(not_alternating == 0);
    CHECK(above_low == 0);
}

TEST_ON_BEDS("35 marks are where the options say, to the byte (S)", Bed, SIMULATED_BEDS) {
    constexpr std::size_t high = 50'000, low = 10'000;
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does}, {.high_mark = high, .low_mark = low});
    auto& world = on.bed.world;
    auto weather = world.current_faults();
    weather.client_window = 4'000;
    weather.send_capacity = 4'000;
    weather.segment_min = 1460;  // what is asked comes in one piece
    world.set_faults(weather);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        const std::string_view asked = tcp::as_text(data);
        if (asked == "fill") peer.send(std::string(high, 'f'));
        if (asked == "to the mark") peer.send(std::string(high - peer.send_queue_size(), 'm'));
        if (asked == "one more") peer.send(std::string(1, 'o'));
    };
    on.does.on_writable = [&](tcp::connection& peer) { CHECK(peer.send_queue_size() <= low); };
    auto client = world.connect(on.bed.listen(server));
    client.pause_receive();
    const auto ask = [&](std::string_view what) {
        const std::size_t before = on.does.received.size();
        client.send(what);
        REQUIRE(on.bed.until(server, [&] { return on.does.received.size() != before; }));
        on.bed.run(server, 50ms);  // the system takes what it can
    };
    ask("fill");
    CHECK(server.statistics().pauses == 0);
    CHECK(on.does.peers[0]->send_queue_size() < high);
    ask("to the mark");
    CHECK(on.does.peers[0]->send_queue_size() == high);
    CHECK(server.statistics().pauses == 0);
    ask("one more");
    CHECK(on.does.peers[0]->send_queue_size() == high + 1);
    CHECK(server.statistics().pauses == 1);
    CHECK(on.does.writables == 0);

    // Between the turns nobody sees the queue at the low mark without on_writable.
    std::size_t last = 0;
    REQUIRE(on.bed.until(server, [&] {
        if (on.does.writables != 0) return true;
        last = on.does.peers[0]->send_queue_size();
        client.receive(1);
        return false;
    }));
    CHECK(last > low);
    CHECK(last < high);
}

TEST_ON_BEDS("35 no on_writable after close(), nor for a peer that is gone", Bed,
             CONFORMANCE_BEDS) {
    for (const bool reset : {false, true}) {
        CAPTURE(reset);
        stage<Bed> on;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
            peer.send(std::string(1'000'000, 'x'));
        };
        auto server =
            on.bed.make(scripted{on.does},
                        {.high_mark = 60'000, .low_mark = 20'000, .kernel_send_buffer = 4096});
        const auto where = on.bed.listen(server);
        auto client = on.bed.connect_narrow(where);
        client.pause_receive();
        client.send("!");
        REQUIRE(on.bed.until(server, [&] { return server.statistics().pauses == 1; }));
        auto other = on.bed.connect(where);
        on.does.on_open = {};
        on.does.on_data = [&](tcp::connection&, tcp::bytes) { on.does.peers[0]->close(); };
        if (reset) {
            client.reset();
        } else {
            other.send("close it");
            client.resume_receive();
        }
        CHECK(on.bed.until(server, [&] {
            if (client.ended()) client.shutdown_send();
            return on.does.closes.size() == 1;
        }));
        CHECK(on.does.writables == 0);
        if (!reset) CHECK(client.received_size() == 1'000'000);
    }
}

// ---- 36 ----

TEST_ON_BEDS("36 10,000 sends queued and immediate: in order", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    mixed_sends mixed{7};
    std::string expected[3];  // by the order of on_open
    std::size_t sends = 0;
    on.does.on_data = [&](tcp::connection& self, tcp::bytes data) {
        for (int i = 0; i != 200; ++i) {
            mixed.one(self, data, expected[0]);
            if (++sends % 4 != 0) continue;
            mixed.one(*on.does.peers[1], data, expected[1]);  // of its own data: a copy
            mixed.one(*on.does.peers[2], data, expected[2]);
        }
    };
    auto server = on.bed.make(scripted{on.does}, {.high_mark = 16 << 20});
    const auto where = on.bed.listen(server);
    auto first = on.bed.connect_narrow(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    auto second = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    auto third = on.bed.connect_narrow(where);
    third.pause_receive();
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 3; }));

    for (std::size_t i = 0; i != 50; ++i) {
        if (i == 20) first.pause_receive();  // from now on its sends wait
        if (i == 30) first.resume_receive();
        const std::size_t before = sends;
        first.send(pattern(1 + i * 977 % 3'000, i));
        REQUIRE(on.bed.until(server, [&] { return sends != before; }));
    }
    REQUIRE(sends >= 10'000);
    third.resume_receive();
    CHECK(on.bed.until(server, [&] {
        return first.received_size() >= expected[0].size() &&
               second.received_size() >= expected[1].size() &&
               third.received_size() >= expected[2].size();
    }));
    on.bed.run(server, 5ms);  // nothing comes twice
    CHECK(difference(first.received(), expected[0]) == "");
    CHECK(difference(second.received(), expected[1]) == "");
    CHECK(difference(third.received(), expected[2]) == "");
    CHECK(mixed.all_went());
}

TEST_ON_BEDS("36 10,000 sends in one hook: in order", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    mixed_sends mixed{8};
    std::string expected;
    on.does.on_data = [&](tcp::connection& self, tcp::bytes data) {
        for (int i = 0; i != 10'000; ++i) mixed.one(self, data, expected);
        self.close();
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send(pattern(2'000));
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(difference(client.received(), expected) == "");
    CHECK(mixed.all_went());
}

TEST_ON_BEDS("36 lent bytes behind more pieces than one system call takes: in order", Bed,
             CONFORMANCE_BEDS) {
    for (const std::size_t pieces : sizes{61, 62, 63, 64, 65, 126, 127, 200}) {
        CAPTURE(pieces);
        stage<Bed> on;
        std::string expected;
        on.does.on_data = [&](tcp::connection& self, tcp::bytes data) {
            for (std::size_t i = 0; i != pieces; ++i) {
                expected += long_string(i);
                self.send(long_string(i));
            }
            self.send(data);  // the only send of its kind: it stays lent
            expected += tcp::as_text(data);
        };
        auto server = on.bed.make(scripted{on.does}, {.high_mark = 4 << 20});
        auto client = on.bed.connect(on.bed.listen(server));
        client.send(pattern(1'000, 99));
        on.bed.until(
            server, [&] { return !expected.empty() && client.received_size() >= expected.size(); });
        CHECK(difference(client.received(), expected) == "");
    }
}

// ---- 37 ----

TEST_ON_BEDS("37 a send after reset: reported, what came before it delivered", Bed,
             CONFORMANCE_BEDS) {
    struct sigaction before {};
    ::sigaction(SIGPIPE, nullptr, &before);
    const bool was_default = before.sa_handler == SIG_DFL;  // a SIGPIPE would end this program
    CHECK(was_default);
    // After its FIN a reset reads as EPIPE, with SIGPIPE; without, as ECONNRESET. One piece and
    // several take different system calls.
    for (const bool finished : {false, true}) {
        for (const int pieces : {1, 2}) {
            CAPTURE(finished);
            CAPTURE(pieces);
            stage<Bed> on;
            tcp::connection* first = nullptr;
            bool told = false;
            on.does.on_open = [&](tcp::connection& peer) {
                if (first != nullptr) return;
                first = &peer;
                peer.pause_receive();
            };
            on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
                if (&peer == first || told) return;
                // The first ones may be queued before the reset is known; then they are refused.
                tcp::send_result result;
                for (int i = 0; i != pieces; ++i) result = first->send(long_string(1));
                if (result) return;
                told = true;
                CHECK(result.error() == tcp::error::not_open);
                CHECK_FALSE(first->send("to nobody"));
                CHECK_FALSE(first->send(""));
            };
            auto server = on.bed.make(scripted{on.does});
            const auto where = on.bed.listen(server);
            auto victim = on.bed.connect(where);
            REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1 && victim.connected(); }));
            auto other = on.bed.connect(where);
            REQUIRE(on.bed.until(server, [&] { return other.connected(); }));
            victim.send("last words");
            if (finished) victim.shutdown_send();
            on.bed.run(server, 5ms);
            victim.reset();
            CHECK(on.bed.until(server, [&] {
                if (!told) other.send("s");
                return told;
            }));
            CHECK(on.does.closes.empty());  // paused: the handler has not seen it all
            CHECK(on.does.received.find("last words") == std::string::npos);
            on.does.on_data = [&](tcp::connection&, tcp::bytes) {
                if (on.does.peers[0] == first) first->resume_receive();
            };
            other.send("r");
            CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
            CHECK(on.does.received.find("last words") != std::string::npos);
            CHECK(on.does.closes[0].by == tcp::closed_by::peer_reset);
            CHECK(on.does.closes[0].error);
            CHECK(on.does.closes[0].unsent > 0);
            CHECK(on.does.ends == 0);
        }
    }
    struct sigaction after {};
    ::sigaction(SIGPIPE, nullptr, &after);
    const bool is_default = after.sa_handler == SIG_DFL;
    CHECK(is_default);
    sigset_t blocked;
    ::sigprocmask(SIG_BLOCK, nullptr, &blocked);
    CHECK_FALSE(::sigismember(&blocked, SIGPIPE));
}

TEST_ON_BEDS("37 many sends of one hook to a peer that has reset", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection&, tcp::bytes) {
        for (tcp::connection* each : on.does.peers)
            for (int i = 0; i != 100; ++i) each->send(std::string(5'000, 'x'));
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto victim = on.bed.connect(where);
    auto other = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    other.send("!");
    victim.reset();
    CHECK(on.bed.until(
        server, [&] { return on.does.closes.size() == 1 && other.received_size() >= 500'000; }));
    CHECK(on.does.closes[0].by == tcp::closed_by::peer_reset);
}

// ---- 38 ----

TEST_ON_BEDS(
    "38 a send after close(), abort() or shutdown_send(), or inside on_close: "
    "reported, never to another peer",
    Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::size_t number = 0, wrong = 0;
    const auto refused = [&](tcp::connection& peer) {
        const tcp::send_result each[] = {peer.send("stale"), peer.send(std::string(5'000, 's')),
                                         peer.send(tcp::as_bytes("stale")),
                                         peer.send(std::string_view{})};
        for (const auto& one : each)
            if (one || one.error() != tcp::error::not_open) ++wrong;
    };
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        const std::size_t mine = number++;
        peer.send("hello " + std::to_string(mine));
        const std::size_t queued = peer.send_queue_size();
        switch (mine % 4) {
            case 0: peer.close(); break;
            case 1: peer.shutdown_send(); break;
            case 2: peer.shutdown_send(), peer.close(); break;
            default: peer.abort(); break;
        }
        refused(peer);
        if (peer.send_queue_size() != queued) ++wrong;
    };
    on.does.on_end = [&](tcp::connection& peer) { refused(peer); };
    on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason&) { refused(peer); };
    auto server = on.bed.make(scripted{on.does}, {.close_timeout = 60s});
    const auto where = on.bed.listen(server);

    // Each slot is used again by the next one at once.
    for (int round = 0; round != 25; ++round) {
        std::vector<typename Bed::client> clients;
        for (int i = 0; i != 8; ++i) {
            clients.push_back(on.bed.connect(where));
            clients.back().send("?");
        }
        const auto over = [](auto& c) { return c.ended() || c.was_reset(); };
        REQUIRE(on.bed.until(server,
                             [&] { return std::all_of(clients.begin(), clients.end(), over); }));
        for (auto& c : clients) {
            if (!c.was_reset()) CHECK(c.received().substr(0, 6) == "hello ");
            CHECK(c.received().find("stale") == std::string::npos);
            CHECK(c.received_size() < 20);
            c.close();
        }
        CAPTURE(round);
        REQUIRE(on.bed.until(server, [&] { return server.statistics().open == 0; }));
    }
    CHECK(number == 200);
    CHECK(wrong == 0);
}

TEST_ON_BEDS("38 on_close may send to others", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        for (tcp::connection* each : on.does.peers) CHECK(each->send("somebody left"));
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto leaving = on.bed.connect(where), staying = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2 && leaving.connected(); }));
    leaving.reset();
    CHECK(on.bed.until(server, [&] { return staying.received() == "somebody left"; }));
    on.does.on_close = {};
}

// ---- 39 ----

TEST_ON_BEDS("39 sends of length 0", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const auto nothing = [](tcp::connection& peer) {
        const std::size_t before = peer.send_queue_size();
        CHECK(peer.send(""));
        CHECK(peer.send(tcp::bytes{}));
        CHECK(peer.send(std::string{}));
        CHECK(peer.send(std::string_view{}));
        CHECK(peer.send_queue_size() == before);
    };
    on.does.on_open = nothing;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        nothing(peer);
        peer.send(data.subspan(0, 0));
        nothing(*on.does.peers[0]);
        if (tcp::as_text(data) == "?") return;
        peer.send(data);
        nothing(peer);
        peer.send(std::string_view{"."});
        nothing(peer);
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where), other = on.bed.connect(where);
    other.send("?");
    REQUIRE(on.bed.until(server, [&] { return on.does.received == "?"; }));
    CHECK(server.statistics().bytes_sent == 0);
    client.send("x");
    CHECK(on.bed.until(server, [&] { return client.received() == "x."; }));
    CHECK(server.statistics().bytes_sent == 2);
    CHECK(other.received_size() == 0);
}

TEST_ON_BEDS("39 more pieces than IOV_MAX in one hook", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t pieces = 2'500;  // IOV_MAX is 1024, writev(2)
    stage<Bed> on;
    std::string expected;
    for (std::size_t i = 0; i != pieces; ++i) expected += long_string(i);
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        for (std::size_t i = 0; i != pieces; ++i) CHECK(peer.send(long_string(i)));
        CHECK(peer.send_queue_size() == expected.size());
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("!");
    CHECK(on.bed.until(server, [&] { return client.received_size() >= expected.size(); }));
    CHECK(difference(client.received(), expected) == "");
}

TEST_ON_BEDS("39 over 2 GiB in one send (K)", Bed, SYSTEM_BEDS) {
    std::ifstream meminfo{"/proc/meminfo"};
    std::size_t available = 0;  // in KiB
    for (std::string word; meminfo >> word;)
        if (word == "MemAvailable:") meminfo >> available;
    if (sanitized || std::getenv("TCP_TEST_QUICK") != nullptr || available < (8U << 20) ||
        sizeof(std::size_t) < 8) {
        MESSAGE("skipped: sanitized, or TCP_TEST_QUICK is set, or less than 8 GiB of memory");
        return;
    }
    // Block n of a mebibyte begins with its number; the rest is the same in all.
    constexpr std::size_t block = 1 << 20, blocks = 2049;
    const std::string plain = pattern(block);
    stage<Bed> on;
    on.does.on_open = [&](tcp::connection& peer) {
        std::string huge;
        huge.reserve(block * blocks + 1);
        for (std::size_t i = 0; i != blocks; ++i) {
            huge += plain;
            std::memcpy(huge.data() + i * block, &i, sizeof i);
        }
        huge += '.';
        CHECK(peer.send(std::move(huge)));
        CHECK(peer.send_queue_size() == block * blocks + 1);
        peer.close();
    };
    auto server = on.bed.make(scripted{on.does}, {.close_timeout = 300s});
    const auto where = on.bed.listen(server);
    std::size_t good = 0, rest = 0;
    std::thread client{[&] {
        const tcp::detail::descriptor fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (::connect(fd.get(), where.data(), where.size()) != 0) return;
        std::string got(block, '\0'), wanted = plain;
        for (std::size_t i = 0;; ++i) {
            const ssize_t n = ::recv(fd.get(), got.data(), block, MSG_WAITALL);
            if (n != static_cast<ssize_t>(block)) {
                rest = n > 0 ? static_cast<std::size_t>(n) : 0;
                return;
            }
            std::memcpy(wanted.data(), &i, sizeof i);
            if (got == wanted) ++good;
        }
    }};
    CHECK(on.bed.until(
        server, [&] { return on.does.closes.size() == 1; }, 300s));
    server.stop();
    server.poll();
    client.join();
    CHECK(good == blocks);
    CHECK(rest == 1);
    CHECK(server.statistics().bytes_sent == block * blocks + 1);
}

// ---- limits and marks in use ----

TEST_ON_BEDS("send_queue_limit ends the connection, and the handler is told", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t limit = 100'000, piece = 10'000;
    stage<Bed> on;
    std::size_t went = 0;
    tcp::send_result last;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        while ((last = peer.send(std::string(piece, 'x')))) ++went;
        CHECK(last.error() == tcp::error::send_queue_limit);
        CHECK(peer.send("more").error() == tcp::error::not_open);
    };
    auto server = on.bed.make(scripted{on.does},
                              {.high_mark = 50'000, .low_mark = 10'000, .send_queue_limit = limit});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("!");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(went == limit / piece + 1);  // one more than fills it finds no more than that
    CHECK(on.does.closes[0].by == tcp::closed_by::limit);
    CHECK(on.does.closes[0].reached == tcp::limit::send_queue);
    CHECK(on.does.closes[0].error == tcp::error::send_queue_limit);
    CHECK(on.does.closes[0].unsent == went * piece);
    CHECK(on.bed.until(server, [&] { return client.was_reset(); }));
    CHECK(client.received_size() == 0);
}

TEST_ON_BEDS("send_queue_limit counts what was lent, and other connections' sends", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::size_t to_self = 0, to_other = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        tcp::connection& other = *on.does.peers[on.does.peers[0] == &peer ? 1 : 0];
        while (to_other < 100 && other.send(data)) ++to_other;
        // Lent as one piece, then lent again: queued as a copy and lent.
        while (to_self < 100 && peer.send(data)) ++to_self;
    };
    auto server = on.bed.make(scripted{on.does}, {.send_queue_limit = 9});
    const auto where = on.bed.listen(server);
    auto client = on.bed.connect(where), silent = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 2; }));
    client.send("x");
    REQUIRE(on.bed.until(server, [&] { return on.does.closes.size() == 2; }));
    CHECK(to_self == 10);
    CHECK(to_other == 10);
    for (const auto& why : on.does.closes) {
        CHECK(why.reached == tcp::limit::send_queue);
        CHECK(why.unsent == 10);
    }
    CHECK(on.bed.until(server, [&] { return client.was_reset() && silent.was_reset(); }));
}

TEST_ON_BEDS("a server that speaks first: send from on_open", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    const std::string greeting = pattern(400'000);
    on.does.on_open = [&](tcp::connection& peer) {
        CHECK(peer.send("220 "));
        CHECK(peer.send(std::string{greeting}));
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    CHECK(on.bed.until(server, [&] { return client.received_size() >= greeting.size() + 4; }));
    CHECK(difference(client.received(), "220 " + greeting) == "");
}

TEST_ON_BEDS("a large body in steps: send from on_writable", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t high = 64 * 1024, low = 16 * 1024, all = 8'000'000;
    // A client that reads, and one for whom the system takes little at a time; pieces that end
    // at the mark and elsewhere.
    for (const bool narrow : {false, true}) {
        for (const std::size_t step : {10'000U, 16'384U, 200'000U}) {
            CAPTURE(narrow);
            CAPTURE(step);
            stage<Bed> on;
            const std::string body = pattern(all);
            std::size_t at = 0, most = 0;
            const auto go_on = [&](tcp::connection& peer) {
                CHECK(peer.writable());
                for (; at < all && peer.writable(); at += step)
                    CHECK(peer.send(std::string_view{body}.substr(at, step)));
                most = std::max(most, peer.send_queue_size());
                if (at >= all) peer.close();
            };
            on.does.on_data = [&](tcp::connection& peer, tcp::bytes) { go_on(peer); };
            on.does.on_writable = go_on;
            auto server = on.bed.make(scripted{on.does}, {.high_mark = high, .low_mark = low});
            const auto where = on.bed.listen(server);
            auto client = narrow ? on.bed.connect_narrow(where) : on.bed.connect(where);
            client.send("!");
            CHECK(on.bed.until(server, [&] { return client.ended(); }));
            CHECK(difference(client.received(), body) == "");
            CHECK(most <= high + step);
            CHECK(on.does.writables > 0);
        }
    }
}

TEST_ON_BEDS("on_writable also for what on_data was shown, and with nothing else to do", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t high = 1'000, low = 100;
    stage<Bed> on;
    std::size_t passed = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
        peer.send(data);  // from where it was received
        CHECK(peer.writable() == (peer.send_queue_size() <= high));
        if (!peer.writable()) ++passed;
    };
    on.does.on_writable = [&](tcp::connection& peer) { CHECK(peer.send_queue_size() <= low); };
    auto server = on.bed.make(scripted{on.does}, {.high_mark = high, .low_mark = low});
    auto client = on.bed.connect(on.bed.listen(server));
    std::size_t sent = 0;
    for (const std::size_t size : {high, high + 1, std::size_t{1}, std::size_t{50'000}}) {
        client.send(pattern(size));
        sent += size;
        REQUIRE(on.bed.until(server, [&] { return client.received_size() == sent; }));
    }
    settle(on.bed, server, [&] { return on.does.writables; });
    CHECK(on.does.writables <= passed);
    CHECK((on.does.writables != 0) == (passed != 0));
    if constexpr (!Bed::simulated) CHECK(passed != 0);  // what comes at once is not cut
}

TEST_ON_BEDS("writable: not when nothing can be sent any more", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    std::size_t after_shutdown = 0, at_close = 0;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        CHECK(peer.writable());
        peer.shutdown_send();
        while (peer.writable() && ++after_shutdown != 10) peer.send("for ever");
    };
    on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason&) {
        at_close += peer.writable() ? 1 : 0;
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    client.send("!");
    REQUIRE(on.bed.until(server, [&] { return client.ended(); }));
    client.close();
    REQUIRE(on.bed.until(server, [&] { return !on.does.closes.empty(); }));
    CHECK(after_shutdown == 0);
    CHECK(at_close == 0);
}

TEST_ON_BEDS("sends to other connections leave at the end of the batch", Bed, SYSTEM_BEDS,
             conformance::fair_bed) {
    stage<Bed> on;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) {
        for (tcp::connection* each : on.does.peers)
            if (each != &peer)
                for (int i = 0; i != 3; ++i) CHECK(each->send("news"));
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 20; ++i) clients.push_back(on.bed.connect(where));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 20; }));
    clients[0].send("!");
    // One turn after another: the one with the hook is the one with the sends.
    while (on.does.received.empty()) {
        CHECK(server.statistics().bytes_sent == 0);
        server.poll();
        if constexpr (Bed::simulated) on.bed.world.advance(10us);
    }
    if constexpr (Bed::puts_off) server.poll();  // says that they have left
    CHECK(server.statistics().bytes_sent == 19 * 12);
    CHECK(on.bed.until(server, [&] {
        return std::all_of(clients.begin() + 1, clients.end(),
                           [](auto& c) { return c.received() == "newsnewsnews"; });
    }));
    CHECK(clients[0].received_size() == 0);
}

TEST_CASE("what a hook of the end of the batch sends does not wait for the next event (S)") {
    stage<conformance::simulated_bed> on;
    auto& world = on.bed.world;
    // The first ends the second, whose on_close comes at the end of the batch and tells the third.
    on.does.on_data = [&](tcp::connection&, tcp::bytes) { on.does.peers[1]->abort(); };
    on.does.on_close = [&](tcp::connection&, const tcp::close_reason&) {
        if (on.does.peers.size() == 2) on.does.peers[0]->send("gone");
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto first = world.connect(where);
    server.run_for(1ms);
    auto second = world.connect(where);
    server.run_for(1ms);
    auto third = world.connect(where);
    server.run_for(1ms);
    REQUIRE(on.does.opens == 3);
    first.send("!");
    server.run_for(10s);
    CHECK(first.received() == "gone");
    CHECK(second.was_reset());
    CHECK(third.received_size() == 0);
    on.does.on_close = {};
}
