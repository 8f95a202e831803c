// What happens to one connection: its events become hooks, and what its hooks asked for becomes
// operations.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/handler.hpp>
#include <tcp/loop/connection_io.hpp>
#include <tcp/loop/connection_table.hpp>
#include <tcp/loop/handler_source.hpp>
#include <tcp/loop/timer_wheel.hpp>
#include <tcp/options.hpp>
#include <tcp/timer.hpp>

namespace tcp::inline v0::detail {

/// The half of a loop that deals with connections: every event ends in settle(), which carries out
/// what is wanted. One thread only.
template <class Handler, class Engine>
class connection_driver : public connection_io<Engine> {
    using base = connection_io<Engine>;
    using table = connection_table<Handler>;
    using slot_type = slot<Handler>;

protected:
    using base::arm;
    using base::arriving_;
    using base::begin_clock;
    using base::both_sides_done;
    using base::broken;
    using base::counters_;
    using base::current;
    using base::deadlines_;
    using base::ending;
    using base::engine_;
    using base::enter;
    using base::first_deadline;
    using base::flush;
    using base::heed_first;
    using base::holds_data;
    using base::id_of;
    using base::leave;
    using base::lent;
    using base::note_received;
    using base::note_sent;
    using base::paused;
    using base::pool;
    using base::sending_failed;
    using base::settings_;
    using base::threw;
    using base::timed_;
    using base::timers;
    using base::touched_ones;

public:
    // ---- events of the engine ----

    [[gnu::always_inline]] void received(connection_id id, bytes data) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        counters_.bytes_received.add(data.size());
        note_received(*s, data.size());
        if ((s->flags_ & holds_data) == 0 && s->kept_.empty()) [[likely]]
            return show(*s, data);
        keep_and_show(*s, data);
    }

    void ended(connection_id id) { receiving_is_over(id, 0); }
    void failed(connection_id id, int error) { receiving_is_over(id, error); }

    void writable(connection_id id) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        s->flags_ &= ~connection::send_blocked;
        settle_alone(*s);
    }

    [[gnu::noinline]] void sent(connection_id id, std::size_t count, int error) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        s->flags_ &= ~connection::send_in_flight;
        counters_.bytes_sent.add(count);
        note_sent(*s, count);
        s->queue_.consume(pool, count);
        if (error != 0) {
            sending_failed(*s, error);
        } else if (!s->queue_.empty()) {
            try {
                s->queue_.own_lent(pool);
            } catch (const std::bad_alloc&) {
                sending_failed(*s, ENOMEM);
            }
        }
        settle_alone(*s);
    }

    void closed(connection_id id) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        --reaping_;
        release(*s);
    }

protected:
    template <class Source, class... EngineArguments>
    [[gnu::cold]] connection_driver(const options& settings, Source&& source,
                                    EngineArguments&&... arguments)
        : base{settings, std::forward<EngineArguments>(arguments)...},
          handlers_{std::forward<Source>(source)} {}
    [[gnu::cold]] ~connection_driver() = default;

    /// Gives an accepted socket a handler and opens it. False when that could not be: the socket is
    /// closed.
    [[gnu::noinline]] bool open(int socket, const endpoint& peer, bool watch) {
        slot_type* s = nullptr;
        try {
            s = &table_.take(*this);
            handlers_.make(&s->handler);
        } catch (...) {
            engine_.refuse(socket);
            if (s != nullptr) table_.release(*s);
            return false;
        }
        const connection_id id = id_of(*s);
        if (engine_.open(id, socket) != 0) {
            s->handler.~Handler();
            table_.release(*s);
            return false;
        }
        if (timed_) begin_clock(*s);
        if (watch) watched_ = id;
        counters_.accepted.add(1);
        counters_.open.add(1);
        if constexpr (has_on_open<Handler>) {
            enter(*s, {});
            arriving_ = &peer;
            try {
                s->handler.on_open(*s);
            } catch (...) {
                threw(*s);
            }
            arriving_ = nullptr;
            settle(*s);
            leave();
        } else if (timed_) {
            settle_alone(*s);
        }
        return true;
    }

    /// Looks after the connections that hooks of others touched. Those touched meanwhile have their
    /// turn next time.
    [[gnu::noinline]] void settle_touched() {
        if (touched_ones.empty()) return;
        touched_ones.push_back(end_of_turn_);
        while (touched_ones.front() != &end_of_turn_) {
            auto& first = static_cast<slot_type&>(*touched_ones.front());
            touched_ones.remove(first);
            settle_alone(first);
        }
        touched_ones.remove(end_of_turn_);
    }

    /// Ends every connection now, for this reason unless it had one.
    [[gnu::cold]] void close_all(closed_by by) {
        table_.for_each([this, by](slot_type& s) {
            if ((s.flags_ & connection::finished) != 0) return;
            s.end(by, connection::abort_wanted);
            finish(s);
        });
    }

    void timer_is_due(timer_node& node) {
        if (node.what() == timer_node::kind::of_user)
            call(static_cast<timer&>(node));
        else
            deadline_is_due(static_cast<slot_type&>(static_cast<connection&>(node)));
    }

    std::size_t reaping_ = 0;  // connections whose closed event is still to come

    // Of accept(): the connection to watch, and where to say how it ended.
    connection_id watched_{};  // no connection has generation 0
    close_reason* watched_reason_ = nullptr;

private:
    // ---- receiving ----

    /// The usual way of a byte: shown where the engine received it, and what is sent of it sent
    /// from there.
    [[gnu::always_inline]] void show(slot_type& s, bytes data) {
        enter(s, data);
        const std::size_t taken = call_on_data(s, data);
        if constexpr (has_counting_on_data<Handler>)
            if (taken < data.size()) keep(s, show_rest(s, data, taken));
        if (s.flags_ == connection::in_use && s.queue_.empty()) [[likely]] {
            if (lent.empty()) return leave();
            const send_outcome outcome = engine_.send(id_of(s), {&lent, 1});
            if (outcome.is == send_outcome::state::done && outcome.taken == lent.size())
                [[likely]] {
                counters_.bytes_sent.add(outcome.taken);
                note_sent(s, outcome.taken);
                return leave();
            }
            heed_first(s, outcome);
        }
        settle(s);
        leave();
    }

    /// The other ways: something was kept, or the connection is paused or ending.
    [[gnu::noinline]] void keep_and_show(slot_type& s, bytes data) {
        if ((s.flags_ & ending) != 0) return;  // what comes after close() is dropped
        enter(s, {});
        if (keep_more(s, data) && (s.flags_ & paused) == 0) show_kept(s);
        settle(s);
        leave();
    }

    /// Shows the rest as long as the handler takes some of it: a handler may take one message in
    /// each call. What it leaves in the end. With many answers waiting, or paused, the rest is
    /// shown later.
    [[gnu::noinline]] bytes show_rest(slot_type& s, bytes data, std::size_t taken) {
        data = data.subspan(taken);
        while (taken != 0 && !data.empty() && (s.flags_ & holds_data) == 0) {
            if (s.send_queue_size() > settings_.high_mark) {
                s.flags_ |= connection::show_kept;
                break;
            }
            taken = call_on_data(s, data);
            data = data.subspan(taken);
        }
        return data;
    }

    /// Shows what was kept. It may move afterwards, so nothing is lent from it.
    [[gnu::noinline]] void show_kept(slot_type& s) {
        const bytes kept = s.kept_.view();
        std::size_t taken = call_on_data(s, kept);
        if constexpr (has_counting_on_data<Handler>)
            taken = kept.size() - show_rest(s, kept, taken).size();
        s.kept_.consume(pool, taken);
        check_receive_limit(s);
    }

    [[gnu::always_inline]] std::size_t call_on_data(slot_type& s, bytes data) {
        if constexpr (!has_on_data<Handler>) return data.size();
        try {
            if constexpr (has_counting_on_data<Handler>) {
                const std::size_t taken = s.handler.on_data(s, data);
                return taken < data.size() ? taken : data.size();
            } else if constexpr (has_void_on_data<Handler>) {
                s.handler.on_data(s, data);
            }
        } catch (...) {
            threw(s);
        }
        return data.size();
    }

    [[gnu::noinline]] void keep(slot_type& s, bytes rest) {
        if ((s.flags_ & ending) == 0 && keep_more(s, rest)) check_receive_limit(s);
    }

    bool keep_more(slot_type& s, bytes data) {
        try {
            s.kept_.append(pool, data);
            return true;
        } catch (const std::bad_alloc&) {
            broken(s, ENOMEM);
            return false;
        }
    }

    void check_receive_limit(slot_type& s) {
        if (s.kept_.size() <= settings_.receive_limit || (s.flags_ & ending) != 0) return;
        s.end(closed_by::limit, connection::reset_now);
        s.limit_ = limit::receive;
    }

    /// The peer's FIN (error 0), or the end of everything. The handler hears of it when it has seen
    /// all data.
    [[gnu::noinline]] void receiving_is_over(connection_id id, int error) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        s->flags_ |= connection::peer_done | connection::end_unseen;
        if (error != 0) sending_failed(*s, error);
        settle_alone(*s);
    }

    void tell_end(slot_type& s) {
        if ((s.flags_ & connection::send_failed) != 0) return broken(s, s.errno_);
        if constexpr (has_on_end<Handler>) {
            try {
                s.handler.on_end(s);
            } catch (...) {
                threw(s);
            }
            s.kept_.clear(pool);  // there is nothing to come that could complete it
        } else {
            s.end(closed_by::peer_finished, connection::close_wanted);
        }
    }

    // ---- timers ----

    /// The first deadline has passed, or finds that there is still time.
    [[gnu::noinline]] void deadline_is_due(slot_type& s) {
        const next_deadline first = first_deadline(s, engine_.now());
        if (first.left > 0) return settle_alone(s);
        if (first.which == deadline::close) {
            // With all sent and FIN behind it, only the peer's own end is missing: that is no
            // failure.
            if (!s.queue_.empty()) pass(s, deadline::close, connection::reset_now);
            return finish(s);
        }
        if (first.which == deadline::receive_rate && deadlines_.fast_enough(s.clock_))
            return settle_alone(s);
        counters_.timeouts.add(1);
        enter(s, {});
        if constexpr (has_on_timeout<Handler>) {
            deadlines::restart(s.clock_, first.which, deadlines::stamp(engine_.now()));
            try {
                s.handler.on_timeout(s, first.which);
            } catch (...) {
                threw(s);
            }
        } else {
            pass(s, first.which, connection::abort_wanted);
        }
        settle(s);
        leave();
    }

    [[gnu::noinline]] void call(timer& due) {
        connection& peer = *due.peer_;
        if (peer.generation_ != due.generation_) return;  // it is another's slot by now
        slot_type& s = static_cast<slot_type&>(peer);
        unsigned char function[sizeof due.function_];  // it may start its timer with another one
        std::memcpy(function, due.function_, sizeof function);
        enter(s, {});
        try {
            due.call_(function, s);
        } catch (...) {
            threw(s);
        }
        settle(s);
        leave();
    }

    static void pass(slot_type& s, deadline which, std::uint32_t how) noexcept {
        s.end(closed_by::deadline, how);
        s.passed_ = which;
    }

    // ---- carrying out ----

    [[gnu::noinline]] void settle_alone(slot_type& s) {
        enter(s, {});
        settle(s);
        leave();
    }

    /// Does what is wanted of a connection until nothing is left to do now. Hooks may want more,
    /// again and again: after some rounds the others have their turn.
    [[gnu::noinline]] void settle(slot_type& s) {
        for (int round = 0; round != most_rounds; ++round) {
            if ((s.flags_ & connection::finished) != 0) return;
            if ((s.flags_ & connection::abort_wanted) == 0) flush(s);
            if ((s.flags_ & connection::abort_wanted) != 0 || both_sides_done(s)) return finish(s);
            if (!hook_was_called(s)) return arm(s);
        }
        current = nullptr;
        s.touch();
    }

    /// Calls the next hook that is due, if any is.
    bool hook_was_called(slot_type& s) {
        if ((s.flags_ & connection::mark_paused) == 0) {
            if (s.queue_.size() > settings_.high_mark &&
                (s.flags_ & (ending | connection::send_failed)) == 0) {
                s.flags_ |= connection::mark_paused;
                counters_.pauses.add(1);
            }
        } else if (s.queue_.size() <= settings_.low_mark ||
                   (s.flags_ & connection::send_failed) != 0) {
            s.flags_ = (s.flags_ & ~connection::mark_paused) | connection::show_kept;
            if constexpr (has_on_writable<Handler>) {
                if ((s.flags_ & (ending | connection::send_failed)) == 0) {
                    try {
                        s.handler.on_writable(s);
                    } catch (...) {
                        threw(s);
                    }
                    return true;
                }
            }
        }
        if ((s.flags_ & (paused | ending)) != 0) return false;
        if ((s.flags_ & connection::show_kept) != 0) {
            s.flags_ &= ~connection::show_kept;
            if (!s.kept_.empty()) {
                show_kept(s);
                return true;
            }
        }
        if ((s.flags_ & connection::end_unseen) != 0) {
            s.flags_ &= ~connection::end_unseen;
            tell_end(s);
            return true;
        }
        return false;
    }

    /// The end: on_close, the handler destroyed, the socket closed.
    [[gnu::noinline]] void finish(slot_type& s) {
        close_reason why{.by = s.reason_, .unsent = s.queue_.size() + s.lent().size()};
        if (s.reason_ == closed_by::deadline) why.passed = s.passed_;
        if (s.reason_ == closed_by::limit) {
            why.reached = s.limit_;
            why.error = s.limit_ == limit::receive ? error::receive_limit : error::send_queue_limit;
        }
        if (s.errno_ != 0) why.error = {s.errno_, std::system_category()};

        s.flags_ |= connection::finished;
        enter(s, {});
        if constexpr (has_on_close<Handler>) {
            try {
                s.handler.on_close(s, std::as_const(why));
            } catch (...) {  // the connection is over: there is nothing left to end
            }
        }
        leave();
        s.handler.~Handler();
        counters_.open.subtract(1);
        counters_.closed_by[static_cast<std::size_t>(why.by)].add(1);
        if (watched_reason_ != nullptr && watched_ == id_of(s)) {
            *watched_reason_ = why;
            watched_reason_ = nullptr;
        }
        touched_ones.remove(s);
        timers.stop(s);
        // A FIN would make what the peer has look complete.
        const bool hard = (s.flags_ & connection::reset_wanted) != 0 || why.unsent != 0;
        if (engine_.close(id_of(s), hard ? close_mode::reset : close_mode::graceful))
            release(s);
        else
            ++reaping_;
    }

    void release(slot_type& s) noexcept {
        s.queue_.clear(pool);
        s.kept_.clear(pool);
        table_.release(s);
    }

    static constexpr int most_rounds = 8;

    handler_source<Handler> handlers_;
    table table_;
    tagged_node<touched> end_of_turn_;
};

}  // namespace tcp::inline v0::detail
