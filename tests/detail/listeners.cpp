#include <tcp/detail/listeners.hpp>

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/endpoint.hpp>
#include <tcp/options.hpp>

#include "blocking_client.hpp"
#include "temporary_folder.hpp"

using tests::blocking_client;

namespace {

bool nobody_waits = false;

/// As gVisor does: TCP_INFO of a listening socket says nothing of its queue.
struct saying_that_nobody_waits {
    saying_that_nobody_waits() { nobody_waits = true; }
    ~saying_that_nobody_waits() { nobody_waits = false; }
};

}  // namespace

extern "C" int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
    const long result = ::syscall(SYS_getsockopt, fd, level, name, value, size);
    if (result == 0 && nobody_waits && level == IPPROTO_TCP && name == TCP_INFO)
        static_cast<tcp_info*>(value)->tcpi_unacked = 0;
    return static_cast<int>(result);
}

namespace {

/// As much of an engine as accepting needs, and its sink.
class accepting : public tcp::detail::listeners {
public:
    accepting() : listeners{defaults_} {}

    tcp::endpoint listen(const std::string& where) {
        std::error_code failure;
        const tcp::endpoint bound = bind(tcp::endpoint::parse(where), failure);
        listeners::listen(0, 1000, failure);
        REQUIRE(!failure);
        listeners_[0].armed = true;
        return bound;
    }
    int socket() { return listeners_[0].socket.get(); }
    void accept_one() { listeners_[0].one = true; }

    void accept_batch() { accept_some(0, *this, *this); }

    void pause_accept(std::uint32_t id) { listeners_[id].armed = false; }
    void accepted(std::uint32_t, int socket, const tcp::endpoint&) {
        ::close(socket);
        ++count;
        if (on_accepted) on_accepted();
    }
    void accept_failed(std::uint32_t, int error) { errors.push_back(error); }

    std::size_t count = 0;
    std::vector<int> errors;
    std::function<void()> on_accepted;

private:
    const tcp::options defaults_{};
};

}  // namespace

TEST_CASE("those that wait are accepted in one batch, and no accept finds none") {
    accepting server;
    const tcp::endpoint where = server.listen("127.0.0.1:0");
    std::vector<blocking_client> clients;
    for (const std::size_t waiting : {1U, 2U, 7U, 30U}) {
        server.count = 0;
        for (std::size_t i = 0; i != waiting; ++i) clients.emplace_back(where);
        // Who comes meanwhile is there for the next batch: its end was known before.
        server.on_accepted = [&] {
            if (server.count == 1) clients.emplace_back(where);
        };
        server.accept_batch();
        CHECK(server.count == waiting);
        server.accept_batch();
        CHECK(server.count == waiting + 1);
    }
    CHECK(server.errors.empty());
}

TEST_CASE("at most 64 in a row") {
    accepting server;
    const tcp::endpoint where = server.listen("127.0.0.1:0");
    std::vector<blocking_client> clients;
    for (int i = 0; i != 100; ++i) clients.emplace_back(where);
    server.accept_batch();
    CHECK(server.count == 64);
    server.accept_batch();
    CHECK(server.count == 100);
}

TEST_CASE("a unix-domain socket does not say how many wait: all are accepted") {
    const tests::temporary_folder here;
    accepting server;
    const tcp::endpoint where = server.listen("unix:" + here.file());
    std::vector<blocking_client> clients;
    for (int i = 0; i != 5; ++i) clients.emplace_back(where);
    server.accept_batch();
    CHECK(server.count == 5);
    CHECK(server.errors.empty());
}

TEST_CASE("paused in the middle, the others go on waiting") {
    accepting server;
    const tcp::endpoint where = server.listen("127.0.0.1:0");
    const blocking_client one{where}, two{where};
    server.accept_one();
    server.accept_batch();
    CHECK(server.count == 1);
    server.accept_batch();
    CHECK(server.count == 1);
}

TEST_CASE("a system that says that nobody waits is asked by accept(2) all the same") {
    accepting server;
    const tcp::endpoint where = server.listen("127.0.0.1:0");
    std::vector<blocking_client> clients;
    for (int i = 0; i != 3; ++i) clients.emplace_back(where);
    const saying_that_nobody_waits emulated;
    for (std::size_t i = 1; i != 4; ++i) {
        server.accept_batch();
        CHECK(server.count == i);
    }
    CHECK(server.errors.empty());
}

TEST_CASE("without a client it asks once, so that a failure is told and nothing spins") {
    accepting server;
    server.listen("127.0.0.1:0");
    server.accept_batch();
    CHECK(server.count == 0);
    CHECK(server.errors.empty());
    REQUIRE(::shutdown(server.socket(), SHUT_RDWR) == 0);  // it listens no more
    server.accept_batch();
    CHECK(server.errors == std::vector<int>{EINVAL});
}

TEST_CASE("the copy for another loop is not inherited by programs that this one starts") {
    accepting server;
    server.listen("127.0.0.1:0");
    std::error_code failure;
    const tcp::detail::descriptor copy{server.share(0, failure)};
    REQUIRE(!failure);
    CHECK((::fcntl(copy.get(), F_GETFD) & FD_CLOEXEC) != 0);
}
