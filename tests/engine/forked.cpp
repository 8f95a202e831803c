// fork(2) shares an epoll set and a ring between two processes: the child must neither take the
// parent's events, nor do what the parent had asked for, nor write where the parent writes.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"

using namespace std::chrono_literals;
using tests::blocking_client;

namespace {

template <class Engine>
using echo_server = tcp::server<tcp::echo, Engine>;

#define ENGINES tcp::epoll_engine, tcp::io_uring_engine

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

TEST_CASE_TEMPLATE("children of fork(2) that begin while another one serves leave it alone", Engine,
                   ENGINES) {
    echo_server<Engine> server;
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const child serves{[&] { server.run(); }};
    std::vector<blocking_client> clients;
    for (int i = 0; i != 32; ++i) {
        clients.emplace_back(where);
        CHECK(clients.back().echoes("hello"));  // so it is that one's
    }
    bool all = true;
    std::atomic<bool> done{false};
    std::thread load{[&] {
        const std::string text(64, 'x');
        for (int round = 0; all && round != 2'000; ++round) {
            for (const blocking_client& one : clients) all = one.send(text) && all;
            for (const blocking_client& one : clients) all = all && one.receive(64) == text;
        }
        done = true;
    }};
    int late = 0, born = 0;
    while (!done && born != 500) {
        child another{[&] { server.run_for(0ms); }};
        ++born;
        if (!another.ends()) ++late;
    }
    load.join();
    CHECK(all);
    CHECK(late == 0);
    CHECK(born > 10);
}

TEST_CASE_TEMPLATE("who connects to the child of a process that serves no more is accepted at once",
                   Engine, ENGINES) {
    echo_server<Engine> server;
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

TEST_CASE_TEMPLATE("a send that was under way at fork(2) does not keep the child", Engine,
                   ENGINES) {
    std::optional<echo_server<Engine>> server{std::in_place};
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

TEST_CASE_TEMPLATE("a child of fork(2) that destroys the server takes nothing from its parent",
                   Engine, ENGINES) {
    std::optional<echo_server<Engine>> server{std::in_place};
    const tcp::endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    const blocking_client client{where};
    while (server->statistics().open != 1) server->poll();
    for (const bool served_before : {false, true}) {
        CAPTURE(served_before);
        child destroys{[&] {
            if (served_before) server->run_for(10ms);
            server.reset();
        }};
        CHECK(destroys.ends());
    }
    std::thread runner{[&] { server->run(); }};
    CHECK(client.echoes("hello"));
    const blocking_client another{where};
    CHECK(another.echoes("hello"));
    server->stop();
    runner.join();
}

TEST_CASE_TEMPLATE("a child of fork(2) that destroys the server takes nobody who waits", Engine,
                   ENGINES) {
    std::optional<echo_server<Engine>> server{std::in_place};
    const tcp::endpoint where = server->bind("127.0.0.1:0");
    server->listen();
    server->poll();  // accepting
    const blocking_client waits{where};
    child destroys{[&] { server.reset(); }};
    CHECK(destroys.ends());
    std::thread runner{[&] { server->run(); }};
    CHECK(waits.echoes("hello"));
    server->stop();
    runner.join();
}

TEST_CASE_TEMPLATE("a reset in the child of fork(2) is none for its parent", Engine, ENGINES) {
    struct aborting {
        const bool* in_child;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            peer.send(data);
            if (*in_child) peer.abort();
        }
    };
    bool in_child = false;
    tcp::server<aborting, Engine> server{aborting{&in_child}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client client{where};
    while (server.statistics().open != 1) server.poll();
    child aborts{[&] {
        in_child = true;
        while (server.statistics().open != 0) server.run_for(1ms);
    }};
    CHECK(client.send("1"));
    CHECK(aborts.ends());
    std::thread runner{[&] { server.run(); }};
    CHECK(client.echoes("2"));
    server.stop();
    runner.join();
}

TEST_CASE_TEMPLATE("what the child of fork(2) ends with a reset, its parent can end in order",
                   Engine, ENGINES) {
    struct aborting {
        tcp::endpoint* peer_is;
        const bool* in_child;
        void on_open(tcp::connection& peer) const { *peer_is = peer.remote_endpoint(); }
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (*in_child) return peer.abort();
            peer.send(data);
        }
    };
    // Of more than one buffer, the rest comes to a connection that is closing.
    for (const std::size_t size : {std::size_t{1}, std::size_t{20'000}}) {
        CAPTURE(size);
        tcp::endpoint peer_is;
        bool in_child = false;
        tcp::server<aborting, Engine> server{aborting{&peer_is, &in_child}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        const blocking_client client{where};
        while (server.statistics().open != 1) server.poll();
        client.send(std::string(size, 'x'));
        child aborts{[&] {
            in_child = true;
            while (server.statistics().open != 0) server.run_for(1ms);
            server.run_for(1ms);
        }};
        CHECK(aborts.ends());
        // The option is that of the socket, which both have: socket(7).
        linger at_close{.l_onoff = -1, .l_linger = 0};
        for (const int fd : tests::open_descriptors()) {
            socklen_t length = sizeof at_close;
            if (tcp::detail::remote_endpoint_of(fd) == peer_is)
                ::getsockopt(fd, SOL_SOCKET, SO_LINGER, &at_close, &length);
        }
        CHECK(at_close.l_onoff == 0);
    }
}

TEST_CASE_TEMPLATE("what a hook that calls fork(2) sends in the child leaves as it was", Engine,
                   ENGINES) {
    struct forks {
        pid_t* forked;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (*forked == -1 && tcp::as_text(data).starts_with("go")) {
                *forked = ::fork();
                if (*forked == 0)
                    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                else
                    ::waitpid(*forked, nullptr, 0);
            }
            if (*forked == 0) peer.send(data);
        }
    };
    pid_t forked = -1;
    tcp::server<forks, Engine> server{forks{&forked}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 60; ++i) clients.emplace_back(where);
    while (server.statistics().open != clients.size()) server.poll();
    const std::string text = "go" + std::string(3'000, 'g');
    clients[0].send(text);
    // So much that the child's ring fills every buffer that it is offered at once.
    for (std::size_t i = 1; i != clients.size(); ++i) clients[i].send(std::string(20'000, 'x'));
    while (forked == -1) server.poll();
    if (forked == 0) {
        for (int i = 0; i != 100; ++i) server.run_for(1ms);
        ::_exit(0);
    }
    CHECK((clients[0].receive(text.size()) == text));
}

TEST_CASE("what a ring has received is its own after a hook that calls fork(2)") {
    struct forks {
        pid_t* forked;
        std::size_t* received;
        void on_data(tcp::connection&, tcp::bytes data) const {
            *received += data.size();
            if (*forked != -1) return;
            *forked = ::fork();
            if (*forked == 0)
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            else
                ::waitpid(*forked, nullptr, 0);
        }
    };
    pid_t forked = -1;
    std::size_t received = 0;
    tcp::server<forks, tcp::io_uring_engine> server{forks{&forked, &received}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 20; ++i) clients.emplace_back(where);
    while (server.statistics().open != clients.size()) server.poll();
    for (const blocking_client& one : clients) one.send("hello");
    while (forked == -1) server.poll();
    if (forked == 0) ::_exit(0);
    for (int i = 0; i != 50 && received != 5 * clients.size(); ++i) server.run_for(10ms);
    CHECK(received == 5 * clients.size());
}

TEST_CASE("what the child of a hook has done with a buffer is nothing to its parent's ring") {
    struct forks {
        pid_t* forked;
        std::multiset<std::string>* seen;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (*forked != -1 || tcp::as_text(data) != "go") {
                seen->emplace(tcp::as_text(data));
                return;
            }
            *forked = ::fork();
            if (*forked != 0) return static_cast<void>(peer.send(data));
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            std::this_thread::sleep_for(300ms);  // and then it has not sent anything
        }
    };
    pid_t forked = -1;
    std::multiset<std::string> seen, all;
    tcp::server<forks, tcp::io_uring_engine> server{forks{&forked, &seen}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    std::vector<blocking_client> clients;
    for (int i = 0; i != 130; ++i) clients.emplace_back(where);  // more than there are buffers
    while (server.statistics().open != clients.size()) server.poll();
    clients[0].send("go");
    clients[1].send("x");
    while (forked == -1) server.poll();
    if (forked == 0) ::_exit(0);
    for (int i = 0; i != 20; ++i) server.run_for(1ms);
    CHECK(clients[0].receive(2) == "go");
    ::waitpid(forked, nullptr, 0);
    seen.clear();
    for (std::size_t i = 0; i != clients.size(); ++i) {
        all.insert("this is " + std::to_string(1000 + i));
        clients[i].send("this is " + std::to_string(1000 + i));
    }
    for (int i = 0; i != 50 && seen.size() < all.size(); ++i) server.run_for(10ms);
    CHECK((seen == all));
}

TEST_CASE("a buffer that was sent from when a hook called fork(2) is offered once to the child") {
    struct forks {
        pid_t* forked;
        std::multiset<std::string>* seen;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (*forked == -1)
                peer.send(data);
            else
                seen->emplace(tcp::as_text(data));
        }
        void on_writable(tcp::connection& peer) const {
            if (*forked != -1) return;
            *forked = ::fork();
            if (*forked != 0) return static_cast<void>(::waitpid(*forked, nullptr, 0));
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            peer.send("from the child");  // which changes the ring
        }
    };
    pid_t forked = -1;
    std::multiset<std::string> seen, all;
    tests::in_child([&](tests::findings& found) {
        tcp::server<forks, tcp::io_uring_engine> server{forks{&forked, &seen},
                                                        {.high_mark = 10, .low_mark = 5}};
        const tcp::endpoint where = server.bind("127.0.0.1:0");
        server.listen();
        std::vector<blocking_client> clients;
        for (int i = 0; i != 130; ++i) clients.emplace_back(where);
        while (server.statistics().open != clients.size()) server.poll();
        clients[0].send("twenty bytes of data");
        while (forked == -1) server.poll();
        if (forked != 0) return;  // all that follows is the child's, and in_child() hears it
        for (std::size_t i = 0; i != clients.size(); ++i) {
            all.insert("this is " + std::to_string(1000 + i));
            clients[i].send("this is " + std::to_string(1000 + i));
        }
        for (int i = 0; i != 50 && seen.size() < all.size(); ++i) server.run_for(10ms);
        found.check(seen == all, "bytes of one came as those of another");
    });
}

TEST_CASE_TEMPLATE("whom the child of a hook accepts is nothing to its parent", Engine, ENGINES) {
    struct forks {
        pid_t* forked;
        int* opened;
        std::vector<tcp::close_reason>* closes;
        const std::function<void()>* in_parent;
        void on_open(tcp::connection&) const {
            if (++*opened == 1) {
                *forked = ::fork();
                if (*forked != 0) return (*in_parent)();
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            }
        }
        void on_data(tcp::connection& peer, tcp::bytes data) const { peer.send(data); }
        void on_close(tcp::connection&, const tcp::close_reason& why) const {
            closes->push_back(why);
        }
    };
    pid_t forked = -1;
    int opened = 0, signs[2] = {};
    REQUIRE(::pipe2(signs, O_CLOEXEC) == 0);
    const tcp::detail::descriptor from{signs[0]}, to{signs[1]};
    std::vector<tcp::close_reason> closes;
    std::optional<blocking_client> third;
    tcp::endpoint where;
    const tcp::detail::descriptor second{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const std::function<void()> in_parent = [&] {
        char sign = 0;
        CHECK(::read(from.get(), &sign, 1) == 1);  // the child has the second client
        tcp::detail::reset_now(second.get());
        third.emplace(where);
    };
    tcp::server<forks, Engine> server{forks{&forked, &opened, &closes, &in_parent}};
    where = server.bind("127.0.0.1:0");
    server.listen();
    const blocking_client first{where};
    REQUIRE(::connect(second.get(), where.data(), where.size()) == 0);
    while (forked == -1) server.poll();
    if (forked == 0) {
        for (int i = 0; i != 50 && opened < 2; ++i) server.run_for(10ms);
        static_cast<void>(::write(to.get(), "x", 1));
        ::pause();
    }
    while (opened < 2) server.poll();
    for (int i = 0; i != 20; ++i) server.run_for(1ms);
    third->send("x");
    third->shutdown_send();
    for (int i = 0; i != 200 && closes.empty(); ++i) server.run_for(10ms);
    REQUIRE(closes.size() == 1);
    CHECK(closes[0].by == tcp::closed_by::peer_finished);
    CHECK(third->receive_all() == "x");
    ::kill(forked, SIGKILL);
    ::waitpid(forked, nullptr, 0);
}

TEST_CASE_TEMPLATE("the child of a hook that calls fork(2) serves everybody from there on", Engine,
                   ENGINES) {
    struct forks {
        pid_t* forked;
        const std::function<void()>* in_parent;
        void on_data(tcp::connection& peer, tcp::bytes data) const {
            if (*forked == -1 && tcp::as_text(data).starts_with("go")) {
                *forked = ::fork();
                if (*forked == 0)
                    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                else
                    (*in_parent)();
            }
            if (*forked == 0) peer.send(data);
        }
    };
    constexpr std::size_t count = 60, first = 30;
    pid_t forked = -1;
    std::vector<blocking_client> clients;
    std::size_t served = 0;
    const std::function<void()> in_parent = [&] {
        for (std::size_t i = first; i != count; ++i) served += clients[i].echoes("later") ? 1 : 0;
        ::kill(forked, SIGKILL);
        ::waitpid(forked, nullptr, 0);
    };
    tcp::server<forks, Engine> server{forks{&forked, &in_parent}};
    const tcp::endpoint where = server.bind("127.0.0.1:0");
    server.listen();
    for (std::size_t i = 0; i != count; ++i) clients.emplace_back(where);
    while (server.statistics().open != count) server.poll();
    clients[0].send("go");
    for (std::size_t i = 1; i != first; ++i) clients[i].send(std::string(20'000, 'x'));
    while (forked == -1) server.poll();
    if (forked == 0)
        for (;;) server.run_for(1ms);
    CHECK(served == count - first);
}
