// What the kernel has been asked for, connection by connection, so that it can be asked again.
#pragma once

#include <poll.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/detail/clock.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/detail/wakeup.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/io_uring/coalescing.hpp>
#include <tcp/engine/io_uring/descriptor_table.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>
#include <tcp/engine/io_uring/receive_buffers.hpp>
#include <tcp/engine/io_uring/ring.hpp>
#include <tcp/engine/io_uring/state.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// The lower half of the io_uring engine: a ring, and the states of all connections. Closing a ring
/// interrupts, once, a system call of each thread that has made or used it (EINTR).
class requests : protected state_flags {
public:
    requests(const requests&) = delete;
    requests& operator=(const requests&) = delete;

protected:
    /// Throws std::system_error where io_uring cannot be had.
    [[gnu::cold]] explicit requests(const options& settings)
        : coalescing_{settings.spin > duration{} ? duration{} : settings.coalescing} {
        int error = ring_.open();
        if (error == 0) error = buffers_.open(ring_, settings.receive_buffer);
        if (error != 0)
            fail({error, std::system_category()},
                 "io_uring_setup; use tcp::epoll_engine where io_uring is switched off "
                 "(kernel.io_uring_disabled, a seccomp filter) or the kernel is older than Linux "
                 "6.1; raise the limit of locked memory (`ulimit -l`) where memory is refused");
        ask_for_wakes();
    }
    ~requests() = default;

    submission& ask(operation what, int fd, std::uint64_t key) {
        need_room();
        return ring_.ask(what, fd, key);
    }

    /// The same of a connection.
    submission& ask(operation what, connection_id id, const state& c, op about) {
        need_room();  // on another ring it may be another descriptor
        submission& one = ring_.ask(what, c.fd, key_of(id, about));
        if (c.in_table) one.flags = registered_file;
        return one;
    }

    /// What keeps it from being submitted now stays asked for: wait() heeds it.
    [[gnu::cold, gnu::noinline]] void submit_now() noexcept {
        if (!ring_.is_of_another_process()) buffers_.publish();
        const int error = ring_.enter({});
        if (error == EBADR) lost_ = error;
        if (is_lack_of_memory(error)) ring_.wait_alone({});
        if (error != EEXIST || moved_ || is_bound_to_its_thread()) return;
        try {
            move_to_this_thread();
        } catch (const std::exception&) {}
    }

    void ask_for_data(connection_id id, state& c) {
        if (c.has(bulk)) return poll(id, c, op::readable, readable_asked, POLLIN, 0);
        submission& one = ask(operation::receive, id, c, op::receive);
        one.flags |= take_provided_buffer;
        one.priority = receive_again_and_again;
        one.buffer_group = receive_buffers::group;
        c.set(receive_asked);
        c.clear(receive_cancelled);
    }

    void poll(connection_id id, state& c, op what, flag f, std::uint32_t events,
              std::uint32_t how_often) {
        submission& one = ask(operation::poll_add, id, c, what);
        one.operation_flags = poll_mask(events);
        one.length = how_often;
        c.set(f);
    }
    // Once it is asked for it stays: each edge is a completion. Asked for anew each time it would
    // complete at once behind the peer's FIN, which counts as something to tell.
    void poll_edges(connection_id id, state& c, op what, flag f, std::uint32_t events) {
        if (!c.has(f)) poll(id, c, what, f, events, poll_again_and_again);
    }

    void wait_for_room(connection_id id, state& c) {
        c.set(full);
        poll_edges(id, c, op::room, room_asked, POLLOUT);
    }

    void ask_to_send(connection_id id, state& c, bytes data) {
        submission& one = ask(operation::send, id, c, op::send);
        one.address = address_of(data.data());
        one.length = static_cast<std::uint32_t>(data.size());
        one.operation_flags = MSG_NOSIGNAL | MSG_DONTWAIT;
        c.set(sending);
        ++sends_;
    }

    /// Of a ring of another process the kernel has them: a ring of its own is offered all.
    void give_back(buffer_id id) noexcept {
        if (!ring_.is_of_another_process()) buffers_.give_back(id);
    }

    void cancel(connection_id id, op what) noexcept {
        try {
            submission& one = ask(operation::cancel, -1, key_of(id, op::nothing));
            one.flags = no_completion_of_success;
            one.address = key_of(id, what);
        } catch (const std::bad_alloc&) {  // what it should end would never end
            lost_ = ENOMEM;
        }
    }

    // A poll, not an accept: that would take who connects while accepting is being paused, and does
    // not say from where. Not an exclusive one: who waits for that is woken alone, and a loop that
    // is busy, or not run any more, would keep a client from all others.
    void ask_for_clients(listener_id id) {
        polls_[id].asked = true;
        const connection_id number{id, ++polls_[id].number};
        ask(operation::poll_add, polls_[id].fd, key_of(number, op::accept)).operation_flags =
            poll_mask(POLLIN);
        ++accept_polls_;
    }

    void ask_for_wakes() {
        submission& one = ask(operation::poll_add, wakeup_.fd(), key_of({}, op::wake));
        one.operation_flags = poll_mask(POLLIN);
        one.length = poll_again_and_again;
    }

    /// Takes back what has not been handed over yet.
    [[gnu::cold, gnu::noinline]] void withdraw(std::uint64_t key) {
        if (ring_.is_of_another_process()) return;
        ring_.each_request([&](submission& one) {
            if (one.user_data != key) return;
            one = {};
            one.fd = -1;
            if (op_of(key) == op::send) one.user_data = key;  // nothing was sent
        });
    }

    /// Waits until no listening socket is held by a poll that was taken back: with each call the
    /// kernel does a part of what is to be done.
    [[gnu::cold, gnu::noinline]] void end_accept_polls() noexcept {
        for (int left = 1000; left != 0; --left) {
            submit_now();
            unsigned ended = 0;
            ring_.look_at_completions(
                [&](const completion& one) { ended += op_of(one.user_data) == op::accept; });
            if (ended >= accept_polls_) return;
        }
    }

    /// Hands over what was asked for and waits, for so many messages where it may: on a ring of
    /// this thread where the other was another's. Throws std::system_error where it cannot go on.
    coalescing::wait enter(duration timeout, std::uint32_t several) {
        const std::uint32_t sends =
            std::exchange(sends_, 0);  // completed when they are handed over
        if (timeout < coalescing_.longest()) several = 0;
        several = coalescing::with_buffers(several, sends, receive_buffers::count);
        const std::uint32_t least = several == 0 ? 1 : sends + several;
        if (several != 0) timeout = coalescing_.longest();
        const int error = lost_ != 0 ? lost_ : ring_.enter(timeout, least);
        if (error != 0) [[unlikely]]
            heed(error);
        else
            refusals_ = 0;
        if (several == 0 || error == EINTR) return coalescing::wait::for_any;
        const std::uint32_t enough = several < coalescing::enough ? several : coalescing::enough;
        return ring_.has_completions(sends + enough) ? coalescing::wait::paid
                                                     : coalescing::wait::in_vain;
    }

    /// A ring belongs to the thread that used it first. The old one goes with all that was asked of
    /// it. Of a new one is asked what the states say that the kernel has; sends that were not
    /// handed over yet are copied, and what had come to the old one is delivered by the next wait()
    /// (former_). In the child of fork(2) the old one is the parent's, and nothing of it counts: a
    /// send that was under way has failed, since the parent may have sent it. Connections in its
    /// table cannot be had from there: they end. Throws std::system_error when there are no
    /// descriptors or no memory.
    [[gnu::cold, gnu::noinline]] void move_to_this_thread() {
        io_uring::ring fresh;
        int error = fresh.open();
        const bool forked = ring_.is_of_another_process();
        if (forked) {
            ring_.forget();
            for (std::size_t i = 0; i != states_.size(); ++i) states_[i].sends_from = no_buffer;
        }
        if (error == 0) error = buffers_.offer_to(fresh, buffers_in_use());
        if (error == 0 && table_.is_open()) table_.open(fresh);  // or descriptors from now on
        if (error != 0) fail({error, std::system_category()}, "io_uring_setup");
        former_ = std::move(ring_);
        ring_ = std::move(fresh);
        moved_ = true;
        coalescing_ = coalescing{coalescing_.longest()};  // the clock of a thread is in it
        accept_polls_ = 0;
        former_.look_at_completions([&](const completion& one) { note_ended(one); });
        former_.each_request([&](const submission& one) {  // not handed over yet
            if (op_of(one.user_data) == op::send) ask(one.what, one.fd, one.user_data) = one;
        });
        ask_for_wakes();
        for (listener_id id = 0; id != polls_.size(); ++id)
            if (polls_[id].asked) ask_for_clients(id);
        for (std::size_t i = 0; i != states_.size(); ++i) ask_again(states_[i], i, forked);
        ring_.enter({});
    }

    /// Looks for completions for so long. How much of the timeout is left.
    [[gnu::cold, gnu::noinline]] duration look_before_sleeping(duration timeout, duration length) {
        const duration begin = monotonic_now();
        duration looked;
        for (; looked < length; looked = monotonic_now() - begin)
            if (looked >= timeout || ring_.enter({}) != 0 || ring_.has_completions()) return {};
        if (timeout == duration::max()) return timeout;
        return looked < timeout ? timeout - looked : duration{};
    }

    io_uring::ring ring_;
    io_uring::ring former_;  // of another thread, until what came there is delivered
    bool moved_ = false;
    std::uint32_t sends_ = 0;  // asked for since it last waited
    coalescing coalescing_;
    int lost_ = 0;      // an errno: something will never be heard of, so it cannot go on
    int refusals_ = 0;  // in a row, for want of memory
    receive_buffers buffers_;
    descriptor_table table_;  // where options::direct_descriptors asks for it
    wakeup wakeup_;
    slot_array<state, 256> states_;
    slot_array<listener_poll, 4> polls_;
    unsigned accept_polls_ = 0;  // in the kernel, or their completions are still to be delivered
    buffer_id shown_id_ = no_buffer;   // in a received event: what it shows
    buffer_id sent_from_ = no_buffer;  // in a sent event: what it was sent from

private:
    static constexpr int no_descriptor = INT32_MAX;  // whatever is asked of it fails
    static constexpr int most_refusals = 1000;       // in a row: ten seconds

    void need_room() {
        if (ring_.full()) [[unlikely]]
            submit_now();
    }

    static bool is_lack_of_memory(int error) noexcept { return error == EAGAIN || error == EBUSY; }

    [[gnu::cold, gnu::noinline]] void heed(int error) {
        if (error == EEXIST) {
            if (is_bound_to_its_thread())
                fail({EEXIST, std::system_category()},
                     "io_uring: a loop with options::direct_descriptors has connections, so it "
                     "must go on on the thread that it began on");
            return move_to_this_thread();
        }
        if (error == EBADR)
            fail({ENOMEM, std::system_category()},
                 "io_uring_enter: for want of memory the kernel lost what it had to say");
        // While it has no memory for requests it does the work that is due, which gives back some.
        if (is_lack_of_memory(error) && ++refusals_ != most_refusals) {
            constexpr auto a_moment = duration::milliseconds(10);
            if (!ring_.has_completions() && is_lack_of_memory(ring_.wait_alone(a_moment)))
                sleep_for(a_moment);
            return;
        }
        if (error != ETIME && error != EINTR)
            fail({error, std::system_category()}, "io_uring_enter");
    }

    /// Those with something in them that has not been delivered, or is to be sent from there.
    receive_buffers::set buffers_in_use() {
        receive_buffers::set used{};
        ring_.look_at_completions([&](const completion& one) {
            if ((one.flags & has_buffer) != 0) used[one.flags >> buffer_shift] = true;
        });
        for (std::size_t i = 0; i != states_.size(); ++i)
            if (states_[i].sends_from != no_buffer) used[states_[i].sends_from] = true;
        if (shown_id_ != no_buffer) used[shown_id_] = true;
        if (sent_from_ != no_buffer) used[sent_from_] = true;
        return used;
    }

    /// It need not be asked for again: its completion is there.
    void note_ended(const completion& one) {
        const connection_id id = id_of(one.user_data);
        const op what = op_of(one.user_data);
        if ((one.flags & more_to_come) != 0) return;
        if (what == op::accept) ++accept_polls_;  // delivered later
        if (what == op::receive) states_[id.slot].clear(receive_asked);
        if (what == op::readable) states_[id.slot].clear(readable_asked);
        if (what == op::room) states_[id.slot].clear(room_asked);
        if (what == op::watch) states_[id.slot].clear(watched);
    }

    /// Connections in the table of the ring cannot be had from another.
    bool is_bound_to_its_thread() const noexcept {
        if (ring_.is_of_another_process()) return false;
        for (std::size_t i = 0; i != states_.size(); ++i)
            if (states_[i].in_table) return true;
        return false;
    }

    void ask_again(state& c, std::size_t slot, bool forked) {
        if (c.fd < 0) return;
        if (c.in_table) c.fd = no_descriptor;
        c.in_table = false;
        c.shared = c.shared || forked;
        const connection_id id{static_cast<std::uint32_t>(slot), c.generation};
        const std::uint16_t before = c.flags;
        constexpr unsigned gone =
            receive_asked | receive_cancelled | readable_asked | room_asked | watched;
        c.flags = static_cast<std::uint16_t>(c.flags & ~gone);
        if (c.has(closing)) {
            if (forked) c.clear(sending);
            ask(operation::nothing, -1, key_of(id, op::settle));
            return c.set(settles);
        }
        if (forked && c.has(sending)) ask(operation::send, no_descriptor, key_of(id, op::send));
        if ((before & (receive_asked | readable_asked)) != 0 && c.has(receiving))
            ask_for_data(id, c);
        if ((before & room_asked) != 0) poll_edges(id, c, op::room, room_asked, POLLOUT);
        if ((before & watched) != 0) poll_edges(id, c, op::watch, watched, 0);
    }
};

}  // namespace tcp::inline v0_1::detail::io_uring
