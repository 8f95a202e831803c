// What the kernel has been asked for, connection by connection, so that it can be asked again.
#pragma once

#include <poll.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/detail/wakeup.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>
#include <tcp/engine/io_uring/receive_buffers.hpp>
#include <tcp/engine/io_uring/ring.hpp>
#include <tcp/engine/io_uring/state.hpp>

namespace tcp::inline v0::detail::io_uring {

/// The lower half of the io_uring engine: a ring, and the states of all connections. Closing a ring
/// interrupts, once, a system call of each thread that has made or used it (EINTR).
class requests : protected state_flags {
public:
    requests(const requests&) = delete;
    requests& operator=(const requests&) = delete;

protected:
    /// Throws std::system_error where io_uring cannot be had.
    [[gnu::cold]] explicit requests(std::size_t receive_buffer) {
        int error = ring_.open();
        if (error == 0) error = buffers_.open(ring_, receive_buffer);
        if (error != 0)
            fail({error, std::system_category()},
                 "io_uring_setup; use tcp::epoll_engine where io_uring is switched off "
                 "(kernel.io_uring_disabled, a seccomp filter) or the kernel is older than Linux "
                 "6.1");
        ask_for_wakes();
    }
    ~requests() = default;

    submission& ask(operation what, int fd, std::uint64_t key) {
        if (ring_.full()) [[unlikely]]
            make_room();
        return ring_.ask(what, fd, key);
    }

    [[gnu::cold, gnu::noinline]] void submit_now() noexcept {
        buffers_.publish();
        if (ring_.enter({}) != EEXIST) return;
        try {
            move_to_this_thread();
        } catch (const std::system_error&) {  // wait() will say so
        }
    }

    void ask_for_data(connection_id id, state& c) {
        if (c.has(bulk)) return poll(id, c, op::data, data_asked, POLLIN, 0);
        submission& one = ask(operation::receive, c.fd, key_of(id, op::receive));
        one.flags = take_provided_buffer;
        one.priority = receive_again_and_again;
        one.buffer_group = receive_buffers::group;
        c.set(receive_asked);
        c.clear(receive_cancelled);
    }

    void poll(connection_id id, state& c, op what, flag f, std::uint32_t events,
              std::uint32_t how_often) {
        submission& one = ask(operation::poll_add, c.fd, key_of(id, what));
        one.operation_flags = events;
        one.length = how_often;
        c.set(f);
    }
    // Once it is asked for it stays: each edge is a completion. Once only would be at once after
    // the peer's FIN, which counts as something to tell, again and again.
    void poll_edges(connection_id id, state& c, op what, flag f, std::uint32_t events) {
        if (!c.has(f)) poll(id, c, what, f, events, poll_again_and_again);
    }

    void ask_to_send(connection_id id, state& c, bytes data) {
        submission& one = ask(operation::send, c.fd, key_of(id, op::send));
        one.address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(data.data()));
        one.length = static_cast<std::uint32_t>(data.size());
        one.operation_flags = MSG_NOSIGNAL | MSG_DONTWAIT;
        c.set(sending);
    }

    void cancel(connection_id id, op what) {
        submission& one = ask(operation::cancel, -1, key_of(id, op::nothing));
        one.flags = no_completion_of_success;
        one.address = key_of(id, what);
    }

    // A poll, not an accept: that would take who connects while accepting is being paused, and does
    // not say from where.
    void ask_for_clients(listener_id id) {
        polls_[id].asked = true;
        const connection_id number{id, ++polls_[id].number};
        ask(operation::poll_add, polls_[id].fd, key_of(number, op::accept)).operation_flags =
            POLLIN | poll_exclusively;
    }

    void ask_for_wakes() {
        submission& one = ask(operation::poll_add, wakeup_.fd(), key_of({}, op::wake));
        one.operation_flags = POLLIN;
        one.length = poll_again_and_again;
    }

    /// Takes back a send that has not been handed over yet.
    [[gnu::cold, gnu::noinline]] void drop_send(connection_id id) {
        ring_.each_request([&](submission& one) {
            if (one.user_data == key_of(id, op::send)) one.what = operation::nothing;
        });
    }

    /// A ring belongs to the thread that used it first. The old one goes with all that was asked of
    /// it, and the same is asked of a new one. What had come there is delivered by the next wait().
    /// Throws std::system_error when there are no descriptors or no memory.
    [[gnu::cold, gnu::noinline]] void move_to_this_thread() {
        io_uring::ring fresh;
        int error = fresh.open();
        if (error == 0) error = buffers_.offer_to(fresh, buffers_in_use());
        if (error != 0) fail({error, std::system_category()}, "io_uring_setup");
        former_ = std::move(ring_);
        ring_ = std::move(fresh);
        moved_ = true;
        former_.look_at_completions([&](const completion& one) { note_ended(one); });
        former_.each_request([&](const submission& one) {  // not handed over yet
            if (one.what == operation::send) ask(one.what, one.fd, one.user_data) = one;
        });
        ask_for_wakes();
        for (listener_id id = 0; id != polls_.size(); ++id)
            if (polls_[id].asked) ask_for_clients(id);
        for (std::size_t i = 0; i != states_.size(); ++i) ask_again(states_[i], i);
        ring_.enter({});
    }

    io_uring::ring ring_;
    io_uring::ring former_;  // of another thread, until what came there is delivered
    bool moved_ = false;
    receive_buffers buffers_;
    wakeup wakeup_;
    slot_array<state, 256> states_;
    slot_array<listener_poll, 4> polls_;
    std::uint16_t shown_id_ = no_buffer;  // in a received event: what it shows

private:
    [[gnu::cold, gnu::noinline]] void make_room() {
        submit_now();
        if (ring_.full()) fail({ENOMEM, std::system_category()}, "io_uring_enter");
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
        return used;
    }

    /// It need not be asked for again: its completion is there.
    void note_ended(const completion& one) {
        const connection_id id = id_of(one.user_data);
        const op what = op_of(one.user_data);
        if ((one.flags & more_to_come) != 0) return;
        if (what == op::receive) states_[id.slot].clear(receive_asked);
        if (what == op::data) states_[id.slot].clear(data_asked);
        if (what == op::room) states_[id.slot].clear(room_asked);
        if (what == op::watch) states_[id.slot].clear(watched);
    }

    void ask_again(state& c, std::size_t slot) {
        if (c.fd < 0) return;
        const connection_id id{static_cast<std::uint32_t>(slot), c.generation};
        const std::uint16_t before = c.flags;
        constexpr unsigned gone =
            receive_asked | receive_cancelled | data_asked | room_asked | watched;
        c.flags = static_cast<std::uint16_t>(c.flags & ~gone);
        if (c.has(closing)) {
            ask(operation::nothing, -1, key_of(id, op::settle));
            return c.set(settles);
        }
        if ((before & (receive_asked | data_asked)) != 0 && c.has(receiving)) ask_for_data(id, c);
        if ((before & room_asked) != 0) poll_edges(id, c, op::room, room_asked, POLLOUT);
        if ((before & watched) != 0) poll_edges(id, c, op::watch, watched, 0);
    }
};

}  // namespace tcp::inline v0::detail::io_uring
