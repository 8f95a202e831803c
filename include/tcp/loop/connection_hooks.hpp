// Calls the hooks of a connection, and carries out what they asked for.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <utility>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/handler.hpp>
#include <tcp/loop/connection_io.hpp>
#include <tcp/loop/connection_table.hpp>
#include <tcp/loop/handler_source.hpp>
#include <tcp/loop/loop_team.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

/// The middle of a loop: between the events of the engine and what is done with its operations. One
/// thread only.
template <class Handler, class Engine>
class connection_hooks : public connection_io<Engine> {
    using base = connection_io<Engine>;

public:
    team_member as_member;  // how the other loops of the server see this one

protected:
    using table = connection_table<Handler>;
    using slot_type = slot<Handler>;

    using base::arm;
    using base::both_sides_done;
    using base::broken;
    using base::counters_;
    using base::current;
    using base::ending;
    using base::engine_;
    using base::enter;
    using base::flush;
    using base::heed_first;
    using base::high_mark;
    using base::holds_data;
    using base::id_of;
    using base::leave;
    using base::lent;
    using base::low_mark;
    using base::mail;
    using base::note_received;
    using base::paused;
    using base::pool;
    using base::receive_limit;
    using base::timers;
    using base::touched_ones;

    template <class... EngineArguments>
    [[gnu::cold]] connection_hooks(const options& settings, const handler_source<Handler>& handlers,
                                   loop_team& team, EngineArguments&&... arguments)
        : base{settings, std::forward<EngineArguments>(arguments)...},
          handlers_{handlers},
          team_{team} {
        pool.waiting_bytes = team.waiting_bytes();
    }
    [[gnu::cold]] ~connection_hooks() = default;

    // ---- receiving ----

    /// The usual way of a byte: shown where the engine received it, and what is sent of it sent
    /// from there.
    [[gnu::always_inline]] void show(slot_type& s, bytes data) {
        enter(s, data);
        show_new(s, data);
        if (s.flags_ == connection::in_use && s.queue_.empty() && !passed_high_mark(s)) [[likely]] {
            if (lent.empty()) return leave();
            const send_outcome outcome = engine_.send(id_of(s), {&lent, 1});
            if (outcome.is == send_outcome::state::done && outcome.taken == lent.size())
                [[likely]] {
                counters_.bytes_sent.add(outcome.taken);
                return leave();
            }
            heed_first(s, outcome);
        }
        settle(s);
        leave();
    }

    /// Shows what came while nothing is kept, and keeps what the handler leaves.
    [[gnu::always_inline]] void show_new(slot_type& s, bytes data) {
        const std::size_t taken = call_on_data(s, data);
        if constexpr (has_counting_on_data<Handler>)
            if (taken < data.size()) keep(s, show_rest(s, data, taken));
    }

    /// The other ways: there are deadlines, something was kept, or the connection is paused or
    /// ending.
    [[gnu::noinline]] void show_otherwise(slot_type& s, bytes data) {
        if ((s.flags_ & ending) != 0) return;  // what comes after close() is dropped
        note_received(s, data.size());
        if ((s.flags_ & holds_data) == 0 && s.kept_.empty()) {
            enter(s, data);
            show_new(s, data);
        } else {
            enter(s, {});
            if (keep_more(s, data) && (s.flags_ & paused) == 0) show_kept(s);
        }
        settle(s);
        leave();
    }

    /// Shows the rest as long as the handler takes some of it: a handler may take one message in
    /// each call. What it leaves in the end. With many answers waiting, or paused, the rest is
    /// shown later.
    [[gnu::noinline]] bytes show_rest(slot_type& s, bytes data, std::size_t taken) {
        data = data.subspan(taken);
        while (taken != 0 && !data.empty() && (s.flags_ & holds_data) == 0) {
            if (has_much_to_send(s.send_queue_size())) {
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
            broken(s);
            return false;
        }
    }

    void check_receive_limit(slot_type& s) {
        // Who has paused, or was not shown the rest yet, takes it later; no more comes until then.
        constexpr std::uint32_t passes = ending | connection::user_paused | connection::show_kept;
        if (s.kept_.size() <= receive_limit || (s.flags_ & passes) != 0) return;
        s.end(closed_by::limit, connection::reset_now);
        s.which_ = static_cast<unsigned char>(limit::receive);
    }

    void tell_end(slot_type& s) {
        if ((s.flags_ & connection::send_failed) != 0) {  // there is nothing left to say
            s.flags_ |= connection::abort_wanted;
            return;
        }
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

    /// In a handler of exceptions: what left a hook ends its connection.
    [[gnu::cold, gnu::noinline]] void threw(connection& c) noexcept {
        tell_of_thrown(c);
        c.end(closed_by::handler_threw, connection::reset_now);
    }
    [[gnu::cold]] void tell_of_thrown(const connection& c) noexcept {
        if (team_.observer != nullptr) team_.observer->threw(c, std::current_exception());
    }

    // ---- carrying out ----

    [[gnu::noinline]] void settle_alone(slot_type& s) {
        enter(s, {});
        settle(s);
        leave();
    }

    /// Does what is wanted of a connection until nothing is left to do now. Hooks may want more,
    /// again and again: after some rounds the others have their turn, and the engine hears what
    /// holds until then.
    [[gnu::noinline]] void settle(slot_type& s) {
        for (int round = 0; round != most_rounds; ++round) {
            if ((s.flags_ & connection::finished) != 0) return;
            const bool passed = passed_high_mark(s);
            if ((s.flags_ & connection::abort_wanted) == 0) flush(s);
            if ((s.flags_ & connection::abort_wanted) != 0 || both_sides_done(s)) return finish(s);
            if (!hook_was_called(s, passed)) return arm(s);
        }
        arm(s);
        current = nullptr;
        s.touch();
    }

    /// Whether a connection for which so much waits reads no more for now.
    bool has_much_to_send(std::size_t waiting) const noexcept {
        return waiting > high_mark || (waiting != 0 && team_.too_much_waits());
    }

    /// Whether a hook has filled the queue, and is to hear of it when there is room: also when the
    /// system takes all of it at once. A coroutine has said so itself.
    bool passed_high_mark(const slot_type& s) const noexcept {
        if constexpr (told_of_marks)
            return s.above_high_mark();
        else
            return (s.flags_ & connection::awaits_room) != 0;
    }

    /// Stops reading at the high mark, goes on at the low one.
    void heed_marks(slot_type& s, bool passed) {
        const bool failed = (s.flags_ & connection::send_failed) != 0;
        if ((s.flags_ & connection::mark_paused) == 0) {
            if (failed || (s.flags_ & ending) != 0) return;
            const std::size_t waiting = s.queue_.size();
            if (passed && waiting <= low_mark) s.flags_ |= connection::awaits_room;
            if (!has_much_to_send(waiting) && (!passed || waiting <= low_mark)) return;
            s.flags_ |= connection::mark_paused;
            counters_.pauses.add(1);
            if (team_.observer != nullptr) team_.observer->paused(s);
            return;
        }
        const bool low =
            s.queue_.empty() || (s.queue_.size() <= low_mark && !team_.too_much_waits());
        if (!low && !failed) return;
        s.flags_ = (s.flags_ & ~connection::mark_paused) | connection::show_kept;
        if (!failed) s.flags_ |= connection::awaits_room;
        if (team_.observer != nullptr) team_.observer->resumed(s);
    }

    /// Calls the next hook that is due, if any is.
    bool hook_was_called(slot_type& s, bool passed) {
        heed_marks(s, passed);
        constexpr std::uint32_t no_room = connection::mark_paused | ending;
        if ((s.flags_ & connection::awaits_room) != 0 && (s.flags_ & no_room) == 0) {
            s.flags_ &= ~connection::awaits_room;
            if constexpr (has_on_writable<Handler>) {
                try {
                    s.handler.on_writable(s);
                } catch (...) {
                    threw(s);
                }
                return true;
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
    [[gnu::cold, gnu::noinline]] void finish(slot_type& s) {
        close_reason why{.by = s.reason_, .unsent = s.queue_.size() + s.lent().size()};
        if (s.reason_ == closed_by::deadline) why.passed = static_cast<deadline>(s.which_);
        if (s.reason_ == closed_by::limit) {
            why.reached = static_cast<limit>(s.which_);
            why.error =
                why.reached == limit::receive ? error::receive_limit : error::send_queue_limit;
        }
        if (s.errno_ != 0) why.error = {s.errno_, std::system_category()};

        // A FIN would make what the peer has look complete. Not for bytes that handles sent and
        // that have not arrived: to the peer the answers of the handler are complete.
        const bool hard = (s.flags_ & connection::reset_wanted) != 0 || why.unsent != 0 ||
                          why.by == closed_by::system_error;
        const connection_id id = id_of(s);
        why.unsent += dismiss(s);
        s.flags_ |= connection::finished;
        enter(s, {});
        if constexpr (has_on_close<Handler>) {
            try {
                s.handler.on_close(s, std::as_const(why));
            } catch (...) {
                tell_of_thrown(s);  // and there is nothing left to end
            }
        }
        leave();
        if (team_.observer != nullptr) team_.observer->closed(s, std::as_const(why));
        s.handler.~Handler();
        counters_.open.subtract(1);
        team_.closed(&s);
        uncount();
        counters_.closed_by[static_cast<std::size_t>(why.by)].add(1);
        if (watched_reason_ != nullptr && watched_ == id) {
            *watched_reason_ = why;
            watched_reason_ = nullptr;
        }
        touched_ones.remove(s);
        timers.stop(s);
        if (engine_.close(id, hard ? close_mode::reset : close_mode::graceful))
            release(s);
        else
            ++reaping_;
    }

    void uncount() noexcept {
        team_.leave();
        as_member.connections.fetch_subtract(1);
    }

    /// Handles name it no more. How many bytes they sent that have not arrived here.
    [[gnu::cold]] std::size_t dismiss(slot_type& s) noexcept {
        const std::uint32_t next = s.generation_.load_relaxed() + 1;
        if (mail != nullptr) return mail->dismiss(s.slot_, s.generation_, next);
        s.generation_.store_relaxed(next);
        return 0;
    }

    [[gnu::noinline]] void release(slot_type& s) noexcept {
        s.queue_.clear(pool);
        s.kept_.clear(pool);
        table_.release(s);
    }

    std::size_t reaping_ = 0;  // connections whose closed event is still to come

    // Of accept(): the connection to watch, and where to say how it ended.
    connection_id watched_{};  // no connection has generation 0
    close_reason* watched_reason_ = nullptr;

    const handler_source<Handler>& handlers_;
    loop_team& team_;
    table table_;

private:
    static constexpr int most_rounds = 8;

    // A coroutine says itself when it waits for room.
    static constexpr bool told_of_marks = has_on_writable<Handler> && !requires {
        typename Handler::says_when_it_waits;
    };
};

}  // namespace tcp::inline v0_1::detail
