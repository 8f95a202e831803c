// Behaviours 73 to 76: coroutine handlers.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
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

#include <tcp/task.hpp>

#include "beds.hpp"

using namespace std::chrono_literals;
using conformance::difference;
using conformance::pattern;
using conformance::stage;
using tcp::closed_by;
using tcp::connection;
using tcp::task;

namespace {

/// What the coroutines of a test leave behind. It outlives the server.
struct notes {
    std::vector<std::string> got;
    std::vector<std::error_code> errors;
    std::vector<std::string> wrong;
    int callables = 0, frames = 0;  // alive
    int unwound = 0;                // frames that are gone
    bool done = false;

    void end(const tcp::received& what) { errors.push_back(what.error()); }
    void take(const tcp::received& what) { got.emplace_back(what.text()); }
};

/// Captured by a handler: it must outlive the frames.
class witness {
public:
    explicit witness(notes& n) : n_{&n} { ++n_->callables; }
    witness(const witness& other) : n_{other.n_} { ++n_->callables; }
    witness& operator=(const witness&) = delete;
    ~witness() { --n_->callables; }

    notes& operator*() const { return *n_; }
    notes* operator->() const { return n_; }

private:
    notes* n_;
};

/// A local of a coroutine.
class local {
public:
    local(notes& n, int callables) : n_{n}, callables_{callables} { ++n_.frames; }
    local(const local&) = delete;
    local& operator=(const local&) = delete;
    ~local() {
        --n_.frames;
        ++n_.unwound;
        if (n_.callables < callables_) n_.wrong.push_back("the callable went before its frame");
    }

private:
    notes& n_;
    int callables_;
};

/// A server, and one client. With one type for most handlers there is much less to compile.
template <class Bed, class Handler = std::function<task<>(connection&)>>
struct scene {
    explicit scene(Handler handler, const tcp::options& options = {})
        : server{on.bed.make(std::move(handler), options)},
          where{on.bed.listen(server)},
          client{on.bed.connect(where)} {}

    template <class Predicate>
    void until(Predicate holds) {
        REQUIRE(on.bed.until(server, holds));
    }
    std::uint64_t closed(closed_by why) const {
        return server.statistics().closed_by[static_cast<std::size_t>(why)];
    }
    void until_closed() {
        until([&] { return server.statistics().closed == 1; });
    }

    stage<Bed> on;
    typename Bed::template server<Handler> server;
    tcp::endpoint where;
    typename Bed::client client;
};

constexpr auto echo = [](connection& peer) -> task<> {
    while (auto data = co_await peer.receive()) co_await peer.send(data);
};

task<int> add(int a, int b) { co_return a + b; }
task<int> depth(int levels) {
    if (levels == 0) co_return 0;
    co_return 1 + co_await depth(levels - 1);
}
task<std::unique_ptr<std::string>> line(connection& peer) {
    const auto got = co_await peer.receive_until("\n");
    if (!got) co_return nullptr;
    co_return std::make_unique<std::string>(got.text());
}
task<> fail(connection& peer) {
    co_await peer.receive();
    throw std::runtime_error{"a task failed"};
}
// Sends where that fails at once.
task<> send_in_vain(connection& peer, int times, int& failed) {
    for (int i = 0; i != times; ++i) {
        const auto result = co_await peer.send("no more");
        if (result.error() == tcp::error::not_open) ++failed;
    }
}

task<> serve_by_function(connection& peer) {
    while (auto data = co_await peer.receive()) co_await peer.send(data);
}

struct mark_echo {
    std::string mark;
    task<> operator()(connection& peer) const {
        while (auto got = co_await line(peer)) co_await peer.send(mark + *got);
    }
};

}  // namespace

TEST_ON_BEDS("coroutines: an echo of much, through small pieces and short sends", Bed,
             CONFORMANCE_BEDS) {
    for (const std::size_t buffer : {std::size_t{700}, std::size_t{512 * 1024}}) {
        const tcp::options options{.high_mark = 20'000,
                                   .low_mark = 5'000,
                                   .receive_buffer = buffer,
                                   .kernel_send_buffer = 4096};
        scene<Bed, std::remove_const_t<decltype(echo)>> on{echo, options};
        const std::string sent = pattern(Bed::simulated ? 400'000 : 4'000'000);
        on.client.send(sent);
        on.client.shutdown_send();
        on.until([&] { return on.client.ended(); });
        CHECK(difference(on.client.received(), sent) == "");
        on.until_closed();
        CHECK(on.closed(closed_by::handler_closed) == 1);
    }
}

TEST_ON_BEDS("coroutines: classes, functions, factories and nested tasks with values", Bed,
             CONFORMANCE_BEDS) {
    const auto talk = [](auto& on) {
        on.client.send("one\ntw");
        on.until([&] { return !on.client.received().empty(); });
        on.client.send("o\n");
        on.client.shutdown_send();
        on.until([&] { return on.client.ended(); });
        return on.client.received();
    };
    scene<Bed, mark_echo> by_class{mark_echo{"> "}};
    CHECK(talk(by_class) == "> one\n> two\n");
    scene<Bed, decltype(&serve_by_function)> by_function{&serve_by_function};
    CHECK(talk(by_function) == "one\ntwo\n");

    stage<Bed> on;
    int made = 0;
    const auto sums = [](connection& peer) -> task<> {
        co_await peer.send(std::to_string(co_await add(co_await add(1, 2), 4)) + " " +
                           std::to_string(co_await depth(10'000)));
    };
    const auto factory = [&] { return ++made, sums; };
    auto server = [&] {
        using server_type = typename Bed::template server<std::remove_const_t<decltype(sums)>>;
        if constexpr (Bed::simulated)
            return server_type{factory, tcp::options{}, on.bed.world};
        else
            return server_type{factory, tcp::options{}};
    }();
    auto client = on.bed.connect(on.bed.listen(server));
    client.shutdown_send();
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(client.received() == "7 10000");
    CHECK(made == 1);
}

TEST_ON_BEDS("73 a million awaits that complete at once", Bed, CONFORMANCE_BEDS) {
    constexpr int times = 1'000'000;
    notes n;
    const auto busy = [&n](connection& peer) -> task<> {
        long sum = 0;
        for (int i = 0; i != times; ++i) sum += co_await add(i, 1) - i;
        for (int i = 0; i != times; ++i) sum += (co_await peer.receive_exactly(0)) ? 1 : 0;
        for (int i = 0; i != times; ++i) sum += (co_await peer.send("")) ? 1 : 0;
        const auto first = co_await peer.receive_exactly(1);
        for (auto one = first; one.text() != "."; one = co_await peer.receive_exactly(1)) ++sum;
        n.got.push_back(std::to_string(sum));
    };
    scene<Bed> on{busy};
    const int much = Bed::simulated ? 20'000 : 1'000'000;
    on.client.send(std::string(static_cast<std::size_t>(much), 'a') + ".");
    on.client.shutdown_send();
    on.until([&] { return on.client.ended(); });
    REQUIRE(n.got.size() == 1);
    CHECK(n.got[0] == std::to_string(3L * times + much));
}

TEST_ON_BEDS("74 destroyed while waiting at each kind of await", Bed, CONFORMANCE_BEDS) {
    enum class how { client_resets, server_stops, aborts_itself, closes_itself };
    for (const int await : {0, 1, 2, 3, 4, 5}) {
        for (const how ending :
             {how::client_resets, how::server_stops, how::aborts_itself, how::closes_itself}) {
            CAPTURE(await);
            CAPTURE(static_cast<int>(ending));
            notes n;
            {
                bool waits = false;
                const auto handler = [captured = witness{n}, &waits, await,
                                      ending](connection& peer) -> task<> {
                    const auto wait = [&captured, &waits, await](connection& with) -> task<> {
                        const local inner{*captured, 2};
                        waits = true;
                        for (;;) {
                            if (await % 4 == 0) captured->end(co_await with.receive());
                            if (await % 4 == 1) captured->end(co_await with.receive_exactly(100));
                            if (await % 4 == 2) captured->end(co_await with.receive_until("\n"));
                            if (await % 4 == 3) {
                                const auto r = co_await with.send(std::string(100'000, 's'));
                                captured->errors.push_back(r.error());
                            }
                        }
                    };
                    const local outer{*captured, 2};
                    if (ending == how::aborts_itself) peer.abort();
                    if (ending == how::closes_itself) peer.close();
                    if (await < 4) co_await wait(peer);
                    const local another{*captured, 2};
                    const auto kept = add(1, 2);  // never awaited
                    waits = true;
                    for (;;) {
                        if (await == 4) captured->end(co_await peer.receive());
                        if (await == 5) co_await wait(peer);
                    }
                };
                stage<Bed> on;
                auto server = on.bed.make(
                    handler, {.high_mark = 1000, .low_mark = 500, .kernel_send_buffer = 4096});
                auto client = on.bed.connect_narrow(on.bed.listen(server));
                client.pause_receive();
                REQUIRE(on.bed.until(server, [&] { return waits; }));
                client.send("some");
                on.bed.run(server, 5ms);
                if (ending == how::client_resets) client.reset();
                if (ending == how::closes_itself) {
                    client.resume_receive();
                    client.shutdown_send();
                }
                if (ending == how::server_stops) server.stop();
                CHECK(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
                CHECK(n.frames == 0);
                CHECK(n.unwound == (await == 5 ? 3 : 2));
                CHECK(n.callables == 2);  // the lambda here and the prototype
                REQUIRE(!n.errors.empty());
                if (await % 4 != 3 && ending != how::client_resets)
                    CHECK((n.errors[0] == std::errc::connection_aborted || await % 4 == 0));
                if (await % 4 == 3) CHECK(n.errors.back() == tcp::error::not_open);
            }
            CHECK(n.callables == 0);
            CHECK(n.wrong.empty());
        }
    }
}

TEST_ON_BEDS("74 the server is destroyed inside its coroutine", Bed, CONFORMANCE_BEDS) {
    notes n;
    {
        std::function<void()> destroy;
        const auto handler = [captured = witness{n}, &destroy](connection& peer) -> task<> {
            const local here{*captured, 2};
            co_await peer.send("hello");
            co_await peer.receive();
            destroy();
            co_await add(1, 2);
            captured->end(co_await peer.receive());
            captured->done = true;
            co_await peer.receive();
        };
        using server_type = typename Bed::template server<std::remove_const_t<decltype(handler)>>;
        stage<Bed> on;
        auto server = [&] {
            if constexpr (Bed::simulated)
                return std::make_unique<server_type>(handler, tcp::options{}, on.bed.world);
            else
                return std::make_unique<server_type>(handler);
        }();
        destroy = [&] { server.reset(); };
        auto client = on.bed.connect(on.bed.listen(*server));
        REQUIRE(on.bed.until(*server, [&] { return client.received() == "hello"; }));
        client.send("?");
        for (int i = 0; i != 1000 && server; ++i) server->run_for(1ms);
        CHECK(server == nullptr);
        CHECK(n.frames == 0);
        CHECK(n.unwound == 1);
        CHECK(n.done);
        REQUIRE(n.errors.size() == 1);
        CHECK(n.errors[0] == std::errc::connection_aborted);
    }
    CHECK(n.wrong.empty());
    CHECK(n.callables == 0);
}

TEST_ON_BEDS("75 receive_exactly and receive_until, cut at every offset, ended everywhere", Bed,
             CONFORMANCE_BEDS) {
    const std::string whole = "12345678line one\r\n\r\nabcd";  // 8, two lines, 4
    enum class how { finish, reset };
    for (std::size_t length = 0; length <= whole.size(); ++length) {
        for (const how ending : {how::finish, how::reset}) {
            for (std::size_t cut = 0; cut <= length; cut += ending == how::reset ? 5 : 1) {
                CAPTURE(length);
                CAPTURE(cut);
                CAPTURE(static_cast<int>(ending));
                notes n;
                const auto handler = [&n](connection& peer) -> task<> {
                    const auto note = [&n](const tcp::received& r) {
                        r ? n.take(r) : n.end(r);
                        return bool{r};
                    };
                    bool more = note(co_await peer.receive_exactly(8));
                    more = more && note(co_await peer.receive_until("\r\n"));
                    more = more && note(co_await peer.receive_until("\r\n", 2));
                    more = more && note(co_await peer.receive_exactly(4));
                    if (more || n.errors[0] == tcp::error::incomplete)
                        note(co_await peer.receive());  // the end, or the rest
                    n.done = true;
                };
                scene<Bed> on{handler};
                on.client.send(whole.substr(0, cut));
                if (cut != 0) on.on.bed.run(on.server, 2ms);
                on.client.send(whole.substr(cut, length - cut));
                const std::vector<std::string> pieces{"12345678", "line one\r\n", "\r\n", "abcd"};
                std::vector<std::string> expected;
                std::size_t at = 0;
                for (const auto& piece : pieces)
                    if (at + piece.size() <= length) {
                        expected.push_back(piece);
                        at += piece.size();
                    } else {
                        break;
                    }
                if (ending == how::finish) {
                    on.client.shutdown_send();
                } else {
                    on.until([&] { return n.got.size() == expected.size(); });
                    on.client.reset();
                }
                on.until_closed();
                CHECK(n.done);
                const bool between = at == length;
                if (ending == how::finish && !between)
                    expected.push_back(whole.substr(at, length - at));
                CHECK(n.got == expected);
                REQUIRE(n.errors.size() == 1);
                if (ending == how::reset)
                    CHECK(n.errors[0] == std::errc::connection_reset);
                else if (between)
                    CHECK(n.errors[0] == std::error_code{});
                else
                    CHECK(n.errors[0] == tcp::error::incomplete);
            }
        }
    }
}

TEST_ON_BEDS("75 the limit: told at once, and the coroutine goes on", Bed, CONFORMANCE_BEDS) {
    for (const std::size_t buffer : {std::size_t{1}, std::size_t{7}, std::size_t{64 * 1024}}) {
        CAPTURE(buffer);
        notes n;
        const auto handler = [&n](connection& peer) -> task<> {
            n.end(co_await peer.receive_exactly(101));  // above receive_limit
            n.end(co_await peer.receive_until("\n", 9));
            n.end(co_await peer.receive_until("\n", 10));
            n.take(co_await peer.receive_until("\n", 11));
            n.end(co_await peer.receive_until("\n"));  // receive_limit is the limit
            n.take(co_await peer.receive_exactly(100));
            n.take(co_await peer.receive_until("\n"));
            n.take(co_await peer.receive_until(std::string{"--"} + "end"));
            n.end(co_await peer.receive());
            n.end(co_await peer.receive());  // once more: it ends
            n.wrong.push_back("never");
            for (;;) n.end(co_await peer.receive_exactly(1));
        };
        scene<Bed> on{handler, {.receive_limit = 100, .receive_buffer = buffer}};
        const std::string hundred(100, 'h'), most = std::string(99, 'm') + "\n";
        on.client.send("0123456789\n" + hundred + most + "----e-----end");
        on.client.shutdown_send();
        on.until([&] { return on.client.ended(); });
        on.until_closed();
        CHECK(n.got == std::vector<std::string>{"0123456789\n", hundred, most, "----e-----end"});
        REQUIRE(n.errors.size() >= 6);
        for (const int at : {0, 1, 2, 3})
            CHECK(n.errors[static_cast<std::size_t>(at)] == tcp::error::receive_limit);
        CHECK(n.errors[4] == std::error_code{});
    }
}

TEST_ON_BEDS("73 awaits that fail at once: after 999 without progress it ends", Bed,
             CONFORMANCE_BEDS) {
    notes n;
    int failed = 0;
    const auto handler = [captured = witness{n}, &failed](connection& peer) -> task<> {
        const local here{*captured, 2};
        co_await peer.send("first");
        peer.shutdown_send();
        co_await send_in_vain(peer, 5000, failed);
        captured->done = true;
    };
    scene<Bed> on{handler};
    on.until([&] { return on.client.ended(); });
    on.on.bed.run(on.server, 20ms);
    CHECK(failed == 999);
    CHECK(n.frames == 1);  // it waits
    CHECK(on.server.statistics().open == 1);
    on.client.shutdown_send();
    on.until_closed();
    CHECK(failed < 5000);
    CHECK_FALSE(n.done);
    CHECK(n.frames == 0);
    CHECK(n.unwound == 1);
    CHECK(n.wrong.empty());
    CHECK(on.closed(closed_by::handler_closed) == 1);
    CHECK(on.client.received() == "first");
}

TEST_ON_BEDS("73 awaits that fail at once: any number of them with progress in between", Bed,
             CONFORMANCE_BEDS) {
    notes n;
    int failed = 0;
    const auto handler = [&n, &failed](connection& peer) -> task<> {
        peer.shutdown_send();
        n.take(co_await peer.receive_exactly(3));  // the others are there with it, as a rule
        co_await send_in_vain(peer, 900, failed);
        n.take(co_await peer.receive_exactly(3));
        co_await send_in_vain(peer, 900, failed);
        n.take(co_await peer.receive_until("\n"));
        co_await send_in_vain(peer, 900, failed);
        n.take(co_await peer.receive());
        co_await send_in_vain(peer, 900, failed);
        co_await peer.sleep_for(1ms);
        co_await send_in_vain(peer, 900, failed);
        n.take(co_await peer.receive());  // waits
        co_await send_in_vain(peer, 900, failed);
        n.done = true;
    };
    scene<Bed> on{handler};
    on.client.send("onetwothree\nfour");
    on.until([&] { return failed >= 5 * 900; });
    on.client.send("five");
    on.client.shutdown_send();
    on.until_closed();
    CHECK(n.done);
    CHECK(failed == 6 * 900);
    std::string all;
    for (const std::string& piece : n.got) all += piece;
    CHECK(all.size() > 12);
    CHECK(std::string{"onetwothree\nfourfive"}.substr(0, all.size()) == all);
    CHECK(on.closed(closed_by::handler_closed) == 1);
}

TEST_ON_BEDS("76 an exception ends its own connection only", Bed, CONFORMANCE_BEDS) {
    for (const int from : {0, 1, 2, 3}) {
        CAPTURE(from);
        notes n;
        const auto handler = [captured = witness{n}, from](connection& peer) -> task<> {
            const local here{*captured, 2};
            if (from == 0) throw std::runtime_error{"at once"};
            if (from == 1) {
                co_await peer.receive();
                throw 42;
            }
            if (from == 2) co_await fail(peer);
            try {
                co_await fail(peer);
            } catch (const std::runtime_error& e) {
                captured->got.emplace_back(e.what());
            }
            while (auto data = co_await peer.receive()) co_await peer.send(data);
        };
        scene<Bed> on{handler};
        on.client.send("?");
        if (from == 3) {
            on.until([&] { return n.got.size() == 1; });
            on.client.send("still there");
            on.client.shutdown_send();
            on.until([&] { return on.client.ended(); });
            CHECK(on.client.received() == "still there");
            on.until_closed();
            CHECK(on.closed(closed_by::handler_closed) == 1);
        } else {
            on.until_closed();
            CHECK(on.closed(closed_by::handler_threw) == 1);
            on.until([&] { return on.client.was_reset(); });
        }
        CHECK(n.frames == 0);
        CHECK(n.unwound == 1);
        CHECK(n.wrong.empty());
    }
}

TEST_ON_BEDS("76 what is awaited in a wrong way throws", Bed, CONFORMANCE_BEDS) {
    notes n;
    connection* first = nullptr;
    const auto handler = [&](connection& peer) -> task<> {
        if (first == nullptr) {
            first = &peer;
            auto one = add(1, 2);
            n.got.push_back(std::to_string(co_await std::move(one)));
            try {
                co_await std::move(one);
            } catch (const std::system_error& e) {
                n.errors.push_back(e.code());
            }
            co_await peer.receive();
        } else {
            for (int way = 0; way != 4; ++way) {
                try {
                    if (way == 0) co_await first->receive();
                    if (way == 1) co_await first->receive_exactly(1);
                    if (way == 2) co_await first->receive_until("\n");
                    if (way == 3) co_await first->sleep_for(0ms);
                } catch (const std::system_error& e) {
                    n.errors.push_back(e.code());
                }
            }
            first->close();
        }
        n.done = true;
    };
    scene<Bed> on{handler};
    on.until([&] { return first != nullptr; });
    auto second = on.on.bed.connect(on.where);
    second.shutdown_send();
    on.client.shutdown_send();
    on.until([&] { return on.server.statistics().closed == 2; });
    CHECK(n.done);
    CHECK(n.got == std::vector<std::string>{"3"});
    const auto invalid = std::make_error_code(std::errc::invalid_argument);
    CHECK(n.errors == std::vector<std::error_code>(5, invalid));
}

TEST_ON_BEDS("coroutines: a client that does not read stops a coroutine that sends", Bed,
             CONFORMANCE_BEDS) {
    constexpr std::size_t piece = 1000, high_mark = 10'000;
    constexpr int pieces = Bed::simulated ? 1000 : 20'000;
    int sent = 0;
    std::size_t most = 0;
    const auto handler = [&](connection& peer) -> task<> {
        const auto order = co_await peer.receive_exactly(1);
        if (!order) co_return;
        for (; sent != pieces; ++sent) {
            if (!co_await peer.send(std::string(piece, 'x'))) co_return;
            most = std::max(most, peer.send_queue_size());
        }
        // What came meanwhile is there.
        while (auto data = co_await peer.receive()) co_await peer.send(data);
    };
    stage<Bed> on;
    auto server = on.bed.make(handler, {.high_mark = high_mark,
                                        .low_mark = 2000,
                                        .receive_limit = 100,
                                        .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    const std::string later = pattern(60'000);
    client.send("!" + later);
    client.shutdown_send();
    constexpr auto a_while = Bed::simulated ? 2s : 100ms;
    on.bed.run(server, a_while);
    const int before = sent;
    CHECK(before < pieces);
    on.bed.run(server, a_while);
    CHECK(sent == before);
    CHECK(most <= high_mark);
    client.resume_receive();
    CHECK(on.bed.until(server, [&] { return client.ended(); }));
    CHECK(sent == pieces);
    CHECK(client.received_size() == piece * pieces + later.size());
    CHECK(difference(client.received().substr(client.received().size() - later.size()), later) ==
          "");
}

TEST_ON_BEDS("coroutines: a client that resets while a send waits", Bed, CONFORMANCE_BEDS) {
    notes n;
    const auto handler = [captured = witness{n}](connection& peer) -> task<> {
        const local here{*captured, 2};
        for (;;) {
            const auto result = co_await peer.send(std::string(10'000, 'x'));
            if (!result) captured->errors.push_back(result.error());
        }
    };
    stage<Bed> on;
    auto server =
        on.bed.make(handler, {.high_mark = 1000, .low_mark = 500, .kernel_send_buffer = 4096});
    auto client = on.bed.connect_narrow(on.bed.listen(server));
    client.pause_receive();
    client.send("never received");
    on.bed.run(server, 20ms);
    CHECK(n.frames == 1);
    client.reset();
    CHECK(on.bed.until(server, [&] { return server.statistics().closed == 1; }));
    CHECK(n.frames == 0);
    REQUIRE(!n.errors.empty());
    CHECK(n.errors[0] == tcp::error::not_open);
    CHECK(n.errors.size() <= 2000);  // it does not mind, and ends all the same
    CHECK(n.wrong.empty());
}

TEST_ON_BEDS("43 close(), abort() and shutdown_send() inside a coroutine", Bed, CONFORMANCE_BEDS) {
    for (const int act : {0, 1, 2}) {
        CAPTURE(act);
        notes n;
        const auto handler = [&n, act](connection& peer) -> task<> {
            n.take(co_await peer.receive());
            co_await peer.send("last words");
            if (act == 0) peer.close();
            if (act == 1) peer.abort();
            if (act == 2) peer.shutdown_send();
            const auto late = co_await peer.send("too late");
            n.errors.push_back(late.error());
            const auto more = co_await peer.receive();
            more ? n.take(more) : n.end(more);
            if (more) n.end(co_await peer.receive());
            n.done = true;
        };
        scene<Bed> on{handler};
        on.client.send("?");
        if (act == 1)
            on.until([&] { return on.client.was_reset(); });
        else
            on.until([&] { return on.client.ended(); });
        if (act != 1) {
            CHECK(on.client.received() == "last words");
            on.client.send("!");
            on.client.shutdown_send();
        }
        on.until_closed();
        CHECK(n.done);
        CHECK(n.got ==
              (act == 2 ? std::vector<std::string>{"?", "!"} : std::vector<std::string>{"?"}));
        REQUIRE(n.errors.size() == 2);
        CHECK(n.errors[0] == tcp::error::not_open);
        if (act == 2)
            CHECK(n.errors[1] == std::error_code{});
        else
            CHECK(n.errors[1] == std::errc::connection_aborted);
        const closed_by by[] = {closed_by::handler_closed, closed_by::handler_aborted,
                                closed_by::handler_closed};
        CHECK(on.closed(by[act]) == 1);
    }
}

TEST_ON_BEDS("77 sleep_for: never early, and what comes meanwhile waits", Bed, CONFORMANCE_BEDS) {
    notes n;
    scene<Bed> on{[&n](connection& peer) -> task<> {
        auto got = co_await peer.receive();
        n.take(got);
        const auto begin = std::chrono::steady_clock::now();
        const bool slept = co_await peer.sleep_for(150ms);
        if (!slept) n.wrong.emplace_back("sleep_for was cut short");
        if (!Bed::simulated && std::chrono::steady_clock::now() - begin < 150ms)
            n.wrong.emplace_back("sleep_for was early");
        co_await peer.sleep_for(0ms);
        co_await peer.sleep_for(-5s);
        n.done = true;
        while ((got = co_await peer.receive())) n.take(got);
    }};
    on.client.send("first");
    on.until([&] { return n.got.size() == 1; });
    on.client.send("while it sleeps");
    on.client.shutdown_send();
    on.on.bed.run(on.server, 20ms);
    CHECK(n.got.size() == 1);
    CHECK_FALSE(n.done);
    on.until_closed();
    CHECK(n.done);
    std::string rest;
    for (std::size_t i = 1; i < n.got.size(); ++i) rest += n.got[i];
    CHECK(rest == "while it sleeps");
    CHECK(n.wrong.empty());
}

TEST_ON_BEDS("77 sleep_for ends with its connection", Bed, CONFORMANCE_BEDS) {
    notes n;
    const auto handler = [captured = witness{n}](connection& peer) -> task<> {
        const local here{*captured, 2};
        co_await peer.send("?");
        if (!co_await peer.sleep_for(1h)) captured->done = true;
        co_await peer.sleep_for(1h);  // after the end it is not come back from
        captured->wrong.emplace_back("it went on");
    };
    scene<Bed> on{handler};
    on.until([&] { return on.client.received() == "?"; });
    on.client.send("x");
    on.client.reset();
    on.on.bed.run(on.server, 50ms);
    on.server.stop();
    on.server.poll();
    CHECK(n.done);
    CHECK(n.frames == 0);
    CHECK(n.unwound == 1);
    CHECK(n.wrong.empty());
}

TEST_ON_BEDS("77 a deadline passes while a receive waits", Bed, CONFORMANCE_BEDS) {
    notes n;
    const auto handler = [captured = witness{n}](connection& peer) -> task<> {
        const local here{*captured, 2};
        const auto got = co_await peer.receive();
        captured->end(got);
        if (!got) captured->done = true;
    };
    scene<Bed> on{handler, {.idle_timeout = 50ms}};
    on.until_closed();
    CHECK(n.done);
    CHECK(on.closed(closed_by::deadline) == 1);
    REQUIRE(n.errors.size() == 1);
    CHECK(n.errors[0] == std::errc::connection_aborted);
    on.until([&] { return on.client.ended(); });
    CHECK(n.frames == 0);
}

TEST_ON_BEDS("75 a send that waits for room when nothing can be sent any more has failed", Bed,
             CONFORMANCE_BEDS) {
    for (const bool by_deadline : {false, true}) {
        CAPTURE(by_deadline);
        notes n;
        const auto handler = [captured = witness{n}](connection& peer) -> task<> {
            const auto result = co_await peer.send(std::string(8'000'000, 'r'));
            if (result.error() != tcp::error::not_open) captured->wrong.emplace_back("it was sent");
            captured->done = true;
        };
        tcp::options options{.high_mark = 1000, .low_mark = 100, .kernel_send_buffer = 16 * 1024};
        if (by_deadline) options.lifetime = 200ms;
        scene<Bed> on{handler, options};
        on.client.pause_receive();
        on.until([&] { return on.server.statistics().bytes_sent != 0; });
        CHECK_FALSE(n.done);
        if (!by_deadline) on.client.reset();
        on.until([&] { return n.done; });
        CHECK(n.wrong.empty());
        on.until_closed();
        CHECK(on.closed(by_deadline ? closed_by::deadline : closed_by::peer_reset) == 1);
    }
}

TEST_ON_BEDS("74 what an incomplete receive leaves can be taken, and then the end comes again", Bed,
             CONFORMANCE_BEDS) {
    for (const bool exactly : {false, true}) {
        CAPTURE(exactly);
        notes n;
        const auto handler = [captured = witness{n}, exactly](connection& peer) -> task<> {
            captured->end(co_await peer.receive_exactly(10));
            if (exactly)
                captured->take(co_await peer.receive_exactly(4));
            else
                captured->take(co_await peer.receive());
            captured->end(co_await peer.receive());
            co_await peer.send("bye");
        };
        scene<Bed> on{handler};
        on.client.send("abcd");
        on.client.shutdown_send();
        on.until([&] { return on.client.ended(); });
        CHECK(on.client.received() == "bye");
        REQUIRE(n.errors.size() == 2);
        CHECK(n.errors[0] == tcp::error::incomplete);
        CHECK(!n.errors[1]);
        CHECK(n.got == std::vector<std::string>{"abcd"});
    }
}

TEST_ON_BEDS("coroutines: a frame that is made outside of a hook comes from no loop", Bed,
             CONFORMANCE_BEDS) {
    scene<Bed, std::remove_const_t<decltype(echo)>> on{echo};
    on.client.send("x");
    on.until([&] { return on.client.received() == "x"; });
    CHECK(tcp::detail::frame_pool == nullptr);  // it would be one that may go before the frame
    on.client.shutdown_send();
    on.until_closed();
    CHECK(tcp::detail::frame_pool == nullptr);
}
