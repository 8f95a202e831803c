// What other threads ask of a loop: everything arrives, in order, or is refused.
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/connection.hpp>
#include <tcp/group.hpp>
#include <tcp/loop/loop_context.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/server.hpp>
#include <tcp/simulation.hpp>

#include "allocations.hpp"

using namespace std::chrono_literals;
using tcp::detail::mailbox;
using tcp::detail::message;

static_assert(!std::is_copy_constructible_v<mailbox>);
static_assert(!std::is_copy_assignable_v<mailbox>);
static_assert(!std::is_destructible_v<mailbox>, "its last holder destroys it");

namespace {

/// As much of a loop as a mailbox knows: it sleeps until it is woken.
class toy_loop final : public tcp::detail::loop_context {
public:
    toy_loop() { mail = new mailbox{*this}; }
    ~toy_loop() {
        mail->close(*this);
        mail->let_go();
    }

    tcp::endpoint endpoint_of(const tcp::connection&, side) override { return {}; }
    int descriptor_of(const tcp::connection&) override { return -1; }
    tcp::duration time() const override { return {}; }
    void call_hook(tcp::connection&, void (*)(void*, tcp::connection&), void*) override {}
    void wake() noexcept override {
        const std::lock_guard lock{mutex_};
        woken_for_nothing = woken_for_nothing || !mail->waiting();
        ++wakes_;
        awake_ = true;
        wakened_.notify_one();
    }

    void run_here(bool here) { runner.store_relaxed(here ? &tcp::detail::thread_mark : nullptr); }
    std::size_t wakes() {
        const std::lock_guard lock{mutex_};
        return wakes_;
    }

    /// False when nobody woke it for long.
    bool sleep() {
        std::unique_lock lock{mutex_};
        const bool woken = wakened_.wait_for(lock, 20s, [this] { return awake_; });
        awake_ = false;
        return woken;
    }

    std::vector<int> seen;           // of notes, in the order of their delivery
    bool woken_for_nothing = false;  // who looks at once would sleep again

private:
    std::mutex mutex_;
    std::condition_variable wakened_;
    std::size_t wakes_ = 0;
    bool awake_ = false;
};

/// Writes down its number. It is the test's, and may be posted again.
struct note : message {
    explicit note(int n, std::uint32_t its_slot = 0, std::size_t bytes = 0)
        : message{[](message& m, tcp::detail::loop_context& where) noexcept {
                      auto& self = static_cast<note&>(m);
                      static_cast<toy_loop&>(where).seen.push_back(self.number);
                      if (self.then != nullptr)
                          self.then_posted = where.mail->post(*self.then, [] { return true; });
                  },
                  its_slot, bytes},
          number{n} {}
    int number;
    note* then = nullptr;  // posted when this one is delivered
    bool then_posted = false;
};

bool post(toy_loop& loop, message& one) {
    return loop.mail->post(one, [] { return true; });
}

}  // namespace

TEST_CASE("mailbox: delivers in the order of posting") {
    toy_loop loop;
    CHECK_FALSE(loop.mail->waiting());
    loop.mail->deliver(loop);
    CHECK(loop.seen.empty());
    std::vector<note> notes;
    for (int i = 0; i != 1'000; ++i) notes.emplace_back(i);
    for (note& one : notes) CHECK(post(loop, one));
    CHECK(loop.mail->waiting());
    CHECK(loop.seen.empty());
    loop.mail->deliver(loop);
    CHECK_FALSE(loop.mail->waiting());
    REQUIRE(loop.seen.size() == 1'000);
    for (int i = 0; i != 1'000; ++i) CHECK(loop.seen[static_cast<std::size_t>(i)] == i);
    // And begins anew.
    CHECK(post(loop, notes[7]));
    CHECK(post(loop, notes[3]));
    loop.mail->deliver(loop);
    CHECK(loop.seen[1'000] == 7);
    CHECK(loop.seen[1'001] == 3);
}

TEST_CASE("mailbox: what is posted meanwhile has its turn next time") {
    toy_loop loop;
    note first{1}, second{2}, third{3};
    first.then = &third;
    third.then = &first;  // for ever
    CHECK(post(loop, first));
    CHECK(post(loop, second));
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{1, 2});
    CHECK(loop.mail->waiting());
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{1, 2, 3});
    first.then = nullptr;
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{1, 2, 3, 1});
    CHECK_FALSE(loop.mail->waiting());
}

TEST_CASE("mailbox: refused where the condition does not hold, and then the caller's") {
    toy_loop loop;
    note one{1}, two{2};
    CHECK_FALSE(loop.mail->post(one, [] { return false; }));
    CHECK_FALSE(loop.mail->waiting());
    CHECK(loop.wakes() == 0);
    CHECK(post(loop, two));
    CHECK_FALSE(loop.mail->post(one, [] { return false; }));
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{2});
    CHECK(post(loop, one));
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{2, 1});
    CHECK(loop.mail->holds([] { return true; }));
    CHECK_FALSE(loop.mail->holds([] { return false; }));
}

TEST_CASE("mailbox: wakes when it was empty, and not from a hook of the loop") {
    toy_loop loop;
    note one{1}, two{2}, three{3};
    CHECK(post(loop, one));  // nobody runs it
    CHECK(loop.wakes() == 1);
    CHECK(post(loop, two));
    CHECK(loop.wakes() == 1);
    loop.mail->deliver(loop);
    CHECK(post(loop, one));
    CHECK(loop.wakes() == 2);
    loop.mail->deliver(loop);

    loop.run_here(true);
    CHECK(post(loop, one));
    CHECK(loop.wakes() == 3);  // not in a hook: it may run while the loop waits
    loop.mail->deliver(loop);
    loop.current = static_cast<tcp::connection*>(static_cast<void*>(&loop));  // as in a hook
    CHECK(post(loop, one));
    CHECK(post(loop, two));
    CHECK(loop.wakes() == 3);
    std::thread{[&] { CHECK(post(loop, three)); }}.join();
    CHECK(loop.wakes() == 3);  // the loop looks before it sleeps
    loop.mail->deliver(loop);
    std::thread{[&] { CHECK(post(loop, three)); }}.join();
    CHECK(loop.wakes() == 4);
    loop.mail->deliver(loop);
    CHECK(loop.seen == std::vector{1, 2, 1, 1, 1, 2, 3, 3});
    CHECK_FALSE(loop.woken_for_nothing);
    loop.run_here(false);
}

TEST_CASE("mailbox: close delivers the rest, and then nothing can be posted") {
    toy_loop loop;
    note one{1}, two{2}, three{3};
    two.then = &three;
    CHECK(post(loop, one));
    CHECK(post(loop, two));
    loop.mail->close(loop);
    CHECK(loop.seen == std::vector{1, 2});
    CHECK_FALSE(two.then_posted);
    CHECK_FALSE(post(loop, three));
    CHECK_FALSE(loop.mail->waiting());
    CHECK_FALSE(loop.mail->holds([] { return true; }));
    bool asked = false;
    const auto ask = [&asked] { return asked = true; };
    CHECK_FALSE(loop.mail->post(three, ask));
    CHECK_FALSE(loop.mail->holds(ask));
    CHECK_FALSE(asked);  // what it would look at may be gone
    loop.mail->close(loop);
    CHECK(loop.seen == std::vector{1, 2});
    CHECK(loop.wakes() == 1);
}

TEST_CASE("mailbox: closes only if nothing waits") {
    toy_loop loop;
    note one{1}, two{2};
    CHECK(post(loop, one));
    CHECK_FALSE(loop.mail->close_if_empty());
    CHECK(post(loop, two));  // it is open still
    loop.mail->deliver(loop);
    CHECK(loop.mail->close_if_empty());
    CHECK_FALSE(post(loop, one));
    CHECK(loop.seen == std::vector{1, 2});
}

TEST_CASE("mailbox: outlives its loop as long as somebody holds it") {
    note one{1};
    mailbox* kept = nullptr;
    {
        toy_loop loop;
        kept = loop.mail;
        kept->hold();
        kept->hold();
    }
    CHECK_FALSE(kept->post(one, [] { return true; }));
    kept->let_go();
    CHECK_FALSE(kept->holds([] { return true; }));
    kept->let_go();
}

TEST_CASE("mailbox: dismiss changes the generation and says what has not reached this connection") {
    toy_loop loop;
    constexpr std::uint32_t mine = 300, other = 7;
    tcp::detail::atomic<std::uint32_t> generation{5};
    CHECK(loop.mail->dismiss(mine, generation, 6) == 0);  // nobody counts for it yet
    CHECK(generation.load_relaxed() == 6);
    loop.mail->count_for(mine);
    std::array notes{note{0, mine, 100}, note{1, other, 20'000}, note{2, mine, 0}, note{3},
                     note{4, mine, 11}};
    for (note& each : notes) CHECK(post(loop, each));
    loop.mail->arrived(mine, 100);
    CHECK(loop.mail->dismiss(mine, generation, 8) == 11);
    CHECK(generation.load_relaxed() == 8);
    CHECK(loop.mail->dismiss(mine, generation, 9) == 0);
    CHECK(loop.mail->dismiss(other, generation, 9) == 20'000);
    loop.mail->deliver(loop);  // who delivers sees for himself
    CHECK(loop.seen == std::vector{0, 1, 2, 3, 4});
    CHECK_FALSE(loop.mail->post(notes[0], [&] { return generation.load_relaxed() == 8; }));
}

TEST_CASE("mailbox: four threads post, one sleeps and delivers: nothing is lost") {
    constexpr std::size_t threads = 4, each = 100'000;
    struct tally {
        std::array<std::size_t, threads> next{};
        std::size_t count = 0;
        bool in_order = true;
    };
    struct numbered : message {
        numbered(tally* to_, std::size_t thread_, std::size_t number_)
            : message{[](message& m, tcp::detail::loop_context&) noexcept {
                  auto& self = static_cast<numbered&>(m);
                  tally& t = *self.to_whom;
                  t.in_order = t.in_order && t.next[self.thread]++ == self.number;
                  ++t.count;
              }},
              to_whom{to_},
              thread{thread_},
              number{number_} {}
        tally* to_whom;
        std::size_t thread, number;
    };

    toy_loop loop;
    tally seen;
    std::vector<std::vector<numbered>> notes(threads);
    for (std::size_t t = 0; t != threads; ++t)
        for (std::size_t i = 0; i != each; ++i) notes[t].emplace_back(&seen, t, i);
    loop.run_here(true);
    std::array<std::size_t, threads> refused{};
    std::vector<std::thread> posters;
    for (std::size_t t = 0; t != threads; ++t)
        posters.emplace_back([&, t] {
            for (numbered& one : notes[t]) refused[t] += post(loop, one) ? 0 : 1;
        });
    bool woken = true;
    while (seen.count != threads * each && woken) {
        if (!loop.mail->waiting()) woken = loop.sleep();
        loop.mail->deliver(loop);
    }
    for (std::thread& one : posters) one.join();
    CHECK(woken);
    CHECK(seen.count == threads * each);
    CHECK(seen.in_order);
    CHECK_FALSE(loop.mail->waiting());
    CHECK(refused == std::array<std::size_t, threads>{});
    loop.run_here(false);
}

TEST_CASE("mailbox: closed while four threads post: each message is delivered once or refused") {
    constexpr std::size_t threads = 4, each = 20'000;
    struct counted : message {
        counted()
            : message{[](message& m, tcp::detail::loop_context&) noexcept {
                  ++static_cast<counted&>(m).delivered;
              }} {}
        std::size_t delivered = 0;
        bool accepted = false;
    };
    for (int round = 0; round != 5; ++round) {
        std::vector<std::vector<counted>> notes(threads, std::vector<counted>(each));
        std::vector<std::thread> posters;
        mailbox* mail = nullptr;
        {
            toy_loop loop;
            mail = loop.mail;
            loop.run_here(true);
            for (std::size_t t = 0; t != threads; ++t) {
                mail->hold();
                posters.emplace_back([mail, &mine = notes[t]] {
                    for (counted& one : mine) one.accepted = mail->post(one, [] { return true; });
                    mail->let_go();
                });
            }
            for (int turn = 0; turn != 20 * round; ++turn) loop.mail->deliver(loop);
            loop.run_here(false);
        }
        for (std::thread& one : posters) one.join();
        std::size_t wrong = 0;
        for (const auto& mine : notes)
            for (const counted& one : mine)
                wrong += one.delivered == (one.accepted ? 1 : 0) ? 0 : 1;
        CHECK(wrong == 0);
    }
}

TEST_CASE("mailbox: what a group sends to a loop that is gone takes no memory" *
          doctest::skip(!allocations::counted)) {
    struct guest {
        tcp::group* room;
        tcp::group::member* in;  // which outlives its connection, and the server
        void on_open(tcp::connection& peer) const { in->join(*room, peer); }
    };
    tcp::group room;
    tcp::group::member member;
    {
        tcp::simulation world{1};
        tcp::server<guest, tcp::simulated_engine> server{guest{&room, &member}, {}, world};
        server.bind(7);
        server.listen();
        world.connect(7);
        server.run_for(std::chrono::milliseconds{10});
        REQUIRE(member.joined());
    }
    CHECK(room.size() == 1);
    const std::size_t live = allocations::live;
    for (int i = 0; i != 10; ++i) room.send("nobody hears it");
    CHECK(allocations::live == live);
}
