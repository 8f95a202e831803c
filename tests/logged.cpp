// What a logged handler says, and that it does what the handler alone does.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/echo.hpp>
#include <tcp/logged.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>
#include <tcp/task.hpp>

using namespace std::chrono_literals;
using tcp::bytes;
using tcp::connection;
using lines = std::vector<std::string>;

template <>
struct doctest::StringMaker<lines> {
    static doctest::String convert(const lines& all) {
        std::string text;
        for (const std::string& line : all) text += '\n' + line;
        return text.c_str();
    }
};

namespace {

/// Keeps the lines.
struct to_list {
    lines* all = nullptr;
    void operator()(std::string_view line) const { all->emplace_back(line); }
};

/// A server of logged handlers in a world of its own.
template <class Handler>
struct served {
    lines said;
    tcp::simulation world;
    tcp::server<tcp::logged<Handler, to_list>, tcp::simulated_engine> server;

    explicit served(Handler handler = {}, const tcp::options& settings = {},
                    const tcp::simulation::faults& weather = {})
        : world{1, weather},
          server{tcp::logged{std::move(handler), to_list{&said}}, settings, world} {
        server.bind(7);
        server.listen();
    }

    tcp::simulation::client connect(const std::string& text = {}) {
        auto client = world.connect(7);
        client.send(text);
        return client;
    }
    /// What was said until then, and not heard yet.
    lines after(std::chrono::milliseconds length = 100ms) {
        server.run_for(length);
        return std::exchange(said, {});
    }
};
template <class Handler>
served(Handler) -> served<Handler>;

/// The lines of a client: each begins with its endpoint.
lines of(const tcp::simulation::client& client, lines expected) {
    const std::string name = client.local_endpoint().to_string();
    for (std::string& line : expected)
        line = line == "connected" ? "connected by " + name : name + ": " + line;
    return expected;
}

// ---- handlers ----

struct opens {
    void on_open(connection& peer) { peer.send("welcome"); }
};
struct counts {
    std::size_t on_data(connection& peer, bytes data) {
        const std::size_t end = tcp::as_text(data).find('\n');
        if (end == std::string_view::npos) return 0;
        peer.send(data.first(end + 1));
        return end + 1;
    }
};
struct ends {
    void on_end(connection& peer) { peer.send("bye"), peer.close(); }
};
struct writes {
    void on_writable(connection& peer) { peer.send("more"); }
};
struct waits {
    void on_timeout(connection& peer, tcp::deadline) { peer.send("ping"); }
};
struct closes {
    void on_close(connection& peer, const tcp::close_reason&) { peer.send("too late"); }
};
struct all_but_data : opens, ends, writes, waits, closes {};
struct all_hooks : all_but_data, counts {};

/// Does what it is told: "close", "abort", "throw", "throw 1"; sends back everything else.
struct obedient {
    void on_data(connection& peer, bytes data) {
        if (tcp::as_text(data) == "close") return peer.close();
        if (tcp::as_text(data) == "abort") return peer.abort();
        if (tcp::as_text(data) == "throw") throw std::runtime_error("as\ntold");
        if (tcp::as_text(data) == "throw 1") throw 1;
        peer.send(data);
    }
};

const auto echo_coroutine = [](connection& peer) -> tcp::task<> {
    while (auto data = co_await peer.receive()) co_await peer.send(data);
};
using coroutine = std::remove_const_t<decltype(echo_coroutine)>;

}  // namespace

TEST_CASE("logged: it has the hooks that the handler has, and those that change nothing") {
    using tcp::logged;
    static_assert(tcp::handler<logged<opens>> && tcp::handler<logged<counts>> &&
                  tcp::handler<logged<ends>> && tcp::handler<logged<writes>> &&
                  tcp::handler<logged<waits>> && tcp::handler<logged<closes>> &&
                  tcp::handler<logged<all_hooks>> && tcp::handler<logged<coroutine>> &&
                  tcp::handler<logged<logged<tcp::echo>>>);
    using tcp::detail::check_handler;
    static_assert(check_handler<logged<all_hooks>>() && check_handler<logged<opens>>());
    static_assert(check_handler<logged<coroutine>>() && !tcp::coroutine<logged<coroutine>>);

    static_assert(tcp::has_on_end<logged<all_hooks>> && !tcp::has_on_end<logged<opens>>);
    static_assert(tcp::has_on_end<logged<ends>> && tcp::has_on_end<logged<coroutine>>);
    static_assert(tcp::has_on_timeout<logged<waits>> && tcp::has_on_timeout<logged<all_hooks>>);
    static_assert(!tcp::has_on_timeout<logged<ends>> && !tcp::has_on_timeout<logged<coroutine>>);
    static_assert(tcp::has_on_writable<logged<writes>> && !tcp::has_on_writable<logged<ends>>);
    static_assert(tcp::has_counting_on_data<logged<counts>>);
    static_assert(tcp::has_counting_on_data<logged<coroutine>>);
    static_assert(tcp::has_void_on_data<logged<tcp::echo>>);
    static_assert(tcp::has_void_on_data<logged<opens>>);
}

TEST_CASE("logged: it can be made and copied where the handler can") {
    struct made_from {
        explicit made_from(int) {}
        void on_data(connection&, bytes) {}
    };
    struct unique {
        std::unique_ptr<int> state;
        void on_data(connection&, bytes) {}
    };
    const auto once = [state = std::make_unique<int>(1)](connection& peer) -> tcp::task<> {
        co_await peer.receive();
    };
    using moved_coroutine = std::remove_const_t<decltype(once)>;
    static_assert(std::default_initializable<tcp::logged<tcp::echo>>);
    static_assert(!std::default_initializable<tcp::logged<made_from>>);
    static_assert(std::copy_constructible<tcp::logged<made_from>>);
    static_assert(!std::copy_constructible<tcp::logged<unique>>);
    static_assert(std::move_constructible<tcp::logged<unique>>);
    static_assert(!std::copy_constructible<tcp::logged<moved_coroutine>>);

    tcp::simulation world;
    using engine = tcp::simulated_engine;
    tcp::server<tcp::logged<made_from>, engine> prototype_of_plain{made_from{1}, {}, world};
    tcp::server<tcp::logged<unique>, engine> factory_of_plain{[] { return unique{}; }, {}, world};
    tcp::server<tcp::logged<unique>, engine> factory{
        [] { return tcp::logged{unique{}}; }, {}, world};
    tcp::server<tcp::logged<tcp::echo>> by_default;
    tcp::server deduced{tcp::logged{made_from{1}}};
    tcp::server deduced_with_options{tcp::logged{echo_coroutine}, tcp::options{.no_delay = false}};
    static_assert(std::is_same_v<decltype(deduced),
                                 tcp::server<tcp::logged<made_from>, tcp::default_engine>>);
}

TEST_CASE("logged: an echo, in the words of the classic program") {
    served<tcp::echo> on;
    auto client = on.connect("hello");
    CHECK(on.after() ==
          of(client, {"connected", "received 5 bytes: hello", "sending back 5 bytes: hello"}));
    CHECK(client.received() == "hello");
    client.send("\n");
    client.shutdown_send();
    CHECK(on.after() == of(client, {"received 1 byte: \\n", "sending back 1 byte: \\n",
                                    "closed: peer finished"}));
}

TEST_CASE("logged: lines of several clients can be told apart, to their ends") {
    served<tcp::echo> on;
    auto one = on.connect("1"), two = on.connect("2");
    REQUIRE(one.local_endpoint() != two.local_endpoint());
    lines all = on.after();
    REQUIRE(all.size() == 6);
    two.reset();
    all = on.after();
    REQUIRE(all.size() == 1);
    CHECK(all[0].starts_with(two.local_endpoint().to_string() + ": closed: peer reset ("));
    CHECK(all[0].ends_with(")"));

    on.world.connect(tcp::endpoint{7}, tcp::endpoint::parse("[fd00::9]:99")).send("six");
    CHECK(on.after()[1] == "[fd00::9]:99: received 3 bytes: six");
}

TEST_CASE("logged: clients without a name get a number") {
    served<opens> on;
    tcp::server<tcp::logged<opens, to_list>, tcp::simulated_engine> local{
        tcp::logged{opens{}, to_list{&on.said}}, {}, on.world};
    local.bind("unix:@here");
    local.listen();
    const auto here = tcp::endpoint::parse("unix:@here");
    on.world.connect(here);
    on.world.connect(here);
    on.world.connect(here, tcp::endpoint::parse("unix:/a \x1b[1m path"));
    local.run_for(1s);
    REQUIRE(on.said.size() == 6);
    const std::string before = "connected by ";
    CHECK(on.said[0].starts_with(before + "unix:client "));
    CHECK(on.said[2].starts_with(before + "unix:client "));
    CHECK(on.said[0] != on.said[2]);
    CHECK(on.said[1] == on.said[0].substr(before.size()) + ": sending 7 bytes: welcome");
    CHECK(on.said[4] == "connected by unix:/a \\x1b[1m path");
}

TEST_CASE("logged: a name that leaves no room for what happened is cut") {
    served<opens> on;
    tcp::server<tcp::logged<opens, to_list>, tcp::simulated_engine> local{
        tcp::logged{opens{}, to_list{&on.said}}, {}, on.world};
    local.bind("unix:@here");
    local.listen();
    on.world.connect(tcp::endpoint::parse("unix:@here"),
                     tcp::endpoint::parse("unix:/" + std::string(90, '\x1b')));
    local.run_for(1s);
    REQUIRE(on.said.size() == 2);
    std::string name = "unix:/";
    while (name.size() < 120) name += "\\x1b";
    name.resize(120);
    CHECK(on.said[0] == "connected by " + name + "...");
    CHECK(on.said[1] == name + "...: sending 7 bytes: welcome");
}

TEST_CASE("logged: data is shown short, and nothing reaches a terminal but printable ASCII") {
    served<obedient> on;
    auto client = on.connect("\x1b[2J a\\b\tc\r\n\x7f\x80\xff");
    CHECK(on.after()[1] == of(client, {"received 15 bytes: "
                                       "\\x1b[2J a\\\\b\\tc\\r\\n\\x7f\\x80\\xff"})[0]);
    const std::string sixty(60, 'x');
    client.send(sixty);
    CHECK(on.after() ==
          of(client, {"received 60 bytes: " + sixty, "sending back 60 bytes: " + sixty}));
    client.send(sixty + 'y');
    CHECK(on.after() == of(client, {"received 61 bytes: " + sixty + "...",
                                    "sending back 61 bytes: " + sixty + "..."}));

    std::string every;
    for (int i = 0; i != 256; ++i) every += static_cast<char>(i);
    for (int i = 0; i != 256; i += 32) {
        client.send(every.substr(static_cast<std::size_t>(i), 32));
        for (const std::string& line : on.after())
            for (const char c : line) CHECK((c >= ' ' && c <= '~'));
    }
    client.send(std::string(60, '\xff'));  // the longest line
    const lines longest = on.after();
    REQUIRE(longest.size() == 2);
    CHECK(longest[1].ends_with(": " + [] {
        std::string all;
        for (int i = 0; i != 60; ++i) all += "\\xff";
        return all;
    }()));
}

TEST_CASE("logged: what is shown again was received once") {
    served<counts> on;
    auto client = on.connect("one\ntwo\nth");
    CHECK(on.after() ==
          of(client, {"connected", "received 10 bytes: one\\ntwo\\nth",
                      "sending back 4 bytes: one\\n", "sending back 4 bytes: two\\n"}));
    client.send("r");
    CHECK(on.after() == of(client, {"received 1 byte: r"}));
    client.send("ee\n");
    CHECK(on.after() == of(client, {"received 3 bytes: ee\\n", "sending back 6 bytes: three\\n"}));
    CHECK(client.received() == "one\ntwo\nthree\n");
}

TEST_CASE("logged: each hook, and what it sends") {
    served<all_hooks> on{{}, {.idle_timeout = 1s}};
    auto client = on.connect("a\n");
    CHECK(on.after(500ms) == of(client, {"connected", "sending 7 bytes: welcome",
                                         "received 2 bytes: a\\n", "sending back 2 bytes: a\\n"}));
    CHECK(on.after(1s) == of(client, {"deadline: idle", "sending 4 bytes: ping"}));
    client.shutdown_send();
    CHECK(on.after() == of(client, {"peer finished sending", "sending 3 bytes: bye",
                                    "closed: closed by the handler"}));
    CHECK(client.received() == "welcomea\npingbye");
}

TEST_CASE("logged: a handler without on_data, on_end or on_timeout ends as it would alone") {
    served<opens> on{{}, {.idle_timeout = 1s}};
    auto finishes = on.connect("unheard");
    finishes.shutdown_send();
    CHECK(on.after() == of(finishes, {"connected", "sending 7 bytes: welcome",
                                      "received 7 bytes: unheard", "closed: peer finished"}));
    CHECK(finishes.received() == "welcome");
    CHECK(finishes.ended());
    auto idles = on.connect();
    on.after();
    CHECK(on.after(2s) == of(idles, {"closed: deadline: idle"}));
    CHECK(on.server.statistics().timeouts == 1);
}

TEST_CASE("logged: a coroutine pauses as it does without") {
    auto burst = [](connection& peer) -> tcp::task<> {
        while (auto data = co_await peer.receive()) peer.send(std::string(100'000, 'x'));
    };
    const auto pauses = [](auto&& server, tcp::simulation& world) {
        server.bind(7);
        server.listen();
        auto client = world.connect(7);
        for (int i = 0; i != 20; ++i) {
            client.send("!");
            server.run_for(1s);
        }
        CHECK(client.received_size() == 2'000'000);
        return server.statistics().pauses;
    };
    tcp::simulation::faults wide;
    wide.send_capacity = wide.client_window = 90'000;
    tcp::simulation plain_world{1, wide}, logged_world{1, wide};
    lines said;
    using serves = decltype(burst);
    const auto plain = pauses(
        tcp::server<serves, tcp::simulated_engine>{serves{burst}, {}, plain_world}, plain_world);
    const auto logged = pauses(
        tcp::server<tcp::logged<serves, to_list>, tcp::simulated_engine>{
            tcp::logged{serves{burst}, to_list{&said}}, {}, logged_world},
        logged_world);
    CHECK(plain == logged);
    for (const std::string& line : said) CHECK(line.find("has room") == line.npos);
}

TEST_CASE("logged: on_writable, and what a deaf client was not sent") {
    struct floods {
        void on_open(connection& peer) { peer.send(std::string(50'000, 'x')); }
        void on_writable(connection& peer) { peer.send("more"); }
    };
    served<floods> on{{},
                      {.high_mark = 10'000, .low_mark = 2'000},
                      {.client_window = 1'000, .send_capacity = 1'000}};
    auto client = on.connect();
    client.pause_receive();
    on.after();
    client.resume_receive();
    CHECK(on.after(10s) == of(client, {"send queue has room", "sending 4 bytes: more"}));
    CHECK(client.received_size() == 50'004);

    auto deaf = on.connect();
    deaf.pause_receive();
    on.after();
    on.server.stop();
    const lines last = on.after();
    CHECK(last[0] == of(client, {"closed: server stopping"})[0]);
    CHECK(last[1] == of(deaf, {"closed: server stopping, 48000 bytes unsent"})[0]);
}

TEST_CASE("logged: each end with its reason") {
    served<obedient> on;
    auto closer = on.connect("close");
    on.after();
    closer.close();
    CHECK(on.after() == of(closer, {"closed: closed by the handler"}));
    auto aborter = on.connect("abort");
    CHECK(on.after() ==
          of(aborter, {"connected", "received 5 bytes: abort", "closed: aborted by the handler"}));
    auto thrower = on.connect("throw");
    CHECK(on.after() == of(thrower, {"connected", "received 5 bytes: throw",
                                     "on_data threw: as\\ntold", "closed: handler threw"}));
    CHECK(thrower.was_reset());
    auto other = on.connect("throw 1");
    CHECK(on.after() == of(other, {"connected", "received 7 bytes: throw 1", "on_data threw",
                                   "closed: handler threw"}));

    struct repeats {
        void on_data(connection& peer, bytes data) {
            for (int i = 0; i != 3; ++i) peer.send(std::string{tcp::as_text(data)});
        }
    };
    served<repeats> limited{{}, {.send_queue_limit = 5}};
    auto client = limited.connect("123");
    CHECK(limited.after() ==
          of(client, {"connected", "received 3 bytes: 123", "sending back 6 bytes: 123123",
                      "closed: limit: send queue (the send queue passed "
                      "options::send_queue_limit; send less until on_writable, or raise the "
                      "limit), 6 bytes unsent"}));
}

TEST_CASE("logged: a hook that throws at the end is told, and it is over") {
    struct throws {
        void on_open(connection& peer) {
            peer.send("sent before");
            throw std::runtime_error("too early");
        }
        void on_close(connection&, const tcp::close_reason&) { throw std::runtime_error("late"); }
    };
    served<throws> on;
    auto client = on.connect();
    CHECK(on.after() ==
          of(client, {"connected", "sending 11 bytes: sent before", "on_open threw: too early",
                      "closed: handler threw, 11 bytes unsent", "on_close threw: late"}));
}

TEST_CASE("logged: a coroutine") {
    served on{echo_coroutine};
    auto client = on.connect("hello");
    CHECK(on.after() ==
          of(client, {"connected", "received 5 bytes: hello", "sending back 5 bytes: hello"}));
    client.shutdown_send();
    CHECK(on.after() == of(client, {"peer finished sending", "closed: closed by the handler"}));
    CHECK(client.received() == "hello");

    served frames{[](connection& peer) -> tcp::task<> {
        co_await peer.send("name?");
        const auto name = co_await peer.receive_until("\n");
        co_await peer.send(std::string{"hello "});
        co_await peer.send(name);
        throw std::runtime_error("done");
    }};
    auto guest = frames.connect("Jo");
    CHECK(frames.after() ==
          of(guest, {"connected", "sending 5 bytes: name?", "received 2 bytes: Jo"}));
    guest.send("hn\n");
    CHECK(frames.after() ==
          of(guest, {"received 3 bytes: hn\\n", "sending back 11 bytes: hello John\\n",
                     "on_data threw: done", "closed: handler threw, 11 bytes unsent"}));
}

TEST_CASE("logged: the lines say truly what was sent, however it was queued") {
    // Answers with pieces of every kind, drawn by chance.
    struct sends_anyhow {
        tcp::simulation::random_generator* dice;
        std::string* all;
        std::size_t on_data(connection& peer, bytes data) {
            std::size_t shown = 0;
            for (auto i = dice->below(5); i != 0; --i) {
                const auto kind = dice->below(4);
                const std::string text(dice->magnitude(1, 20'000),
                                       static_cast<char>('a' + dice->below(26)));
                bytes piece = tcp::as_bytes(text);
                if (kind == 0) {  // lies in what was shown
                    piece = data.subspan(shown, dice->below(data.size() - shown + 1));
                    shown += piece.size();
                }
                *all += tcp::as_text(piece);
                if (kind == 1)
                    peer.send(std::string{text});
                else
                    peer.send(piece);
            }
            return dice->below(data.size() + 1);
        }
    };
    for (std::uint64_t seed = 1; seed != 60; ++seed) {
        CAPTURE(seed);
        tcp::simulation::random_generator dice{seed};
        std::string all;
        served<sends_anyhow> on{
            {&dice, &all}, {.high_mark = 50'000}, {.client_window = 5'000, .send_capacity = 700}};
        auto client = on.connect(std::string(200, '1'));
        for (int i = 0; i != 20; ++i) {
            on.server.run_for(20ms);
            client.send(std::string(dice.magnitude(1, 3'000), static_cast<char>('0' + i % 10)));
        }
        std::size_t at = 0;
        for (const std::string& line : on.said) {
            const auto what = line.find(": sending back ");
            if (what == std::string::npos) continue;
            const std::size_t size = std::stoul(line.substr(what + 15));
            std::string beginning = all.substr(at, size < 60 ? size : 60);
            if (size > 60) beginning += "...";
            CHECK(line.substr(line.rfind(' ') + 1) == beginning);
            at += size;
        }
        CHECK(at == all.size());
    }
}

namespace {

/// All that shows of a server: what happened in its world, and what its client saw.
struct history {
    std::uint64_t fingerprint;
    std::vector<std::string> received;
    std::vector<bool> ended;
    std::vector<std::uint64_t> closed_by;
    bool operator==(const history&) const = default;
};

struct to_nowhere {
    void operator()(std::string_view) const {}
};

template <class Handler>
history lived(std::uint64_t seed, Handler handler) {
    tcp::simulation::random_generator dice{seed};
    tcp::simulation world{seed, tcp::simulation::faults::wild(dice)};
    tcp::server<Handler, tcp::simulated_engine> server{
        std::move(handler),
        {.high_mark = 5'000, .low_mark = 1'000, .receive_limit = 10'000, .idle_timeout = 700ms},
        world};
    server.bind(7);
    server.listen();
    std::vector<tcp::simulation::client> clients;
    for (int i = 0; i != 5; ++i) clients.push_back(world.connect(7));
    for (int round = 0; round != 30; ++round) {
        auto& client = clients[dice.below(clients.size())];
        if (dice.chance(100))
            client.shutdown_send();
        else if (dice.chance(50))
            client.reset();
        else
            client.send(std::string(dice.magnitude(1, 5'000), 'x') + '\n');
        server.run_for(tcp::duration::milliseconds(static_cast<std::int64_t>(dice.below(300))));
    }
    history all{world.fingerprint(), {}, {}, {}};
    for (auto& client : clients) {
        all.received.push_back(client.received());
        all.ended.push_back(client.ended());
    }
    for (const auto count : server.statistics().closed_by) all.closed_by.push_back(count);
    CHECK(world.violations().empty());
    return all;
}

}  // namespace

TEST_CASE_TEMPLATE("logged: it does what the handler alone does, event by event", Handler,
                   tcp::echo, counts, opens, ends, waits, closes, all_but_data, all_hooks,
                   coroutine) {
    for (std::uint64_t seed = 1; seed != 40; ++seed) {
        CAPTURE(seed);
        CHECK((lived(seed, Handler{}) == lived(seed, tcp::logged{Handler{}, to_nowhere{}})));
    }
}

TEST_CASE("logged: a sink that throws ends nothing") {
    tcp::simulation world;
    using handler = tcp::logged<tcp::echo, void (*)(std::string_view)>;
    tcp::server<handler, tcp::simulated_engine> simulated{
        handler{{}, [](std::string_view) { throw std::runtime_error("disk full"); }}, {}, world};
    simulated.bind(7);
    simulated.listen();
    auto client = world.connect(7);
    client.send("hello");
    client.shutdown_send();
    simulated.run_for(1s);
    CHECK(client.received() == "hello");
    CHECK(client.ended());
}

TEST_CASE("logged: stderr gets each line in one write") {
    int ends_of[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends_of) == 0);  // each write is a message
    const int before = ::dup(STDERR_FILENO);
    ::dup2(ends_of[0], STDERR_FILENO);
    tcp::lines_to_stderr{}("first");
    tcp::lines_to_stderr{}(std::string(2'000, 'x'));
    tcp::lines_to_stderr{}("");
    ::dup2(before, STDERR_FILENO);
    const auto next = [&] {
        char message[4096];
        const auto size = ::recv(ends_of[1], message, sizeof message, MSG_DONTWAIT);
        return size < 0 ? "nothing" : std::string(message, static_cast<std::size_t>(size));
    };
    CHECK(next() == "first\n");
    CHECK(next() == std::string(2'000, 'x') + "\n");
    CHECK(next() == "\n");
    CHECK(next() == "nothing");
    for (const int descriptor : {before, ends_of[0], ends_of[1]}) ::close(descriptor);
}
