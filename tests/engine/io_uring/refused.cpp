// io_uring_enter(2) that is refused for a while, or for ever: this program stands between the
// library and the system's function. What a kernel does that has no memory cannot be had otherwise.
#include <dlfcn.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"

using namespace std::chrono_literals;
using tests::blocking_client;

namespace {

constexpr unsigned for_ever = ~0U;

// The next so many calls that hand over at least so many requests give this errno; those that wait
// for something do not, if so wanted.
std::atomic<int> refusal{0};
std::atomic<unsigned> refusals_left{0};
std::atomic<long> least_requests{0};
std::atomic<bool> waits_are_spared{false};

bool refused(long number, long requests, long completions_awaited) {
    if (number != tcp::detail::io_uring::enter_call || requests < least_requests ||
        (waits_are_spared && completions_awaited != 0))
        return false;
    unsigned left = refusals_left.load();
    while (left != 0 && left != for_ever)
        if (refusals_left.compare_exchange_weak(left, left - 1)) return true;
    return left != 0;
}

class refusing {
public:
    refusing(int error, unsigned count, long least = 0, bool spare_waits = false) {
        refusal = error;
        least_requests = least;
        waits_are_spared = spare_waits;
        refusals_left = count;
    }
    refusing(const refusing&) = delete;
    refusing& operator=(const refusing&) = delete;
    ~refusing() { refusals_left = 0; }
};

}  // namespace

extern "C" long syscall(long number, ...) noexcept {  // NOLINT(cert-dcl50-cpp)
    using function = long (*)(long, ...);
    static const auto next = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "syscall"));
    std::va_list rest;
    va_start(rest, number);
    long given[6];
    for (long& one : given) one = va_arg(rest, long);
    va_end(rest);
    if (refused(number, given[1], given[2])) {
        errno = refusal;
        return -1;
    }
    return next(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

namespace {

tcp::options direct(bool wanted) { return {.direct_descriptors = wanted}; }

// So many clients of a server that is run here, each of which has been echoed once: more than the
// ring has room for requests of.
template <class Server>
class crowd {
public:
    crowd(Server& server, std::size_t count) : server_{server} {
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        for (std::size_t i = 0; i != count; ++i) clients_.emplace_back(where);
        CHECK(echoes("hello"));
    }

    bool echoes(const std::string& text) {
        for (const blocking_client& one : clients_)
            if (!one.send(text)) return false;
        expected_ += clients_.size() * text.size();
        for (int turn = 0; turn != 5000 && server_.statistics().bytes_sent != expected_; ++turn)
            server_.run_for(1ms);
        for (const blocking_client& one : clients_)
            if (one.receive(text.size()) != text) return false;
        return true;
    }

    std::vector<blocking_client>& clients() { return clients_; }

private:
    Server& server_;
    std::vector<blocking_client> clients_;
    std::uint64_t expected_ = 0;
};

struct counting_handler {
    std::size_t* closes;
    tcp::connection_handle* last;

    void on_open(tcp::connection& peer) const { *last = peer.handle(); }
    static std::size_t on_data(tcp::connection& peer, tcp::bytes data) {
        peer.send(data);
        return data.size();
    }
    void on_close(tcp::connection&, const tcp::close_reason&) const { ++*closes; }
};

}  // namespace

TEST_CASE("a kernel without memory for requests, for a moment: nobody is lost") {
    for (const bool in_table : {false, true}) {
        for (const unsigned count : {1U, 10U, 100U}) {
            CAPTURE(in_table);
            CAPTURE(count);
            tcp::server<tcp::echo, tcp::io_uring_engine> server{tcp::echo{}, direct(in_table)};
            crowd all{server, 600};
            {
                const refusing now{EAGAIN, count};
                CHECK(all.echoes("once more"));
            }
            CHECK(all.echoes("and again"));
            CHECK(server.statistics().open == 600);
        }
    }
}

TEST_CASE("more requests than the ring has room for, while the kernel takes none") {
    struct member {
        std::vector<tcp::connection*>* all;

        void on_open(tcp::connection& peer) const { all->push_back(&peer); }
        static void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    };
    for (const bool in_table : {false, true}) {
        CAPTURE(in_table);
        std::vector<tcp::connection*> peers;
        tcp::server<member, tcp::io_uring_engine> server{member{&peers}, direct(in_table)};
        crowd all{server, 600};
        auto first = peers.front()->handle();
        for (const bool paused : {true, false}) {
            const refusing when_full{EAGAIN, 100, 250};
            CHECK(first.post([&](tcp::connection&) {
                for (tcp::connection* one : peers) {
                    if (paused)
                        one->pause_receive();
                    else
                        one->resume_receive();
                }
            }));
            server.run_for(10ms);
        }
        CHECK(all.echoes("all are there"));
    }
}

TEST_CASE("a kernel without memory when all are to be closed") {
    for (const bool in_table : {false, true}) {
        CAPTURE(in_table);
        std::size_t closes = 0;
        tcp::connection_handle last;
        tcp::server<counting_handler, tcp::io_uring_engine> server{counting_handler{&closes, &last},
                                                                   direct(in_table)};
        crowd all{server, 600};
        const refusing now{EAGAIN, 50};
        server.stop();
        CHECK_FALSE(server.poll());
        CHECK(closes == 600);
        for (const blocking_client& one : all.clients()) CHECK(one.over());
    }
}

TEST_CASE("a kernel that refuses for ever ends the call, and no more") {
    for (const bool in_table : {false, true}) {
        CAPTURE(in_table);
        std::size_t closes = 0;
        tcp::connection_handle last;
        auto server = std::make_unique<tcp::server<counting_handler, tcp::io_uring_engine>>(
            counting_handler{&closes, &last}, direct(in_table));
        crowd all{*server, 600};
        {
            const refusing now{EINVAL, for_ever};
            CHECK_THROWS_AS(server->run_for(10ms), std::system_error);
            server.reset();
        }
        CHECK(closes == 600);
        CHECK_FALSE(last.send("nobody is there"));
        for (const blocking_client& one : all.clients()) CHECK(one.over());
    }
}

TEST_CASE("a kernel that has no memory for long costs no processor time") {
    tcp::server<tcp::echo, tcp::io_uring_engine> server;
    crowd all{server, 10};
    const auto spent = [] {
        rusage used{};
        ::getrusage(RUSAGE_THREAD, &used);
        return std::chrono::seconds{used.ru_utime.tv_sec + used.ru_stime.tv_sec} +
               std::chrono::microseconds{used.ru_utime.tv_usec + used.ru_stime.tv_usec};
    };
    const auto before = spent();
    {
        const refusing now{EAGAIN, for_ever};
        server.run_for(500ms);
    }
    CHECK(spent() - before < 250ms);
    CHECK(all.echoes("later"));
}

TEST_CASE("what a kernel without memory has not sent is sent later, of direct descriptors, too") {
    // Much at once is sent by a request of which the result is awaited.
    for (const unsigned count : {1U, 2U, 3U, 20U}) {
        CAPTURE(count);
        tcp::server<tcp::echo, tcp::io_uring_engine> server{tcp::echo{}, direct(true)};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        const blocking_client client{where};
        const std::string text(2'800'000, 'x');
        bool same = false;
        std::thread asks{[&] {
            std::thread sends{[&] { client.send(text); }};
            same = client.receive(text.size()) == text;
            sends.join();
            server.stop();
        }};
        std::optional<refusing> now;
        while (server.run_for(1ms))
            if (!now && server.statistics().bytes_received != 0)
                now.emplace(EAGAIN, count, 1, true);
        asks.join();
        CHECK(same);
    }
}

TEST_CASE("completions that the kernel lost end the loop with a sentence") {
    tcp::server<tcp::echo, tcp::io_uring_engine> server;
    crowd all{server, 10};
    const refusing now{EBADR, 1};
    std::string said;
    try {
        server.run_for(10ms);
    } catch (const std::system_error& e) {
        said = e.what();
    }
    CHECK(said.find("lost what it had to say") != std::string::npos);
}
