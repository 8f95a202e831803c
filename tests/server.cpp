// How a server is made: the ways to get handlers, options that are refused, the engine's name. What
// it does then is in conformance/.
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <ostream>  // doctest prints error codes
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "child_process.hpp"

using namespace std::chrono_literals;
using tests::open_descriptors;

namespace {

template <class Handler = tcp::echo>
using simulated_server = tcp::server<Handler, tcp::simulated_engine>;

/// What the server sends back to each of these texts, each from a client of its own.
template <class Server>
std::vector<std::string> answers(tcp::simulation& world, Server& server,
                                 const std::vector<std::string_view>& texts) {
    server.bind(7);
    server.listen();
    std::vector<tcp::simulation::client> clients;
    for (const std::string_view text : texts) {
        clients.push_back(world.connect(7));
        clients.back().send(text);
        server.run_for(1s);
    }
    std::vector<std::string> received;
    for (auto& client : clients) received.push_back(client.take());
    CHECK(world.violations().empty());
    return received;
}

using texts = std::vector<std::string>;

/// Answers with a word of its own, and counts its messages in what all share.
struct worded {
    std::string word = "default";
    std::shared_ptr<int> messages = std::make_shared<int>(0);

    void on_data(tcp::connection& peer, tcp::bytes) {
        ++*messages;
        peer.send(word);
        word += '!';  // this connection's own
    }
};

struct unique {
    std::unique_ptr<std::string> word;
    void on_data(tcp::connection& peer, tcp::bytes) { peer.send(*word); }
};

struct immovable {
    explicit immovable(int n) : number{n} {}
    immovable(const immovable&) = delete;
    immovable& operator=(const immovable&) = delete;
    void on_data(tcp::connection& peer, tcp::bytes) { peer.send(std::to_string(number)); }
    const int number;
};

struct needs_a_number {
    explicit needs_a_number(int n) : number{n} {}
    void on_data(tcp::connection& peer, tcp::bytes) { peer.send(std::to_string(number)); }
    int number;
};

// ---- what makes a server, and what does not ----

static_assert(sizeof(tcp::detail::slot<tcp::echo>) == 112, "each idle connection has one");
static_assert(std::is_same_v<tcp::server<>, tcp::server<tcp::echo>>);
static_assert(std::is_same_v<tcp::server<>, tcp::server<tcp::echo, tcp::default_engine>>);
static_assert(!std::is_copy_constructible_v<tcp::server<>>);
static_assert(!std::is_move_constructible_v<tcp::server<>>);
static_assert(!std::is_copy_assignable_v<tcp::server<>>);

static_assert(std::is_constructible_v<tcp::server<>, tcp::options>);
static_assert(std::is_constructible_v<tcp::server<worded>, worded>);
static_assert(std::is_constructible_v<tcp::server<worded>, worded, tcp::options>);
static_assert(std::is_constructible_v<tcp::server<worded>, worded (*)()>);
static_assert(std::is_constructible_v<tcp::server<unique>, unique (*)(), tcp::options>);
static_assert(!std::is_constructible_v<tcp::server<worded>, unique>);
static_assert(!std::is_constructible_v<tcp::server<worded>, unique (*)()>);
static_assert(!std::is_constructible_v<tcp::server<worded>, worded (*)(int)>);
static_assert(!std::is_constructible_v<tcp::server<worded>, int>);
static_assert(!std::is_convertible_v<tcp::options, tcp::server<>>);
static_assert(!std::is_convertible_v<worded, tcp::server<worded>>);
static_assert(!std::is_convertible_v<worded (*)(), tcp::server<worded>>);

// Deduced: a prototype is one, options are options.
template <class... Arguments>
concept deduces = requires {
    tcp::server(std::declval<Arguments>()...);
};
static_assert(std::is_same_v<decltype(tcp::server{worded{}}), tcp::server<worded>>);
static_assert(std::is_same_v<decltype(tcp::server{worded{}, tcp::options{}}), tcp::server<worded>>);
static_assert(std::is_same_v<decltype(tcp::server{tcp::options{}}), tcp::server<>>);
static_assert(std::is_same_v<decltype(tcp::server{}), tcp::server<>>);

}  // namespace

TEST_CASE("server: echo is the handler unless another one is named") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    CHECK(answers(world, server, {"hello", "wide world"}) == texts{"hello", "wide world"});
}

TEST_CASE("server: with nothing but its type, and with options") {
    const std::vector<int> before = open_descriptors();
    {
        tcp::server<> plain;
        tcp::server<worded> of_handlers;
        tcp::server with_options{tcp::options{.high_mark = 1 << 20, .close_timeout = 2s}};
        tcp::server<worded> with_both{tcp::options{.no_delay = false}};
        CHECK(plain.statistics().accepted == 0);
        CHECK(open_descriptors().size() > before.size());
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("server: the handler is deduced, however the options are given") {
    CHECK(deduces<worded>);
    CHECK(deduces<worded&>);
    CHECK(deduces<const worded&>);
    CHECK(deduces<worded, tcp::options>);
    CHECK(deduces<worded, tcp::options&>);
    CHECK(deduces<worded, const tcp::options&>);
    CHECK(deduces<const worded&, const tcp::options&>);
    CHECK(deduces<const tcp::options&>);
}

TEST_CASE("server: each connection gets a copy of the prototype, which shares what it points to") {
    tcp::simulation world;
    const auto messages = std::make_shared<int>(0);
    {
        simulated_server<worded> server{worded{"yes", messages}, {}, world};
        CHECK(messages.use_count() == 2);  // ours and the prototype's
        CHECK(answers(world, server, {"a", "b", "c"}) == texts{"yes", "yes", "yes"});
        CHECK(*messages == 3);
        CHECK(messages.use_count() == 5);
        auto again = world.connect(7);
        again.send("a");
        server.run_for(1s);
        again.send("b");
        server.run_for(1s);
        CHECK(again.received() == "yesyes!");
        again.close();
        server.run_for(1s);
        CHECK(messages.use_count() == 5);  // its handler is gone
    }
    CHECK(messages.use_count() == 1);
}

TEST_CASE("server: a prototype that stays the caller's") {
    tcp::simulation world;
    worded mine{"before", {std::make_shared<int>(0)}};
    simulated_server<worded> server{mine, {}, world};
    mine.word = "after";
    CHECK(answers(world, server, {"?"}) == texts{"before"});
    CHECK(*mine.messages == 1);
}

TEST_CASE("server: the prototype's default, where it has one") {
    tcp::simulation world;
    simulated_server<worded> server{{}, {}, world};
    CHECK(answers(world, server, {"?", "?"}) == texts{"default", "default"});
}

TEST_CASE("server: a factory, called once for each connection") {
    tcp::simulation world;
    int calls = 0;
    simulated_server<needs_a_number> server{
        [&calls] { return needs_a_number{++calls}; }, {}, world};
    CHECK(calls == 0);
    CHECK(answers(world, server, {"?", "?", "?"}) == texts{"1", "2", "3"});
    CHECK(calls == 3);
}

TEST_CASE("server: a factory makes handlers that cannot be copied, or not even moved") {
    tcp::simulation world;
    int next = 0;
    simulated_server<unique> moves{
        [&next] { return unique{std::make_unique<std::string>(std::to_string(++next))}; },
        {},
        world};
    CHECK(answers(world, moves, {"?", "?"}) == texts{"1", "2"});

    tcp::simulation other;
    simulated_server<immovable> stays{[] { return immovable{5}; }, {}, other};
    CHECK(answers(other, stays, {"?"}) == texts{"5"});
}

TEST_CASE("server: every kind of factory") {
    struct functor {
        int number;
        needs_a_number operator()() { return needs_a_number{number++}; }
    };
    static constexpr auto make = [] { return needs_a_number{7}; };
    {
        tcp::simulation world;
        simulated_server<needs_a_number> server{functor{3}, {}, world};
        CHECK(answers(world, server, {"?", "?"}) == texts{"3", "4"});
    }
    {
        tcp::simulation world;
        simulated_server<needs_a_number> server{+make, {}, world};
        CHECK(answers(world, server, {"?"}) == texts{"7"});
    }
    {
        tcp::simulation world;
        simulated_server<needs_a_number> server{std::function<needs_a_number()>{make}, {}, world};
        CHECK(answers(world, server, {"?"}) == texts{"7"});
    }
    {
        // One that cannot be copied.
        tcp::simulation world;
        auto factory = [number = std::make_unique<int>(8)] { return needs_a_number{*number}; };
        simulated_server<needs_a_number> server{std::move(factory), {}, world};
        CHECK(answers(world, server, {"?"}) == texts{"8"});
    }
    {
        // What it returns is turned into a handler.
        tcp::simulation world;
        simulated_server<worded> server{[] {
                                            return worded{"made", std::make_shared<int>(0)};
                                        },
                                        {},
                                        world};
        CHECK(answers(world, server, {"?"}) == texts{"made"});
    }
}

TEST_CASE("18 server: a factory that throws costs its own connection only") {
    tcp::simulation world;
    int calls = 0;
    simulated_server<needs_a_number> server{[&calls] {
                                                if (++calls == 2) throw std::runtime_error("no");
                                                return needs_a_number{calls};
                                            },
                                            {},
                                            world};
    CHECK(answers(world, server, {"?", "?", "?"}) == texts{"1", "", "3"});
    CHECK(server.statistics().accepted == 2);
    CHECK(server.statistics().refused == 1);
}

TEST_CASE("server: options that cannot work are refused, whichever way it is made") {
    const std::vector<int> before = open_descriptors();
    const struct {
        tcp::options settings;
        std::string_view names;
    } wrong[] = {
        {{.high_mark = 10, .low_mark = 11}, "options::low_mark 11 is above options::high_mark 10"},
        {{.receive_buffer = 0}, "options::receive_buffer is 0"},
        {{.close_timeout = -1s}, "options::close_timeout is negative"},
        {{.kernel_send_buffer = -1}, "kernel_send_buffer is negative"},
        {{.kernel_receive_buffer = -1}, "kernel_receive_buffer is negative"},
    };
    for (const auto& [settings, names] : wrong) {
        const tcp::options& refused = settings;
        const std::string sentence{names};
        CAPTURE(sentence);
        const auto check = [&](auto make) {
            try {
                make();
            } catch (const std::system_error& thrown) {
                CHECK(thrown.code() == tcp::error::bad_options);
                CHECK(std::string_view{thrown.what()}.find(sentence) != std::string_view::npos);
                return;
            }
            FAIL_CHECK("these options were taken");
        };
        check([&] { tcp::server<>{refused}; });
        check([&] { tcp::server<worded>{worded{}, refused}; });
        check([&] { tcp::server<unique>{[] { return unique{}; }, refused}; });
        check([&] {
            tcp::simulation world;
            simulated_server<>{{}, refused, world};
        });
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("server: the options are those of its connections") {
    struct floods {
        void on_open(tcp::connection& peer) {
            for (int i = 0; i != 100; ++i) peer.send("0123456789");
        }
        void on_close(tcp::connection&, const tcp::close_reason& why) { *last = why; }
        tcp::close_reason* last;
    };
    tcp::close_reason last;
    tcp::simulation world;
    tcp::options settings{.send_queue_limit = 50};
    simulated_server<floods> server{floods{&last}, settings, world};
    settings.send_queue_limit = 1 << 20;  // it has a copy
    server.bind(7);
    server.listen();
    world.connect(7);
    server.run_for(1s);
    CHECK(last.by == tcp::closed_by::limit);
    CHECK(last.reached == tcp::limit::send_queue);
    CHECK(last.error == tcp::error::send_queue_limit);
}

TEST_CASE("server: engine() names the engine") {
    const tcp::server<> plain;
    static_assert(noexcept(plain.engine()));
    static_assert(std::is_same_v<decltype(plain.engine()), std::string_view>);
    CHECK(plain.engine() == tcp::default_engine::name);
    CHECK(tcp::server<tcp::echo, tcp::epoll_engine>{}.engine() == "epoll");
    tcp::simulation world;
    CHECK(simulated_server<>{{}, {}, world}.engine() == "simulated");
    CHECK_FALSE(plain.engine().empty());
}

TEST_CASE("server: a text that is no endpoint is told why") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    const auto told = [&](auto... where) -> std::string {
        try {
            server.bind(where...);
            return "nothing";
        } catch (const std::system_error& thrown) {
            return thrown.what();
        }
    };
    CHECK(told("localhost").starts_with("\"localhost\": the port is missing"));
    CHECK(told("::1:80").starts_with("\"::1:80\": an IPv6 address stands in brackets"));
    CHECK(told("127.0.0.1:70000").starts_with("\"127.0.0.1:70000\": a port is a number"));
    CHECK(told("name:70000").starts_with("\"name:70000\": a port is a number"));
    CHECK(told("[fe80::1%nosuch0]:80").find("no interface has the name") != std::string::npos);
    CHECK(told("unix:" + std::string(108, 'x')).find("107 bytes") != std::string::npos);
    CHECK(told("http://localhost:80").find("a scheme") != std::string::npos);
    CHECK(told("127.0.0.1", 70000).starts_with("\"127.0.0.1:70000\": a port is a number"));
    CHECK(told("nosuch.invalid:80").starts_with("bind \"nosuch.invalid:80\": "));

    const char* const null = nullptr;  // what getenv(3) gives
    CHECK(told(null).starts_with("\"\": it is empty"));
    CHECK(told(nullptr).starts_with("\"\": it is empty"));
    std::error_code failure;
    CHECK_FALSE(server.bind(null, failure));
    CHECK(failure == tcp::error::bad_endpoint);
}

TEST_CASE("server: a number that is no port is an error code") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    for (const int port : {-1, 65536, 70000}) {
        std::error_code failure;
        CHECK_FALSE(server.bind(port, failure));
        CHECK(failure == tcp::error::bad_endpoint);
        CHECK_THROWS_AS(server.bind(port), std::system_error);
    }
}

TEST_CASE("server: a host and a port") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    CHECK(server.bind("127.0.0.1", 80) == tcp::endpoint::parse("127.0.0.1:80"));
    CHECK(server.bind("::1", 80) == tcp::endpoint::parse("[::1]:80"));
    CHECK(server.bind(std::string{"[::1]"}, 81) == tcp::endpoint::parse("[::1]:81"));
    CHECK(server.bind("", 82) == tcp::endpoint{82});
    std::error_code failure;
    CHECK(server.bind("127.0.0.1", 83, failure).port() == 83);
    CHECK(server.bind(static_cast<const char*>(nullptr), 84, failure) == tcp::endpoint{84});
    CHECK_FALSE(server.bind("127.0.0.1", -1, failure));
    CHECK(failure == tcp::error::bad_endpoint);
}

TEST_CASE("server: the statistics of a loop that is not there are zeros") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    answers(world, server, {"hello"});
    CHECK(server.statistics(0).accepted == 1);
    CHECK(server.statistics(1).accepted == 0);
    CHECK(server.statistics(static_cast<std::size_t>(-1)).accepted == 0);
}

TEST_CASE("5 server: calls in the wrong order are told what to call") {
    tcp::simulation world;
    simulated_server<> server{{}, {}, world};
    std::error_code failure;
    server.listen(failure);
    CHECK(failure == tcp::error::not_bound);
    server.run(failure);
    CHECK(failure == tcp::error::not_listening);
    CHECK_FALSE(server.poll(failure));
    CHECK(failure == tcp::error::not_listening);
    CHECK(server.accept(failure).by == tcp::closed_by::server_stopping);
    CHECK(failure == tcp::error::not_listening);
    CHECK_THROWS_AS(server.run(), std::system_error);
    CHECK_THROWS_AS(server.poll(), std::system_error);

    CHECK(server.bind(7, failure).port() == 7);
    CHECK_FALSE(failure);  // what is there from the call before is cleared
    server.listen(failure);
    CHECK_FALSE(failure);
    CHECK_FALSE(server.bind(8, failure));
    CHECK(failure == tcp::error::already_listening);
    server.listen(failure);
    CHECK(failure == tcp::error::already_listening);
    CHECK(server.poll(failure));
    CHECK_FALSE(failure);

    server.stop();
    CHECK_FALSE(server.poll(failure));
    CHECK_FALSE(failure);
    CHECK_FALSE(server.bind(9, failure));
    CHECK(failure == tcp::error::stopped);
    server.listen(failure);
    CHECK(failure == tcp::error::stopped);
}
