// A million clients come and go: as many closes as opens, nobody left behind, and no descriptor
// more than before.
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/detail/descriptor.hpp>
#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "child_process.hpp"
#include "resident_memory.hpp"

using namespace std::chrono_literals;
using tcp::detail::descriptor;

namespace {

struct visits {
    std::atomic<std::uint64_t> opens{0}, closes{0};
};

struct counted_echo {
    visits* seen;
    void on_open(tcp::connection&) const { ++seen->opens; }
    void on_data(tcp::connection& peer, tcp::bytes data) const { peer.send(data); }
    void on_close(tcp::connection&, const tcp::close_reason&) const { ++seen->closes; }
};

/// Connects, and is gone: with a reset, which leaves no port waiting, or in order after an echo.
bool visit(const tcp::endpoint& where, bool in_order) {
    const descriptor client{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!client || ::connect(client.get(), where.data(), where.size()) != 0) return false;
    if (in_order) {
        char c = '!';
        return ::send(client.get(), &c, 1, MSG_NOSIGNAL) == 1 &&
               ::recv(client.get(), &c, 1, 0) == 1;
    }
    const linger reset{.l_onoff = 1, .l_linger = 0};
    return ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0;
}

template <class Engine>
constexpr int count_of = tests::sanitized                            ? 10'000
                         : std::is_same_v<Engine, tcp::epoll_engine> ? 1'000'000
                                                                     : 200'000;

}  // namespace

TEST_CASE_TEMPLATE("clients come and go by the million", Engine, tcp::epoll_engine,
                   tcp::io_uring_engine) {
    const int count = std::getenv("TCP_TEST_QUICK") != nullptr ? 10'000 : count_of<Engine>;
    visits seen;
    const std::size_t descriptors = tests::open_descriptors().size();
    {
        tcp::server<counted_echo, Engine> server{counted_echo{&seen}, tcp::options{.threads = 4}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        std::thread runner{[&] { server.run(); }};
        REQUIRE(visit(where, true));  // the loops are there
        int came = 1;
        while (came != count && visit(where, came % 200 == 0)) ++came;
        CHECK(came == count);
        const auto end = std::chrono::steady_clock::now() + 20s;
        const auto all = static_cast<std::uint64_t>(count);
        while (server.statistics().closed != all && std::chrono::steady_clock::now() < end)
            std::this_thread::sleep_for(1ms);
        const tcp::statistics counted = server.statistics();
        CHECK(counted.accepted == all);
        CHECK(counted.closed == all);
        CHECK(counted.open == 0);
        CHECK(counted.refused == 0);
        CHECK(counted.accept_errors == 0);
        server.stop();
        runner.join();
    }
    CHECK(seen.opens == static_cast<std::uint64_t>(count));
    CHECK(seen.closes == seen.opens);
    CHECK(tests::open_descriptors().size() == descriptors);
}
