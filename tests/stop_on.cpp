// tcp::stop_on: signals that end servers, behaviour 64, and dispositions that are as they were.
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <ostream>  // doctest prints error codes
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/server.hpp>
#include <tcp/stop_on.hpp>
#include <tcp/timer.hpp>

#include "blocking_client.hpp"
#include "handled_signal.hpp"

using namespace std::chrono_literals;
using tcp::closed_by;
using tcp::stop_on;
using tests::blocking_client;
using tests::handled_signal;

namespace {

/// What is told to end, and counts it. A signal handler on another thread may be the one.
struct counted {
    std::atomic<int> drains{0};
    std::atomic<int> stops{0};
    tcp::duration at_most{};

    void drain(tcp::duration length) noexcept {
        at_most = length;
        ++drains;
        errno = 1;  // which is to be kept
    }
    void stop() noexcept {
        ++stops;
        errno = 2;
    }
};

static_assert(std::is_same_v<stop_on, tcp::v0_1::stop_on>);
static_assert(!std::is_copy_constructible_v<stop_on>);
static_assert(!std::is_move_constructible_v<stop_on>);
static_assert(!std::is_convertible_v<counted&, stop_on>);
static_assert(std::is_constructible_v<stop_on, tcp::server<>&>);

struct sigaction disposition(int number) {
    struct sigaction now {};
    REQUIRE(::sigaction(number, nullptr, &now) == 0);
    return now;
}

/// Handler, flags and mask, as sigaction(2) tells them. The C library adds a flag of its own,
/// SA_RESTORER, to what it is given.
bool same(const struct sigaction& a, const struct sigaction& b) {
    constexpr int restorer = 0x0400'0000;
    if (a.sa_handler != b.sa_handler || ((a.sa_flags ^ b.sa_flags) & ~restorer) != 0) return false;
    if (a.sa_handler == SIG_DFL || a.sa_handler == SIG_IGN) return true;  // no mask is used
    for (int i = 1; i != SIGRTMAX; ++i)
        if (sigismember(&a.sa_mask, i) != sigismember(&b.sa_mask, i)) return false;
    return true;
}

std::atomic<int> calls_of_others{0};
extern "C" void other(int) { ++calls_of_others; }
extern "C" void another(int) { ++calls_of_others; }

template <class Handler = tcp::echo>
using epoll_server = tcp::server<Handler, tcp::epoll_engine>;

template <class Server>
tcp::endpoint listen(Server& server) {
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    return where;
}

template <class Server>
std::uint64_t count_of(const Server& server, closed_by by) {
    return server.statistics().closed_by[static_cast<std::size_t>(by)];
}

/// Takes its time to answer, and is told to end meanwhile.
struct slow {
    int raised = SIGUSR1;
    tcp::timer work{};

    void on_data(tcp::connection& peer, tcp::bytes) {
        ::raise(raised);
        work.start(peer, 100ms, [](tcp::connection& waiting) {
            waiting.send("the answer");
            waiting.close();
        });
    }
};

/// Never finishes by itself.
struct stays {
    std::vector<int> raised{};
    void on_open(tcp::connection&) {
        for (const int each : raised) ::raise(each);
    }
    void on_end(tcp::connection&) {}
};

}  // namespace

// ---- what is told ----

TEST_CASE("64 stop_on: the first signal drains, each one more stops") {
    counted server;
    const stop_on guard{server, {SIGUSR1, SIGUSR2}, 10s};
    CHECK(server.drains == 0);
    ::raise(SIGUSR2);
    CHECK(server.drains == 1);
    CHECK(server.stops == 0);
    CHECK(server.at_most == 10s);
    ::raise(SIGUSR1);
    CHECK(server.stops == 1);
    ::raise(SIGUSR1);
    CHECK(server.stops == 2);
    CHECK(server.drains == 1);
}

TEST_CASE("stop_on: SIGINT, SIGTERM and five seconds unless told otherwise") {
    counted server;
    const auto hangup = disposition(SIGHUP);
    {
        const stop_on guard{server};
        CHECK(same(disposition(SIGHUP), hangup));
        ::raise(SIGINT);
        ::raise(SIGTERM);
    }
    CHECK(server.drains == 1);
    CHECK(server.stops == 1);
    CHECK(server.at_most == 5s);

    counted other_one;
    const stop_on guard{other_one, {SIGTERM}, 0s};
    ::raise(SIGTERM);
    CHECK(other_one.drains == 1);
    CHECK(other_one.at_most == 0s);
}

TEST_CASE("stop_on: two servers are told the same signal, each for itself") {
    counted first, second;
    std::optional<stop_on> of_first, of_second;
    const handled_signal base{SIGUSR1, other};
    of_first.emplace(first, std::initializer_list<int>{SIGUSR1}, 1s);
    ::raise(SIGUSR1);
    of_second.emplace(second, std::initializer_list<int>{SIGUSR1}, 2s);
    ::raise(SIGUSR1);
    CHECK(first.drains == 1);
    CHECK(first.stops == 1);
    CHECK(first.at_most == 1s);
    CHECK(second.drains == 1);  // its first one
    CHECK(second.stops == 0);
    CHECK(second.at_most == 2s);
    SUBCASE("the younger ends first") {
        of_second.reset();
        ::raise(SIGUSR1);
        CHECK(first.stops == 2);
        CHECK(second.stops == 0);
    }
    SUBCASE("the older ends first") {
        of_first.reset();
        ::raise(SIGUSR1);
        CHECK(first.stops == 1);
        CHECK(second.stops == 1);
    }
    const int before = calls_of_others;
    of_first.reset();
    of_second.reset();
    ::raise(SIGUSR1);
    CHECK(calls_of_others == before + 1);
}

TEST_CASE("stop_on: each is told the signals that it names") {
    counted first, second;
    const stop_on of_first{first, {SIGUSR1}};
    {
        const stop_on of_second{second, {SIGUSR2, SIGTERM}};
        ::raise(SIGUSR1);
        CHECK(first.drains == 1);
        CHECK(second.drains == 0);
        ::raise(SIGTERM);
    }
    CHECK(second.drains == 1);
    CHECK(first.stops == 0);
}

TEST_CASE("stop_on: errno is kept") {
    counted server;
    const stop_on guard{server, {SIGUSR1}};
    errno = 77;
    ::raise(SIGUSR1);
    CHECK(errno == 77);
    ::raise(SIGUSR1);
    CHECK(errno == 77);
}

// ---- dispositions ----

TEST_CASE("stop_on: what the signals did before is put back, exactly") {
    const handled_signal ignored{SIGUSR1, SIG_IGN};
    const handled_signal caught{SIGUSR2, other, SA_SIGINFO | SA_NODEFER, SIGWINCH};
    const handled_signal untouched{SIGWINCH, SIG_DFL};
    const std::vector<int> signals{SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGTERM, SIGHUP};
    std::vector<struct sigaction> before;
    for (const int each : signals) before.push_back(disposition(each));
    counted server;
    {
        const stop_on guard{server, {SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGTERM, SIGHUP}};
        for (std::size_t i = 0; i != signals.size(); ++i) {
            const auto now = disposition(signals[i]);
            CHECK_FALSE(same(now, before[i]));
            CHECK((now.sa_flags & SA_RESTART) != 0);
            CHECK((now.sa_flags & SA_ONSTACK) != 0);  // a thread's own stack may be too small
            CHECK((now.sa_flags & (SA_SIGINFO | SA_NODEFER)) == 0);
        }
    }
    for (std::size_t i = 0; i != signals.size(); ++i)
        CHECK(same(disposition(signals[i]), before[i]));
}

TEST_CASE("stop_on: nested ones, ended in either order") {
    const handled_signal base{SIGUSR1, other};
    const auto before = disposition(SIGUSR1);
    counted server;
    const std::initializer_list<int> signals{SIGUSR1, SIGUSR2, SIGUSR1};  // one twice
    for (int order = 0; order != 6; ++order) {
        CAPTURE(order);
        std::optional<stop_on> guards[3];
        for (auto& each : guards) each.emplace(server, signals);
        const auto ours = disposition(SIGUSR1);
        const int first = order / 2;
        const int second = (first + 1 + order % 2) % 3;
        guards[first].reset();
        CHECK(same(disposition(SIGUSR1), ours));
        guards[second].reset();
        CHECK(same(disposition(SIGUSR1), ours));
        const int told = server.drains + server.stops;
        ::raise(SIGUSR1);
        CHECK(server.drains + server.stops == told + 1);
        guards[3 - first - second].reset();
        CHECK(same(disposition(SIGUSR1), before));
    }
}

TEST_CASE("stop_on: a handler of the program's between two of them") {
    const handled_signal base{SIGUSR1, other};
    const auto before = disposition(SIGUSR1);
    counted server;
    std::optional<stop_on> older, younger;
    older.emplace(server, std::initializer_list<int>{SIGUSR1});
    ::signal(SIGUSR1, another);
    const auto between = disposition(SIGUSR1);
    younger.emplace(server, std::initializer_list<int>{SIGUSR1});
    ::raise(SIGUSR1);
    CHECK(server.drains == 2);  // both are told
    SUBCASE("the younger ends first") {
        younger.reset();
        CHECK(same(disposition(SIGUSR1), between));
        older.reset();
        CHECK(same(disposition(SIGUSR1), before));
    }
    SUBCASE("the older ends first") {
        const auto ours = disposition(SIGUSR1);
        older.reset();
        CHECK(same(disposition(SIGUSR1), ours));
        younger.reset();
        CHECK(same(disposition(SIGUSR1), between));  // the program's latest word
    }
}

TEST_CASE("stop_on: a signal that cannot be caught is refused, and nothing has changed") {
    const handled_signal base{SIGUSR1, other, SA_NODEFER};
    const auto before = disposition(SIGUSR1);
    counted server;
    for (const int number : {SIGKILL, SIGSTOP, 0, -1, 65, 1 << 20, 32}) {
        CAPTURE(number);
        try {
            const stop_on guard{server, {SIGUSR1, number, SIGUSR2}};
            FAIL("it was taken");
        } catch (const std::system_error& thrown) {
            CHECK(thrown.code() == std::errc::invalid_argument);
            CHECK(std::string{thrown.what()} ==
                  "tcp::stop_on: signal " + std::to_string(number) +
                      " cannot be caught; SIGINT and SIGTERM can, SIGKILL and SIGSTOP never: " +
                      std::error_code{EINVAL, std::system_category()}.message());
        }
        CHECK(same(disposition(SIGUSR1), before));
        const int calls = calls_of_others;
        ::raise(SIGUSR1);
        CHECK(calls_of_others == calls + 1);
    }
    CHECK(server.drains == 0);
}

TEST_CASE("stop_on: other system calls go on") {
    counted server;
    const stop_on guard{server, {SIGUSR1}};
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    std::atomic<ssize_t> got{-2};
    std::thread reader{[&] {
        char c = 0;
        got = ::read(ends[0], &c, 1);
    }};
    for (int i = 0; i != 5; ++i) {
        std::this_thread::sleep_for(10ms);
        ::pthread_kill(reader.native_handle(), SIGUSR1);
    }
    CHECK(got == -2);
    CHECK(::write(ends[1], "!", 1) == 1);
    reader.join();
    CHECK(got == 1);
    CHECK(server.drains == 1);
    ::close(ends[0]);
    ::close(ends[1]);
}

// ---- ended while signals are handled ----

TEST_CASE("stop_on: its end waits for a signal that another thread is handling") {
    struct patient {
        std::atomic<bool> begun{false}, go_on{false}, done{false};
        void drain(tcp::duration) noexcept {
            begun = true;
            while (!go_on) std::this_thread::sleep_for(1ms);
            done = true;
        }
        void stop() noexcept {}
    };
    patient server;
    std::optional<stop_on> guard;
    guard.emplace(server, std::initializer_list<int>{SIGUSR1});
    std::thread told{[] { ::raise(SIGUSR1); }};
    while (!server.begun) std::this_thread::sleep_for(1ms);
    std::atomic<bool> ended{false};
    std::thread ending{[&] {
        guard.reset();
        ended = true;
        CHECK(server.done);
    }};
    std::this_thread::sleep_for(50ms);
    CHECK_FALSE(ended);
    server.go_on = true;
    ending.join();
    told.join();
    CHECK(ended);
}

TEST_CASE("stop_on: made and ended while signals come without end") {
    const handled_signal base{SIGUSR1, other};  // for those that come between
    counted outer;
    const stop_on of_outer{outer, {SIGUSR1}};
    std::atomic<bool> enough{false};
    std::vector<std::thread> threads;
    for (int i = 0; i != 2; ++i)
        threads.emplace_back([&] {
            while (!enough) ::raise(SIGUSR1);
        });
    int told = 0;
    for (int i = 0; i != 1000; ++i) {
        const auto server = std::make_unique<counted>();  // gone right after its guard
        const stop_on guard{*server, {SIGUSR1}};
        if (i % 16 == 0)
            while (server->stops == 0) std::this_thread::yield();
        told += server->drains;
    }
    enough = true;
    for (std::thread& each : threads) each.join();
    CHECK(told >= 63);
    CHECK(outer.drains == 1);
    CHECK(outer.stops > 0);
}

// ---- servers on the real network ----

TEST_CASE("64 stop_on: what is in flight is answered, and nobody new is accepted (K)") {
    epoll_server<slow> server;
    const auto where = listen(server);
    const stop_on guard{server, {SIGUSR1}, 20s};
    const blocking_client asks{where};
    REQUIRE(asks.send("?"));
    std::string answer;
    bool refused = false;
    std::thread other_side{[&] {
        while (server.statistics().bytes_received == 0) std::this_thread::sleep_for(1ms);
        std::this_thread::sleep_for(20ms);
        refused = !blocking_client{where}.connected();
        answer = asks.receive_all();
        asks.shutdown_send();
    }};
    const auto begin = std::chrono::steady_clock::now();
    server.run();
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
    other_side.join();
    CHECK(answer == "the answer");
    CHECK(refused);
    CHECK(count_of(server, closed_by::handler_closed) == 1);
    CHECK_FALSE(server.poll());
}

TEST_CASE("64 stop_on: who stays is closed at the deadline (K)") {
    epoll_server<stays> server{stays{{SIGUSR1}}};
    const auto where = listen(server);
    const stop_on guard{server, {SIGUSR1}, 100ms};
    const blocking_client one{where};
    const auto begin = std::chrono::steady_clock::now();
    server.run();
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(took >= 100ms);
    CHECK(took < 10s);
    CHECK(count_of(server, closed_by::drain_deadline) == 1);
}

TEST_CASE("64 stop_on: a second signal stops at once, another one too (K)") {
    epoll_server<stays> server{stays{{SIGUSR1, SIGUSR2}}};
    const auto where = listen(server);
    const stop_on guard{server, {SIGUSR1, SIGUSR2}, 1h};
    const blocking_client one{where};
    server.run();
    CHECK(count_of(server, closed_by::server_stopping) == 1);
}

TEST_CASE("stop_on: a signal before run() (K)") {
    epoll_server<> server;
    listen(server);
    const stop_on guard{server, {SIGUSR1}, 1h};
    ::raise(SIGUSR1);
    server.run();
    CHECK_FALSE(server.poll());
}

TEST_CASE("stop_on: one signal for the process ends two servers that sleep (K)") {
    epoll_server<> first, second;
    listen(first);
    listen(second);
    const stop_on of_first{first, {SIGUSR1}, 1h};
    const stop_on of_second{second, {SIGUSR1}, 1h};
    std::thread runs_first{[&] { first.run(); }};
    std::thread runs_second{[&] { second.run(); }};
    std::this_thread::sleep_for(20ms);
    ::kill(::getpid(), SIGUSR1);
    runs_first.join();
    runs_second.join();
    CHECK_FALSE(first.poll());
    CHECK_FALSE(second.poll());
}

TEST_CASE("64 stop_on: a process that SIGTERM ends in order, and kills afterwards (K)") {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        ::signal(SIGTERM, SIG_DFL);
        {
            epoll_server<> server;
            const auto where = listen(server);
            const stop_on guard{server};
            std::uint16_t port = where.port();
            if (::write(ready[1], &port, sizeof port) != sizeof port) ::_exit(1);
            server.run();
            if (count_of(server, closed_by::peer_finished) != 1) ::_exit(2);
        }
        ::raise(SIGTERM);
        ::_exit(3);
    }
    REQUIRE(child > 0);
    std::uint16_t port = 0;
    REQUIRE(::read(ready[0], &port, sizeof port) == sizeof port);
    {
        const blocking_client one{tcp::endpoint::parse("127.0.0.1:" + std::to_string(port))};
        CHECK(one.send("hello"));
        std::this_thread::sleep_for(50ms);
        CHECK(::kill(child, SIGTERM) == 0);
        std::this_thread::sleep_for(50ms);
        CHECK(one.send(", still there"));
        int status = 0;
        CHECK(::waitpid(child, &status, WNOHANG) == 0);
        one.shutdown_send();  // closed with something unread it would reset
        CHECK(one.receive_all() == "hello, still there");
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    if (WIFSIGNALED(status)) CHECK(WTERMSIG(status) == SIGTERM);
    if (WIFEXITED(status)) CHECK(WEXITSTATUS(status) == 0);
    ::close(ready[0]);
    ::close(ready[1]);
}
