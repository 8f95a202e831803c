// Receiving: behaviours 22 to 25 and 27 to 32.
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <ostream>  // doctest prints error codes
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "beds.hpp"
#include "child_process.hpp"
#include "empty_network.hpp"

using conformance::difference;
using conformance::pattern;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;
using tcp::endpoint;
using tcp::detail::descriptor;
using namespace std::chrono_literals;

namespace {

/// The engine, and how often it waits: more often than something happens is spinning.
template <class Engine>
class counting_engine : public Engine {
public:
    using Engine::Engine;

    template <tcp::engine_sink Sink>
    void wait(tcp::duration timeout, Sink& sink) {
        ++waits;
        Engine::wait(timeout, sink);
    }

    static inline int waits = 0;
};
template <class Engine>
using counting_bed = conformance::kernel_bed<counting_engine<Engine>>;
#define COUNTING_BEDS counting_bed<tcp::epoll_engine>, counting_bed<tcp::io_uring_engine>

/// Runs the server alone for a while in which there is nothing to do. False when it spins.
template <class Bed, class Server>
bool rests(Bed& bed, Server& server) {
    if constexpr (Bed::simulated) {
        bed.world.set_spin_limit(200);  // waits at the same virtual time; more throws
        server.run_for(1s);
        return true;
    } else {
        server.run_for(20ms);  // what is still under way arrives
        const int before = Bed::engine::waits;
        server.run_for(100ms);
        return Bed::engine::waits - before < 10;
    }
}

/// What a test does with one connection, its subject, and what it sees of it. The subject is the
/// first that opens; the later ones carry orders to it, as what is done to a connection from
/// outside is done in a hook.
struct study {
    std::function<void(tcp::connection&)> at_open, at_end, at_writable;
    std::function<void(tcp::connection&, tcp::bytes)> at_data;
    std::function<std::size_t(tcp::connection&, tcp::bytes)> taking;  // of a counting_subject

    std::string received;  // and taken
    std::string rest;      // shown and not taken
    int opens = 0, calls = 0, ends = 0, writables = 0, closes = 0;
    int repeats = 0;  // calls that showed nothing new to a handler that had taken nothing
    int wrong = 0;    // calls while paused, after the end, without data, or without the rest
    tcp::close_reason reason;

    tcp::connection* subject = nullptr;
    std::function<void(tcp::connection&)> order;
};

/// The handler of a study. It takes all data.
class subject {
public:
    explicit subject(study& s) : s_{&s} {}

    void on_open(tcp::connection& peer) {
        if (s_->opens++ != 0) return;
        is_subject_ = true;
        s_->subject = &peer;
        if (s_->at_open) s_->at_open(peer);
    }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        if (!is_subject_) return carry_order();
        see(peer, data);
        s_->received += tcp::as_text(data);
        if (s_->at_data) s_->at_data(peer, data);
    }
    void on_end(tcp::connection& peer) {
        if (!is_subject_) return peer.close();
        if (peer.receive_paused()) ++s_->wrong;
        ++s_->ends;
        if (s_->at_end)
            s_->at_end(peer);
        else
            peer.close();
    }
    void on_writable(tcp::connection& peer) {
        if (!is_subject_) return;
        ++s_->writables;
        if (s_->at_writable) s_->at_writable(peer);
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) {
        if (!is_subject_) return;
        s_->subject = nullptr;
        ++s_->closes;
        s_->reason = why;
    }

protected:
    void carry_order() {
        if (!s_->order) return;
        const auto order = std::exchange(s_->order, nullptr);
        if (s_->subject != nullptr) order(*s_->subject);
    }
    void see(tcp::connection& peer, tcp::bytes data) {
        ++s_->calls;
        if (peer.receive_paused() || s_->ends != 0 || data.empty()) ++s_->wrong;
    }

    study* s_;
    bool is_subject_ = false;
};

/// The same, taking as much as the study says; it sees to it that the rest is shown again.
class counting_subject : public subject {
public:
    using subject::subject;

    std::size_t on_data(tcp::connection& peer, tcp::bytes data) {
        if (!is_subject_) return carry_order(), data.size();
        see(peer, data);
        const std::string_view text = tcp::as_text(data);
        if (text.substr(0, s_->rest.size()) != s_->rest) ++s_->wrong;
        if (text.size() == s_->rest.size() && took_nothing_) ++s_->repeats;
        const std::size_t taken = s_->taking(peer, data);
        took_nothing_ = taken == 0;
        const std::size_t count = std::min(taken, data.size());
        s_->received += text.substr(0, count);
        s_->rest = text.substr(count);
        return taken;
    }

private:
    bool took_nothing_ = false;
};

/// A study on a bed: the server, the subject's client, and another one for orders. A client that is
/// narrow begins with its receiving paused.
template <class Bed, class Handler = subject>
class laboratory {
public:
    explicit laboratory(study& s, const tcp::options& options = {}, bool narrow = false)
        : seen_{s},
          server{on.bed.make(Handler{s}, options)},
          where{on.bed.listen(server)},
          client{narrow ? on.bed.connect_narrow(where) : on.bed.connect(where)},
          messenger{client} {
        if (narrow) client.pause_receive();
        until([&] { return seen_.opens == 1; });
        messenger = on.bed.connect(where);
        until([&] { return seen_.opens == 2; });
    }

    template <class Predicate>
    void until(Predicate holds) {
        if (on.bed.until(server, holds)) return;
        const tcp::statistics counts = server.statistics();
        FAIL("what it waits for does not come: "
             << seen_.opens << " opened, of " << counts.accepted << " accepted, " << counts.closed
             << " closed; received " << seen_.received.size() << " bytes of "
             << client.acknowledged_size() << " that arrived of " << client.sent_size() << "; ends "
             << seen_.ends << ", closes " << seen_.closes
             << ", order carried out: " << !seen_.order);
    }

    /// Waits until all that the client sent has arrived at the server's system.
    void arrive() {
        CHECK(on.bed.wait([&] { return client.acknowledged_size() == client.sent_size(); }));
    }

    /// Finishes sending, or resets, and waits until the server's system knows.
    void finish() {
        change([&] { client.shutdown_send(); }, POLLRDHUP);
    }
    void reset() {
        change([&] { client.reset(); }, 0);
    }

    /// Has this done to the subject, in a hook of another connection.
    void tell(std::function<void(tcp::connection&)> order) {
        seen_.order = std::move(order);
        messenger.send("!");
        until([&] { return !seen_.order; });
    }
    void pause() {
        tell([](tcp::connection& peer) { peer.pause_receive(); });
    }
    void resume() {
        tell([](tcp::connection& peer) { peer.resume_receive(); });
    }

    bool server_rests() { return rests(on.bed, server); }

private:
    template <class Change>
    void change(Change now, short events) {
        if constexpr (Bed::simulated) {
            now();
            on.bed.world.advance(20ms);
        } else {
            pollfd served{-1, events, 0};
            for (const int fd : tests::open_descriptors())
                if (tcp::detail::local_endpoint_of(fd) == where &&
                    tcp::detail::remote_endpoint_of(fd) == client.local_endpoint())
                    served.fd = fd;
            now();
            if (conformance::with_direct_descriptors()) return std::this_thread::sleep_for(20ms);
            REQUIRE(served.fd >= 0);
            CHECK(::poll(&served, 1, 20'000) == 1);
        }
    }

    study& seen_;

public:
    stage<Bed> on;
    typename Bed::template server<Handler> server;
    endpoint where;
    typename Bed::client client;
    typename Bed::client messenger;
};

/// Signals to this thread, as many as another one can send, that do nothing.
class signal_storm {
public:
    signal_storm() {
        struct sigaction nothing = {};
        nothing.sa_handler = [](int) {};
        ::sigaction(SIGUSR1, &nothing, &former_);
        source_ = std::thread{[this, served = ::pthread_self()] {
            while (!over_) {
                ::pthread_kill(served, SIGUSR1);
                std::this_thread::sleep_for(5us);
            }
        }};
    }
    signal_storm(const signal_storm&) = delete;
    signal_storm& operator=(const signal_storm&) = delete;
    ~signal_storm() {
        over_ = true;
        source_.join();
        ::sigaction(SIGUSR1, &former_, nullptr);
    }

private:
    struct sigaction former_ = {};
    std::atomic<bool> over_{false};
    std::thread source_;
};

using sizes = std::initializer_list<std::size_t>;

constexpr auto pause_it = [](tcp::connection& peer) { peer.pause_receive(); };

/// How many bytes at the beginning are whole frames: a byte that says how many follow, and those.
std::size_t whole_frames(tcp::bytes data) {
    std::size_t at = 0;
    while (at < data.size() && at + 1 + std::to_integer<std::size_t>(data[at]) <= data.size())
        at += 1 + std::to_integer<std::size_t>(data[at]);
    return at;
}

std::string frame(std::string_view body) {
    return static_cast<char>(body.size()) + std::string{body};
}

/// A stream of bytes without an end that is told apart from itself at every other place.
class endless {
public:
    std::string_view at(std::uint64_t offset, std::size_t most) const {
        return std::string_view{block_}.substr(static_cast<std::size_t>(offset % block_.size()),
                                               most);
    }
    bool is(std::uint64_t offset, std::string_view text) const {
        while (!text.empty()) {
            const std::string_view expected = at(offset, text.size());
            if (text.substr(0, expected.size()) != expected) return false;
            offset += expected.size();
            text.remove_prefix(expected.size());
        }
        return true;
    }

private:
    std::string block_ = pattern(1'000'003);
};

}  // namespace

TEST_ON_BEDS("22 data and FIN together: all data, then one end", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t size : sizes{0, 1, 4096, 30'000, 65'536, 65'537, 300'000}) {
        CAPTURE(size);
        study seen;
        stage<Bed> on;
        auto server = on.bed.make(subject{seen});
        const auto where = on.bed.listen(server);
        auto client = on.bed.connect(where);
        const std::string sent = pattern(size);
        if (size != 0) client.send(sent);
        client.shutdown_send();
        if (size <= 30'000)  // so much fits: it waits there with the FIN behind it
            CHECK(on.bed.wait([&] { return client.acknowledged_size() == size; }));
        CHECK(on.bed.until(server, [&] { return seen.closes == 1; }));
        CHECK(difference(seen.received, sent) == "");
        CHECK(seen.ends == 1);
        CHECK(seen.wrong == 0);
        CHECK(seen.reason.by == closed_by::handler_closed);
        CHECK(on.bed.until(server, [&] { return client.ended(); }));
        CHECK_FALSE(client.was_reset());
    }
}

TEST_ON_BEDS("22 data and FIN together, to a handler without on_end", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t size : sizes{0, 1, 30'000, 300'000}) {
        CAPTURE(size);
        stage<Bed> on;
        auto server = on.bed.make(tcp::echo{});
        auto client = on.bed.connect(on.bed.listen(server));
        const std::string sent = pattern(size);
        if (size != 0) client.send(sent);
        client.shutdown_send();
        CHECK(on.bed.until(server, [&] { return client.ended(); }));
        CHECK(difference(client.received(), sent) == "");
        CHECK_FALSE(client.was_reset());
        CHECK(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
        const auto by = static_cast<std::size_t>(closed_by::peer_finished);
        CHECK(server.statistics().closed_by[by] == 1);
    }
}

TEST_ON_BEDS("23 reading paused while much waits: memory bounded, all there on resuming", Bed,
             CONFORMANCE_BEDS) {
    const std::size_t size = Bed::simulated ? 2'000'000 : 64 << 20;
    const std::string sent = pattern(size);
    for (const bool at_once : {true, false}) {
        CAPTURE(at_once);
        study seen;
        if (at_once) seen.at_open = pause_it;
        laboratory<Bed> lab{seen};
        lab.client.send(sent);
        if (!at_once) {
            lab.until([&] { return seen.received.size() > size / 4; });
            lab.pause();
        }
        const auto taken = lab.server.statistics().bytes_received;
        const int calls = seen.calls;
        lab.on.bed.run(lab.server, 50ms);
        CHECK(lab.client.acknowledged_size() < size);
        // What was under way when it paused may still come; here a window of the simulated network.
        CHECK(lab.server.statistics().bytes_received - taken <= (Bed::simulated ? 128 * 1024 : 0));
        CHECK(seen.calls == calls);

        lab.resume();
        lab.client.shutdown_send();
        lab.until([&] { return seen.closes == 1; });
        CHECK(difference(seen.received, sent) == "");
        CHECK(seen.ends == 1);
        CHECK(seen.wrong == 0);
    }
}

TEST_ON_BEDS("24 paused inside on_data: no further call", Bed, CONFORMANCE_BEDS) {
    study seen;
    seen.at_data = [](tcp::connection& peer, tcp::bytes) { peer.pause_receive(); };
    laboratory<Bed> lab{seen, {.receive_buffer = 1000}};
    const std::string sent = pattern(60'000);
    lab.client.send(sent);
    lab.client.shutdown_send();
    lab.until([&] { return seen.calls == 1; });
    while (seen.received.size() < sent.size()) {
        const int calls = seen.calls;
        lab.on.bed.run(lab.server, 2ms);
        REQUIRE(seen.calls == calls);
        CHECK(seen.ends == 0);
        lab.resume();
        lab.until([&] { return seen.calls > calls; });
        REQUIRE(seen.calls == calls + 1);
    }
    lab.on.bed.run(lab.server, 2ms);
    CHECK(seen.ends == 0);
    lab.resume();
    lab.until([&] { return seen.closes == 1; });
    CHECK(difference(seen.received, sent) == "");
    CHECK(seen.ends == 1);
    CHECK(seen.wrong == 0);
}

TEST_ON_BEDS("24 paused and resumed inside on_data: nothing is lost", Bed, CONFORMANCE_BEDS) {
    study seen;
    seen.at_data = [](tcp::connection& peer, tcp::bytes) {
        peer.pause_receive();
        peer.resume_receive();
        CHECK_FALSE(peer.receive_paused());
        peer.resume_receive();
    };
    laboratory<Bed> lab{seen, {.receive_buffer = 1000}};
    const std::string sent = pattern(100'000);
    lab.client.send(sent);
    lab.client.shutdown_send();
    lab.until([&] { return seen.closes == 1; });
    CHECK(difference(seen.received, sent) == "");
    CHECK(seen.wrong == 0);
}

TEST_ON_BEDS("25 FIN or reset while paused: no spin, and nothing lost on resuming", Bed,
             COUNTING_BEDS, SIMULATED_BEDS) {
    for (const bool reset : {false, true}) {
        for (const std::size_t size : sizes{0, 20'000}) {
            CAPTURE(reset);
            CAPTURE(size);
            study seen;
            seen.at_open = pause_it;
            laboratory<Bed> lab{seen};
            const std::string sent = pattern(size);
            if (size != 0) lab.client.send(sent);
            lab.arrive();
            if (reset)
                lab.reset();
            else
                lab.finish();
            CHECK(lab.server_rests());
            CHECK(seen.calls + seen.ends + seen.closes == 0);

            lab.resume();
            lab.until([&] { return seen.closes == 1; });
            CHECK(difference(seen.received, sent) == "");
            CHECK(seen.ends == (reset ? 0 : 1));
            CHECK(seen.wrong == 0);
            CHECK(seen.reason.by == (reset ? closed_by::peer_reset : closed_by::handler_closed));
            if (reset) CHECK(seen.reason.error == std::errc::connection_reset);
        }
    }
}

TEST_ON_BEDS("25 FIN and then a reset while paused", Bed, COUNTING_BEDS, SIMULATED_BEDS) {
    study seen;
    seen.at_open = pause_it;
    seen.at_end = [](tcp::connection&) {};  // goes on, and would not notice by itself
    laboratory<Bed> lab{seen};
    const std::string sent = pattern(20'000);
    lab.client.send(sent);
    lab.arrive();
    lab.finish();
    CHECK(lab.server_rests());
    lab.reset();
    CHECK(lab.server_rests());
    CHECK(seen.calls + seen.ends + seen.closes == 0);
    lab.resume();
    lab.until([&] { return seen.closes == 1; });
    CHECK(difference(seen.received, sent) == "");
    CHECK(seen.wrong == 0);
    CHECK(seen.reason.by == closed_by::peer_reset);
}

TEST_ON_BEDS("25 FIN while paused on a connection that has finished sending", Bed, COUNTING_BEDS,
             SIMULATED_BEDS) {
    study seen;
    seen.at_open = [](tcp::connection& peer) {
        peer.pause_receive();
        peer.shutdown_send();
    };
    laboratory<Bed> lab{seen};
    const std::string sent = pattern(20'000);
    lab.client.send(sent);
    lab.arrive();
    lab.finish();
    CHECK(lab.server_rests());
    lab.until([&] { return lab.client.ended(); });
    CHECK(seen.calls + seen.ends + seen.closes == 0);
    lab.resume();
    lab.until([&] { return seen.closes == 1; });
    CHECK(difference(seen.received, sent) == "");
    CHECK(seen.ends == 1);
    CHECK(seen.wrong == 0);
}

TEST_ON_BEDS("25 FIN or reset while the high mark pauses it", Bed, COUNTING_BEDS, SIMULATED_BEDS) {
    for (const bool reset : {false, true}) {
        for (const bool user_too : {false, true}) {
            CAPTURE(reset);
            CAPTURE(user_too);
            const std::string reply = pattern(Bed::simulated ? 2'000'000 : 8'000'000, 2);
            study seen;
            seen.at_open = [&](tcp::connection& peer) {
                peer.send(reply);
                if (user_too) peer.pause_receive();
            };
            laboratory<Bed> lab{seen, {}, true};
            const std::string sent = pattern(20'000);
            lab.client.send(sent);
            lab.arrive();
            CHECK(lab.server_rests());
            CHECK(lab.server.statistics().pauses == 1);
            CHECK(seen.calls == 0);
            if (reset)
                lab.reset();
            else
                lab.finish();
            CHECK(lab.server_rests());
            if (!reset) {
                CHECK(seen.calls + seen.ends + seen.closes == 0);
                lab.client.resume_receive();
                lab.until([&] { return lab.client.received_size() == reply.size(); });
                CHECK(difference(lab.client.received(), reply) == "");
                lab.until([&] { return seen.writables != 0; });
                CHECK(seen.writables == 1);
            }
            if (user_too) {
                CHECK(seen.calls + seen.ends + seen.closes == 0);
                lab.resume();
            }
            lab.until([&] { return seen.closes == 1; });
            CHECK(difference(seen.received, sent) == "");
            CHECK(seen.ends == (reset ? 0 : 1));
            CHECK(seen.wrong == 0);
            CHECK(seen.reason.by == (reset ? closed_by::peer_reset : closed_by::handler_closed));
            CHECK((seen.reason.unsent != 0) == reset);
        }
    }
}

TEST_ON_BEDS("27 a gigabyte through one connection: in order, once", Bed, SYSTEM_BEDS) {
    const std::uint64_t size = (std::getenv("TCP_TEST_QUICK") != nullptr ? 256ULL : 1024ULL) << 20;
    struct ends_the_run {
        std::function<void()> stop;
        closed_by* by = nullptr;
        void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
        void on_close(tcp::connection&, const tcp::close_reason& why) {
            *by = why.by;
            stop();
        }
    };
    std::function<void()> stop;
    closed_by by{};
    auto server = Bed{}.make(ends_the_run{[&] { stop(); }, &by});
    stop = [&] { server.stop(); };
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();

    std::uint64_t sent = 0, received = 0;
    bool exact = true, ended = false;
    std::thread client{[&] {
        const endless stream;
        const descriptor fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (::connect(fd.get(), where.data(), where.size()) != 0) return server.stop();
        tcp::simulation::random_generator dice{27};
        std::vector<char> buffer(256 * 1024);
        const auto end = std::chrono::steady_clock::now() + 240s;
        while (exact && !ended && std::chrono::steady_clock::now() < end) {
            pollfd ready{fd.get(), static_cast<short>(POLLIN | (sent < size ? POLLOUT : 0)), 0};
            ::poll(&ready, 1, 1000);
            if ((ready.revents & POLLOUT) != 0) {
                const std::size_t most = static_cast<std::size_t>(
                    std::min<std::uint64_t>(size - sent, dice.magnitude(1, buffer.size())));
                const std::string_view next = stream.at(sent, most);
                const ssize_t n =
                    ::send(fd.get(), next.data(), next.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n > 0) sent += static_cast<std::uint64_t>(n);
                if (sent == size) ::shutdown(fd.get(), SHUT_WR);
            }
            if ((ready.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
                if (n > 0) {
                    exact = stream.is(received, {buffer.data(), static_cast<std::size_t>(n)});
                    received += static_cast<std::uint64_t>(n);
                }
                ended = n == 0 || (n < 0 && errno != EAGAIN);
            }
        }
    }};
    server.run();
    client.join();
    CHECK(exact);
    CHECK(ended);
    CHECK(sent == size);
    CHECK(received == size);
    CHECK(by == closed_by::peer_finished);
    CHECK(server.statistics().bytes_received == size);
    CHECK(server.statistics().bytes_sent == size);
}

TEST_ON_BEDS("28 a connection that floods does not hold up those that ping", Bed, SYSTEM_BEDS) {
    struct tally {
        std::size_t pings = 0, floods = 0;  // bytes
    };
    struct mixed {
        tally* seen;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (data[0] == std::byte{'F'}) {
                seen->floods += data.size();
            } else {
                seen->pings += data.size();
                peer.send(data);
            }
        }
    };
    tally seen;
    Bed bed;
    constexpr std::size_t buffer = 4096;
    auto server = bed.make(mixed{&seen}, {.receive_buffer = buffer});
    const endpoint where = bed.listen(server);
    auto flood = bed.connect(where);
    flood.send("F");
    std::vector<typename Bed::client> pings;
    for (int i = 0; i != 20; ++i) {
        pings.push_back(bed.connect(where));
        pings.back().send("p");
    }
    CHECK(bed.until(server, [&] { return seen.pings == 20 && seen.floods == 1; }));

    // What lies in the buffers of an engine that is handed several at once comes on top.
    constexpr std::size_t most_at_once = Bed::puts_off ? 32 * 1024 : buffer;
    const std::string much(4 << 20, 'F');
    constexpr int turns = 2;  // of at most four full buffers for each connection
    for (int round = 0; round != 20; ++round) {
        if (flood.sent_size() - flood.acknowledged_size() < much.size() / 2) flood.send(much);
        for (auto& one : pings) one.send("p");
        // They are at the server's system, and behind the flood there is more than it takes.
        REQUIRE(bed.wait([&] {
            return std::all_of(pings.begin(), pings.end(), [](const auto& one) {
                return one.acknowledged_size() == one.sent_size();
            });
        }));
        const tally before = seen;
        for (int i = 0; i != turns; ++i) server.poll();
        CHECK(seen.pings == before.pings + 20);
        CHECK(seen.floods > before.floods);
        CHECK(seen.floods <= before.floods + turns * 4 * most_at_once);
    }
    CHECK(bed.until(server, [&] {
        return std::all_of(pings.begin(), pings.end(),
                           [](const auto& one) { return one.received_size() == 21; });
    }));
}

TEST_ON_BEDS("28 a handler that is never done does not hold up the others", Bed, CONFORMANCE_BEDS) {
    study seen;
    seen.taking = [](tcp::connection& peer, tcp::bytes) -> std::size_t {
        peer.pause_receive();
        peer.resume_receive();  // shows the rest again, at once
        return 1;
    };
    laboratory<Bed, counting_subject> lab{seen};
    const std::string sent = pattern(20'000);
    lab.client.send(sent);
    lab.arrive();
    int calls = -1;
    seen.order = [&](tcp::connection&) { calls = seen.calls; };
    lab.messenger.send("!");
    CHECK(lab.on.bed.wait([&] { return lab.messenger.acknowledged_size() == 1; }));
    lab.until([&] { return calls >= 0; });
    CHECK(calls < 100);
    lab.until([&] { return seen.received.size() == sent.size(); });
    CHECK(difference(seen.received, sent) == "");
    CHECK(seen.calls >= static_cast<int>(sent.size()));
    CHECK(seen.wrong == 0);
}

TEST_ON_BEDS("29 urgent data does not spin, and what surrounds it arrives", Bed, COUNTING_BEDS) {
    study seen;
    laboratory<Bed> lab{seen};
    std::string expected;
    const auto send = [&](const char* text) {
        expected += text;
        lab.client.send(text);
    };
    for (int i = 0; i != 20; ++i) {
        // Together in the server's system, which receives up to the urgent byte at most.
        send("before");
        lab.client.send_urgent('!');
        send("behind");
        lab.arrive();
        lab.until([&] { return seen.received == expected; });
    }
    CHECK(lab.server_rests());

    lab.client.send_urgent('!');
    CHECK(lab.server_rests());
    send("after it");
    lab.until([&] { return seen.received == expected; });

    lab.pause();
    send("before");
    lab.client.send_urgent('!');
    send("behind");
    lab.arrive();
    CHECK(lab.server_rests());
    lab.resume();
    lab.until([&] { return seen.received == expected; });
    CHECK(seen.wrong == 0);
    CHECK(seen.closes == 0);

    // An urgent byte that another one follows before it was skipped is data like any other.
    for (int i = 0; i != 100; ++i) {
        send("x");
        lab.client.send_urgent('!');
    }
    send("end");
    lab.client.shutdown_send();
    lab.until([&] { return seen.closes == 1; });
    std::erase(seen.received, '!');
    CHECK(difference(seen.received, expected) == "");
    CHECK(seen.ends == 1);
    CHECK(lab.server_rests());
}

TEST_ON_BEDS("29 a signal at urgent data does not keep what is behind it", Bed, COUNTING_BEDS) {
    // tcp_recvmsg() of Linux leaves it for the next call then, or says that there is nothing. In an
    // io_uring that call is the kernel's own, which makes none before something comes.
    const signal_storm storm;
    for (int i = 0; i != 60; ++i) {
        study seen;
        laboratory<Bed> lab{seen};
        std::string expected;
        for (int k = 0; k != 20; ++k) {
            lab.client.send("before");
            lab.client.send_urgent('!');
            lab.client.send("behind");
            expected += "beforebehind";
            lab.arrive();
            lab.until([&] { return seen.received == expected; });
        }
    }
}

TEST_ON_BEDS("29 urgent data behind bytes that were lost does not spin", Bed, COUNTING_BEDS) {
    tests::in_child([](tests::findings& found) {
        if (!tests::enter_empty_network()) return found.not_permitted("a network");
        study seen;
        laboratory<Bed> lab{seen};
        const std::string loses =
            "nft 'add table ip lossy { chain in { type filter hook input "
            "priority 0; ip length 1000-1400 drop; }; }'";
        if (std::system(loses.c_str()) != 0) return found.not_permitted("nft");
        const std::string lost(1000, 'x');
        lab.client.send(lost);
        lab.client.send_urgent('!');
        found.check(lab.server_rests(), "it spins");
        found.check(seen.received.empty(), "it received what was lost");
        if (std::system("nft delete table ip lossy") != 0) return found.not_permitted("nft");
        lab.until([&] { return seen.received == lost; });
        lab.client.send("after it");
        lab.until([&] { return seen.received == lost + "after it"; });
        found.check(lab.server_rests(), "it spins afterwards");
    });
}

TEST_ON_BEDS("30 reset in mid-message: one on_close that says so", Bed, CONFORMANCE_BEDS) {
    for (const bool was_seen : {true, false}) {
        CAPTURE(was_seen);
        study seen;
        seen.taking = [](tcp::connection&, tcp::bytes data) { return whole_frames(data); };
        laboratory<Bed, counting_subject> lab{seen};
        const std::string whole = frame("one") + frame("two"), part = "\x05thr";
        lab.client.send(whole + part);
        lab.arrive();
        if (was_seen) lab.until([&] { return seen.rest == part; });
        lab.reset();
        lab.until([&] { return seen.closes == 1; });
        CHECK(seen.received == whole);
        CHECK(seen.rest == part);
        CHECK(seen.ends == 0);
        CHECK(seen.wrong == 0);
        CHECK(seen.reason.by == closed_by::peer_reset);
        CHECK(seen.reason.error == std::errc::connection_reset);
        CHECK(seen.reason.unsent == 0);

        lab.on.bed.run(lab.server, 10ms);
        CHECK(seen.closes == 1);
        lab.tell([](tcp::connection&) {});  // the other one is served
    }
}

TEST_ON_BEDS("30 reset after the peer has finished", Bed, CONFORMANCE_BEDS) {
    for (const bool paused : {false, true}) {
        CAPTURE(paused);
        study seen;
        seen.at_end = [&](tcp::connection& peer) {  // goes on, and would not notice by itself
            if (paused) peer.pause_receive();
        };
        laboratory<Bed> lab{seen};
        lab.client.send("hello");
        lab.client.shutdown_send();
        lab.until([&] { return seen.ends == 1; });
        lab.on.bed.run(lab.server, 20ms);
        CHECK(seen.closes == 0);
        lab.reset();
        if (paused) {
            lab.on.bed.run(lab.server, 20ms);
            CHECK(seen.closes == 0);
            lab.resume();
        }
        lab.until([&] { return seen.closes == 1; });
        CHECK(seen.reason.by == closed_by::peer_reset);
        CHECK(seen.wrong == 0);
    }
}

TEST_ON_BEDS("31 a message in every cutting", Bed, CONFORMANCE_BEDS) {
    const std::string message = frame("abc") + frame("") + frame("defg");
    const std::size_t places = message.size() - 1;
    study seen;
    std::size_t shown = 0;
    seen.taking = [&](tcp::connection&, tcp::bytes data) {
        shown = seen.received.size() + data.size();
        return whole_frames(data);
    };
    laboratory<Bed, counting_subject> lab{seen};
    std::string sent;
    for (unsigned cuts = 0; cuts != 1U << places; ++cuts) {
        for (std::size_t from = 0; from != message.size();) {
            std::size_t to = from + 1;
            while (to <= places && (cuts >> (to - 1) & 1) == 0) ++to;
            const std::string piece = message.substr(from, to - from);
            sent += piece;
            lab.client.send(piece);
            from = to;
            lab.server.poll();
            if (shown != sent.size()) lab.until([&] { return shown == sent.size(); });
        }
        REQUIRE(seen.received == sent);
        REQUIRE(seen.rest == "");
    }
    CHECK(seen.wrong == 0);
    CHECK(seen.repeats == 0);
}

TEST_ON_BEDS("31 one message in each call: the rest is shown again while some is taken", Bed,
             CONFORMANCE_BEDS) {
    study seen;
    std::vector<std::string> messages;
    seen.taking = [&](tcp::connection& peer, tcp::bytes data) -> std::size_t {
        const std::size_t size = 1 + std::to_integer<std::size_t>(data[0]);
        if (data.size() < size) return 0;
        peer.send(data.first(size));
        messages.emplace_back(tcp::as_text(data.subspan(1, size - 1)));
        return size;
    };
    laboratory<Bed, counting_subject> lab{seen};
    std::string sent;
    std::vector<std::string> expected;
    for (std::size_t i = 0; i != 2000; ++i) {
        expected.push_back(pattern(i % 100, i + 1));
        sent += frame(expected.back());
    }
    lab.client.send(sent + "\x05thr");
    lab.until([&] { return seen.rest == "\x05thr"; });
    CHECK(messages == expected);
    CHECK(seen.wrong == 0);
    CHECK(seen.repeats == 0);
    lab.until([&] { return lab.client.received_size() == sent.size(); });
    CHECK(difference(lab.client.received(), sent) == "");
}

TEST_ON_BEDS("31 an on_data that takes any part of what it is given", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t buffer : sizes{1, 100, 64 * 1024}) {
        CAPTURE(buffer);
        study seen;
        tcp::simulation::random_generator dice{31};
        std::string echoed;
        seen.taking = [&](tcp::connection& peer, tcp::bytes data) {
            // All, nothing, or a part, which goes back: from there, or from what was kept.
            std::size_t count = data.size();
            if (dice.chance(600)) count = static_cast<std::size_t>(dice.between(0, count));
            if (dice.chance(200)) count = 0;
            if (count != 0) peer.send(data.first(count));
            echoed += tcp::as_text(data.first(count));
            return dice.chance(10) && count == data.size() ? count + 1 : count;
        };
        laboratory<Bed, counting_subject> lab{seen, {.receive_buffer = buffer}};
        const std::string sent = pattern(buffer < 1000 ? 5'000 : 2'000'000);
        lab.client.send(sent);
        lab.client.shutdown_send();
        lab.until([&] { return seen.closes == 1; });
        CHECK(difference(seen.received + seen.rest, sent) == "");
        CHECK(seen.wrong == 0);
        if (lab.server.statistics().pauses == 0) CHECK(seen.repeats == 0);
        CHECK(seen.ends == 1);
        CHECK(lab.on.bed.until(lab.server, [&] { return lab.client.ended(); }));
        CHECK(difference(lab.client.received(), echoed) == "");
        CHECK(difference(lab.client.received(), seen.received) == "");
    }
}

TEST_ON_BEDS("31 what is left when the peer finishes is not shown again", Bed, CONFORMANCE_BEDS) {
    study seen;
    seen.taking = [](tcp::connection&, tcp::bytes data) { return whole_frames(data); };
    laboratory<Bed, counting_subject> lab{seen};
    lab.client.send(frame("one") + "\x05thr");
    lab.client.shutdown_send();
    lab.until([&] { return seen.closes == 1; });
    CHECK(seen.received == frame("one"));
    CHECK(seen.rest == "\x05thr");
    CHECK(seen.repeats == 0);
    CHECK(seen.wrong == 0);
    CHECK(seen.ends == 1);
}

TEST_ON_BEDS("31 past receive_limit the connection ends with that reason", Bed, CONFORMANCE_BEDS) {
    constexpr std::size_t limit = 1000;
    for (const std::size_t buffer : sizes{1, 64, 64 * 1024}) {
        CAPTURE(buffer);
        study seen;
        seen.taking = [](tcp::connection&, tcp::bytes) -> std::size_t { return 0; };
        laboratory<Bed, counting_subject> lab{seen,
                                              {.receive_limit = limit, .receive_buffer = buffer}};
        const std::string sent = pattern(limit);
        lab.client.send(sent);
        lab.until([&] { return seen.rest.size() == limit; });
        CHECK(seen.rest == sent);
        lab.on.bed.run(lab.server, 10ms);
        CHECK(seen.closes == 0);  // exactly at the limit

        // What comes then counts only if it is not taken.
        seen.taking = [&](tcp::connection&, tcp::bytes data) { return data.size() - limit; };
        lab.client.send("1");
        lab.until([&] { return seen.received.size() == 1; });
        lab.on.bed.run(lab.server, 10ms);
        CHECK(seen.closes == 0);

        seen.taking = [](tcp::connection& peer, tcp::bytes) -> std::size_t {
            peer.send("never seen");
            return 0;
        };
        lab.client.send("2");
        lab.until([&] { return seen.closes == 1; });
        CHECK(seen.reason.by == closed_by::limit);
        CHECK(seen.reason.reached == tcp::limit::receive);
        CHECK(seen.reason.error == tcp::error::receive_limit);
        CHECK(tcp::to_text(seen.reason) == "limit: receive");
        CHECK(seen.ends == 0);
        CHECK(seen.wrong == 0);
        lab.until([&] { return lab.client.was_reset(); });
        CHECK(lab.client.received() == "");
    }
}

TEST_ON_BEDS("31 more than receive_limit at once", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t left : sizes{1000, 1001}) {
        CAPTURE(left);
        study seen;
        seen.taking = [&](tcp::connection&, tcp::bytes data) {
            return data.size() - std::min(data.size(), left);
        };
        laboratory<Bed, counting_subject> lab{seen, {.receive_limit = 1000}};
        lab.client.send(pattern(20'000));
        lab.arrive();
        lab.on.bed.run(lab.server, 50ms);
        if (left == 1000) {
            CHECK(seen.closes == 0);
            CHECK(seen.received.size() == 19'000);
            CHECK(seen.repeats == 0);
        } else {
            CHECK(seen.closes == 1);
            CHECK(seen.reason.reached == tcp::limit::receive);
        }
    }
}

TEST_ON_BEDS("31 what the high mark keeps from being shown is not held against the handler", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t request = 512, count = 400, answer = 4096;
    const std::string requests = pattern(request * count);
    const std::string answers = pattern(answer * count);
    study seen;
    std::size_t answered = 0;
    seen.taking = [&](tcp::connection& peer, tcp::bytes data) -> std::size_t {
        if (data.size() < request) return 0;
        peer.send(std::string_view{answers}.substr(answer * answered++, answer));
        return request;
    };
    laboratory<Bed, counting_subject> lab{seen,
                                          {.high_mark = 8'000,
                                           .low_mark = 2'000,
                                           .receive_limit = 16 * 1024,
                                           .kernel_send_buffer = 4096},
                                          true};
    lab.client.send(requests);
    lab.on.bed.run(lab.server, 20ms);
    lab.client.resume_receive();
    lab.client.shutdown_send();
    lab.until([&] { return lab.client.ended() || lab.client.was_reset(); });
    lab.until([&] { return seen.closes == 1; });
    CHECK(seen.reason.by == closed_by::handler_closed);
    CHECK(seen.reason.reached == tcp::limit::none);
    CHECK(seen.wrong == 0);
    CHECK(answered == count);
    CHECK(difference(seen.received, requests) == "");
    CHECK(difference(lab.client.received(), answers) == "");
    CHECK(lab.server.statistics().pauses > 10);
}

TEST_ON_BEDS("31 closing with more than receive_limit left: what was sent arrives", Bed,
             CONFORMANCE_BEDS) {
    for (const bool kept : {false, true}) {
        CAPTURE(kept);
        study seen;
        seen.taking = [&](tcp::connection& peer, tcp::bytes data) -> std::size_t {
            if (data.size() <= 1000) return 0;
            peer.send("too long");
            peer.close();
            return 0;
        };
        laboratory<Bed, counting_subject> lab{seen, {.receive_limit = 1000}};
        if (kept) {
            lab.client.send(pattern(900));
            lab.until([&] { return seen.rest.size() == 900; });
        }
        lab.client.send(pattern(3000));
        lab.client.shutdown_send();
        lab.until([&] { return seen.closes == 1; });
        CHECK(seen.reason.by == closed_by::handler_closed);
        CHECK(seen.reason.unsent == 0);
        lab.until([&] { return lab.client.ended() || lab.client.was_reset(); });
        CHECK(lab.client.received() == "too long");
        CHECK_FALSE(lab.client.was_reset());
    }
}

TEST_ON_BEDS("31 the rest is shown again at once on resume_receive()", Bed, CONFORMANCE_BEDS) {
    study seen;
    std::size_t take = 0;  // once, then nothing
    seen.taking = [&](tcp::connection&, tcp::bytes data) {
        return std::min(std::exchange(take, 0), data.size());
    };
    laboratory<Bed, counting_subject> lab{seen};
    lab.client.send("abcdef");
    lab.until([&] { return seen.rest == "abcdef"; });

    lab.resume();  // it was not paused
    CHECK(seen.repeats == 0);

    lab.pause();
    take = 2;
    lab.resume();
    CHECK(seen.repeats == 1);
    CHECK(seen.received == "ab");
    CHECK(seen.rest == "cdef");

    // New data that waits meanwhile comes behind it.
    lab.pause();
    lab.client.send("ghi");
    lab.arrive();
    lab.on.bed.run(lab.server, 10ms);
    CHECK(seen.repeats == 1);
    take = 1;
    lab.tell([&](tcp::connection& peer) {
        const int calls = seen.calls;
        peer.resume_receive();
        CHECK(seen.calls == calls);  // not inside another hook
    });
    lab.until([&] { return seen.received.size() + seen.rest.size() == 9; });
    CHECK(seen.received == "abc");
    CHECK(seen.rest == "defghi");

    // And by itself: paused and resumed in on_data, which takes nothing at first.
    int calls = 0;
    seen.taking = [&](tcp::connection& peer, tcp::bytes) -> std::size_t {
        peer.pause_receive();
        peer.resume_receive();
        return ++calls < 20 ? 0 : 1;
    };
    lab.pause();
    lab.resume();
    lab.until([&] { return seen.rest.empty(); });
    CHECK(seen.received == "abcdefghi");
    CHECK(calls == 25);
    CHECK(seen.wrong == 0);
}

TEST_ON_BEDS("32 what arrived before a failed write is delivered", Bed, CONFORMANCE_BEDS) {
    for (const bool counts : {false, true}) {
        CAPTURE(counts);
        study seen;
        int refused = 0;
        const auto reply = [&](tcp::connection& peer, tcp::bytes) {
            if (!peer.send("a reply that nobody reads")) ++refused;
        };
        seen.at_data = reply;
        seen.taking = [&](tcp::connection& peer, tcp::bytes data) {
            reply(peer, data);
            return data.size() - data.size() % 7;  // leaves some
        };
        const auto check = [&](auto& lab) {
            const std::string sent = pattern(35'000);
            lab.client.send(sent);
            lab.arrive();
            lab.reset();
            lab.until([&] { return seen.closes == 1; });
            CHECK(difference(seen.received + seen.rest, sent) == "");
            CHECK(seen.wrong == 0);
            CHECK(seen.reason.by == closed_by::peer_reset);
            CHECK((seen.reason.error == std::errc::connection_reset ||
                   seen.reason.error == std::errc::broken_pipe));
            CHECK(refused > 0);
        };
        const tcp::options options{.receive_buffer = 1000};
        if (counts) {
            laboratory<Bed, counting_subject> lab{seen, options};
            check(lab);
        } else {
            laboratory<Bed> lab{seen, options};
            check(lab);
        }
    }
}

TEST_ON_BEDS(
    "27 bytes that come with descriptors through a unix-domain socket, and those behind them", Bed,
    SYSTEM_BEDS) {
    // A receive stops in front of them and behind them, unix(7): what is left makes no new edge.
    stage<Bed> on;
    auto server = on.bed.make(scripted{on.does});
    const endpoint where = server.bind("unix:@tcp-receiving-" + std::to_string(::getpid()));
    server.bind("127.0.0.1:0");
    server.listen();
    auto client = on.bed.connect(where);
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == 1; }));
    const auto pass = [&](char c) {
        const int passed = client.descriptor();
        iovec piece{.iov_base = &c, .iov_len = 1};
        alignas(cmsghdr) char room[CMSG_SPACE(sizeof passed)] = {};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = room;
        message.msg_controllen = sizeof room;
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof passed);
        std::memcpy(CMSG_DATA(rights), &passed, sizeof passed);
        REQUIRE(::sendmsg(client.descriptor(), &message, 0) == 1);
    };
    std::string sent;
    for (int round = 0; round != 3; ++round) {
        CAPTURE(round);
        client.send("a");
        pass('b');
        pass('c');
        client.send("d");
        sent += "abcd";
        CHECK(on.bed.until(
            server, [&] { return on.does.received == sent; }, 5s));
    }
    CHECK(on.does.received == sent);
}

TEST_CASE("28 of several that flood, none has more than its share of a turn") {
    constexpr std::size_t piece = 1000, pieces = 40;
    stage<conformance::kernel_bed<tcp::epoll_engine>> on;
    std::vector<const tcp::connection*> order;
    on.does.on_data = [&](tcp::connection& peer, tcp::bytes) { order.push_back(&peer); };
    auto server = on.bed.make(scripted{on.does}, {.receive_buffer = piece});
    const auto where = on.bed.listen(server);
    std::vector<conformance::kernel_client> clients;
    for (int i = 0; i != 3; ++i) clients.push_back(on.bed.connect(where));
    REQUIRE(on.bed.until(server, [&] { return on.does.opens == clients.size(); }));
    for (auto& client : clients) client.send(std::string(piece * pieces, 'f'));
    REQUIRE(on.bed.wait([&] {
        return std::all_of(clients.begin(), clients.end(), [](const auto& client) {
            return client.acknowledged_size() == piece * pieces;
        });
    }));
    const std::size_t all = clients.size() * piece * pieces;
    REQUIRE(on.bed.until(server, [&] { return on.does.received.size() == all; }));
    // How often one was received of while the others waited: until the first has no more.
    std::size_t longest = 0, run = 0;
    for (std::size_t i = 0; i != order.size(); ++i) {
        run = i != 0 && order[i] == order[i - 1] ? run + 1 : 1;
        longest = std::max(longest, run);
        const auto end = order.begin() + static_cast<std::ptrdiff_t>(i) + 1;
        if (std::count(order.begin(), end, order[i]) == static_cast<std::ptrdiff_t>(pieces)) break;
    }
    CHECK(longest <= 8);  // four in a turn, and perhaps the last of one and the first of the next
}
