// A coroutine for the random worlds: receives in every way, sleeps, sends, throws and returns, and
// compares all that it gets with what its client sent.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <tcp/connection.hpp>
#include <tcp/received.hpp>
#include <tcp/task.hpp>

#include "random_actor.hpp"

namespace random_world {

struct conversation {
    stage* on;

    tcp::task<> operator()(tcp::connection& peer) const {
        ledger& book = meet(*on, peer);
        book.talks = true;
        const leaving at_the_end{book};
        for (;;) {
            const auto kind = on->dice.below(on->calm ? 1 : 10);
            if (kind == 9) {
                const duration length =
                    duration::nanoseconds(std::int64_t(on->dice.magnitude(1, 50'000'000)));
                const duration since = on->world.now();
                if (co_await peer.sleep_for(length))
                    on->expect(on->world.now() - since >= length, "I: sleep_for was early");
                continue;
            }
            if (kind == 8) {
                co_await nested(peer, book);
                continue;
            }
            const auto got = co_await one_of(peer, kind);
            if (!got) {
                if (got.error() == tcp::error::receive_limit) co_return;
                on->expect(got.error() || book.client->finished,
                           "a coroutine saw the end of a peer that has not finished");
                if (!got.error() && on->chance(500)) say(book, "the end");
                if (got.error() != tcp::error::incomplete) co_return;
                continue;
            }
            compare(book, got.data());
            if (on->replies != stage::reply::silence) {
                book.said += got.text();  // also where the send fails later on, partly done
                if (!co_await peer.send(got.data())) co_return;
            }
            if (on->chance(on->throwing)) throw mischief{};
            if (on->chance(on->closing)) co_return;
            if (on->chance(on->aborting)) peer.abort();
        }
    }

private:
    struct leaving {
        ledger& book;
        explicit leaving(ledger& b) : book{b} {}
        leaving(const leaving&) = delete;
        leaving& operator=(const leaving&) = delete;
        ~leaving() {
            book.on.expect(!book.over, "74: a coroutine was destroyed twice");
            book.over = true;
            book.peer = nullptr;
        }
    };

    static tcp::task<> nested(tcp::connection& peer, ledger& book) {
        const auto got = co_await peer.receive();
        if (got) compare(book, got.data());
    }

    tcp::task<tcp::received> one_of(tcp::connection& peer, std::uint64_t kind) const {
        if (kind == 1)
            co_return co_await peer.receive_exactly(
                static_cast<std::size_t>(on->dice.magnitude(1, 300)));
        if (kind == 2) {
            const std::string_view comma{"\0", 1};
            co_return co_await peer.receive_until(comma);
        }
        co_return co_await peer.receive();
    }

    static void compare(ledger& book, tcp::bytes data) {
        stage& on = book.on;
        on.expect(tcp::as_text(data) ==
                      std::string_view{book.client->text}.substr(book.taken, data.size()),
                  "A: a coroutine received something else than was sent");
        book.taken += data.size();
        book.shown = book.taken;
    }

    static void say(ledger& book, std::string_view text) {
        if (book.peer->send(text)) book.said += text;
    }
};

}  // namespace random_world
