// An engine without a system below it: an in-memory network, virtual time, a seed and faults. It
// checks its caller against engine/concept.hpp as it goes.
//
// Several engines may share one world. They are for one thread: when one of them waits, virtual
// time passes for all, and what becomes ready for another is delivered by that one's next wait().
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/simulated/sockets.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1 {

/// The engine of tests: `tcp::server<my_handler, tcp::simulated_engine> server{{}, {}, world};`,
/// where world is a tcp::simulation that outlives it.
class simulated_engine final : public simulated::sockets {
public:
    static constexpr const char* name = "simulated";
    static constexpr bool puts_off = false;

    simulated_engine(const options& set, simulated::network& net)
        : sockets{net, set.kernel_send_buffer, set.kernel_receive_buffer},
          receive_size_{std::max<std::size_t>(set.receive_buffer, 1)},
          ipv6_only_{set.ipv6_only} {}

    ~simulated_engine() {
        if (!listeners_closed_) close_listeners();
        for (simulated::link* const on : ready_) on->server.listed = false;
    }

    // Listeners, as engine/concept.hpp says.

    endpoint bind(const endpoint& where, std::error_code& failure) {
        failure.clear();
        const auto id = static_cast<listener_id>(listeners_.size());
        if (listeners_closed_) net_.violated("bind() after close_listeners()");
        simulated::listener& made = listeners_.emplace_back();
        made.id = id;
        made.where = where;
        made.ipv6_only = ipv6_only_;
        const int error = in_use() > net_.weather.socket_limit ? EMFILE : net_.listeners.add(made);
        if (error == 0) return made.where;
        listeners_.pop_back();
        failure.assign(error, std::generic_category());
        return {};
    }

    endpoint bound(listener_id id) const { return listeners_[id].where; }

    /// A simulated socket has no descriptor that another engine could take.
    endpoint adopt(int, std::error_code& failure) {
        failure = std::make_error_code(std::errc::operation_not_supported);
        return {};
    }
    void keep_file(listener_id) {}
    int share(listener_id, std::error_code& failure) {
        failure = std::make_error_code(std::errc::operation_not_supported);
        return -1;
    }

    void listen(listener_id id, int backlog, std::error_code& failure) {
        failure.clear();
        simulated::listener* const one = bound(id, "listen()");
        if (one == nullptr) return failure.assign(EBADF, std::generic_category());
        if (one->listening)
            net_.violated("listen() for the second time on " + one->where.to_string());
        one->backlog =
            static_cast<std::size_t>(std::max(1, std::min(backlog, net_.weather.backlog_max)));
        one->listening = true;
    }

    void unbind(listener_id first) {
        for (; listeners_.size() > first; listeners_.pop_back()) {
            if (listeners_.back().listening) net_.violated("unbind() after listen()");
            net_.listeners.remove(listeners_.back());
        }
    }

    int arm_accept(listener_id id, accept_mode how) {
        using arming = simulated::listener::arming;
        if (simulated::listener* const one = listening(id, "arm_accept()"))
            one->armed = how == accept_mode::one ? arming::one : arming::many;
        return 0;
    }

    void pause_accept(listener_id id) {
        if (simulated::listener* const one = listening(id, "pause_accept()"))
            one->armed = simulated::listener::arming::paused;
    }

    template <engine_sink Sink>
    void accept_now(listener_id id, Sink& sink) {
        if (simulated::listener* const one = listening(id, "accept_now()")) accept(*one, sink);
    }

    void close_listeners() {
        if (std::exchange(listeners_closed_, true))
            net_.violated("close_listeners() for the second time");
        for (simulated::listener& one : listeners_) {
            net_.listeners.remove(one);
            one.listening = false;
            one.armed = simulated::listener::arming::paused;
            for (simulated::link* const on : one.queue) net_.server_close(*on, close_mode::reset);
            one.queue.clear();
        }
    }

    // Time and waiting.

    duration now() const noexcept { return duration::nanoseconds(net_.now()); }

    void submit() noexcept {}

    void wake() noexcept {
        woken_.store(true);
        woken_.notify_one();
    }

    /// Lets virtual time pass up to the first event for this engine, or for so long, and delivers.
    /// No real time passes, unless simulation::expect_outside_wakes() was called and nothing but a
    /// wake() can come.
    template <engine_sink Sink>
    void wait(duration timeout, Sink& sink) {
        if (waiting_) return net_.violated("wait() was called while wait() delivers an event");
        const waiting_mark mark{waiting_};
        check_progress();
        if (timeout < duration{}) net_.violated("wait() with a timeout below 0");
        net_.happen_until(net_.now());
        if (net_.dice.chance(net_.weather.spurious_wait_per_mille)) return;
        if (sleep(timeout)) deliver(sink);
    }

private:
    struct waiting_mark {
        bool& mark;
        explicit waiting_mark(bool& which) noexcept : mark{which} { mark = true; }
        waiting_mark(const waiting_mark&) = delete;
        waiting_mark& operator=(const waiting_mark&) = delete;
        ~waiting_mark() { mark = false; }
    };

    // The bytes of an event go back when it returns or throws.
    struct lent_until_end {
        simulated::lent_bytes& to;
        simulated::lent_block& block;
        lent_until_end(simulated::lent_bytes& lender, simulated::lent_block& what) noexcept
            : to{lender}, block{what} {}
        lent_until_end(const lent_until_end&) = delete;
        lent_until_end& operator=(const lent_until_end&) = delete;
        ~lent_until_end() { to.release(block); }
    };
    struct held_until_end {
        simulated::lent_bytes& to;
        std::vector<simulated::lent_block*> held;
        held_until_end(simulated::lent_bytes& lender,
                       std::vector<simulated::lent_block*> what) noexcept
            : to{lender}, held{std::move(what)} {}
        held_until_end(const held_until_end&) = delete;
        held_until_end& operator=(const held_until_end&) = delete;
        ~held_until_end() { to.release(held); }
    };

    simulated::listener* bound(listener_id id, const char* call) {
        if (id < listeners_.size() && !listeners_closed_) return &listeners_[id];
        net_.violated(std::string(call) + " of listener " + std::to_string(id) +
                      (listeners_closed_ ? " after close_listeners()" : ", which was never bound"));
        return nullptr;
    }

    simulated::listener* listening(listener_id id, const char* call) {
        simulated::listener* const one = bound(id, call);
        if (one == nullptr || one->listening) return one;
        net_.violated(std::string(call) + " before listen() on " + one->where.to_string());
        return nullptr;
    }

    std::size_t in_use() const noexcept {
        return open_ + (listeners_closed_ ? 0 : listeners_.size());
    }

    static bool acceptable(const simulated::listener& one) noexcept {
        return one.armed != simulated::listener::arming::paused && !one.queue.empty();
    }

    // A loop that calls wait() again and again although nothing moves burns a core in real life.
    void check_progress() {
        if (std::exchange(progress_seen_, net_.progress) != net_.progress) {
            idle_waits_ = 0;
        } else if (++idle_waits_ > net_.spin_limit) {
            idle_waits_ = 0;
            net_.violated("the loop spins: wait() was called " + std::to_string(net_.spin_limit) +
                          " times at the same virtual time, and nothing moved");
        }
    }

    // Whether there is something to deliver; looks again at what was listed.
    bool gather() {
        for (simulated::link* const on : ready_) {
            on->server.listed = false;
            if (deliverable(*on)) batch_.push_back(on);
        }
        ready_.clear();
        return woken_.load() || !batch_.empty() ||
               std::any_of(listeners_.begin(), listeners_.end(), acceptable);
    }

    bool sleep(duration timeout) {
        constexpr std::int64_t never = duration::max().nanoseconds();
        if (timeout > duration{} && timeout < duration::max()) timeout = timeout + oversleep();
        const std::int64_t deadline = (now() + timeout).nanoseconds();
        while (!gather()) {
            const std::int64_t next = net_.next_time();
            if (next < never && next <= deadline) {
                net_.happen_until(next);
            } else if (deadline != never) {
                net_.happen_until(deadline);
                return gather();
            } else if (net_.outside_wakes) {
                woken_.wait(false);
                ++net_.progress;
            } else {
                net_.violated(
                    "nothing will ever happen in this simulation: the loop waits without a "
                    "timeout, and no client, "
                    "script or wake() is under way; stop the server, or give run_for() a time");
                return false;
            }
        }
        return true;
    }

    duration oversleep() noexcept {
        const std::int64_t most = net_.weather.oversleep_max.nanoseconds();
        return duration::nanoseconds(static_cast<std::int64_t>(
            net_.dice.between(0, static_cast<std::uint64_t>(std::max<std::int64_t>(most, 0)))));
    }

    template <class Sink>
    void deliver(Sink& sink) {
        const bool shuffled = net_.dice.chance(net_.weather.shuffle_per_mille);
        if (shuffled)
            for (std::size_t left = batch_.size(); left > 1; --left)
                std::swap(batch_[left - 1], batch_[net_.dice.below(left)]);
        if (woken_.exchange(false)) sink.woken();
        const bool accepts_last = shuffled && net_.dice.chance(500);
        if (!accepts_last) accept(sink);
        // What an exception keeps from being delivered stays for the next wait().
        while (!batch_.empty()) {
            simulated::link& on = *batch_.front();
            batch_.pop_front();
            deliver(on, shuffled && net_.dice.chance(500), sink);
            list(on);
        }
        if (accepts_last) accept(sink);
    }

    template <class Sink>
    void accept(Sink& sink) {
        // By index: a sink may bind another one.
        // NOLINTNEXTLINE(modernize-loop-convert)
        for (std::size_t i = 0; i < listeners_.size(); ++i) accept(listeners_[i], sink);
    }

    template <class Sink>
    void accept(simulated::listener& from, Sink& sink) {
        constexpr int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
        for (std::size_t most = from.queue.size(); most != 0 && acceptable(from); --most) {
            if (in_use() >= net_.weather.socket_limit) return sink.accept_failed(from.id, EMFILE);
            if (net_.dice.chance(net_.weather.accept_failed_per_mille))
                return sink.accept_failed(from.id, errors[net_.dice.below(std::size(errors))]);
            simulated::link& on = *from.queue.front();
            from.queue.pop_front();
            if (net_.dice.chance(net_.weather.accept_aborted_per_mille)) {
                net_.server_close(on, close_mode::reset);
                continue;
            }
            if (from.armed == simulated::listener::arming::one)
                from.armed = simulated::listener::arming::paused;
            sink.accepted(from.id, give_number(on), on.client_address);
        }
    }

    template <class Sink>
    void deliver(simulated::link& on, bool send_first, Sink& sink) {
        if (on.server.close_over) return deliver_close(on, sink);
        // A send that reports the reset has taken the error away: receiving ended after that.
        if (on.server.sending.error != 0) send_first = true;
        if (send_first) deliver_send(on, sink);
        deliver_receive(on, sink);
        if (!send_first) deliver_send(on, sink);
    }

    template <class Sink>
    void deliver_close(simulated::link& on, Sink& sink) {
        const connection_id id = forget(on);
        const simulated::flight given_up = std::exchange(on.server.sending, {});
        const held_until_end pins{lent_, given_up.pins};
        check_unchanged(id, given_up);
        sink.closed(id);
    }

    template <class Sink>
    void deliver_send(simulated::link& on, Sink& sink) {
        simulated::server_side& at = on.server;
        if (at.is != simulated::server_side::phase::open) return;
        if (at.sending.is == simulated::flight::phase::landed) {
            const simulated::flight sent = std::exchange(at.sending, {});
            const held_until_end pins{lent_, sent.pins};
            check_unchanged(at.id, sent);
            sink.sent(at.id, sent.taken, sent.error);
        } else if (at.blocked == simulated::server_side::blocking::over) {
            at.blocked = simulated::server_side::blocking::none;
            sink.writable(at.id);
        }
    }

    template <class Sink>
    void deliver_receive(simulated::link& on, Sink& sink) {
        simulated::server_side& at = on.server;
        if (reset_behind_end(on)) {
            ++net_.progress;
            return sink.failed(at.id, std::exchange(at.error, 0));
        }
        const bool more = net_.dice.chance(net_.weather.more_receives_per_mille);
        for (bool first = true; (first || more) && receivable(on) && on.up.unread() != 0;
             first = false) {
            const std::size_t most =
                std::max<std::size_t>(std::min(receive_size_, net_.weather.receive_max), 1);
            const std::uint64_t here = (at.paused ? at.under_way : on.up.arrived()) - on.up.read();
            const std::size_t count = std::min(static_cast<std::size_t>(here), most);
            simulated::lent_block& block = lent_.lend(on.up.front(count));
            const lent_until_end loan{lent_, block};
            net_.server_take(on, count);
            sink.received(at.id, bytes{block.data.get(), block.size});
        }
        if (!receivable(on) || on.up.unread() != 0) return;
        at.received_last = true;
        ++net_.progress;
        // A reset that a send has reported already reads as the end, as it does from Linux.
        if (at.error == 0)
            sink.ended(at.id);
        else
            sink.failed(at.id, std::exchange(at.error, 0));
    }

    std::size_t receive_size_;
    bool ipv6_only_;
    bool listeners_closed_ = false;
    bool waiting_ = false;
    std::atomic<bool> woken_{false};
    std::deque<simulated::listener> listeners_;
    std::deque<simulated::link*> batch_;
    std::uint64_t progress_seen_ = 0;
    std::uint64_t idle_waits_ = 0;
};

static_assert(engine<simulated_engine>);

}  // namespace tcp::inline v0_1
