// What the random worlds of random_world.cpp are peopled with: clients, and handlers that do
// mischief and compare all that they see with what their clients sent. The letters are those of the
// invariants (behaviours).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/connection_handle.hpp>
#include <tcp/options.hpp>
#include <tcp/simulation.hpp>

namespace random_world {

using tcp::closed_by;
using tcp::duration;

struct mischief : std::exception {};  // what handlers throw

// A client, what it is going to send, and what it did.
struct visitor {
    tcp::simulation::client name;
    std::string text;
    std::size_t given = 0;  // of the text, to send()
    std::size_t seen = 0;   // of what it received: compared already
    bool finished = false, closed = false, reset = false, paused = false;

    void give(std::size_t most) {
        const auto piece = std::string_view{text}.substr(given, most);
        if (!finished && !piece.empty() && name.send(piece)) given += piece.size();
    }
    void finish() {
        name.shutdown_send();
        finished = true;
    }
};

struct stage;

// What a handler has seen and said of one connection.
struct ledger {
    stage& on;
    visitor* client = nullptr;
    tcp::connection* peer = nullptr;
    tcp::connection_handle name{};
    std::size_t taken = 0, shown = 0;  // of the client's text
    std::string said{};
    bool inside = false, over = false, ended = false, paused = false, above = false;
    bool closes = false, aborts = false, finishes = false, throws = false;
    bool talks = false;  // a coroutine: over when that is
    duration opened_at{}, shown_at{}, closed_at{};
    tcp::close_reason why{};
};

// What one server and its handlers are like, and all that they have done.
struct stage {
    tcp::simulation& world;
    tcp::simulated::random& dice;
    tcp::options set{};
    duration oversleep{};  // how late the world may wake a server
    enum class reply { echo, copies, frames, some, silence } replies{};
    unsigned closing = 0, aborting = 0, finishing = 0, pausing = 0, throwing = 0, broadcasting = 0;
    unsigned stopping = 0, failing_copies = 0, posting = 0;
    bool told = false;   // on the terminal
    bool talks = false;  // its handlers are coroutines
    bool counts = false, calm = false, stopped = false, drained = false;
    std::vector<std::unique_ptr<visitor>> visitors{};
    std::vector<std::unique_ptr<ledger>> ledgers{};
    std::vector<std::string> wrong{};
    std::function<void()> stop{};  // the server

    void expect(bool holds, const char* otherwise) {
        if (!holds) wrong.emplace_back(otherwise);
    }
    // What is above the limit counts as that.
    std::size_t high_mark() const {
        return set.high_mark < set.send_queue_limit ? set.high_mark : set.send_queue_limit;
    }
    bool limits_memory() const { return set.memory_limit != tcp::options{}.memory_limit; }
    bool chance(unsigned per_mille) { return !calm && dice.chance(per_mille); }
    ledger* random_open() {
        std::vector<ledger*> open;
        for (const auto& one : ledgers)
            if (!one->over) open.push_back(one.get());
        return open.empty() ? nullptr : open[dice.below(open.size())];
    }
};

// A connection begins.
inline ledger& meet(stage& on, tcp::connection& peer) {
    ledger& book = *on.ledgers.emplace_back(std::make_unique<ledger>(ledger{on}));
    book.peer = &peer;
    book.name = peer.handle();
    book.opened_at = book.shown_at = on.world.now();
    const tcp::endpoint remote = peer.remote_endpoint();
    for (const auto& one : on.visitors)
        if (one->name.local_endpoint() == remote) book.client = one.get();
    on.expect(book.client != nullptr, "on_open does not know the peer's address");
    return book;
}

// What would otherwise stay as it is for ever is brought on its way: L speaks of active
// connections.
inline void calm_down(ledger& one) {
    one.name.post([&one](tcp::connection& peer) {
        if (std::exchange(one.paused, false)) peer.resume_receive();
        if (one.ended && !std::exchange(one.closes, true)) {
            one.closed_at = one.on.world.now();
            peer.close();
        }
    });
}

// One handler: says something, now and then does mischief, and compares all it sees with what its
// client sent.
class actor {
public:
    explicit actor(stage& on) : stage_{&on} {}
    actor(actor&&) = default;
    actor(const actor& prototype) : stage_{prototype.stage_} {
        if (stage_->chance(stage_->failing_copies)) throw mischief{};
    }
    actor& operator=(const actor&) = delete;
    ~actor() {
        if (book_ != nullptr)
            stage_->expect(book_->over, "B: a handler was destroyed before on_close");
    }

protected:
    void opened(tcp::connection& peer) {
        stage_->expect(book_ == nullptr, "B: on_open twice");
        book_ = &meet(*stage_, peer);
        const hook here{*book_, "on_open"};
        misbehave(peer);
    }

    std::size_t shown(tcp::connection& peer, tcp::bytes data) {
        const hook here{*book_, "on_data", data.size()};
        const std::string_view all{book_->client->text};
        stage_->expect(!data.empty(), "on_data without data");
        book_->shown_at = stage_->world.now();
        stage_->expect(tcp::as_text(data) == all.substr(book_->taken, data.size()),
                       "A: on_data was shown something else than was sent");
        stage_->expect(!book_->paused, "H: on_data though receiving is paused");
        // What was left is shown again on resuming, even after the end.
        stage_->expect(!book_->ended || book_->taken + data.size() <= book_->shown,
                       "on_data after on_end");
        stage_->expect(!book_->closes && !book_->aborts, "on_data after close() or abort()");
        stage_->expect(stage_->broadcasting != 0 || below_mark(peer),
                       "H: on_data above the high mark");
        book_->shown = std::max(book_->shown, book_->taken + data.size());
        const std::size_t count = answer(peer, data);
        book_->taken += count;
        misbehave(peer);
        return count;
    }

    void end_seen(tcp::connection& peer) {
        const hook here{*book_, "on_end"};
        stage_->expect(!book_->ended, "on_end twice");
        stage_->expect(!book_->paused, "H: on_end though receiving is paused");
        stage_->expect(book_->client->finished, "on_end though the peer has not finished");
        stage_->expect(book_->shown == book_->client->given, "A: on_end before all data");
        book_->ended = true;
        if (stage_->dice.chance(300)) say(*book_, tcp::as_bytes("one more"));
        if (stage_->calm || stage_->dice.chance(600))
            close(*book_);
        else
            misbehave(peer);
    }

    void writable(tcp::connection& peer) {
        const hook here{*book_, "on_writable", peer.send_queue_size()};
        stage_->expect(peer.send_queue_size() <= stage_->set.low_mark,
                       "on_writable above the low mark");
        stage_->expect(std::exchange(book_->above, false) || stage_->limits_memory(),
                       "H: on_writable, and never above the mark");
        if (stage_->dice.chance(100)) say(*book_, tcp::as_bytes("writable"));
        misbehave(peer);
    }

    void closed(tcp::connection& peer, const tcp::close_reason& why) {
        const hook here{*book_, "on_close", why.unsent};
        stage& on = *stage_;
        const ledger& book = *book_;
        const bool lossy = on.world.current_faults().reset_per_mille != 0 || on.calm;
        const visitor& client = *book.client;
        if (on.told)
            std::printf("  %s, %zu said\n", std::string(to_text(why)).c_str(), book.said.size());
        on.expect(!peer.send("late"), "send() in on_close");
        switch (why.by) {
            case closed_by::peer_finished:
                on.expect(client.finished, "reason: not finished");
                break;
            case closed_by::peer_reset:
                on.expect(lossy || client.reset || client.closed, "reason: nobody reset");
                break;
            case closed_by::handler_closed: on.expect(book.closes, "reason: not closed"); break;
            case closed_by::handler_aborted: on.expect(book.aborts, "reason: not aborted"); break;
            case closed_by::handler_threw: on.expect(book.throws, "reason: did not throw"); break;
            case closed_by::server_stopping: on.expect(on.stopped, "reason: not stopped"); break;
            case closed_by::drain_deadline: on.expect(on.drained, "reason: not drained"); break;
            case closed_by::system_error: on.expect(false, "reason: no system error"); break;
            case closed_by::limit:
                on.expect(why.reached == tcp::limit::send_queue || on.counts, "reason: no limit");
                break;
            case closed_by::deadline: check_deadline(why.passed); break;
        }
        book_->why = why;
        book_->over = true;
        book_->peer = nullptr;
        if (on.chance(on.throwing)) throw mischief{};
    }

private:
    struct hook {
        ledger& book;
        hook(ledger& of, const char* name, std::size_t size = 0) : book{of} {
            if (book.on.told)
                std::printf("%lld us, connection %zu: %s %zu\n",
                            static_cast<long long>(book.on.world.now().nanoseconds() / 1000),
                            book.client != nullptr ? book.client->name.number() : 0, name, size);
            book.on.expect(!book.over, "C: a hook after on_close");
            book.on.expect(!std::exchange(book.inside, true), "C: a hook within a hook");
        }
        hook(const hook&) = delete;
        hook& operator=(const hook&) = delete;
        ~hook() { book.inside = false; }
    };

    void check_deadline(tcp::deadline which) {
        const tcp::options& set = stage_->set;
        // The length is rounded up to whole ticks, and so is the moment it begins.
        const duration ticks = duration::milliseconds(2) + stage_->oversleep;
        const auto check = [&](duration since, duration length, bool exact) {
            const duration took = stage_->world.now() - since;
            stage_->expect(took >= length, "I: a deadline was early");
            stage_->expect(!exact || took <= length + ticks, "I: a deadline was late");
        };
        switch (which) {
            case tcp::deadline::close:
                if (book_->closes) check(book_->closed_at, set.close_timeout, true);
                break;
            case tcp::deadline::lifetime: check(book_->opened_at, set.lifetime, true); break;
            case tcp::deadline::idle: check(book_->shown_at, set.idle_timeout, false); break;
            case tcp::deadline::receive: check(book_->shown_at, set.receive_timeout, false); break;
            case tcp::deadline::send: check(book_->opened_at, set.send_timeout, false); break;
            default: stage_->expect(false, "reason: no such deadline");
        }
    }

    // What can no longer be sent does not hold back what is received.
    bool below_mark(tcp::connection& peer) const {
        return peer.send_queue_size() <= stage_->high_mark() || !peer.send(tcp::bytes{});
    }

    static void say(ledger& to, tcp::bytes data) {
        const bool queued = bool(to.peer->send(data));
        stage& on = to.on;
        if (queued) to.said += tcp::as_text(data);
        on.expect(!queued || !(to.closes || to.aborts || to.finishes), "send() after close()");
        on.expect(!queued || to.peer->send_queue_size() <= on.set.send_queue_limit + data.size(),
                  "D: more is queued than the limit allows");
        if (to.peer->send_queue_size() > on.high_mark()) to.above = true;
    }

    std::size_t answer(tcp::connection&, tcp::bytes data) {
        using reply = stage::reply;
        if (stage_->chance(stage_->broadcasting))
            if (ledger* const other = stage_->random_open()) say(*other, data);
        if (stage_->replies == reply::echo) say(*book_, data);
        if (stage_->replies == reply::copies)
            for (const std::byte& one : data.first(data.size() < 100 ? data.size() : 100))
                say(*book_, {&one, 1});
        if (!stage_->counts) return data.size();
        if (stage_->replies == reply::frames) {
            std::size_t taken = 0;
            for (;;) {
                if (taken == data.size()) return taken;
                const auto length = std::to_integer<std::size_t>(data[taken]) % 64;
                if (data.size() - taken - 1 < length) return taken;
                if (length != 0) say(*book_, data.subspan(taken + 1, length));
                taken += 1 + length;
            }
        }
        return static_cast<std::size_t>(stage_->dice.between(0, data.size()));
    }

    static void close(ledger& one) {
        if (!std::exchange(one.closes, true)) one.closed_at = one.on.world.now();
        one.peer->close();
    }

    void misbehave(tcp::connection& peer) {
        stage& on = *stage_;
        if (on.chance(on.pausing)) {
            book_->paused = on.dice.chance(500);
            book_->paused ? peer.pause_receive() : peer.resume_receive();
        }
        if (on.chance(on.pausing))
            if (ledger* const other = on.random_open()) {
                other->paused = false;
                other->peer->resume_receive();
            }
        if (on.chance(on.posting)) post();
        if (on.chance(on.finishing)) {
            peer.shutdown_send();
            book_->finishes = true;
        }
        if (on.chance(on.closing)) close(*book_);
        if (on.chance(on.closing / 4))
            if (ledger* const other = on.random_open()) close(*other);
        if (on.chance(on.aborting)) {
            book_->aborts = true;
            peer.abort();
        }
        if (on.chance(on.stopping)) {
            on.stopped = true;
            on.stop();
        }
        if (on.chance(on.throwing)) {
            book_->throws = true;
            throw mischief{};
        }
    }

    // Through handles, to anybody: to those that are over it must be refused.
    void post() {
        stage& on = *stage_;
        const ledger& any = *on.ledgers[on.dice.below(on.ledgers.size())];
        on.expect(any.name.open() == !any.over, "38: a handle does not know who is there");
        if (any.over) on.expect(!any.name.send("stale"), "38: a stale handle sends");
        ledger* const other = on.random_open();
        if (other == nullptr) return;
        on.expect(bool(other->name.post([other](tcp::connection& it) {
                      const hook here{*other, "post"};
                      other->on.expect(other->peer == &it, "72: a post to another connection");
                      if (other->on.dice.chance(500)) say(*other, tcp::as_bytes("posted"));
                      if (other->on.chance(100)) close(*other);
                  })),
                  "a post to an open connection was refused");
    }

    stage* stage_;
    ledger* book_ = nullptr;
};

}  // namespace random_world
