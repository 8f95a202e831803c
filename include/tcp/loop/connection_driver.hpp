// What happens to one connection: the events of the engine and of the timers become hooks.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/handler.hpp>
#include <tcp/loop/connection_hooks.hpp>
#include <tcp/loop/timer_wheel.hpp>

namespace tcp::inline v0_1::detail {

/// The half of a loop that deals with connections: every event ends in settle(), which carries out
/// what is wanted. One thread only.
template <class Handler, class Engine>
class connection_driver : public connection_hooks<Handler, Engine> {
    using base = connection_hooks<Handler, Engine>;
    using typename base::slot_type;

protected:
    using base::arriving_;
    using base::begin_clock;
    using base::counters_;
    using base::deadlines_;
    using base::engine_;
    using base::enter;
    using base::finish;
    using base::first_deadline;
    using base::handlers_;
    using base::holds_data;
    using base::id_of;
    using base::leave;
    using base::note_sent;
    using base::pool;
    using base::reaping_;
    using base::release;
    using base::sending_failed;
    using base::settle;
    using base::settle_alone;
    using base::show;
    using base::show_otherwise;
    using base::table_;
    using base::team_;
    using base::threw;
    using base::timers;
    using base::touched_ones;
    using base::watched_;

public:
    // ---- events of the engine ----

    [[gnu::always_inline]] void received(connection_id id, bytes data) {
        slot_type* const s = table_.find(id);
        if (s == nullptr) return;
        counters_.bytes_received.add(data.size());
        if ((s->flags_ & (holds_data | connection::timed)) == 0 && s->kept_.empty()) [[likely]]
            return show(*s, data);
        show_otherwise(*s, data);
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
        took(*s, count);
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
        slot_type* const s = table_.find_closing(id);
        if (s == nullptr) return;
        --reaping_;
        release(*s);
    }

    /// What still counts when everything ends: what has left, and what the engine has let go of.
    struct last_events : null_sink {
        explicit last_events(connection_driver& l) noexcept : loop{l} {}
        void accepted(listener_id, int socket, const endpoint&) { loop.engine_.refuse(socket); }
        void sent(connection_id id, std::size_t count, int) noexcept {
            if (slot_type* const s = loop.table_.find(id); s != nullptr) loop.took(*s, count);
        }
        void closed(connection_id id) { loop.closed(id); }

        connection_driver& loop;
    };

    // ---- what others ask ----

    [[gnu::noinline]] void call_hook(connection& c, void (*function)(void*, connection&),
                                     void* argument) final {
        auto& s = static_cast<slot_type&>(c);
        if ((s.flags_ & connection::abort_wanted) != 0) return settle_alone(s);
        enter(s, {});
        try {
            function(argument, s);
        } catch (...) {
            threw(s);
        }
        settle(s);
        leave();
    }

protected:
    using base::base;
    ~connection_driver() = default;

    /// Gives an accepted socket a handler and opens it. False when that could not be: the socket is
    /// closed.
    [[gnu::cold, gnu::noinline]] bool open(int socket, const endpoint& peer, bool watch) {
        slot_type* const s = place(socket, peer);
        if (s == nullptr) return false;
        const connection_id id = id_of(*s);
        if (engine_.open(id, socket) != 0) {
            s->handler.~Handler();
            give_back(*s);
            return false;
        }
        if (deadlines_.any()) {
            s->flags_ |= connection::timed;
            begin_clock(*s);
        }
        if (watch) watched_ = id;
        counters_.accepted.add(1);
        counters_.open.add(1);
        if (team_.observer != nullptr) team_.observer->opened(*s, peer);
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
        } else if ((s->flags_ & connection::timed) != 0) {
            settle_alone(*s);
        }
        return true;
    }

    /// Looks after the connections that hooks of others touched. Those touched meanwhile have their
    /// turn next time.
    [[gnu::noinline]] void settle_touched() {
        if (touched_ones.empty()) return;
        touched_ones.remove(end_of_turn_);  // left there by an exception of the engine
        touched_ones.push_back(end_of_turn_);
        while (touched_ones.front() != &end_of_turn_) {
            auto& first = static_cast<slot_type&>(*touched_ones.front());
            touched_ones.remove(first);
            settle_alone(first);
        }
        touched_ones.remove(end_of_turn_);
    }

    /// Behind the end, however that went: no handler is left, and no bytes that wait for an engine
    /// that cannot go on, or was not asked since an exception came between.
    [[gnu::cold, gnu::noinline]] void abandon_all() noexcept {
        close_all(closed_by::server_stopping);
        table_.for_each([this](slot_type& s) { release(s); });
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
            static_cast<user_timer_node&>(node).when_due(static_cast<user_timer_node&>(node));
        else
            deadline_is_due(static_cast<slot_type&>(static_cast<connection&>(node)));
    }

private:
    /// A slot with its handler for this peer; or null, and the socket is refused.
    slot_type* place(int socket, const endpoint& peer) noexcept {
        slot_type* s = nullptr;
        try {
            s = &table_.take(*this);
            team_.opened(s, peer);
            handlers_.make(__builtin_addressof(s->handler));
            return s;
        } catch (...) {
            if (s != nullptr)
                give_back(*s);
            else
                team_.not_opened(peer);
            engine_.refuse(socket);
            return nullptr;
        }
    }
    // A send in flight has ended.
    void took(slot_type& s, std::size_t count) {
        s.flags_ &= ~connection::send_in_flight;
        counters_.bytes_sent.add(count);
        note_sent(s, count);
        s.queue_.consume(pool, count);
    }

    void give_back(slot_type& s) noexcept {
        team_.closed(&s);
        table_.release(s);
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

    // ---- timers ----

    /// The first deadline has passed, or finds that there is still time.
    [[gnu::cold, gnu::noinline]] void deadline_is_due(slot_type& s) {
        // Another's hook may have ended it just now.
        if ((s.flags_ & connection::abort_wanted) != 0 || base::is_ending_untimed(s))
            return settle_alone(s);
        const next_deadline first = first_deadline(s, engine_.now());
        if (first.left > 0 || still_moves(s, first.which)) return settle_alone(s);
        if ((s.flags_ & connection::close_timed) != 0) {  // of close(), or the lifetime
            // With all sent and FIN behind it, only the peer's own end is missing: that is no
            // failure.
            if (!s.queue_.empty()) pass(s, first.which, connection::reset_now);
            if (s.reason_ == closed_by::deadline) counters_.timeouts.add(1);
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

    /// The system may have no room for long after the peer has begun to take what is there. Whether
    /// it took some so lately that the deadline is put off, as is done here.
    bool still_moves(slot_type& s, deadline which) {
        const duration now = engine_.now();
        if (s.queue_.empty() || (s.flags_ & connection::send_failed) != 0 ||
            !deadlines::ask_the_peer(which))
            return false;
        const duration ago = engine_.since_taken(id_of(s));
        if (ago >= now) return false;
        deadlines::restart(s.clock_, which, deadlines::stamp(now - ago));
        return first_deadline(s, now).left > 0;
    }

    static void pass(slot_type& s, deadline which, std::uint32_t how) noexcept {
        s.end(closed_by::deadline, how);
        if (s.reason_ == closed_by::deadline) s.which_ = static_cast<unsigned char>(which) & 0xf;
    }

    tagged_node<touched> end_of_turn_;
};

}  // namespace tcp::inline v0_1::detail
