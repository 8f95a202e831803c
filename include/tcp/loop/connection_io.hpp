// What is wanted of a connection becomes operations of the engine: sending, FIN, pausing,
// deadlines. No handler is needed for that, and none is called here.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/loop/deadlines.hpp>
#include <tcp/loop/loop_context.hpp>
#include <tcp/loop/loop_counters.hpp>
#include <tcp/loop/timer_wheel.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

/// The lower half of a loop. One thread only.
template <class Engine>
class connection_io : public loop_context {
public:
    // ---- what a connection asks ----

    endpoint endpoint_of(const connection& c, side which) override {
        if (which == side::local) return engine_.local_endpoint(id_of(c));
        if (&c == current && arriving_ != nullptr) return *arriving_;
        return engine_.remote_endpoint(id_of(c));
    }
    int descriptor_of(const connection& c) override { return engine_.descriptor(id_of(c)); }
    duration time() const override { return engine_.now(); }
    void wake() noexcept override { engine_.wake(); }

protected:
    template <class... EngineArguments>
    [[gnu::cold]] explicit connection_io(const options& settings, EngineArguments&&... arguments)
        : deadlines_{settings}, engine_{settings, std::forward<EngineArguments>(arguments)...} {
        const auto lesser = [](std::size_t a, std::size_t b) { return a < b ? a : b; };
        send_queue_limit = settings.send_queue_limit;
        high_mark = lesser(settings.high_mark, send_queue_limit);  // paused before it is reset
        low_mark = lesser(settings.low_mark, high_mark);
        receive_limit = settings.receive_limit;
    }
    [[gnu::cold]] ~connection_io() = default;

    static constexpr std::uint32_t paused = connection::user_paused | connection::mark_paused;
    static constexpr std::uint32_t no_receive =
        paused | connection::show_kept;  // the rest is shown first
    static constexpr std::uint32_t ending =
        connection::close_wanted | connection::abort_wanted | connection::finished;
    static constexpr std::uint32_t holds_data = no_receive | ending;
    static constexpr std::uint32_t holds_send = connection::send_blocked |
                                                connection::send_in_flight |
                                                connection::send_failed | connection::fin_sent;

    // For the engine it has one name until it is closed; for handles none from on_close on.
    static connection_id id_of(const connection& c) noexcept {
        return {c.slot_, (c.generation_.load_own() - 1) | 1};
    }

    // ---- around a hook ----

    void enter(connection& c, bytes data) noexcept {
        current = &c;
        shown = data;
        lent = {};
    }
    void leave() noexcept { current = nullptr; }

    // ---- sending ----

    /// Hands the queue, and behind it what is lent, to the engine until it takes no more. What it
    /// leaves is owned by the queue afterwards.
    [[gnu::noinline]] void flush(connection& c) {
        try {
            while ((c.flags_ & (holds_send | connection::abort_wanted)) == 0) {
                bytes pieces[most_pieces];
                std::size_t count = c.queue_.gather({pieces, most_pieces - 1});
                if (count == most_pieces - 1) c.own_lent();  // it goes with a later call
                if (!lent.empty()) pieces[count++] = lent;
                if (count == 0) return;
                heed(c, engine_.send(id_of(c), {pieces, count}));
            }
            c.own_lent();
        } catch (const std::bad_alloc&) {
            broken(c);
        }
    }

    /// What the engine said of a send of the queue and then of what is lent. With no memory to go
    /// on the connection ends.
    [[gnu::noinline]] void heed_first(connection& c, send_outcome outcome) {
        try {
            heed(c, outcome);
        } catch (const std::bad_alloc&) {
            broken(c);
        }
    }

    [[gnu::noinline]] void heed(connection& c, send_outcome outcome) {
        if (outcome.is == send_outcome::state::failed) return sending_failed(c, outcome.error);
        if (outcome.is == send_outcome::state::in_flight) {
            c.flags_ |= connection::send_in_flight;
            note_waiting(c);
            if (!lent.empty()) c.queue_.append_lent(pool, std::exchange(lent, bytes{}));
            return;
        }
        note_sent(c, outcome.taken);
        if (outcome.is == send_outcome::state::blocked) {
            c.flags_ |= connection::send_blocked;
            note_waiting(c);
        }
        counters_.bytes_sent.add(outcome.taken);
        const std::size_t queued =
            outcome.taken < c.queue_.size() ? outcome.taken : c.queue_.size();
        c.queue_.consume(pool, queued);
        lent = lent.subspan(outcome.taken - queued);
    }

    /// Nothing can be sent any more. What the peer sent before is still delivered, and then the
    /// connection ends; at the close deadline at the latest.
    [[gnu::cold]] void sending_failed(connection& c, int error) {
        if ((c.flags_ & connection::send_failed) != 0) return;
        if ((c.flags_ & ending) == 0 || c.send_queue_size() != 0) blame(c, error);
        c.flags_ |= connection::send_failed;
    }

    /// There is no memory for the connection to go on with.
    [[gnu::cold]] void broken(connection& c) {
        if ((c.flags_ & (ending | connection::send_failed)) == 0) blame(c, ENOMEM);
        c.flags_ |= connection::reset_now;
    }

    void blame(connection& c, int error) noexcept {
        c.errno_ = static_cast<std::int16_t>(error);
        c.reason_ =
            error == ECONNRESET || error == EPIPE ? closed_by::peer_reset : closed_by::system_error;
    }

    // ---- carrying out ----

    /// Sends FIN when it is time. True when there is nothing left to send or to receive.
    bool both_sides_done(connection& c) {
        const bool wants_fin =
            (c.flags_ & (connection::close_wanted | connection::shutdown_wanted)) != 0;
        const bool told = (c.flags_ & connection::end_unseen) == 0 || (c.flags_ & ending) != 0;
        const bool peer_done = (c.flags_ & connection::peer_done) != 0 && told;
        if ((c.flags_ & connection::send_failed) != 0)
            return peer_done || (c.flags_ & connection::close_wanted) != 0;
        if (!wants_fin || !c.queue_.empty()) return false;
        if (peer_done) return true;
        if ((c.flags_ & connection::fin_sent) == 0) {
            c.flags_ |= connection::fin_sent;
            engine_.shutdown_send(id_of(c));
        }
        return false;
    }

    /// Tells the engine and the timers what to wait for.
    void arm(connection& c) {
        const bool pause = (c.flags_ & no_receive) != 0 && (c.flags_ & ending) == 0;
        if (pause != ((c.flags_ & connection::engine_paused) != 0) &&
            (c.flags_ & connection::peer_done) == 0) {
            c.flags_ ^= connection::engine_paused;
            if (pause)
                engine_.pause_receive(id_of(c));
            else
                resume(c);
        }
        constexpr std::uint32_t has_deadline =
            connection::timed | connection::close_wanted | connection::send_failed;
        if ((c.flags_ & has_deadline) != 0) watch(c);
    }

    void resume(connection& c) {
        if ((c.flags_ & connection::timed) != 0)
            deadlines::resumed(c.clock_, deadlines::stamp(engine_.now()));
        engine_.resume_receive(id_of(c));
    }

    // ---- deadlines ----

    void begin_clock(connection& c) {
        const std::uint32_t now = deadlines::stamp(engine_.now());
        c.clock_ = {.begun = now, .active = now, .received = now, .sent = now};
    }
    void note_received(connection& c, std::size_t size) {
        if ((c.flags_ & connection::timed) != 0 &&
            deadlines_.received(c.clock_, size, deadlines::stamp(engine_.now())))
            watch(c);
    }
    void note_sent(connection& c, std::size_t size) {
        if ((c.flags_ & (connection::timed | connection::close_timed)) == 0 || size == 0) return;
        c.flags_ &= ~connection::send_timed;
        c.clock_.active = c.clock_.sent = deadlines::stamp(engine_.now());
    }
    // Something is left to send, and from now on that the peer takes nothing counts against it.
    void note_waiting(connection& c) {
        constexpr std::uint32_t both = connection::timed | connection::send_timed;
        if ((c.flags_ & both) != connection::timed) return;
        c.flags_ |= connection::send_timed;
        c.clock_.sent = deadlines::stamp(engine_.now());
    }

    /// Whether the close deadline is still to begin: behind close(), and when sending has failed,
    /// since a peer that is gone says nothing to one that has paused receiving.
    static bool is_ending_untimed(const connection& c) noexcept {
        return (c.flags_ & (connection::close_wanted | connection::send_failed)) != 0 &&
               (c.flags_ & connection::close_timed) == 0;
    }

    next_deadline first_deadline(const connection& c, duration now) const {
        return deadlines_.first(
            c.clock_,
            {.closing = (c.flags_ & connection::close_timed) != 0,
             .receiving = (c.flags_ & (no_receive | ending | connection::peer_done)) == 0,
             .sending = !c.queue_.empty()},
            now);
    }

    /// Waits for the first deadline. What happens to a connection only puts deadlines off: the
    /// timer stays where it is and finds out then. Only one that begins may come before it.
    [[gnu::noinline]] void watch(connection& c) {
        const duration now = engine_.now();
        if (is_ending_untimed(c)) {
            c.flags_ |= connection::close_timed;
            c.clock_.sent = deadlines::stamp(now);
            timers.stop(c);
        }
        const next_deadline first = first_deadline(c, now);
        if (first.left == never) return;
        const tick due = tick_of(now) + first.left;
        if (!c.waits() || due < c.due()) timers.start(c, due);
    }

    deadlines deadlines_;
    Engine engine_;
    loop_counters counters_;
    const endpoint* arriving_ = nullptr;  // in on_open: the peer, as accept gave it

private:
    static constexpr std::size_t most_pieces = 64;  // of one system call
};

}  // namespace tcp::inline v0_1::detail
