// Connections that have no descriptors (options::direct_descriptors): more of them than the limit
// allows, and what happens where there is no table, no place in it, and no descriptor left. The
// conformance suite is run with them as well.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/engine/native.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"
#include "resident_memory.hpp"

using namespace std::chrono_literals;
using tcp::detail::descriptor;
using tests::blocking_client;

namespace {

using echo_server = tcp::server<tcp::echo, tcp::io_uring_engine>;

constexpr std::string_view none = "io_uring, no direct descriptors, since it gave: ";

tcp::options direct(std::size_t threads = 1) {
    return {.threads = threads, .direct_descriptors = true};
}

void set_descriptor_limit(std::size_t most) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// Whether the system has them at all.
bool is_there() {
    return tcp::server<tcp::echo, tcp::native_engine>{tcp::echo{}, direct()}.engine() == "io_uring";
}

bool skipped() {
    if (is_there()) return false;
    MESSAGE(tests::findings::skipped, "direct descriptors");
    return true;
}

/// A process with many clients: each echoes when it has connected, and again when all have.
class client_process {
public:
    client_process(const tcp::endpoint& to, std::size_t count) {
        int up[2] = {}, down[2] = {};
        REQUIRE((::pipe(up) == 0 && ::pipe(down) == 0));
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(up[0]);
            ::close(down[1]);
            serve(to, count, descriptor{up[1]}, descriptor{down[0]});
            ::_exit(0);
        }
        ::close(up[1]);
        ::close(down[0]);
        said_.reset(up[0]);
        told_.reset(down[1]);
        pid_ = child;
    }
    client_process(client_process&& other) noexcept = default;
    ~client_process() {
        if (!told_) return;
        tell('e');  // closing the pipe would not do: the other processes have it, too
        ::waitpid(pid_, nullptr, 0);
    }

    /// How many echoed in the round that is over now.
    std::size_t echoed() const {
        std::size_t count = 0;
        return ::read(said_.get(), &count, sizeof count) == sizeof count ? count : 0;
    }
    void next_round() const { tell('n'); }

private:
    void tell(char what) const { CHECK(::write(told_.get(), &what, 1) == 1); }

    static void serve(const tcp::endpoint& to, std::size_t count, descriptor up, descriptor down) {
        std::vector<blocking_client> clients;
        clients.reserve(count);
        for (char c = 0;;) {
            std::size_t echoed = 0;
            for (std::size_t i = 0; i != count; ++i) {
                if (i == clients.size()) clients.emplace_back(to);
                echoed += clients[i].connected() && clients[i].echoes("to " + std::to_string(i));
            }
            if (::write(up.get(), &echoed, sizeof echoed) < 0) return;
            if (::read(down.get(), &c, 1) != 1 || c == 'e') return;
        }
    }

    descriptor said_, told_;
    pid_t pid_ = 0;
};

}  // namespace

TEST_CASE("40,000 connections under a limit of 20,000 descriptors") {
    tests::in_child([](tests::findings& found) {
        if (!is_there()) return found.not_permitted("direct descriptors");
        const bool few = tests::sanitized || std::getenv("TCP_TEST_QUICK") != nullptr;
        constexpr std::size_t processes = 3;
        const std::size_t limit = few ? 600 : 20'000;
        const std::size_t each = limit * 2 / processes;
        set_descriptor_limit(limit);
        echo_server server{tcp::echo{}, direct(processes)};
        const tcp::endpoint where = server.bind("0.0.0.0:0");
        server.listen();
        std::vector<client_process> clients;
        // To an address each: there are not as many ports as clients.
        for (std::size_t i = 0; i != processes; ++i)
            clients.emplace_back(tcp::endpoint::parse("127.0.0." + std::to_string(i + 1) + ":" +
                                                      std::to_string(where.port())),
                                 each);
        std::thread runner{[&] { server.run(); }};
        for (const client_process& one : clients)
            found.check(one.echoed() == each, "not every connection was made and echoed");
        const std::size_t before = tests::resident_bytes();
        found.check(server.statistics().open == each * processes, "not all of them are open");
        found.check(tests::open_descriptors().size() < 100, "they have descriptors");
        for (const client_process& one : clients) one.next_round();
        for (const client_process& one : clients)
            found.check(one.echoed() == each, "not every connection echoed again");
        found.check(tests::sanitized || tests::resident_bytes() - before < 1 << 20,
                    "an echo takes memory that stays");
        clients.clear();
        for (int i = 0; i != 2000 && server.statistics().open != 0; ++i)
            std::this_thread::sleep_for(10ms);
        found.check(server.statistics().open == 0, "some are open still");
        server.stop();
        runner.join();
    });
}

TEST_CASE("who finds no place in the table has a descriptor") {
    tests::in_child([](tests::findings& found) {
        if (!is_there()) return found.not_permitted("direct descriptors");
        set_descriptor_limit(40);
        std::optional<echo_server> server{std::in_place, tcp::echo{}, direct()};
        const tcp::endpoint where = server->bind("127.0.0.1:0");
        server->listen();
        set_descriptor_limit(1000);
        const std::size_t before = tests::open_descriptors().size();
        std::vector<blocking_client> clients;
        for (int round = 0; round != 3; ++round) {
            for (std::size_t i = 0; i != 100; ++i) clients.emplace_back(where);
            while (server->statistics().open != 100) server->run_for(1ms);
            const std::size_t all = tests::open_descriptors().size() - before - clients.size();
            found.check(all == 60, "that is not what does not fit: " + std::to_string(all));
            for (const blocking_client& one : clients) {
                found.check(one.send("hello"), "it cannot be sent");
                const std::uint64_t sent = server->statistics().bytes_sent;
                while (server->statistics().bytes_sent != sent + 5) server->run_for(1ms);
                found.check(one.receive(5) == "hello", "no echo");
            }
            clients.clear();
            while (server->statistics().open != 0) server->run_for(1ms);
        }
        found.check(tests::open_descriptors().size() == before, "a descriptor is left");
    });
}

TEST_CASE("without a descriptor left, they serve all the same") {
    struct ending_echo {
        void on_data(tcp::connection& c, tcp::bytes data) const { c.send(data); }
        void on_end(tcp::connection& c) const {
            c.send(c.remote_endpoint() ? "known" : "unknown");
            c.shutdown_send();
        }
    };
    tests::in_child([](tests::findings& found) {
        if (tests::sanitized) return found.not_permitted("a sanitizer needs descriptors itself");
        if (!is_there()) return found.not_permitted("direct descriptors");
        tcp::server<ending_echo, tcp::io_uring_engine> server{ending_echo{}, direct()};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        const blocking_client first{where}, second{where};
        while (server.statistics().open != 2) server.run_for(1ms);
        set_descriptor_limit(1);  // for what is new
        std::thread client{[&] {
            const std::string much(3'000'000, 'x');
            for (const blocking_client* one : {&first, &second}) {
                std::thread writer{[&] { found.check(one->send(much), "it cannot be sent"); }};
                found.check(one->receive(much.size()) == much, "not what was sent");
                writer.join();
                one->shutdown_send();
                const std::string last = one->receive_all();
                found.check(last == "unknown", "the end is " + last);
            }
        }};
        while (server.statistics().open != 0) server.run_for(1ms);
        client.join();
    });
}

TEST_CASE("without a table they have descriptors, and the server says why") {
    tests::in_child([](tests::findings& found) {
        using namespace tcp::detail::io_uring;
        if (!tests::refuse_call(register_call, 1, static_cast<int>(register_files), ENOMEM))
            return found.not_permitted("seccomp");
        echo_server server{tcp::echo{}, direct()};
        const std::string said{server.engine()};
        found.check(said == std::string{none} + "Cannot allocate memory", said);
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        std::thread runner{[&] { server.run(); }};
        found.check(blocking_client{where}.echoes("hello"), "no echo");
        server.stop();
        runner.join();
    });
    tests::in_child([](tests::findings& found) {
        using namespace tcp::detail::io_uring;
        if (!tests::refuse_call(register_call, 1, static_cast<int>(register_files), EINVAL))
            return found.not_permitted("seccomp");
        const tcp::server<tcp::echo, tcp::native_engine> server{tcp::echo{}, direct()};
        const std::string said{server.engine()};
        found.check(said == std::string{none} + "Invalid argument", said);
    });
}

TEST_CASE("a loop with them stays on its thread") {
    if (skipped()) return;
    constexpr std::size_t count = 500;  // more than there is room for requests
    std::optional<echo_server> server{std::in_place, tcp::echo{}, direct()};
    const tcp::endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    std::thread{[&] { server->run_for(1ms); }}.join();
    server->run_for(1ms);  // nobody is connected
    std::vector<blocking_client> clients;
    for (std::size_t i = 0; i != count; ++i) clients.emplace_back(where);
    while (server->statistics().open != count) server->run_for(1ms);
    const std::function<void()> calls[] = {
        [&] { server->run_for(1ms); },
        [&] { server->accept(); },
        [&] {
            server->pause_accept();
            server->run_for(1ms);
        },
        [&] {
            server->drain(1h);
            server->run_for(1ms);
        },
    };
    std::uint64_t echoed = 0;
    for (const auto& call : calls) {
        std::string said;
        std::thread{[&] {
            try {
                call();
            } catch (const std::system_error& e) {
                said = e.what();
            }
        }}.join();
        CHECK(said.find("options::direct_descriptors") != std::string::npos);
        CHECK(clients[0].send("hello"));
        for (echoed += 5; server->statistics().bytes_sent != echoed;) server->run_for(1ms);
        CHECK(clients[0].receive(5) == "hello");
    }
    CHECK(server->statistics().open == count);
    std::thread{[&] { server.reset(); }}.join();
    for (const blocking_client& one : clients) CHECK(one.over());
}

TEST_CASE("in the child of fork(2) they end, and the child serves others") {
    if (skipped()) return;
    echo_server server{tcp::echo{}, direct()};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client client{where};
    while (server.statistics().open != 1) server.run_for(1ms);
    tests::in_child([&](tests::findings& found) {
        const blocking_client other{where};
        found.check(other.send("hello"), "it cannot be sent");
        const std::uint64_t sent = server.statistics().bytes_sent;
        for (int i = 0; i != 2000 && server.statistics().bytes_sent != sent + 5; ++i)
            server.run_for(1ms);
        found.check(other.receive(5) == "hello", "no echo");
        found.check(server.statistics().open == 1, "the parent's is open in the child");
    });
    CHECK(client.send("hello"));
    for (int i = 0; i != 2000 && server.statistics().bytes_sent != 5; ++i) server.run_for(1ms);
    CHECK(client.receive(5) == "hello");
}

TEST_CASE("their ends leave at once, whoever waits, and a reset is one") {
    struct ending {
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (tcp::as_text(data) == "abort") return peer.abort();
            peer.close();
        }
    };
    if (skipped()) return;
    tcp::server<ending, tcp::io_uring_engine> server{ending{}, direct()};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client waits{where}, closed{where}, aborted{where};
    while (server.statistics().open != 3) server.run_for(1ms);
    CHECK((closed.send("close") && aborted.send("abort")));
    const auto begin = std::chrono::steady_clock::now();
    while (server.statistics().open != 2) server.run_for(1ms);
    server.run_for(5ms);
    CHECK(closed.receive_all().empty());
    CHECK(closed.error() == 0);
    CHECK(aborted.receive_all().empty());
    CHECK(aborted.error() == ECONNRESET);
    CHECK(std::chrono::steady_clock::now() - begin < 2s);
}

TEST_CASE("a thousand that say where they were when they end keep no descriptor") {
    struct logging {
        std::size_t* known;
        void on_close(tcp::connection& peer, const tcp::close_reason&) const {
            *known += peer.local_endpoint() ? 1 : 0;
        }
    };
    if (skipped()) return;
    constexpr std::size_t count = 3000;
    const std::size_t descriptors = tests::open_descriptors().size();
    std::size_t known = 0;
    {
        tcp::server<logging, tcp::io_uring_engine> server{logging{&known}, direct()};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        std::vector<blocking_client> clients;
        for (std::size_t i = 0; i != count; ++i) clients.emplace_back(where);
        while (server.statistics().open != count) server.run_for(1ms);
        const std::size_t before = tests::open_descriptors().size();
        server.stop();
        server.run();
        CHECK(tests::open_descriptors().size() <= before);
        for (const blocking_client& one : clients) CHECK(one.over());
    }
    CHECK(known == count);
    CHECK(tests::open_descriptors().size() == descriptors);
}
