// Random servers, clients and weathers, held to the invariants A to L (behaviours) at every step. A
// failure prints its seed; TCP_TEST_FIRST_SEED=<seed> TCP_TEST_SEEDS=1 repeats that world alone,
// and TCP_TEST_TRACE=1 tells its story.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <doctest/doctest.h>

#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "random_actor.hpp"
#include "random_conversation.hpp"

namespace {

using namespace random_world;

// A server with any handler.
struct any_server {
    virtual ~any_server() = default;
    virtual bool run_for(duration length) = 0;
    virtual void stop() = 0;
    virtual void drain(duration at_most) = 0;
    virtual tcp::statistics statistics() const = 0;
};

template <bool Counts>
struct handler : actor {
    using actor::actor;
    void on_open(tcp::connection& peer) { opened(peer); }
    std::conditional_t<Counts, std::size_t, void> on_data(tcp::connection& peer, tcp::bytes data) {
        const std::size_t count = shown(peer, data);
        if constexpr (Counts) return count;
    }
    void on_writable(tcp::connection& peer) { writable(peer); }
    void on_close(tcp::connection& peer, const tcp::close_reason& why) { closed(peer, why); }
};

template <bool Counts>
struct ending_handler : handler<Counts> {
    using handler<Counts>::handler;
    void on_end(tcp::connection& peer) { this->end_seen(peer); }
};

template <class Handler>
struct server_of final : any_server {
    server_of(stage& on, Handler prototype) : server{std::move(prototype), on.set, on.world} {
        server.bind(7);
        server.listen();
        on.stop = [this] { server.stop(); };
    }
    bool run_for(duration length) override { return server.run_for(length); }
    void stop() override { server.stop(); }
    void drain(duration at_most) override { server.drain(at_most); }
    tcp::statistics statistics() const override { return server.statistics(); }
    tcp::server<Handler, tcp::simulated_engine> server;
};

std::unique_ptr<any_server> make_server(stage& on, bool ends) {
    const auto with = [&](auto prototype) -> std::unique_ptr<any_server> {
        return std::make_unique<server_of<decltype(prototype)>>(on, std::move(prototype));
    };
    if (on.talks) return with(conversation{&on});
    if (on.counts && ends) return with(ending_handler<true>{on});
    if (on.counts) return with(handler<true>{on});
    if (ends) return with(ending_handler<false>{on});
    return with(handler<false>{on});
}

// A world: drawn from its seed, lived for a while, and brought to an end.
class story {
public:
    explicit story(std::uint64_t seed)
        : dice_{seed}, world_{seed, tcp::simulated::faults::wild(dice_)} {
        world_.set_spin_limit(2000);
        stage_.told = std::getenv("TCP_TEST_TRACE") != nullptr;
        if (stage_.told)
            world_.trace([](std::string_view line) { std::puts(std::string(line).c_str()); });
        stage_.oversleep = world_.current_faults().oversleep_max;
        draw();
        server_ = make_server(stage_, dice_.chance(500));
    }

    void live() {
        for (std::uint64_t steps = dice_.between(3, 40); steps != 0; --steps) {
            for (std::uint64_t i = dice_.between(0, 4); i != 0; --i) act();
            if (!step(duration::nanoseconds(std::int64_t(dice_.magnitude(1, 100'000'000))))) break;
        }
        const std::uint64_t end = stage_.stopped ? 0 : dice_.below(10);
        if (end == 0)
            stop();
        else if (end == 1)
            drain();
        else if (end > 2)
            grow_calm();
        finish();
    }

private:
    void draw() {
        const auto size = [&](std::size_t& option, std::size_t most) {
            if (dice_.chance(700)) option = static_cast<std::size_t>(dice_.magnitude(1, most));
        };
        size(stage_.set.high_mark, 64 * 1024);
        stage_.set.low_mark = static_cast<std::size_t>(dice_.between(0, stage_.set.high_mark));
        if (dice_.chance(200)) size(stage_.set.send_queue_limit, 64 * 1024);
        size(stage_.set.receive_limit, 16 * 1024);
        size(stage_.set.receive_buffer, 16 * 1024);
        stage_.set.close_timeout =
            duration::nanoseconds(std::int64_t(dice_.magnitude(1, 3'000'000'000)));
        for (const auto one : {&tcp::options::idle_timeout, &tcp::options::receive_timeout,
                               &tcp::options::send_timeout, &tcp::options::lifetime})
            if (dice_.chance(100))
                stage_.set.*one =
                    duration::nanoseconds(std::int64_t(dice_.magnitude(1'000'000, 10'000'000'000)));
        if (dice_.chance(100)) stage_.set.max_connections = std::size_t(dice_.magnitude(1, 10));
        if (dice_.chance(100))
            stage_.set.max_connections_per_address = std::size_t(dice_.magnitude(1, 10));
        if (dice_.chance(100)) size(stage_.set.memory_limit, 64 * 1024);
        if (dice_.chance(50))
            stage_.set.admit = [this](const tcp::endpoint& peer) {
                return stage_.calm || peer.port() % 3 != 0;
            };
        if (dice_.chance(200)) stage_.set.kernel_send_buffer = int(dice_.magnitude(1, 10'000));
        if (dice_.chance(200)) stage_.set.kernel_receive_buffer = int(dice_.magnitude(1, 10'000));

        stage_.replies = stage::reply(dice_.below(5));
        stage_.counts = stage_.replies == stage::reply::frames ||
                        stage_.replies == stage::reply::some || dice_.chance(200);
        for (unsigned* const knob :
             {&stage_.closing, &stage_.aborting, &stage_.finishing, &stage_.pausing,
              &stage_.throwing, &stage_.broadcasting, &stage_.failing_copies, &stage_.posting})
            if (dice_.chance(300)) *knob = static_cast<unsigned>(dice_.magnitude(1, 300));
        if (dice_.chance(50)) stage_.stopping = 20;
        stage_.talks = dice_.chance(250);
    }

    void connect(std::size_t most) {
        std::string text(static_cast<std::size_t>(dice_.magnitude(1, most)), '\0');
        for (char& c : text) c = static_cast<char>(dice_.next());
        auto& made = stage_.visitors.emplace_back(
            std::make_unique<visitor>(visitor{world_.connect(7), std::move(text)}));
        if (stage_.calm) {
            made->give(made->text.size());
            made->finish();
        }
    }

    // One client does one thing.
    void act() {
        const bool many = stage_.visitors.size() > 8;
        if (stage_.visitors.empty() || (!many && dice_.chance(300)))
            return connect(dice_.chance(50) ? 50'000 : 4000);
        visitor& one = *stage_.visitors[dice_.below(stage_.visitors.size())];
        switch (dice_.below(20)) {
            case 0:
            case 1: one.name.pause_receive(), one.paused = true; break;
            case 2:
            case 3: one.name.resume_receive(), one.paused = false; break;
            case 4: one.finish(); break;
            case 5:
                if (dice_.chance(300)) one.name.close(), one.closed = one.finished = true;
                break;
            case 6:
                if (dice_.chance(200)) one.name.reset(), one.reset = one.finished = true;
                break;
            case 7: one.name.receive(dice_.magnitude(1, 1000)); break;
            default: one.give(static_cast<std::size_t>(dice_.magnitude(1, one.text.size()))); break;
        }
    }

    bool step(duration length) {
        const bool goes_on = server_->run_for(length);
        check();
        return goes_on;
    }

    void check() {
        for (const std::string& line : stage_.wrong) FAIL(line);
        for (const std::string& line : world_.violations()) FAIL(line);
        std::uint64_t open = 0;
        for (const auto& book : stage_.ledgers) {
            open += !book->over;
            if (book->client == nullptr) continue;
            visitor& client = *book->client;
            const std::string& got = client.name.received();
            REQUIRE_MESSAGE(got.size() <= book->said.size(), "A: received more than was sent");
            REQUIRE_MESSAGE(got.compare(client.seen, got.npos, book->said, client.seen,
                                        got.size() - client.seen) == 0,
                            "A: received something else than was sent");
            client.seen = got.size();
        }
        if (server_ == nullptr) return;
        const tcp::statistics seen = server_->statistics();
        // A coroutine is over before its connection is.
        REQUIRE((stage_.talks ? seen.open >= open : seen.open == open));
        REQUIRE(seen.accepted == stage_.ledgers.size());
        REQUIRE_MESSAGE(world_.open_sockets() >= open, "F: a live connection without a socket");
    }

    void stop() {
        stage_.stopped = true;
        server_->stop();
        CHECK_FALSE(step(duration::milliseconds(1)));
    }

    void drain() {
        stage_.drained = true;
        const duration at_most = duration::milliseconds(std::int64_t(dice_.between(0, 3000)));
        const duration late =
            world_.current_faults().oversleep_max + world_.current_faults().completion_max;
        const duration deadline = world_.now() + at_most + late + late;
        server_->drain(at_most);
        bool goes_on = true;
        while (goes_on && world_.now() <= deadline) goes_on = step(duration::milliseconds(100));
        CHECK_MESSAGE(!goes_on, "K: drain() did not end by its deadline");
    }

    // L: the faults stop, the clients read and finish, and everything ends by itself.
    void grow_calm() {
        stage_.calm = true;
        world_.set_faults({});
        for (const auto& one : stage_.visitors) {
            if (one->paused) one->name.resume_receive();
            one->give(one->text.size());
            if (!one->finished) one->finish();
        }
        for (int round = 0; round != 60; ++round) {
            for (const auto& book : stage_.ledgers) calm_down(*book);
            connect(3);
            REQUIRE(step(duration::milliseconds(1000)));
        }
        step(duration::milliseconds(4000));  // the longest close_timeout
        CHECK_MESSAGE(server_->statistics().open == 0, "L: connections that do not get on");
        CHECK_MESSAGE(world_.open_sockets() == 0, "F: sockets without a connection");
        for (const auto& one : stage_.visitors) {
            const bool served = one->name.ended() || one->name.was_reset() || one->name.refused();
            CHECK_MESSAGE((served || one->closed || one->reset), "L: a client that waits for ever");
        }
    }

    void finish() {
        stage_.stopped = true;
        const tcp::statistics last = server_->statistics();
        server_.reset();
        world_.advance(duration::milliseconds(10'000));
        check();
        CHECK_MESSAGE(world_.open_sockets() == 0, "F: sockets are left");
        CHECK(world_.open_listeners() == 0);
        CHECK(last.accepted == last.closed + last.open);
        for (const auto& book : stage_.ledgers) {
            CHECK_MESSAGE(book->over, "B: on_open without on_close");
            const visitor& client = *book->client;
            if (book->talks) continue;  // it is not told why
            if (book->why.by == closed_by::peer_finished)
                CHECK_MESSAGE(book->shown == client.given,
                              "A: the peer finished, and something was not shown");
            if (client.closed || client.reset || client.paused || !client.name.ended()) continue;
            // FIN says that all of it was sent; where the server was stopped meanwhile, the reason
            // says how much was not.
            const std::size_t missing = book->said.size() - client.name.received_size();
            const std::string reason{to_text(book->why)};
            CAPTURE(reason);
            CHECK_MESSAGE(missing <= book->why.unsent, "A: FIN came, and something is missing");
            if (book->aborts || book->throws)
                CHECK_MESSAGE(missing == 0,
                              "A: FIN after abort() or a throw, and something is missing");
        }
    }

    tcp::simulated::random dice_;
    tcp::simulation world_;
    stage stage_{world_, dice_};
    std::unique_ptr<any_server> server_;
};

std::uint64_t number(const char* variable, std::uint64_t otherwise) {
    const char* const text = std::getenv(variable);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("random worlds keep the invariants") {
    const std::uint64_t first = number("TCP_TEST_FIRST_SEED", 1);
    const std::uint64_t count = number("TCP_TEST_SEEDS", 300);
    for (std::uint64_t seed = first; seed != first + count; ++seed) {
        CAPTURE(seed);
        story{seed}.live();
    }
}
