// Where the conformance suite runs: the same tests on real sockets, with each engine, and in
// simulated worlds.
//
//   TEST_ON_BEDS("1 what is promised", Bed, CONFORMANCE_BEDS) {
//       Bed bed; typename Bed::template server<my_handler> server = bed.make(my_handler{...},
//       {.low_mark = 1}); const auto where = bed.listen(server); auto client = bed.connect(where);
//       client.send("hello"); CHECK(bed.until(server, [&] { return client.received() == "hello";
//       }));
//   }
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "kernel_client.hpp"

namespace conformance {

using namespace std::chrono_literals;

/// Whether connections are to have no descriptors: the suite is run on io_uring both ways.
inline bool with_direct_descriptors() {
    return std::getenv("TCP_TESTS_DIRECT_DESCRIPTORS") != nullptr;
}

/// Real sockets on the loopback interface.
template <class Engine>
class kernel_bed {
public:
    using engine = Engine;
    using bed = kernel_bed;
    struct surroundings {};
    static constexpr bool simulated = false;
    static constexpr bool puts_off = Engine::puts_off;
    using client = kernel_client;
    template <class Handler>
    using server = tcp::server<Handler, Engine>;

    template <class Handler>
    server<Handler> make(Handler prototype = {}, tcp::options options = {}) {
        options.direct_descriptors = with_direct_descriptors();
        return server<Handler>{std::move(prototype), std::move(options)};
    }
    template <class Server>
    tcp::endpoint listen(Server& s) {
        const tcp::endpoint where = s.bind("127.0.0.1:0");
        s.listen();
        return where;
    }
    client connect(const tcp::endpoint& to) {
        clients_.emplace_back(to);
        return clients_.back();
    }

    /// A client that can take little before the server's sends block.
    client connect_narrow(const tcp::endpoint& to) {
        clients_.emplace_back(to, 4096);
        return clients_.back();
    }

    /// Runs the server and the clients until this holds. False when it does not within some
    /// seconds.
    template <class Server, class Predicate>
    bool until(Server& s, Predicate holds, std::chrono::milliseconds most = 20s) {
        const auto end = std::chrono::steady_clock::now() + most;
        for (;;) {
            bool moved = false;
            for (client& c : clients_) moved = c.pump() || moved;
            if (holds()) return true;
            if (std::chrono::steady_clock::now() > end) return false;
            if (moved)
                s.poll();
            else
                s.run_for(1ms);
        }
    }

    /// Lets both run for so long.
    template <class Server>
    void run(Server& s, std::chrono::milliseconds length) {
        until(
            s, [] { return false; }, length);
    }

    /// Runs the clients alone, the server stands still, until this holds.
    template <class Predicate>
    bool wait(Predicate holds, std::chrono::milliseconds most = 20s) {
        const auto end = std::chrono::steady_clock::now() + most;
        for (;;) {
            for (client& c : clients_) c.pump();
            if (holds()) return true;
            if (std::chrono::steady_clock::now() > end) return false;
        }
    }

private:
    std::vector<client> clients_;
};

/// What goes wrong in a simulated world, and its seed.
struct weather {
    std::uint64_t seed = 1;
    tcp::simulation::faults faults{};
};

/// Nothing goes wrong, but buffers are small.
inline weather fair_weather() { return {}; }

/// Everything ends later, as with io_uring, in small pieces and another order.
inline weather late_weather() {
    weather late{.seed = 2};
    tcp::simulation::faults& f = late.faults;
    f.segment_min = 1;
    f.segment_max = 4000;
    f.short_send_per_mille = 300;
    f.in_flight_per_mille = 1000;
    f.late_close_per_mille = 1000;
    f.late_receive_per_mille = 500;
    f.more_receives_per_mille = 500;
    f.shuffle_per_mille = 500;
    return late;
}

/// Sends are cut short or block, and waits end early.
inline weather rough_weather() {
    weather rough{.seed = 3};
    tcp::simulation::faults& f = rough.faults;
    f.latency_min = tcp::duration{};
    f.latency_max = 5ms;
    f.segment_min = 1;
    f.short_send_per_mille = 500;
    f.blocked_send_per_mille = 300;
    f.in_flight_per_mille = 300;
    f.spurious_writable_per_mille = 300;
    f.late_close_per_mille = 300;
    f.spurious_wait_per_mille = 200;
    f.send_capacity = 8 * 1024;
    return rough;
}

/// A simulated world: a test is compiled once for all weathers, and run in each.
class simulated_bed {
public:
    static constexpr bool simulated = true;
    static constexpr bool puts_off = false;
    using client = tcp::simulation::client;
    template <class Handler>
    using server = tcp::server<Handler, tcp::simulated_engine>;

    template <class Handler>
    server<Handler> make(Handler prototype = {}, const tcp::options& options = {}) {
        return server<Handler>{std::move(prototype), options, world};
    }
    template <class Server>
    tcp::endpoint listen(Server& s) {
        const tcp::endpoint where = s.bind(tcp::endpoint::parse("127.0.0.1:7"));
        s.listen();
        return where;
    }
    client connect(const tcp::endpoint& to) { return world.connect(to); }
    client connect_narrow(const tcp::endpoint& to) { return world.connect(to); }

    template <class Server, class Predicate>
    bool until(Server& s, Predicate holds, std::chrono::milliseconds most = 300s) {
        const tcp::duration end = world.now() + most;
        while (!holds()) {
            if (world.now() > end) return false;
            if (!s.run_for(1ms)) world.advance(1ms);
        }
        return true;
    }
    template <class Server>
    void run(Server& s, std::chrono::milliseconds length) {
        until(
            s, [] { return false; }, length);
    }

    template <class Predicate>
    bool wait(Predicate holds, std::chrono::milliseconds most = 300s) {
        const tcp::duration end = world.now() + most;
        for (; !holds(); world.advance(1ms))
            if (world.now() > end) return false;
        return true;
    }

    tcp::simulation world{current_.seed, current_.faults};

    /// The weather of the worlds made while this lives.
    class in {
    public:
        explicit in(const weather& now) : before_{std::exchange(current_, now)} {}
        in(const in&) = delete;
        in& operator=(const in&) = delete;
        ~in() { current_ = before_; }

    private:
        weather before_;
    };

private:
    static inline weather current_ = fair_weather();
};

/// The time that this bed's servers see.
template <class Bed>
tcp::duration now_of(const Bed& bed) {
    if constexpr (Bed::simulated)
        return bed.world.now();
    else
        return tcp::detail::monotonic_now();
}

/// The simulated bed as a test names it.
template <weather (*Now)()>
struct simulated_in {
    using bed = simulated_bed;
    struct surroundings {
        simulated_bed::in now{Now()};
    };
};

using epoll_bed = kernel_bed<tcp::epoll_engine>;
using io_uring_bed = kernel_bed<tcp::io_uring_engine>;
using fair_bed = simulated_in<fair_weather>;
using late_bed = simulated_in<late_weather>;
using rough_bed = simulated_in<rough_weather>;

#define SYSTEM_BEDS conformance::epoll_bed, conformance::io_uring_bed
#ifdef TCP_TESTS_WITHOUT_SIMULATION  // but for what is of simulated beds alone
#    define SIMULATED_BEDS conformance::fair_bed
#    define CONFORMANCE_BEDS SYSTEM_BEDS
#else
#    define SIMULATED_BEDS conformance::fair_bed, conformance::late_bed, conformance::rough_bed
#    define CONFORMANCE_BEDS SYSTEM_BEDS, SIMULATED_BEDS
#endif

// A test on each of these beds. All weathers share one function, which halves the time to compile.
#define TEST_ON_BEDS(name, Bed, ...) \
    TEST_ON_BEDS_AS(DOCTEST_ANONYMOUS(on_bed_), name, Bed, __VA_ARGS__)
#define TEST_ON_BEDS_AS(function, name, Bed, ...)                   \
    template <class Bed>                                            \
    static void function();                                         \
    TEST_CASE_TEMPLATE(name, Named, __VA_ARGS__) {                  \
        [[maybe_unused]] const typename Named::surroundings around; \
        function<typename Named::bed>();                            \
    }                                                               \
    template <class Bed>                                            \
    static void function()

// ---- scripted handlers, for tests of what happens around the hooks ----

/// So many bytes in which no piece repeats.
inline std::string pattern(std::size_t size, std::uint64_t seed = 1) {
    std::string text;
    text.reserve(size + sizeof seed);
    for (std::uint64_t word = seed * 0x9e3779b97f4a7c15U + 1; text.size() < size;) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        text.append(reinterpret_cast<const char*>(&word), sizeof word);
    }
    text.resize(size);
    return text;
}

/// Where two texts part, in words; empty when they are the same. For texts too long to print.
inline std::string difference(std::string_view got, std::string_view expected) {
    if (got == expected) return {};
    std::size_t at = 0;
    while (at < got.size() && at < expected.size() && got[at] == expected[at]) ++at;
    return "got " + std::to_string(got.size()) + " bytes, expected " +
           std::to_string(expected.size()) + ", the same up to " + std::to_string(at);
}

/// What the hooks of all connections of a test do, and what was seen of them. It outlives the
/// server.
struct script {
    std::function<void(tcp::connection&)> on_open, on_end, on_writable;
    std::function<void(tcp::connection&, tcp::bytes)> on_data;
    std::function<void(tcp::connection&, const tcp::close_reason&)> on_close;

    std::vector<tcp::connection*> peers;  // those open, in the order of on_open
    std::vector<tcp::close_reason> closes;
    std::string received;
    std::size_t opens = 0, ends = 0, writables = 0;
    int alive = 0;                   // handlers, the prototype included
    std::vector<std::string> wrong;  // breaches of the rules of all hooks
};

/// A handler that follows a script and sees to the rules of all hooks: one on_open first, one
/// on_close last, then the destructor, and none inside another.
class scripted_without_end {
public:
    explicit scripted_without_end(script& s) : s_{&s} { ++s.alive; }
    scripted_without_end(const scripted_without_end& other) : s_{other.s_} { ++s_->alive; }
    scripted_without_end& operator=(const scripted_without_end&) = delete;
    ~scripted_without_end() {
        --s_->alive;
        if (peer_ != nullptr && !closed_) s_->wrong.push_back("destroyed before on_close");
        if (busy_) s_->wrong.push_back("destroyed in a hook");
    }

    void on_open(tcp::connection& peer) {
        if (peer_ != nullptr) s_->wrong.push_back("a second on_open");
        peer_ = &peer;
        const hook running{*this, peer, "on_open"};
        ++s_->opens;
        s_->peers.push_back(&peer);
        if (s_->on_open) s_->on_open(peer);
    }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        const hook running{*this, peer, "on_data"};
        if (data.empty()) s_->wrong.push_back("on_data without data");
        if (ended_) s_->wrong.push_back("on_data after on_end");
        if (peer.receive_paused()) s_->wrong.push_back("on_data while paused");
        s_->received += tcp::as_text(data);
        if (s_->on_data) s_->on_data(peer, data);
    }
    void on_writable(tcp::connection& peer) {
        const hook running{*this, peer, "on_writable"};
        ++s_->writables;
        if (s_->on_writable) s_->on_writable(peer);
    }
    void on_close(tcp::connection& peer, const tcp::close_reason& why) {
        const hook running{*this, peer, "on_close"};
        closed_ = true;
        s_->closes.push_back(why);
        std::erase(s_->peers, &peer);
        if (s_->on_close) s_->on_close(peer, why);
    }

protected:
    class hook {
    public:
        hook(scripted_without_end& of, const tcp::connection& peer, const char* name) : of_{of} {
            const auto wrong = [&](const char* how) {
                of.s_->wrong.push_back(std::string{name} + how);
            };
            if (of.peer_ != &peer) wrong(" of another connection, or before on_open");
            if (of.closed_) wrong(" after on_close");
            if (std::exchange(of.busy_, true)) wrong(" inside another hook");
        }
        hook(const hook&) = delete;
        hook& operator=(const hook&) = delete;
        ~hook() { of_.busy_ = false; }

    private:
        scripted_without_end& of_;
    };

    script* s_;
    bool ended_ = false;

private:
    tcp::connection* peer_ = nullptr;
    bool busy_ = false;
    bool closed_ = false;
};

/// The same with on_end: the script decides what follows the peer's end.
struct scripted : scripted_without_end {
    using scripted_without_end::scripted_without_end;
    void on_end(tcp::connection& peer) {
        const hook running{*this, peer, "on_end"};
        if (std::exchange(ended_, true)) s_->wrong.push_back("a second on_end");
        ++s_->ends;
        if (s_->on_end) s_->on_end(peer);
    }
};

/// A bed and a script, looked over when the server of the test is gone: every open had its close,
/// no handler is left, no rule was broken.
template <class Bed>
struct stage {
    script does;
    Bed bed;

    stage() = default;
    stage(const stage&) = delete;
    stage& operator=(const stage&) = delete;
    ~stage() {
        CHECK(does.opens == does.closes.size());
        CHECK(does.alive == 0);
        CHECK(does.peers.empty());
        for (const std::string& sentence : does.wrong) CHECK(sentence == "");
        if constexpr (Bed::simulated) {
            CHECK(bed.world.open_sockets() == 0);
            for (const std::string& sentence : bed.world.violations()) CHECK(sentence == "");
        }
    }
};

}  // namespace conformance
