// What happens to a connection when memory runs out: it ends alone.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <ostream>  // doctest prints error codes
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "allocations.hpp"
#include "conformance/kernel_client.hpp"

using conformance::kernel_client;
using namespace std::chrono_literals;

namespace {

struct record {
    bool refuse = true;
    std::vector<tcp::close_reason> closes;
};

/// Lends what came back to the server to send, and memory for what the system leaves is refused.
struct echo_without_memory {
    record* seen;
    void on_data(tcp::connection& peer, tcp::bytes data) const {
        peer.send(data);
        if (seen->refuse) allocations::fail_in = 1;
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) const {
        allocations::fail_in = 0;
        seen->closes.push_back(why);
    }
};

/// Takes nothing yet, and memory to keep it is refused.
struct keeps_without_memory {
    record* seen;
    std::size_t on_data(tcp::connection& peer, tcp::bytes data) const {
        if (data.size() == 1) return peer.send(data), 1;
        if (seen->refuse) allocations::fail_in = 1;
        return 0;
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) const {
        allocations::fail_in = 0;
        seen->closes.push_back(why);
    }
};

template <class Server, class Predicate>
bool until(Server& server, std::vector<kernel_client*> clients, Predicate holds) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!holds()) {
        if (std::chrono::steady_clock::now() > end) return false;
        for (kernel_client* one : clients) one->pump();
        server.run_for(1ms);
    }
    return true;
}

}  // namespace

TEST_CASE("62 no memory for what the system did not take: that connection ends" *
          doctest::skip(!allocations::counted)) {
    record seen;
    tcp::server<echo_without_memory, tcp::epoll_engine> server{echo_without_memory{&seen},
                                                               {.kernel_send_buffer = 4096}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    kernel_client greedy{where, 4096}, other{where};
    greedy.pause_receive();
    REQUIRE(until(server, {&greedy, &other}, [&] { return server.statistics().open == 2; }));
    greedy.send(std::string(50'000, 'x'));
    for (int left = 2'000; left != 0 && greedy.acknowledged_size() != 50'000; --left)
        std::this_thread::sleep_for(1ms);  // so that nothing unread makes it a reset
    REQUIRE(until(server, {&greedy}, [&] { return !seen.closes.empty(); }));
    CHECK(seen.closes[0].by == tcp::closed_by::system_error);
    CHECK(seen.closes[0].error == std::errc::not_enough_memory);
    CHECK(seen.closes[0].unsent != 0);
    seen.refuse = false;
    other.send("still there");
    CHECK(until(server, {&other}, [&] { return other.received() == "still there"; }));
    greedy.resume_receive();
    CHECK(until(server, {&greedy}, [&] { return greedy.ended() || greedy.was_reset(); }));
    CHECK(greedy.was_reset());
}

TEST_CASE("62 no memory for what a handler did not take: that connection ends" *
          doctest::skip(!allocations::counted)) {
    record seen;
    tcp::server<keeps_without_memory, tcp::epoll_engine> server{keeps_without_memory{&seen}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    kernel_client slow{where}, other{where};
    REQUIRE(until(server, {&slow, &other}, [&] { return server.statistics().open == 2; }));
    slow.send(std::string(5'000, 'x'));
    REQUIRE(until(server, {&slow}, [&] { return !seen.closes.empty(); }));
    CHECK(seen.closes[0].by == tcp::closed_by::system_error);
    CHECK(seen.closes[0].error == std::errc::not_enough_memory);
    seen.refuse = false;
    other.send("y");
    CHECK(until(server, {&other}, [&] { return other.received() == "y"; }));
}

TEST_CASE("62 no memory in the middle of what one batch has of a connection: the rest is unread" *
          doctest::skip(!allocations::counted)) {
    record seen;
    tcp::server<keeps_without_memory, tcp::io_uring_engine> server{keeps_without_memory{&seen}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    kernel_client client{where};
    REQUIRE(until(server, {&client}, [&] { return server.statistics().open == 1; }));
    client.send(std::string(20'000, 'x'));  // several of the kernel's buffers
    for (int left = 2'000; left != 0 && client.acknowledged_size() != 20'000; --left)
        std::this_thread::sleep_for(1ms);
    REQUIRE(until(server, {&client}, [&] { return !seen.closes.empty(); }));
    // As close(2) does with unread input: the peer is not to think that it was seen.
    CHECK(until(server, {&client}, [&] { return client.ended() || client.was_reset(); }));
    CHECK(client.was_reset());
}
