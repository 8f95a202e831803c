// One thread's driver: waits for the engine's events, accepts, keeps the deadlines, drains and
// stops.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <utility>

#include <tcp/close_reason.hpp>
#include <tcp/detail/accept_error.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/loop/connection_driver.hpp>
#include <tcp/loop/loop_team.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/options.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1::detail {

/// A loop. It belongs to one thread at a time; stop(), drain() and counters() are for any.
template <class Handler, class Engine>
class event_loop final : public connection_driver<Handler, Engine> {
    using base = connection_driver<Handler, Engine>;
    using base::counters_;
    using base::engine_;
    using base::team_;

public:
    using base::abandon_all;
    using base::as_member;
    using base::mail;

    template <class... EngineArguments>
    event_loop(const options& settings, const handler_source<Handler>& handlers, loop_team& team,
               EngineArguments&&... arguments)
        : base{settings, handlers, team, std::forward<EngineArguments>(arguments)...} {}
    [[gnu::cold]] ~event_loop() {
        shut();
        abandon_all();
        if (mail == nullptr) return;
        mail->close(*this);  // once more, where an exception has left shut()
        mail->let_go();
    }

    Engine& engine() noexcept { return engine_; }
    loop_team& team() noexcept { return team_; }
    const loop_counters& counters() const noexcept { return counters_; }
    duration now() const { return engine_.now(); }

    /// So many listeners are bound, numbered by the engine from 0.
    void set_listeners(listener_id count) noexcept { listeners_ = count; }
    listener_id listeners() const noexcept { return listeners_; }

    /// Gives an accepted connection to another loop of the server; false to keep it. Null where
    /// there is none.
    bool (*hand_over)(event_loop&, int socket, const endpoint& peer) = nullptr;

    /// A connection that another loop accepted and has counted as one of this loop.
    [[gnu::cold]] void arrived(int socket, const endpoint& peer) {
        if (!over_) {  // who accepted it had not heard of a drain yet
            open_here(socket, peer, false);
            return;
        }
        engine_.refuse(socket);
        team_.not_opened(peer);
        this->uncount();
        refused(peer, refused_by::stopping);
    }

    /// Whether it has not begun to end.
    bool takes_connections() const noexcept { return !over_ && !draining_ && !stop_wanted(); }

    /// Accepts and serves to the end.
    [[gnu::cold]] void run() {
        accept_many();
        while (turn(duration::max())) {}
    }

    /// Around every call that runs hooks: from now on it is this thread's.
    void begin_run() noexcept { this->runner.store_relaxed(&thread_mark); }
    void end_run() noexcept {
        engine_.submit();
        this->runner.store_relaxed(nullptr);
    }

    /// Accepts as many as come, from now on.
    [[gnu::cold]] void accept_many() {
        if (stop_wanted() && !serving()) return;
        if (over_ || draining_ || accepting_ == accepts::many || accepting_ == accepts::held_many)
            return;
        accepting_ = accepts::many;
        arm_listeners();
        serving();
    }

    /// Accepts and serves one connection to its end; others wait in the kernel's queue. False when
    /// the loop stopped before one came.
    [[gnu::cold]] bool accept_one(close_reason& how) {
        if (!serving()) return false;
        if (!draining_) {
            pause_listeners();
            accepting_ = accepts::one;
            arm_listeners();
        }
        const struct watch {
            close_reason*& reason;
            ~watch() { reason = nullptr; }
        } until_it_ends{this->watched_reason_};
        this->watched_reason_ = &how;
        this->watched_ = {};
        while (this->watched_reason_ != nullptr && turn(duration::max())) {}
        pause_listeners();
        while (this->reaping_ != 0) engine_.wait(duration::max(), *this);  // to its very end
        return this->watched_reason_ == nullptr;
    }

    /// Waits at most so long for a batch of events and deals with it. False when the loop has
    /// stopped.
    [[gnu::noinline]] bool turn(duration at_most) {
        if (!serving()) return false;
        const bool hurry = !this->touched_ones.empty() || has_mail();
        engine_.wait(hurry ? duration{} : until_deadline(at_most), *this);
        if (has_mail()) deliver_mail();
        this->settle_touched();
        expire();
        this->settle_touched();  // what timers asked of others
        return serving();
    }

    /// Ends everything and waits until the engine has let go of every connection. Once.
    [[gnu::cold]] void shut() {
        if (std::exchange(over_, true)) return;
        stop_wanted_.store_release(true);  // a server that has drained is stopped, too
        if (has_mail()) deliver_mail();    // what was sent before is sent, or said to be unsent
        this->settle_touched();
        if constexpr (Engine::puts_off) {  // what was asked for before is done, and nobody accepted
            pause_engine();
            see_last_events({});
        }
        this->close_all(closed_by::server_stopping);
        if (!draining_) engine_.close_listeners();
        if constexpr (Engine::puts_off)
            while (this->reaping_ != 0 && see_last_events(duration::max())) {}
        else
            while (this->reaping_ != 0) engine_.wait(duration::max(), *this);
        if (mail != nullptr) mail->close(*this);
    }

    // ---- any thread, and signal handlers ----

    void stop() noexcept {
        stop_wanted_.store_release(true);
        engine_.wake();
    }
    void drain(duration at_most) noexcept {
        drain_wanted_.store_release(at_most.nanoseconds() < 0 ? 0 : at_most.nanoseconds());
        engine_.wake();
    }
    void hold_accepting(bool held) noexcept {
        accept_held_.store_release(held);
        engine_.wake();
    }
    bool stop_wanted() const noexcept { return stop_wanted_.load_acquire(); }

    // ---- events of the engine that are not of one connection ----

    void accepted(listener_id, int socket, const endpoint& peer) {
        const bool one = accepting_ == accepts::one;
        ++arrivals_;
        failures_in_a_row_ = 0;
        if (one) pause_listeners();
        if (!admit(socket, peer, one) && one && !over_ && !draining_) {  // this one did not count
            accepting_ = accepts::one;
            arm_listeners();
        }
        obey_hold();  // on_open may have asked for it
    }

    [[gnu::cold]] void accept_failed(listener_id, int error) {
        count_accept_error(error);
        // A filter may refuse every accept with an error that concerns one connection elsewhere.
        const bool passes = passing_accept_error(error) && ++failures_in_a_row_ != most_failures;
        if (passes || accepting_ == accepts::none) return;
        failures_in_a_row_ = 0;
        pause_engine();
        accept_again_ = engine_.now() + accept_pause;
        open_when_paused_ = still_open();
    }

    void woken() noexcept {}

private:
    /// Opens it, or counts why not. False when there is no connection.
    bool admit(int socket, const endpoint& peer, bool watch) {
        const auto refuse = [&](refused_by why) {
            engine_.refuse(socket);
            refused(peer, why);
            return false;
        };
        if (over_ || draining_) return refuse(refused_by::stopping);
        refused_by why{};
        if (!team_.enter(peer, why)) return refuse(why);
        if (hand_over != nullptr && !watch && hand_over(*this, socket, peer)) return true;
        as_member.connections.fetch_add(1);
        return open_here(socket, peer, watch);
    }

    /// It is counted already.
    bool open_here(int socket, const endpoint& peer, bool watch) {
        if (this->open(socket, peer, watch)) return true;
        this->uncount();
        refused(peer, refused_by::handler_failed);
        return false;
    }

    [[gnu::cold, gnu::noinline]] void refused(const endpoint& peer, refused_by why) noexcept {
        counters_.count(why);
        if (team_.observer != nullptr) team_.observer->refused(peer, why);
    }

    /// False when the engine cannot go on: it closes the descriptors when it is destroyed.
    bool see_last_events(duration at_most) noexcept {
        typename base::last_events left{*this};
        try {
            engine_.wait(at_most, left);
            return true;
        } catch (const std::exception&) {  // no descriptors or memory for a ring of this thread
            return false;
        }
    }

    /// Whether no other loop hands over a connection any more.
    [[gnu::cold, gnu::noinline]] bool nothing_comes() noexcept {
        return mail == nullptr || mail->close_if_empty();
    }

    // Cold, or the compiler would put the one mailbox there is into every program.
    [[gnu::cold, gnu::noinline]] void deliver_mail() noexcept { mail->deliver(*this); }
    bool has_mail() const noexcept { return mail != nullptr && mail->waiting(); }

    enum class accepts : unsigned char { none, one, many, held_one, held_many };

    [[gnu::cold]] void arm_listeners() {
        const accept_mode mode = accepting_ == accepts::one ? accept_mode::one : accept_mode::many;
        accept_again_ = never;
        for (listener_id i = 0; i != listeners_; ++i)
            if (const int error = engine_.arm_accept(i, mode); error != 0) {
                count_accept_error(error);
                accept_again_ = engine_.now() + accept_pause;
                open_when_paused_ = 0;
            }
    }

    [[gnu::cold]] void count_accept_error(int error) noexcept {
        counters_.accept_errors.add(1);
        if (team_.observer != nullptr) team_.observer->accept_failed(error);
    }

    [[gnu::cold]] void pause_listeners() {
        const bool armed = accepting_ == accepts::one || accepting_ == accepts::many;
        if (over_ || draining_ || !armed) return;
        accepting_ = accepts::none;
        accept_again_ = never;
        pause_engine();
    }

    [[gnu::cold]] void pause_engine() {
        for (listener_id i = 0; i != listeners_; ++i) engine_.pause_accept(i);
    }

    /// Carries out stop(), drain() and hold_accepting(). False when the loop is over.
    [[gnu::noinline]] bool serving() {
        if (over_) return false;
        if (stop_wanted()) {
            shut();
            return false;
        }
        if (drain_wanted_.load_acquire() != nothing) {
            const auto at_most = duration::nanoseconds(drain_wanted_.exchange(nothing));
            drain_deadline_ = engine_.now() + at_most;
            if (!draining_) begin_to_drain();
        }
        obey_hold();
        if (draining_ && counters_.open.read() == 0 && nothing_comes()) {
            shut();
            return false;
        }
        return true;
    }

    /// Who waits in the system's queue is connected as far as he knows: a loop that is accepting
    /// takes those, too, before it closes its listeners.
    [[gnu::cold, gnu::noinline]] void begin_to_drain() {
        obey_hold();
        if (accept_again_ != never) arm_listeners();
        for (int left = most_last_accepts; left != 0; --left) {
            const std::uint64_t before = arrivals_;
            for (listener_id i = 0; i != listeners_ && accepting_ == accepts::many; ++i)
                engine_.accept_now(i, *this);
            if (arrivals_ == before) break;
        }
        engine_.close_listeners();
        draining_ = true;
        accepting_ = accepts::none;
        accept_again_ = never;
    }

    [[gnu::noinline]] void obey_hold() {
        const bool held = accept_held_.load_acquire();
        const bool one = accepting_ == accepts::one || accepting_ == accepts::held_one;
        if (held && (accepting_ == accepts::many || accepting_ == accepts::one)) {
            pause_listeners();
            accepting_ = one ? accepts::held_one : accepts::held_many;
        } else if (!held && accepting_ >= accepts::held_one) {
            accepting_ = one ? accepts::one : accepts::many;
            arm_listeners();
        }
    }

    duration until_deadline(duration at_most) const {
        duration first = accept_again_ < drain_deadline_ ? accept_again_ : drain_deadline_;
        if (const tick due = this->timers.next(); due != detail::never) {
            const auto time = duration::nanoseconds(due * nanoseconds_of_a_tick);
            if (time < first) first = time;
        }
        if (first == never) return at_most;
        const duration now = engine_.now();
        const duration left = first > now ? first - now : duration{};
        return left < at_most ? left : at_most;
    }

    void expire() {
        if (accept_again_ != never && still_open() < open_when_paused_) arm_listeners();
        const tick due = this->timers.next();
        if (accept_again_ == never && drain_deadline_ == never && due == detail::never) return;
        const duration now = engine_.now();
        if (due <= tick_of(now))
            while (timer_node* const timer = this->timers.due(tick_of(now)))
                this->timer_is_due(*timer);
        if (accept_again_ <= now) arm_listeners();
        // It stays: another loop may have handed over one more meanwhile.
        if (drain_deadline_ <= now) this->close_all(closed_by::drain_deadline);
    }

    /// Connections that have a descriptor.
    std::uint64_t still_open() const noexcept { return counters_.open.read() + this->reaping_; }

    static constexpr duration never = duration::max();
    static constexpr duration accept_pause = duration::milliseconds(200);
    static constexpr std::int64_t nothing = -1;
    static constexpr unsigned most_failures = 64;
    static constexpr int most_last_accepts = 64;

    listener_id listeners_ = 0;
    accepts accepting_ = accepts::none;
    bool draining_ = false;
    bool over_ = false;
    duration drain_deadline_ = never;
    duration accept_again_ = never;  // after descriptors or memory ran out
    std::uint64_t open_when_paused_ = 0;
    unsigned failures_in_a_row_ = 0;
    std::uint64_t arrivals_ = 0;  // accepted, whatever became of them
    atomic<bool> stop_wanted_{false};
    atomic<bool> accept_held_{false};
    atomic<std::int64_t> drain_wanted_{nothing};
};

}  // namespace tcp::inline v0_1::detail
