// The coroutine of a connection: what it looks for in what came, and the memory it takes.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/loop/conversation.hpp>
#include <tcp/server.hpp>
#include <tcp/task.hpp>

#include "allocations.hpp"

using tcp::as_bytes;
using tcp::detail::wanted_bytes;

namespace {

constexpr std::size_t no_limit = 1'000'000;

/// A client whose calls take no memory of ours.
class plain_client {
public:
    explicit plain_client(const tcp::endpoint& to) : fd_{::socket(AF_INET, SOCK_STREAM, 0)} {
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_port = htons(static_cast<std::uint16_t>(to.port()));
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
        const int on = 1;  // otherwise a second piece waits 40 ms for the first one's ACK
        REQUIRE(::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    }
    plain_client(const plain_client&) = delete;
    plain_client& operator=(const plain_client&) = delete;
    ~plain_client() { ::close(fd_); }

    bool send(std::string_view text) {
        return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(text.size());
    }
    bool hears(std::size_t count) {
        char data[4096];
        return ::recv(fd_, data, count, MSG_DONTWAIT | MSG_PEEK) == static_cast<ssize_t>(count) &&
               ::recv(fd_, data, count, 0) == static_cast<ssize_t>(count);
    }

private:
    int fd_;
};

tcp::task<std::size_t> answer(tcp::connection& peer, std::string_view line) {
    co_await peer.send(line);
    co_return line.size();
}

}  // namespace

TEST_CASE("75 wanted_bytes: so many bytes") {
    for (const std::size_t size : {0U, 1U, 5U}) {
        wanted_bytes these{size};
        for (std::size_t came = 0; came != size; ++came)
            CHECK_FALSE(these.decided_by(as_bytes(std::string_view{"abcde"}.substr(0, came)), 5));
        CHECK(these.decided_by(as_bytes("abcde"), 5));
        CHECK(these.found());
        CHECK(these.size() == size);
    }
    wanted_bytes more{6};
    CHECK(more.decided_by({}, 5));
    CHECK(more.too_long());
    CHECK_FALSE(more.found());
    wanted_bytes most{no_limit + 1};
    CHECK(most.decided_by({}, no_limit));
    CHECK(most.too_long());
}

TEST_CASE("75 wanted_bytes: up to a delimiter, in every piece and with every limit") {
    for (const std::string_view delimiter : {"\n", "\r\n", "aab", "--end--"}) {
        for (const std::string_view before :
             {"", "a", "aa", "aaaa", "\r", "x\r\r", "-", "--en--"}) {
            const std::string text = std::string{before} + std::string{delimiter} + "after";
            const std::size_t end = text.find(delimiter) + delimiter.size();
            for (std::size_t limit = 0; limit <= text.size(); ++limit) {
                CAPTURE(text);
                CAPTURE(limit);
                for (std::size_t step = 1; step != 4; ++step) {
                    wanted_bytes these{delimiter, limit};
                    std::size_t came = 0;
                    while (!these.decided_by(as_bytes(std::string_view{text}.substr(0, came)),
                                             no_limit))
                        came += step;
                    CHECK(these.found() == (end <= limit));
                    CHECK(these.too_long() == (end > limit));
                    if (these.found()) CHECK(these.size() == end);
                    if (these.found()) CHECK(came < end + step);
                    if (these.too_long()) CHECK(came < limit + step);
                }
            }
        }
    }
}

TEST_CASE("61 coroutines: no allocation for a message once warm" *
          doctest::skip(!allocations::counted)) {
    tcp::server server{
        [](tcp::connection& peer) -> tcp::task<> {
            for (;;) {
                const auto head = co_await peer.receive_exactly(4);
                if (!head) co_return;
                co_await peer.send(head);
                const auto line = co_await peer.receive_until("\n", 100);
                if (!line) co_return;
                CHECK(co_await answer(peer, line.text()) == line.size());
                const auto rest = co_await peer.receive();
                co_await peer.send(rest);
            }
        },
    };
    const auto where = server.bind("127.0.0.1:0");
    server.listen();
    plain_client client{where};
    std::size_t made = 0;
    for (int message = 0; message != 300; ++message) {
        if (message == 100) made = allocations::made;
        const auto answers = [&](std::string_view said, std::size_t expected) {
            if (!client.send(said)) return false;
            for (int i = 0; i != 1000; ++i) {
                server.run_for(std::chrono::milliseconds{1});
                if (client.hears(expected)) return true;
            }
            return false;
        };
        // Each part comes in two pieces: what waits is kept.
        REQUIRE(client.send("he"));
        server.run_for(std::chrono::milliseconds{1});
        REQUIRE(answers("adline", 4));
        REQUIRE(answers(" and more\n", 14));
        REQUIRE(answers("rest", 4));
    }
    CHECK(allocations::made == made);
}

TEST_CASE("62 coroutines: no memory for a frame ends that connection only" *
          doctest::skip(!allocations::counted)) {
    bool refuse = true;
    tcp::server server{[&refuse](tcp::connection& peer) -> tcp::task<> {
        const auto data = co_await peer.receive();
        if (refuse) allocations::fail_in = 1;
        constexpr std::size_t large = 3000;  // a frame of another size than any that is kept
        const auto child = [](tcp::connection& with, tcp::bytes what) -> tcp::task<> {
            char copy[large] = {};
            copy[0] = static_cast<char>(what[0]);
            co_await with.send(std::string_view{copy, 1});
        };
        co_await child(peer, data);
    }};
    const auto where = server.bind("127.0.0.1:0");
    server.listen();
    for (refuse = true;; refuse = false) {
        plain_client client{where};
        REQUIRE(client.send("x"));
        for (int i = 0; i != 50; ++i) server.run_for(std::chrono::milliseconds{1});
        allocations::fail_in = 0;
        CHECK(client.hears(1) == !refuse);
        if (!refuse) break;
        CHECK(server.statistics()
                  .closed_by[static_cast<std::size_t>(tcp::closed_by::handler_threw)] == 1);
    }
}
