// Several loops: behaviours 8, 9, 15, 40, 44, 65, 69, 71 and 72 with real threads and sockets.
// Under the thread sanitizer this is what behaviour 70 is about.
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/connection_handle.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/group.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"
#include "resident_memory.hpp"

using namespace std::chrono_literals;
using tcp::endpoint;
using tests::blocking_client;

namespace {

/// What the handlers of all threads saw.
struct record {
    std::mutex lock;
    std::map<std::thread::id, int> opened;  // connections by thread
    std::atomic<int> opens{0}, closes{0}, elsewhere{0};
    std::function<void(tcp::connection&, std::string_view)> on_data;

    std::vector<int> shares() {
        const std::lock_guard hold{lock};
        std::vector<int> counts;
        for (const auto& [id, count] : opened) counts.push_back(count);
        std::sort(counts.begin(), counts.end());
        return counts;
    }
};

/// Echoes, and sees to it that its hooks run on one thread and not inside one another.
class recorded {
public:
    explicit recorded(record& seen) : seen_{&seen} {}
    void on_open(tcp::connection&) {
        thread_ = std::this_thread::get_id();
        ++seen_->opens;
        const std::lock_guard hold{seen_->lock};
        ++seen_->opened[thread_];
    }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        check_thread();
        if (seen_->on_data) return seen_->on_data(peer, tcp::as_text(data));
        peer.send(data);
    }
    void on_close(tcp::connection&, const tcp::close_reason&) {
        check_thread();
        ++seen_->closes;
    }

private:
    void check_thread() const {
        if (std::this_thread::get_id() != thread_) ++seen_->elsewhere;
    }

    record* seen_;
    std::thread::id thread_;
};

/// A server that another thread runs.
template <class Server>
class running {
public:
    explicit running(Server& server) : server_{server} {
        where = server_.bind("127.0.0.1:0");
        server_.listen();
        thread_ = std::thread{[this] { server_.run(); }};
    }
    running(const running&) = delete;
    running& operator=(const running&) = delete;
    ~running() {
        server_.stop();
        wait();
    }
    void wait() {
        if (thread_.joinable()) thread_.join();
    }

    endpoint where;

private:
    Server& server_;
    std::thread thread_;
};

template <class F>
bool soon(F holds) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!holds())
        if (std::chrono::steady_clock::now() > end)
            return false;
        else
            std::this_thread::sleep_for(1ms);
    return true;
}

tcp::server<recorded> make(record& seen, const tcp::options& settings) {
    return tcp::server<recorded>{recorded{seen}, settings};
}

}  // namespace

TEST_CASE("8 threads: few long connections are spread evenly, each is served once") {
    for (const std::size_t count : {2U, 3U, 4U}) {
        record seen;
        auto server = make(seen, {.threads = count});
        const running now{server};
        std::vector<blocking_client> clients;
        for (std::size_t i = 0; i != 3 * count; ++i) {
            clients.emplace_back(now.where);
            REQUIRE(clients.back().echoes("hello " + std::to_string(i)));
        }
        CHECK(seen.shares() == std::vector<int>(count, 3));
        for (const blocking_client& each : clients) CHECK(each.echoes("still there"));
        CHECK(seen.opens == static_cast<int>(3 * count));
        CHECK(seen.elsewhere == 0);
    }
}

TEST_CASE("8 threads: connections that come at once are spread, too, and come back evenly") {
    record seen;
    auto server = make(seen, {.threads = 4});
    const running now{server};
    {
        std::vector<blocking_client> clients;
        for (int i = 0; i != 400; ++i) clients.emplace_back(now.where);
        for (const blocking_client& each : clients) REQUIRE(each.echoes("x"));
        const std::vector<int> shares = seen.shares();
        REQUIRE(shares.size() == 4);
        CHECK(shares.back() - shares.front() <= 20);
    }
    REQUIRE(soon([&] { return seen.closes == 400; }));
    CHECK(server.statistics().accepted == 400);
    CHECK(server.statistics().closed == 400);
    CHECK(server.statistics().open == 0);
}

TEST_CASE("9 threads: the port is this server's alone") {
    record seen;
    auto server = make(seen, {.threads = 2});
    const running now{server};
    const tcp::detail::descriptor other{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const int one = 1;
    REQUIRE(::setsockopt(other.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0);
    CHECK((::bind(other.get(), now.where.data(), now.where.size()) != 0 ||
           ::listen(other.get(), 1) != 0));
    CHECK(errno == EADDRINUSE);
}

TEST_CASE("15 threads: max_connections is exact over all loops") {
    record seen;
    auto server = make(seen, {.threads = 3, .max_connections = 10});
    const running now{server};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 40; ++i) clients.emplace_back(now.where);
    int served = 0;
    for (const blocking_client& each : clients) served += each.echoes("x") ? 1 : 0;
    CHECK(served == 10);
    CHECK(server.statistics().refused == 30);
    clients.clear();
    REQUIRE(soon([&] { return seen.closes == 10; }));
    CHECK(blocking_client{now.where}.echoes("again"));
}

TEST_CASE("19 threads: accepting is paused on every loop, and resumed on every one") {
    record seen;
    auto server = make(seen, {.threads = 3});
    server.pause_accept();
    const running now{server};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 6; ++i) clients.emplace_back(now.where);
    std::this_thread::sleep_for(100ms);
    CHECK(server.statistics().accepted == 0);
    server.resume_accept();
    for (const blocking_client& each : clients) CHECK(each.echoes("x"));
    CHECK(seen.shares() == std::vector<int>{2, 2, 2});
}

TEST_CASE("71 threads: a hook that throws ends its own connection and no other") {
    record seen;
    seen.on_data = [](tcp::connection& peer, std::string_view text) {
        if (text == "throw") throw 1;
        peer.send(text);
    };
    auto server = make(seen, {.threads = 2});
    const running now{server};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 8; ++i) clients.emplace_back(now.where);
    for (const blocking_client& each : clients) REQUIRE(each.echoes("x"));
    for (std::size_t i = 0; i != 4; ++i) {
        clients[i].send("throw");
        CHECK(clients[i].over());
    }
    for (std::size_t i = 4; i != 8; ++i) CHECK(clients[i].echoes("still there"));
}

TEST_CASE("44 threads: stop in a hook of any loop, and from any thread") {
    for (int round = 0; round != 8; ++round) {
        record seen;
        std::optional<tcp::server<recorded>> server;
        seen.on_data = [&](tcp::connection& peer, std::string_view text) {
            if (text == "stop") return server->stop();
            peer.send(text);
        };
        server.emplace(recorded{seen}, tcp::options{.threads = 3});
        running now{*server};
        std::vector<blocking_client> clients;
        for (int i = 0; i != 6; ++i) clients.emplace_back(now.where);
        for (const blocking_client& each : clients) REQUIRE(each.echoes("x"));
        if (round < 6)
            clients[static_cast<std::size_t>(round)].send("stop");
        else
            server->stop();
        now.wait();
        for (const blocking_client& each : clients) CHECK(each.over());
        CHECK(seen.opens == seen.closes);
        CHECK(seen.elsewhere == 0);
    }
}

TEST_CASE("44 threads: destroyed in a hook of any loop, and while another thread runs it") {
    for (int round = 0; round != 7; ++round) {
        record seen;
        auto server =
            std::make_unique<tcp::server<recorded>>(recorded{seen}, tcp::options{.threads = 3});
        seen.on_data = [&](tcp::connection& peer, std::string_view text) {
            if (text == "destroy") return server.reset();
            peer.send(text);
        };
        const endpoint where = server->bind("127.0.0.1:0");
        server->listen();
        std::thread runner{[one = server.get()] { one->run(); }};
        std::vector<blocking_client> clients;
        for (int i = 0; i != 6; ++i) clients.emplace_back(where);
        for (const blocking_client& each : clients) REQUIRE(each.echoes("x"));
        if (round < 6)
            clients[static_cast<std::size_t>(round)].send("destroy");
        else
            server.reset();
        runner.join();
        for (const blocking_client& each : clients) CHECK(each.over());
        CHECK(seen.opens == seen.closes);
    }
}

TEST_CASE("44 threads: never run, run when stopped, and descriptors at the baseline") {
    const auto before = tests::open_descriptors();
    {
        record seen;
        auto idle = make(seen, {.threads = 4});
        idle.bind("127.0.0.1:0");
        idle.listen();
        auto stopped = make(seen, {.threads = 0});
        stopped.stop();
        stopped.run();
        auto server = make(seen, {.threads = 4});
        const running now{server};
        CHECK(blocking_client{now.where}.echoes("x"));
    }
    CHECK(tests::open_descriptors() == before);
}

TEST_CASE("65 threads: drain lets every loop's connections finish") {
    record seen;
    auto server = make(seen, {.threads = 3});
    running now{server};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 9; ++i) clients.emplace_back(now.where);
    for (const blocking_client& each : clients) REQUIRE(each.echoes("x"));
    server.drain(60s);
    REQUIRE(soon([&] { return !blocking_client{now.where}.connected(); }));
    for (const blocking_client& each : clients) CHECK(each.echoes("in flight"));
    clients.clear();
    now.wait();
    const auto counted = server.statistics();
    CHECK(counted.closed == counted.accepted);
    CHECK(counted.closed_by[static_cast<std::size_t>(tcp::closed_by::peer_finished)] ==
          counted.closed);
}

TEST_CASE("69 ten million posts from four threads to loops that sleep: none lost") {
    constexpr int threads = 4, posts = tests::sanitized ? 250'000 : 2'500'000;
    std::mutex lock;
    std::vector<tcp::connection_handle> peers;
    struct handler {
        std::mutex* lock;
        std::vector<tcp::connection_handle>* peers;
        void on_open(tcp::connection& peer) {
            const std::lock_guard hold{*lock};
            peers->push_back(peer.handle());
        }
    };
    std::atomic<int> called{0}, out_of_order{0};
    {
        tcp::server<handler> server{handler{&lock, &peers}, tcp::options{.threads = 2}};
        const running now{server};
        const blocking_client one{now.where}, two{now.where};
        REQUIRE(soon([&] {
            const std::lock_guard hold{lock};
            return peers.size() == 2;
        }));
        std::vector<std::thread> posting;
        std::vector<int> last(threads, -1);  // each entry is the one connection's thread's
        for (int t = 0; t != threads; ++t)
            posting.emplace_back([&, t] {
                const tcp::connection_handle to = peers[static_cast<std::size_t>(t % 2)];
                for (int i = 0; i != posts; ++i) {
                    CHECK(to.post([&, t, i](tcp::connection&) {
                        if (std::exchange(last[static_cast<std::size_t>(t)], i) != i - 1)
                            ++out_of_order;
                        ++called;
                    }));
                    if (i % 50'000 == 0) std::this_thread::sleep_for(1ms);  // the loop sleeps
                }
            });
        for (std::thread& each : posting) each.join();
        CHECK(soon([&] { return called == threads * posts; }));
    }
    CHECK(called == threads * posts);
    CHECK(out_of_order == 0);
    CHECK_FALSE(peers[0].open());
    CHECK(peers[0].send("too late").error() == tcp::error::not_open);
}

TEST_CASE("40 sends of another thread that race the close: arrived, unsent or refused, each once") {
    struct handler {
        std::atomic<std::size_t>* unsent;
        std::mutex* lock;
        std::optional<tcp::connection_handle>* peer;
        void on_open(tcp::connection& c) {
            const std::lock_guard hold{*lock};
            *peer = c.handle();
        }
        void on_data(tcp::connection& c, tcp::bytes) { c.close(); }
        void on_close(tcp::connection&, const tcp::close_reason& why) { *unsent += why.unsent; }
    };
    std::atomic<std::size_t> unsent{0};
    std::mutex lock;
    std::optional<tcp::connection_handle> peer;
    tcp::server<handler> server{handler{&unsent, &lock, &peer}, tcp::options{.threads = 2}};
    const running now{server};
    std::size_t refused_in_all = 0, unsent_in_all = 0;
    for (int round = 0; round != 200; ++round) {
        unsent = 0;
        std::optional<blocking_client> one{now.where};
        REQUIRE(soon([&] {
            const std::lock_guard hold{lock};
            return peer.has_value();
        }));
        const tcp::connection_handle to = *std::exchange(peer, std::nullopt);
        std::atomic<std::size_t> accepted{0};
        std::thread sender{[&] {
            for (int i = 0; i != 200; ++i)
                if (to.send("12345678"))
                    accepted += 8;
                else
                    refused_in_all += 8;
        }};
        if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds{round});
        one->send("close");
        const std::size_t arrived = one->receive_all().size();
        one.reset();  // or the server would wait for its end
        sender.join();
        REQUIRE(soon([&] { return server.statistics().open == 0; }));
        CHECK(arrived + unsent == accepted);
        CHECK_FALSE(to.open());
        unsent_in_all += unsent;
    }
    CHECK(refused_in_all + unsent_in_all != 0);  // otherwise nothing raced
}

TEST_CASE("group: a broadcast reaches the members on all loops, in order") {
    tcp::group room;
    struct guest {
        tcp::group* room;
        tcp::group::member in;
        void on_open(tcp::connection& peer) { in.join(*room, peer); }
        void on_data(tcp::connection&, tcp::bytes said) { room->send(said); }
    };
    tcp::server<guest> server{guest{&room, {}}, tcp::options{.threads = 4}};
    const running now{server};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 40; ++i) clients.emplace_back(now.where);
    REQUIRE(soon([&] { return room.size() == 40; }));
    std::string expected;
    for (int i = 0; i != 100; ++i) {
        room.send(std::to_string(i) + "\n");
        expected += std::to_string(i) + "\n";
    }
    clients[7].send("hello");
    expected += "hello";
    for (const blocking_client& each : clients) {
        const std::string got = each.receive(expected.size());
        CHECK(got.size() == expected.size());
        // The guest's word comes from a loop, and so somewhere between the numbers.
        std::string rest = got;
        const auto at = rest.find("hello");
        REQUIRE(at != rest.npos);
        rest.erase(at, 5);
        CHECK(rest + "hello" == expected);
    }
    clients.clear();
    CHECK(soon([&] { return room.size() == 0; }));
}

TEST_CASE("threads: run_for() and accept() serve everybody on their own thread") {
    record seen;
    auto server = make(seen, {.threads = 3});
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    {
        std::vector<blocking_client> clients;
        for (int i = 0; i != 6; ++i) clients.emplace_back(where);
        for (const blocking_client& each : clients) REQUIRE(each.send("x"));
        for (int i = 0; i != 200 && seen.opens != 6; ++i) server.run_for(10ms);
        server.run_for(10ms);
        CHECK(seen.shares() == std::vector<int>{6});
        for (const blocking_client& each : clients) CHECK(each.receive(1) == "x");
    }
    while (seen.closes != 6) server.run_for(10ms);
    std::thread runner{[&] { server.run(); }};  // and now all of them
    std::vector<blocking_client> clients;
    for (int i = 0; i != 6; ++i) {
        clients.emplace_back(where);
        CHECK(clients.back().echoes("x"));
    }
    server.stop();
    runner.join();
    CHECK_FALSE(blocking_client{where}.connected());
}

TEST_CASE("44 threads: a server that was run in pieces stops listening when it stops") {
    record seen;
    auto server = make(seen, {.threads = 3});
    const endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    server.run_for(1ms);
    server.stop();
    CHECK_FALSE(server.run_for(1ms));
    CHECK_FALSE(blocking_client{where}.connected());
}

TEST_CASE("44 threads: the last hooks may ask for statistics, and stop") {
    struct asks {
        std::unique_ptr<tcp::server<asks>>* server;
        std::atomic<std::uint64_t>* open;
        void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
        void on_close(tcp::connection&, const tcp::close_reason&) {
            tcp::server<asks>* const one = server->get();
            if (one == nullptr) return;
            *open += one->statistics().open;
            one->stop();
        }
    };
    std::unique_ptr<tcp::server<asks>> server;
    std::atomic<std::uint64_t> open{0};
    server = std::make_unique<tcp::server<asks>>(asks{&server, &open}, tcp::options{.threads = 3});
    const endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 3; ++i) clients.emplace_back(where);
    while (server->statistics().open != 3) server->run_for(10ms);
    delete server.get();  // its hooks still reach it
    (void)server.release();
    CHECK(open == 3 + 2 + 1);
}

TEST_CASE("group: a member that outlives its connection is sent nothing, nor is who comes next") {
    tcp::group room;
    std::vector<std::unique_ptr<tcp::group::member>> members;
    struct guest {
        tcp::group* room;
        std::vector<std::unique_ptr<tcp::group::member>>* members;
        void on_open(tcp::connection& peer) {
            if (!members->empty()) return;
            members->push_back(std::make_unique<tcp::group::member>());
            members->back()->join(*room, peer);
        }
        void on_data(tcp::connection& peer, tcp::bytes data) {
            room->send("to the members");
            peer.send(data);
        }
    };
    {
        tcp::server<guest> server{guest{&room, &members}};
        const endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        {
            const blocking_client first{where};
            while (server.statistics().open != 1) server.run_for(1ms);
        }
        while (server.statistics().open != 0) server.run_for(1ms);
        const blocking_client next{where};
        next.send("x");
        for (int i = 0; i != 5; ++i) server.run_for(10ms);
        CHECK(next.receive(1) == "x");
        CHECK(server.statistics().bytes_sent == 1);
        members.clear();
    }
    CHECK(room.size() == 0);
}

TEST_CASE("threads: a simulation has one") {
    tcp::simulation world{1};
    CHECK_THROWS_WITH_AS((tcp::server<tcp::echo, tcp::simulated_engine>{
                             tcp::echo{}, tcp::options{.threads = 2}, world}),
                         doctest::Contains("options::threads"), std::system_error);
}
