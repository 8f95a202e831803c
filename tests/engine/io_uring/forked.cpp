// fork(2) copies a ring but not what it is for: the child must neither do what the parent had asked
// for nor write where the parent writes.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"

using namespace std::chrono_literals;
using tests::blocking_client;

namespace {

using echo_server = tcp::server<tcp::echo, tcp::io_uring_engine>;

/// A child of fork(2) that does this and ends; it does not outlive this test.
class child {
public:
    template <class F>
    explicit child(F does) : id_{::fork()} {
        if (id_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        does();
        ::_exit(0);
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (ended_) return;
        ::kill(id_, SIGKILL);
        ::waitpid(id_, nullptr, 0);
    }
    /// Whether it ended by itself, within some seconds.
    bool ends() {
        for (int left = 500; left != 0 && !ended_; --left) {
            ended_ = ::waitpid(id_, nullptr, WNOHANG) == id_;
            if (!ended_) std::this_thread::sleep_for(10ms);
        }
        return ended_;
    }

private:
    pid_t id_;
    bool ended_ = false;
};

}  // namespace

TEST_CASE("children of fork(2) that begin while another one serves leave it alone") {
    echo_server server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const child serves{[&] { server.run(); }};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 32; ++i) clients.emplace_back(where);
    bool all = true, done = false;
    std::thread load{[&] {
        const std::string text(64, 'x');
        for (int round = 0; all && round != 2'000; ++round) {
            for (const blocking_client& one : clients) all = one.send(text) && all;
            for (const blocking_client& one : clients) all = all && one.receive(64) == text;
        }
        done = true;
    }};
    int late = 0, born = 0;
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE) && born != 500) {
        child another{[&] { server.run_for(0ms); }};
        ++born;
        if (!another.ends()) ++late;
    }
    load.join();
    CHECK(all);
    CHECK(late == 0);
    CHECK(born > 10);
}

TEST_CASE("who connects to the child of a process that serves no more is accepted at once") {
    echo_server server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    server.run_for(10ms);
    const child serves{[&] { server.run(); }};
    std::this_thread::sleep_for(50ms);
    const auto begin = std::chrono::steady_clock::now();
    const blocking_client client{where};
    CHECK(client.echoes("hello"));
    CHECK(std::chrono::steady_clock::now() - begin < 1s);
}

TEST_CASE("a send that was under way at fork(2) does not keep the child") {
    std::optional<echo_server> server{std::in_place};
    const tcp::endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    const blocking_client client{where};
    while (server->statistics().open != 1) server->poll();
    client.send("hello");
    while (server->statistics().bytes_received != 5) server->poll();
    // Sent, and its completion not delivered.
    child destroys{[&] { server.reset(); }};
    CHECK(destroys.ends());
    child serves{[&] {
        for (int i = 0; i != 20; ++i) server->run_for(1ms);
    }};
    CHECK(serves.ends());
    server->poll();
    CHECK(client.receive(5) == "hello");
}
