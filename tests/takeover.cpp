// Sockets from elsewhere: behaviour 10, descriptors that are inherited or given, and 66, a listener
// that changes hands while clients connect.
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/socket.hpp>
#include <tcp/listen_fds.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"
#include "temporary_folder.hpp"

using namespace std::chrono_literals;
using tcp::endpoint;
using tcp::detail::descriptor;

namespace {

descriptor bound_socket(const std::string& where, int type = SOCK_STREAM) {
    const endpoint to = endpoint::parse(where);
    descriptor fd{::socket(to.data()->sa_family, type, 0)};
    REQUIRE(::bind(fd.get(), to.data(), to.size()) == 0);
    return fd;
}

/// Whether a client that connects there gets its words back.
bool echoes(const endpoint& where) { return tests::blocking_client{where}.echoes("hello"); }

/// The same while this server serves.
bool echoes(tcp::server<tcp::echo>& server, const endpoint& where) {
    std::atomic<bool> over{false};
    bool result = false;
    std::thread client{[&] {
        result = echoes(where);
        over = true;
    }};
    while (!over) server.run_for(1ms);
    client.join();
    return result;
}

std::error_code refusal_of(int socket) {
    tcp::server<tcp::echo> server;
    std::error_code failure;
    CHECK_FALSE(server.adopt(socket, failure));
    std::error_code after;
    server.listen(after);
    CHECK(after == tcp::error::not_bound);
    return failure;
}

}  // namespace

TEST_CASE("10 adopt: a socket that is bound, listening already or not") {
    for (const bool listening : {false, true}) {
        for (const char* where : {"127.0.0.1:0", "[::1]:0"}) {
            descriptor given = bound_socket(where);
            if (listening) REQUIRE(::listen(given.get(), 8) == 0);
            const endpoint bound = tcp::detail::local_endpoint_of(given.get());
            tcp::server<tcp::echo> server{tcp::options{.no_delay = true}};
            const int fd = given.release();
            CHECK(server.adopt(fd) == bound);
            CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
            server.listen();
            CHECK(echoes(server, bound));
        }
    }
}

TEST_CASE("10 adopt: options::no_delay is set where it was not, and nothing is taken back") {
    for (const bool no_delay : {false, true}) {
        CAPTURE(no_delay);
        descriptor given = bound_socket("127.0.0.1:0");
        tcp::server<tcp::echo> server{tcp::options{.no_delay = no_delay}};
        const int fd = given.release();
        server.adopt(fd);
        int is_set = -1;
        socklen_t size = sizeof is_set;
        REQUIRE(::getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &is_set, &size) == 0);
        CHECK((is_set != 0) == no_delay);  // those that it accepts inherit it
    }
}

TEST_CASE("10 adopt: a unix-domain socket, whose file stays") {
    const tests::temporary_folder here;
    const std::string path = here.file("socket");
    {
        descriptor given = bound_socket("unix:" + path);
        tcp::server<tcp::echo> server;
        server.adopt(given.release());
        server.listen();
        CHECK(echoes(server, endpoint::parse("unix:" + path)));
    }
    struct stat file {};
    CHECK(::lstat(path.c_str(), &file) == 0);
    ::unlink(path.c_str());
}

TEST_CASE("10 adopt: what is no bound stream socket is refused and stays the caller's") {
    int ends[2] = {};
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const descriptor out{ends[0]}, in{ends[1]};
    CHECK(refusal_of(out.get()) == std::errc::not_a_socket);
    CHECK(refusal_of(-1) == std::errc::bad_file_descriptor);

    const descriptor datagrams = bound_socket("127.0.0.1:0", SOCK_DGRAM);
    CHECK(refusal_of(datagrams.get()) == tcp::error::not_a_listener);
    const descriptor unbound{::socket(AF_INET, SOCK_STREAM, 0)};
    CHECK(refusal_of(unbound.get()) == tcp::error::not_a_listener);
    int pair[2] = {};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    const descriptor one{pair[0]}, two{pair[1]};
    CHECK(refusal_of(one.get()) == tcp::error::not_a_listener);

    const descriptor listening = bound_socket("127.0.0.1:0");
    REQUIRE(::listen(listening.get(), 1) == 0);
    const descriptor client{::socket(AF_INET, SOCK_STREAM, 0)};
    const endpoint where = tcp::detail::local_endpoint_of(listening.get());
    REQUIRE(::connect(client.get(), where.data(), where.size()) == 0);
    CHECK(refusal_of(client.get()) == tcp::error::not_a_listener);
    for (const descriptor* each : {&out, &datagrams, &unbound, &one, &client})
        CHECK(::fcntl(each->get(), F_GETFD) >= 0);
    CHECK_THROWS_WITH_AS(tcp::server<tcp::echo>{}.adopt(unbound.get()),
                         doctest::Contains("bind(2)"), std::system_error);
    CHECK_THROWS_WITH_AS(tcp::server<tcp::echo>{}.adopt(-1),
                         "adopt(-1) takes what tcp::listen_fds() or release() gave: Bad file "
                         "descriptor",
                         std::system_error);
}

TEST_CASE("10 adopt: calls in the wrong order") {
    tcp::server<tcp::echo> server;
    std::error_code failure;
    CHECK(server.release(0, failure) == -1);
    CHECK(failure == tcp::error::not_bound);
    server.bind("127.0.0.1:0");
    server.listen();
    const descriptor late = bound_socket("127.0.0.1:0");
    server.adopt(late.get(), failure);
    CHECK(failure == tcp::error::already_listening);
    CHECK(server.release(1, failure) == -1);
    CHECK(failure == std::errc::invalid_argument);
    CHECK_THROWS_WITH_AS(server.release(5),
                         doctest::Contains("release(5), counted from 0, of 1 bound: "),
                         std::system_error);
    server.stop();
    CHECK(server.release(0, failure) == -1);
    CHECK(failure == tcp::error::stopped);
}

TEST_CASE("10 listen_fds: the descriptors that the environment speaks of") {
    CHECK(tcp::listen_fds().empty());
    // So that 3 and 4 are nobody's who needs them.
    std::vector<descriptor> low;
    do low.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    while (low.back().get() < 10);
    tests::in_child([](tests::findings& found) {
        descriptor given = bound_socket("127.0.0.1:0");
        const endpoint bound = tcp::detail::local_endpoint_of(given.get());
        const int own = given.release();
        for (const int fd : {3, 4})
            if (own != fd) ::dup2(own, fd);
        ::close(5);
        const auto listen_fds = [](const std::string& pid, const char* count) {
            ::setenv("LISTEN_PID", pid.c_str(), 1);
            ::setenv("LISTEN_FDS", count, 1);
            return tcp::listen_fds();
        };
        const std::string me = std::to_string(::getpid());
        found.check(listen_fds(me, "2") == std::vector<int>{3, 4}, "two");
        found.check((::fcntl(3, F_GETFD) & FD_CLOEXEC) != 0, "CLOEXEC");
        found.check(listen_fds(me, "3") == std::vector<int>{3, 4}, "more than there are");
        found.check(listen_fds(me, "9223372036854775807") == std::vector<int>{3, 4}, "all numbers");
        found.check(listen_fds(me, "0").empty(), "0");
        found.check(listen_fds(me, "x").empty(), "no number");
        found.check(listen_fds(me, "2x").empty(), "a number and more");
        found.check(listen_fds(me + "x", "2").empty(), "a process and more");
        found.check(listen_fds(me, "").empty(), "empty");
        found.check(listen_fds(me, "-1").empty(), "negative");
        found.check(listen_fds("1", "2").empty(), "another process");
        tcp::server<tcp::echo> server;
        found.check(server.adopt(listen_fds(me, "1").at(0)) == bound, "adopted");
    });
}

TEST_CASE("66 a new server takes over while clients connect: none fails") {
    for (const std::size_t threads : {1U, 3U}) {
        const tcp::options settings{.threads = threads};
        tcp::server<tcp::echo> before{settings}, after{settings};
        const endpoint where = before.bind("127.0.0.1:0");
        before.listen();
        std::thread first{[&] { before.run(); }};
        std::atomic<bool> over{false};
        std::atomic<int> served{0}, failed{0};
        std::vector<std::thread> clients;
        for (int i = 0; i != 3; ++i)
            clients.emplace_back([&] {
                while (!over) ++(echoes(where) ? served : failed);
            });
        std::this_thread::sleep_for(50ms);
        after.adopt(before.release());
        after.listen();
        std::thread second{[&] { after.run(); }};
        std::this_thread::sleep_for(50ms);
        before.drain(20s);
        first.join();
        const int at_the_end = served;
        std::this_thread::sleep_for(50ms);
        over = true;
        for (std::thread& each : clients) each.join();
        CHECK(failed == 0);
        CHECK(served > at_the_end);
        const auto old = before.statistics(), now = after.statistics();
        CHECK(old.accepted != 0);
        CHECK(now.accepted != 0);
        CHECK(old.accepted + now.accepted == static_cast<std::uint64_t>(served));
        after.stop();
        second.join();
    }
}

TEST_CASE("66 a unix-domain listener that changes hands keeps its file") {
    const tests::temporary_folder here;
    const std::string path = here.file("socket");
    tcp::server<tcp::echo> after;
    {
        tcp::server<tcp::echo> before;
        before.bind("unix:" + path);
        before.listen();
        after.adopt(before.release());
    }
    after.listen();
    CHECK(echoes(after, endpoint::parse("unix:" + path)));
    ::unlink(path.c_str());
}
