// Accepting: behaviours 11 to 14, 18 and 19, and accept().
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <ostream>  // doctest prints error codes
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "beds.hpp"
#include "blocking_client.hpp"
#include "child_process.hpp"

using conformance::pattern;
using conformance::scripted;
using conformance::stage;
using tcp::closed_by;
using tcp::endpoint;
using tests::blocking_client;
using tests::findings;
using tests::in_child;
using tests::open_descriptors;
using namespace std::chrono_literals;

namespace {

/// The script of an echo server.
void play_echo(conformance::script& does) {
    does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
    does.on_end = [](tcp::connection& peer) { peer.close(); };
}

std::uint64_t count_of(const tcp::statistics& counted, closed_by by) {
    return counted.closed_by[static_cast<std::size_t>(by)];
}

/// All of them satisfy this.
template <class Clients, class Predicate>
bool all_of(const Clients& clients, Predicate holds) {
    return std::all_of(clients.begin(), clients.end(), holds);
}
template <class Clients, class Predicate>
std::size_t count_if(const Clients& clients, Predicate holds) {
    return static_cast<std::size_t>(std::count_if(clients.begin(), clients.end(), holds));
}
constexpr auto was_greeted = [](const auto& client) { return client.received() == "hello"; };
constexpr auto was_reset = [](const auto& client) { return client.was_reset(); };
constexpr auto has_ended = [](const auto& client) { return client.ended(); };

/// So many clients that have said hello.
template <class Bed>
std::vector<typename Bed::client> greeting_clients(Bed& bed, const endpoint& where, int count) {
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != count; ++i) {
        clients.push_back(bed.connect(where));
        clients.back().send("hello");
    }
    return clients;
}

/// The socket that listens there.
int listening_descriptor(const endpoint& where) {
    for (const int fd : open_descriptors()) {
        int listens = 0;
        socklen_t size = sizeof listens;
        if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0 &&
            tcp::detail::local_endpoint_of(fd) == where)
            return fd;
    }
    return -1;
}

/// server.accept(), which a failure of the library may keep waiting: it is stopped after some
/// seconds.
template <class Bed, class Server>
tcp::close_reason accept(Bed& bed, Server& server) {
    const auto waiting = std::make_shared<bool>(true);
    if constexpr (Bed::simulated) {
        bed.world.after(100s, [&server, still = std::weak_ptr<bool>{waiting}] {
            if (!still.expired()) server.stop();
        });
        return server.accept();
    } else {
        std::mutex mutex;
        std::condition_variable changed;
        std::thread impatient{[&] {
            std::unique_lock lock{mutex};
            if (!changed.wait_for(lock, 20s, [&] { return !*waiting; })) server.stop();
        }};
        const tcp::close_reason how = server.accept();
        {
            const std::lock_guard lock{mutex};
            *waiting = false;
        }
        changed.notify_one();
        impatient.join();
        return how;
    }
}

/// Throws when it is copied for every third connection.
struct thrower {
    struct plan {
        bool armed = false;  // the server copies its prototype before it accepts
        int copies = 0, alive = 0, opens = 0, closes = 0;
        closed_by last{};
    };
    explicit thrower(plan& p) : plan_{&p} { ++p.alive; }
    thrower(const thrower& other) : plan_{other.plan_} {
        if (plan_->armed && plan_->copies++ % 3 == 0) throw std::runtime_error{"a copy"};
        ++plan_->alive;
    }
    thrower& operator=(const thrower&) = delete;
    ~thrower() { --plan_->alive; }

    void on_open(tcp::connection&) const { ++plan_->opens; }
    void on_data(tcp::connection& peer, tcp::bytes data) const { peer.send(data); }
    void on_close(tcp::connection&, const tcp::close_reason& why) const {
        ++plan_->closes;
        plan_->last = why.by;
    }

    plan* plan_;
};

}  // namespace

TEST_ON_BEDS(
    "11 descriptors exhausted: no spin, those connected are served, and those "
    "waiting when descriptors come free",
    Bed, SIMULATED_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto served = greeting_clients(on.bed, where, 5);
    REQUIRE(on.bed.until(server, [&] { return all_of(served, was_greeted); }));

    auto faults = on.bed.world.current_faults();
    faults.socket_limit = 6;  // the listener is one
    on.bed.world.set_faults(faults);
    auto waiting = greeting_clients(on.bed, where, 50);
    on.bed.run(server, 1000ms);
    const auto errors = server.statistics().accept_errors;
    CHECK(errors > 0);
    CHECK(errors < 10);
    CHECK(on.does.opens == 5);
    for (auto& client : served) {
        client.take();
        client.send("hello");
    }
    CHECK(on.bed.until(server, [&] { return all_of(served, was_greeted); }));

    // One closes: one of those waiting is accepted at once, not after the pause.
    on.bed.run(server, 100ms);
    served.back().shutdown_send();
    CHECK(on.bed.until(server, [&] { return on.does.closes.size() == 1; }));
    CHECK(on.bed.until(
        server, [&] { return on.does.opens == 6; }, 50ms));

    // All of them, one after the other.
    for (auto& client : served) client.shutdown_send();
    for (auto& client : waiting) client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return all_of(waiting, has_ended); }));
    CHECK(all_of(waiting, was_greeted));
    CHECK(on.does.opens == 55);
    CHECK(server.statistics().refused == 0);
}

TEST_ON_BEDS("11 descriptors of the process exhausted", Bed, SYSTEM_BEDS) {
    if (conformance::with_direct_descriptors()) return;  // there are none
    in_child([](findings& found) {
        Bed bed;
        auto server = bed.make(tcp::echo{});
        const endpoint where = bed.listen(server);
        auto served = greeting_clients(bed, where, 3);
        found.check(bed.until(server, [&] { return all_of(served, was_greeted); }), "served");
        auto waiting = greeting_clients(bed, where, 50);
        const auto last = static_cast<rlim_t>(waiting.back().descriptor());
        const rlimit none{.rlim_cur = last + 1, .rlim_max = last + 1};
        if (::setrlimit(RLIMIT_NOFILE, &none) != 0)
            return found.not_permitted("a limit of descriptors");
        while (::dup(0) >= 0) {}

        rusage before{}, after{};
        ::getrusage(RUSAGE_SELF, &before);
        server.run_for(1s);
        ::getrusage(RUSAGE_SELF, &after);
        const auto errors = server.statistics().accept_errors;
        found.check(errors > 0, "there is a descriptor left");
        found.check(errors < 10, "it tries more than 10 times a second");
        found.check(server.statistics().accepted == 3, "one was accepted");
        const auto microseconds = [](const rusage& usage) {
            return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 +
                   usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
        };
        found.check(microseconds(after) - microseconds(before) < 50'000, "it burns a core");

        for (auto& client : served) {
            client.take();
            client.send("hello");
        }
        found.check(bed.until(server, [&] { return all_of(served, was_greeted); }),
                    "those connected are served");
        // Whoever closes frees two descriptors here: the client's, and the server's.
        served.front().close();
        found.check(bed.until(server, [&] { return count_if(waiting, was_greeted) == 2; }),
                    "those waiting are accepted when one closes");
        for (auto& client : waiting) {
            if (!bed.until(server, [&] { return was_greeted(client); }))
                found.check(false, "each has its turn");
            client.close();
        }
        found.check(server.statistics().accepted == 53, "all of them were accepted");
        found.check(server.statistics().refused == 0, "none was refused");
    });
}

TEST_ON_BEDS("12 aborted connections and passing errors of accept leave the listener alive", Bed,
             SIMULATED_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto faults = on.bed.world.current_faults();
    faults.accept_aborted_per_mille = 200;
    faults.accept_failed_per_mille = 200;
    faults.open_failed_per_mille = 200;
    on.bed.world.set_faults(faults);
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto clients = greeting_clients(on.bed, where, 300);
    CHECK(on.bed.until(server, [&] {
        return all_of(clients, [](const auto& c) { return was_greeted(c) || was_reset(c); });
    }));
    const auto counted = server.statistics();
    const std::size_t served = count_if(clients, was_greeted);
    const std::size_t reset = count_if(clients, was_reset);
    CHECK(served > 100);
    CHECK(reset > 50);
    CHECK(served + reset == clients.size());
    CHECK(on.does.opens == served);
    CHECK(counted.accepted == served);
    CHECK(counted.open == served);
    CHECK(counted.refused > 0);
    CHECK(counted.refused < reset);  // the others were aborted before
    CHECK(counted.accept_errors > 0);
}

TEST_ON_BEDS("12 a listener whose accept fails leaves the others alive", Bed, SYSTEM_BEDS) {
    for (const int error :
         {ECONNABORTED, EPROTO, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH, EPERM, EINTR}) {
        CAPTURE(error);
        in_child([&](findings& found) {
            Bed bed;
            auto server = bed.make(tcp::echo{});
            const endpoint failing = server.bind("127.0.0.1:0");
            const endpoint other = server.bind("127.0.0.1:0");
            server.listen();
            if (!tests::refuse_call(SYS_accept4, 0, listening_descriptor(failing), error))
                return found.not_permitted("a filter of system calls");
            auto waiting = greeting_clients(bed, failing, 1);
            auto clients = greeting_clients(bed, other, 10);
            found.check(bed.until(server, [&] { return all_of(clients, was_greeted); }), "served");
            found.check(!waiting.front().was_reset() && !waiting.front().ended(), "it waits");
            const auto counted = server.statistics();
            found.check(counted.accepted == 10 && counted.refused == 0, "counted");
            found.check((counted.accept_errors > 0) == (error != EINTR), "counted as an error");
        });
    }
}

TEST_ON_BEDS("12 clients that reset before accept leave the listener alive", Bed, SYSTEM_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto server = on.bed.make(scripted{on.does});
    const endpoint where = on.bed.listen(server);
    for (int round = 0; round != 10; ++round) {
        for (int i = 0; i != 50; ++i) {
            auto gone = on.bed.connect(where);
            gone.send("hello");
            gone.reset();
        }
        auto client = on.bed.connect(where);
        client.send("hello");
        REQUIRE(on.bed.until(server, [&] { return client.received() == "hello"; }));
    }
    CHECK(on.bed.until(server, [&] { return server.statistics().closed == 500; }));
    CHECK(server.statistics().accepted == 510);
    CHECK(server.statistics().accept_errors == 0);
}

TEST_ON_BEDS("13 EINTR storms lose nothing", Bed, SYSTEM_BEDS) {
    static std::atomic<int> signals{0};
    struct sigaction count = {}, former = {};
    count.sa_handler = [](int) { ++signals; };  // and no SA_RESTART
    REQUIRE(::sigaction(SIGALRM, &count, &former) == 0);
    sigset_t alarm = {};
    ::sigaddset(&alarm, SIGALRM);
    REQUIRE(::pthread_sigmask(SIG_BLOCK, &alarm, nullptr) == 0);

    auto server = Bed{}.make(tcp::echo{});
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread loop{[&] {  // takes all of them
        ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
        server.run();
    }};
    const itimerval storm{.it_interval = {0, 200}, .it_value = {0, 200}};
    CHECK(::setitimer(ITIMER_REAL, &storm, nullptr) == 0);

    const std::string text = pattern(64 * 1024);
    int echoed = 0;
    const auto end = std::chrono::steady_clock::now() + 60s;
    {
        const blocking_client first{where};
        while ((signals < 2'000 || echoed < 200) && std::chrono::steady_clock::now() < end) {
            const bool whole = first.echoes(text);
            CHECK(whole);
            if (!whole) break;
            const blocking_client next{where};
            CHECK(next.echoes("hello"));
            CHECK(next.finishes());
            ++echoed;
        }
        CHECK(first.finishes());
    }
    CHECK(signals >= 2'000);
    CHECK(echoed >= 200);

    const itimerval calm{};
    ::setitimer(ITIMER_REAL, &calm, nullptr);
    server.stop();
    loop.join();
    ::sigaction(SIGALRM, &former, nullptr);
    ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
    CHECK(server.statistics().accept_errors == 0);
    CHECK(server.statistics().refused == 0);
}

TEST_ON_BEDS(
    "14 a client that reset before accept: one on_open, one on_close, its address "
    "known",
    Bed, CONFORMANCE_BEDS) {
    for (const bool sends : {false, true}) {
        CAPTURE(sends);
        stage<Bed> on;
        std::vector<endpoint> seen;
        on.does.on_open = [&](tcp::connection& peer) {
            seen.push_back(peer.remote_endpoint());
            if (sends) peer.send("welcome");
        };
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        std::vector<endpoint> expected;
        for (int i = 0; i != 20; ++i) {
            auto client = on.bed.connect(where);
            expected.push_back(client.local_endpoint());
            client.reset();
        }
        CHECK(on.bed.until(server, [&] { return server.statistics().closed == 20; }));
        CHECK(on.does.opens == 20);
        if (!sends) CHECK(on.does.ends == 0);
        CHECK(count_of(server.statistics(), closed_by::peer_reset) == 20);
        for (const tcp::close_reason& why : on.does.closes) {
            CHECK(why.by == closed_by::peer_reset);
            CHECK(
                (why.error == std::errc::connection_reset || why.error == std::errc::broken_pipe));
        }
        CHECK(std::is_permutation(expected.begin(), expected.end(), seen.begin(), seen.end()));
    }
}

TEST_ON_BEDS("18 a handler whose construction throws: refused, and the loop goes on", Bed,
             CONFORMANCE_BEDS) {
    thrower::plan plan;
    {
        stage<Bed> on;
        auto server = on.bed.make(thrower{plan});
        const auto where = on.bed.listen(server);
        plan.armed = true;
        plan.copies = 0;
        const int alive = plan.alive;
        auto clients = greeting_clients(on.bed, where, 30);
        CHECK(on.bed.until(server, [&] {
            return all_of(clients, [](const auto& c) { return was_greeted(c) || was_reset(c); });
        }));
        CHECK(plan.copies == 30);
        CHECK(count_if(clients, was_reset) == 10);
        CHECK(count_if(clients, was_greeted) == 20);
        CHECK(plan.opens == 20);
        CHECK(plan.alive == alive + 20);
        const auto counted = server.statistics();
        CHECK(counted.refused == 10);
        CHECK(counted.accepted == 20);
        CHECK(counted.open == 20);
        CHECK(counted.closed == 0);
    }
    CHECK(plan.closes == 20);
    CHECK(plan.alive == 0);
}

TEST_ON_BEDS("18 a factory that throws: refused, and the loop goes on", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    int calls = 0;
    const auto factory = [&]() -> scripted {
        if (calls++ % 2 == 0) throw std::bad_alloc{};
        return scripted{on.does};
    };
    const auto make = [&] {
        using server = typename Bed::template server<scripted>;
        if constexpr (Bed::simulated)
            return server{factory, tcp::options{}, on.bed.world};
        else
            return server{factory};
    };
    play_echo(on.does);
    auto server = make();
    const auto where = on.bed.listen(server);
    auto clients = greeting_clients(on.bed, where, 20);
    CHECK(on.bed.until(server, [&] {
        return all_of(clients, [](const auto& c) { return was_greeted(c) || was_reset(c); });
    }));
    CHECK(calls == 20);
    CHECK(count_if(clients, was_reset) == 10);
    CHECK(server.statistics().refused == 10);
    CHECK(server.statistics().accepted == 10);
    CHECK(on.does.alive == 10);
}

TEST_ON_BEDS("18 an on_open that throws: its connection closed, the loop goes on", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    on.does.on_open = [&](tcp::connection& peer) {
        if (on.does.opens % 2 == 0) return;
        peer.send("never seen");
        throw 42;
    };
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto clients = greeting_clients(on.bed, where, 20);
    CHECK(on.bed.until(server, [&] {
        return all_of(clients, [](const auto& c) { return was_greeted(c) || was_reset(c); });
    }));
    CHECK(on.does.opens == 20);
    CHECK(on.does.closes.size() == 10);
    for (const tcp::close_reason& why : on.does.closes) {
        CHECK(why.by == closed_by::handler_threw);
        CHECK(!why.error);
    }
    CHECK(count_if(clients, was_reset) == 10);
    CHECK(all_of(clients, [](const auto& c) { return c.received() == "hello" || was_reset(c); }));
    const auto counted = server.statistics();
    CHECK(counted.accepted == 20);
    CHECK(counted.refused == 0);
    CHECK(counted.open == 10);
    CHECK(counted.closed == 10);
    CHECK(count_of(counted, closed_by::handler_threw) == 10);
}

TEST_ON_BEDS("19 accepting paused and resumed", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto server = on.bed.make(scripted{on.does});
    server.pause_accept();  // before listen() is early enough
    const auto where = on.bed.listen(server);
    auto early = greeting_clients(on.bed, where, 5);
    on.bed.run(server, 50ms);
    CHECK(on.does.opens == 0);
    server.resume_accept();
    CHECK(on.bed.until(server, [&] { return all_of(early, was_greeted); }));

    server.pause_accept();
    server.pause_accept();
    auto late = greeting_clients(on.bed, where, 20);
    on.bed.run(server, 50ms);
    CHECK(on.does.opens == 5);
    CHECK(all_of(late, [](const auto& c) { return c.connected() && !c.was_reset(); }));
    for (auto& client : early) {
        client.take();
        client.send("hello");
    }
    CHECK(on.bed.until(server, [&] { return all_of(early, was_greeted); }));
    CHECK(on.does.opens == 5);

    server.resume_accept();
    server.resume_accept();
    CHECK(on.bed.until(server, [&] { return all_of(late, was_greeted); }));
    CHECK(on.does.opens == 25);

    // Pauses that no turn of the loop sees leave nothing behind.
    server.pause_accept();
    server.resume_accept();
    auto last = greeting_clients(on.bed, where, 5);
    CHECK(on.bed.until(server, [&] { return all_of(last, was_greeted); }));
    CHECK(server.statistics().refused == 0);
}

TEST_ON_BEDS("19 accept() waits while accepting is paused", Bed, SYSTEM_BEDS) {
    auto server = Bed{}.make(tcp::echo{});
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    server.pause_accept();
    tcp::close_reason how;
    std::thread loop{[&] { how = server.accept(); }};
    const tests::blocking_client client{where};
    CHECK(client.send("hello"));
    std::this_thread::sleep_for(50ms);
    CHECK(server.statistics().accepted == 0);
    server.resume_accept();
    CHECK(client.receive(5) == "hello");
    CHECK(client.finishes());
    loop.join();
    CHECK(how.by == closed_by::peer_finished);
    CHECK(server.statistics().accepted == 1);
}

TEST_ON_BEDS("12 an accept that is refused for ever does not spin", Bed, SYSTEM_BEDS) {
    in_child([&](findings& found) {
        Bed bed;
        auto server = bed.make(tcp::echo{});
        const endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        if (!tests::refuse_call(SYS_accept4, 0, listening_descriptor(where), EPERM))
            return found.not_permitted("a filter of system calls");
        const tests::blocking_client client{where};
        server.run_for(1s);
        found.check(server.statistics().accept_errors >= 64, "it gave up");
        found.check(server.statistics().accept_errors <= 6 * 64, "it spins");
    });
}

TEST_ON_BEDS("19 accepting paused in on_open: nobody else is accepted", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto server = on.bed.make(scripted{on.does});
    const auto where = on.bed.listen(server);
    auto early = greeting_clients(on.bed, where, 30);
    REQUIRE(on.bed.until(server, [&] { return all_of(early, was_greeted); }));

    on.does.on_open = [&](tcp::connection&) { server.pause_accept(); };
    auto late = greeting_clients(on.bed, where, 30);
    for (std::size_t i = 1; i <= late.size(); ++i) {
        CHECK(on.bed.until(server, [&] { return count_if(late, was_greeted) >= i; }));
        on.bed.run(server, 10ms);
        REQUIRE(on.does.opens == 30 + i);
        server.resume_accept();
    }
    CHECK(all_of(late, was_greeted));
}

TEST_ON_BEDS("19 accepting paused and resumed from another thread", Bed, SYSTEM_BEDS) {
    auto server = Bed{}.make(tcp::echo{});
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::thread loop{[&] { server.run(); }};
    {
        const blocking_client steady{where};
        CHECK(steady.echoes("hello"));
        for (unsigned i = 1; i <= 50; ++i) {
            server.pause_accept();
            CHECK(steady.echoes("tick"));  // the loop has seen it, and sleeps soon
            const blocking_client next{where};
            CHECK(server.statistics().accepted == i);
            server.resume_accept();
            const bool served = next.echoes("hello") && next.finishes();
            CHECK(served);
            if (!served) break;
        }
        CHECK(steady.finishes());
    }
    server.stop();
    loop.join();
}

TEST_ON_BEDS("19 accept() takes one at a time and leaves the others in the queue", Bed,
             CONFORMANCE_BEDS) {
    stage<Bed> on;
    play_echo(on.does);
    auto server = on.bed.make(scripted{on.does});
    std::vector<endpoint> all{server.bind("127.0.0.1:0"), server.bind("127.0.0.1:0")};
    server.listen();
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 6; ++i) {
        clients.push_back(on.bed.connect(all[static_cast<std::size_t>(i % 2)]));
        clients.back().send("hello");
        clients.back().shutdown_send();
    }
    CHECK(
        on.bed.wait([&] { return all_of(clients, [](const auto& c) { return c.connected(); }); }));
    for (std::size_t i = 1; i <= clients.size(); ++i) {
        const tcp::close_reason how = accept(on.bed, server);
        CHECK(how.by == closed_by::handler_closed);  // as the script does at the end
        CHECK(how.unsent == 0);
        CHECK(on.does.opens == i);
        CHECK(on.does.closes.size() == i);
        CHECK(on.bed.wait([&] { return count_if(clients, has_ended) == i; }));
        CHECK(count_if(clients, was_greeted) == i);
    }
    CHECK(server.statistics().refused == 0);

    // Then many at a time, then one again.
    auto many = greeting_clients(on.bed, all[0], 5);
    CHECK(on.bed.until(server, [&] { return all_of(many, was_greeted); }));
    for (auto& client : many) client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return server.statistics().open == 0; }));
    auto pair = greeting_clients(on.bed, all[1], 2);
    for (auto& client : pair) client.shutdown_send();
    CHECK(on.bed.wait([&] { return all_of(pair, [](const auto& c) { return c.connected(); }); }));
    CHECK(accept(on.bed, server).by == closed_by::handler_closed);
    CHECK(on.does.opens == 12);
    CHECK(accept(on.bed, server).by == closed_by::handler_closed);
    CHECK(on.does.opens == 13);
}

TEST_ON_BEDS("accept() returns how the connection ended", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(conformance::scripted_without_end{on.does});
    const auto where = on.bed.listen(server);
    const auto accept_one = [&](auto act) {
        auto client = on.bed.connect(where);
        client.send("hello");
        act(client);
        const tcp::close_reason how = accept(on.bed, server);
        CHECK(how.by == on.does.closes.back().by);
        CHECK(how.error == on.does.closes.back().error);
        CHECK(how.reached == on.does.closes.back().reached);
        return how;
    };
    const auto finishes = [](auto& client) { client.shutdown_send(); };

    CHECK(accept_one(finishes).by == closed_by::peer_finished);

    const auto reset = accept_one([](auto& client) { client.reset(); });
    CHECK(reset.by == closed_by::peer_reset);
    CHECK(reset.error == std::errc::connection_reset);

    on.does.on_data = [](tcp::connection& peer, tcp::bytes) { peer.close(); };
    CHECK(accept_one(finishes).by == closed_by::handler_closed);

    on.does.on_data = [](tcp::connection& peer, tcp::bytes) { peer.abort(); };
    CHECK(accept_one(finishes).by == closed_by::handler_aborted);

    on.does.on_data = [](tcp::connection&, tcp::bytes) { throw std::runtime_error{"a hook"}; };
    CHECK(accept_one(finishes).by == closed_by::handler_threw);

    on.does.on_data = nullptr;
    on.does.on_open = [](tcp::connection& peer) { peer.abort(); };
    CHECK(accept_one(finishes).by == closed_by::handler_aborted);

    on.does.on_open = [](tcp::connection&) { throw 42; };
    CHECK(accept_one(finishes).by == closed_by::handler_threw);

    CHECK(server.statistics().accepted == 7);
    CHECK(server.statistics().closed == 7);
}

TEST_ON_BEDS("accept() of a handler that cannot be made goes on to the next", Bed,
             CONFORMANCE_BEDS) {
    for (const bool same_endpoint : {true, false}) {
        CAPTURE(same_endpoint);
        thrower::plan plan;
        {
            stage<Bed> on;
            auto server = on.bed.make(thrower{plan});
            const endpoint first = server.bind("127.0.0.1:0");
            const endpoint second = server.bind("127.0.0.1:0");
            server.listen();
            plan.armed = true;
            plan.copies = 0;
            std::vector<typename Bed::client> clients;
            const auto come = [&](const endpoint& where) {
                clients.push_back(on.bed.connect(where));
                clients.back().shutdown_send();
                CHECK(on.bed.wait([&] { return clients.back().connected(); }));
            };
            come(first);  // it is refused
            come(same_endpoint ? first : second);
            come(second);
            CHECK(accept(on.bed, server).by == closed_by::peer_finished);
            CHECK(plan.opens == 1);
            CHECK(plan.closes == 1);
            CHECK(server.statistics().refused == 1);
            CHECK(accept(on.bed, server).by == closed_by::peer_finished);
            CHECK(plan.opens == 2);
        }
        CHECK(plan.alive == 0);
    }
}

TEST_ON_BEDS("accept() and stop()", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    {
        // In a hook, while it serves.
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        on.does.on_data = [&](tcp::connection&, tcp::bytes) { server.stop(); };
        auto client = on.bed.connect(where);
        client.send("hello");
        on.bed.wait([&] { return client.connected(); });
        CHECK(accept(on.bed, server).by == closed_by::server_stopping);
        CHECK(on.does.closes.size() == 1);
        CHECK(on.does.closes.back().by == closed_by::server_stopping);
        CHECK(server.accept().by == closed_by::server_stopping);
        CHECK(on.does.opens == 1);
    }
    {
        // Before, with a client that waits.
        auto server = on.bed.make(scripted{on.does});
        const auto where = on.bed.listen(server);
        auto client = on.bed.connect(where);
        on.bed.wait([&] { return client.connected(); });
        server.stop();
        std::error_code failure = tcp::error::bad_options;
        CHECK(server.accept(failure).by == closed_by::server_stopping);
        CHECK(!failure);
        CHECK(on.does.opens == 1);
        CHECK(on.bed.wait([&] { return client.was_reset() || client.ended(); }));
    }
    if constexpr (Bed::simulated) {
        // While it waits for a client.
        auto server = on.bed.make(scripted{on.does});
        on.bed.listen(server);
        on.bed.world.after(1s, [&] { server.stop(); });
        CHECK(server.accept().by == closed_by::server_stopping);
    }
}

TEST_ON_BEDS("native_handle(): the socket itself, until the end", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    int in_open = -2, in_close = -2;
    bool same = false;
    on.does.on_open = [&](tcp::connection& peer) {
        in_open = peer.native_handle();
        same = tcp::detail::remote_endpoint_of(in_open) == peer.remote_endpoint();
    };
    on.does.on_end = [&](tcp::connection& peer) {
        same = same && peer.native_handle() == in_open;
        peer.close();
    };
    on.does.on_close = [&](tcp::connection& peer, const tcp::close_reason&) {
        in_close = peer.native_handle();
    };
    auto server = on.bed.make(scripted{on.does});
    auto client = on.bed.connect(on.bed.listen(server));
    client.shutdown_send();
    REQUIRE(on.bed.until(server, [&] { return client.ended() && !on.does.closes.empty(); }));
    const bool has_none =
        Bed::simulated || (Bed::puts_off && conformance::with_direct_descriptors());
    CHECK((in_open == -1) == has_none);
    CHECK(same == !has_none);
    CHECK(in_close == -1);
}

TEST_ON_BEDS("accept() stopped by another thread", Bed, SYSTEM_BEDS) {
    for (int i = 0; i != 20; ++i) {
        auto server = Bed{}.make(tcp::echo{});
        server.bind("127.0.0.1:0");
        server.listen();
        tcp::close_reason how;
        std::thread loop{[&] { how = server.accept(); }};
        server.stop();
        loop.join();
        CHECK(how.by == closed_by::server_stopping);
    }
}

TEST_ON_BEDS("44 a server that was woken sleeps again", Bed, SYSTEM_BEDS) {
    const auto processor_time = [] {
        rusage used{};
        ::getrusage(RUSAGE_THREAD, &used);
        const auto of = [](const timeval& t) {
            return std::chrono::seconds{t.tv_sec} + std::chrono::microseconds{t.tv_usec};
        };
        return of(used.ru_utime) + of(used.ru_stime);
    };
    auto server = Bed{}.make(tcp::echo{});
    server.bind("127.0.0.1:0");
    server.listen();
    server.run_for(1ms);
    server.pause_accept();
    server.resume_accept();
    server.run_for(10ms);
    const auto before = processor_time();
    server.run_for(300ms);
    CHECK(processor_time() - before < 50ms);
}
