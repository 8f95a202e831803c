// Input and output of one loop with epoll(7), edge-triggered.
//
// A descriptor is registered once, for everything, and never changed: pausing is a flag here. An
// edge says "something came since you last looked", so the engine remembers that there is something
// to read until a receive has emptied the socket. A connection that was not emptied waits in a list
// for its next turn: one that floods gets a buffer a turn, several that do get four each.
//
//   edge ──► readable ──► recv(): the whole buffer ──► still readable, to the end of the list
//                          │      less than that   ──► emptied: wait for the next edge
//                          │      0                ──► ended      (FIN)
//                          └─     error            ──► failed
//
// Less than the buffer means emptied, as epoll(7) says; but after a FIN, an error or urgent data
// (recv stops in front of it, tcp(7)), and on a unix-domain socket (recv stops at passed
// descriptors, unix(7)), only EAGAIN does.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <system_error>
#include <utility>

#include <tcp/detail/clock.hpp>
#include <tcp/detail/connected_socket.hpp>
#include <tcp/detail/listeners.hpp>
#include <tcp/detail/receive_buffer.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/epoll/epoll_set.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1 {

/// Models tcp::engine. It never finishes a send or a close later: both end in their return value.
class epoll_engine : public detail::listeners {
public:
    static constexpr const char* name = "epoll";
    static constexpr bool puts_off = false;

    /// Throws std::system_error when there are no descriptors, std::bad_alloc when there is no
    /// memory.
    [[gnu::cold]] explicit epoll_engine(const options& settings)
        : listeners{settings}, buffer_{settings.receive_buffer} {}
    epoll_engine(const epoll_engine&) = delete;
    epoll_engine& operator=(const epoll_engine&) = delete;
    [[gnu::cold]] ~epoll_engine() {
        for (std::size_t i = 0; i != states_.size(); ++i)
            if (states_[i].fd >= 0) ::close(states_[i].fd);
    }

    // ---- accepting ----

    [[gnu::cold]] int arm_accept(listener_id id, accept_mode mode) {
        listener_state& l = listeners_[id];
        l.one = mode == accept_mode::one;
        if (l.armed) return 0;
        // In a child of fork(2), wait() puts it into a set of the child's own.
        const int error = set_.is_of_another_process() ? 0 : watch_listener(id);
        l.armed = error == 0;
        return error;
    }

    void pause_accept(listener_id id) {
        listener_state& l = listeners_[id];
        if (std::exchange(l.armed, false) && !set_.is_of_another_process())
            set_.remove(l.socket.get());
    }

    template <engine_sink Sink>
    void accept_now(listener_id id, Sink& sink) {
        accept_some(id, sink, *this);
    }

    [[gnu::cold]] void close_listeners() {
        for (listener_id id = 0; id != listener_count_; ++id) {
            pause_accept(id);  // another copy of the descriptor would keep it in the set
            listeners_[id].socket.close();
        }
    }

    // ---- connections ----

    int open(connection_id id, int socket) {
        int error = ENOMEM;
        try {
            const bool forked = set_.is_of_another_process();  // then wait() adds it to another one
            if (forked) note_shared();
            if (id.slot < none) {
                states_.grow_to(id.slot);
                error = forked ? 0 : set_.add(socket, all_edges, key_of(id));
            }
        } catch (const std::bad_alloc&) {  // that is what it says already
        }
        if (error != 0) {
            refuse(socket);
            return error;
        }
        state& c = states_[id.slot];  // it may stand in the ready list still, of its last life
        c.fd = socket;
        c.generation = id.generation;
        c.flags = (c.flags & in_list) | receiving;
        if (has_local_ && detail::is_local(socket)) c.flags |= local | doubtful;
        return 0;
    }

    void refuse(int socket) { detail::close_with_reset(socket); }

    void pause_receive(connection_id id) { states_[id.slot].clear(receiving); }

    void resume_receive(connection_id id) {
        state& c = states_[id.slot];
        if (c.has(over)) return;
        c.flags |= receiving;
        if (c.has(readable)) wait_for_turn(id.slot, c);
    }

    [[gnu::always_inline]] send_outcome send(connection_id id, std::span<const bytes> pieces) {
        state& c = states_[id.slot];
        if (pieces.size() != 1) return noted(c, detail::send_pieces(c.fd, pieces));
        const ssize_t n = ::send(c.fd, pieces[0].data(), pieces[0].size(), MSG_NOSIGNAL);
        if (n == static_cast<ssize_t>(pieces[0].size())) [[likely]]
            return {.taken = pieces[0].size()};
        return noted(c, detail::fell_short(n, errno));
    }

    void shutdown_send(connection_id id) { ::shutdown(states_[id.slot].fd, SHUT_WR); }

    bool close(connection_id id, close_mode mode) {
        state& c = states_[id.slot];
        if (mode == close_mode::reset && !is_shared(id)) detail::reset_on_close(c.fd);
        c.flags = c.flags & in_list;
        ::close(std::exchange(c.fd, -1));  // which takes it out of the epoll set
        return true;
    }

    endpoint local_endpoint(connection_id id) const {
        return detail::local_endpoint_of(states_[id.slot].fd);
    }
    endpoint remote_endpoint(connection_id id) const {
        return detail::remote_endpoint_of(states_[id.slot].fd);
    }
    int descriptor(connection_id id) const noexcept { return states_[id.slot].fd; }
    duration since_taken(connection_id id) const {
        return detail::since_taken(states_[id.slot].fd);
    }

    // ---- time and waiting ----

    duration now() const { return detail::monotonic_now(); }
    void wake() noexcept { set_.wake(); }

    void submit() noexcept {}

    template <engine_sink Sink>
    void wait(duration timeout, Sink& sink) {
        if (set_.is_of_another_process()) [[unlikely]]
            move_to_this_process();
        epoll_event events[most_events];
        const std::uint32_t last_ready = last_ready_;
        if (last_ready != none) timeout = {};
        const int count = timeout > duration{} && settings_.spin > duration{}
                              ? look_before_sleeping(events, timeout)
                              : set_.wait(events, timeout);
        for (const epoll_event* event = events; event < events + count; ++event) {
            const connection_id id = id_of(*event);
            if (id.slot >= wake_slot) [[unlikely]] {
                if (id.slot == listener_slot) accept_some(id.generation, sink, *this);
                continue;
            }
            state& c = states_[id.slot];
            if (event->events == (EPOLLIN | EPOLLOUT) && c.generation == id.generation &&
                c.flags == receiving) [[likely]]
                receive(*event, c, sink);
            else
                happened(id, c, event->events, sink);
        }
        if (last_ready != none) take_turns(last_ready, sink);
    }

private:
    enum flag : std::uint8_t {
        receiving = 1,  // open, not paused, not over
        readable = 2,   // not emptied since the last edge
        in_list = 4,    // waits for its turn to receive
        doubtful = 8,   // only EAGAIN says that it is empty
        local = 16,     // a unix-domain socket: always doubtful
        over = 32,      // there is no more to receive
        blocked = 64,   // a send waits for room
        failing = 128,  // there was an EPOLLERR
    };

    struct state {
        int fd = -1;
        std::uint32_t generation = 0;
        std::uint32_t flags : 8 = 0;
        std::uint32_t next_ready : 24 = none;  // one word: each idle connection has it

        bool has(flag f) const noexcept { return (flags & f) != 0; }
        void clear(flag f) noexcept { flags = flags & ~f & 0xffU; }
    };

    static constexpr std::uint32_t none = 0xff'ffff;            // so many connections at most
    static constexpr std::uint32_t listener_slot = UINT32_MAX;  // keys of what is no connection
    static constexpr std::uint32_t wake_slot = listener_slot - 1;
    static constexpr int most_events = 512;
    static constexpr int most_in_a_row = 4;

    static constexpr std::uint64_t key_of(connection_id id) noexcept {
        return std::uint64_t{id.generation} << 32 | id.slot;
    }
    static connection_id id_of(const epoll_event& event) noexcept {
        const std::uint64_t key = event.data.u64;
        return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
    }

    static constexpr std::uint32_t all_edges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;

    int watch_listener(listener_id id) noexcept {
        return set_.add(listeners_[id].socket.get(), EPOLLIN | EPOLLEXCLUSIVE,
                        key_of({listener_slot, id}));
    }

    /// In the child of fork(2): what was armed before, in a set of its own. Throws
    /// std::system_error when there are no descriptors or no memory.
    [[gnu::cold, gnu::noinline]] void move_to_this_process() {
        note_shared();
        set_.renew(key_of({wake_slot, 0}));
        int error = 0;
        for (listener_id id = 0; id != listener_count_ && error == 0; ++id)
            if (listeners_[id].armed) error = watch_listener(id);
        for (std::uint32_t slot = 0; slot != states_.size() && error == 0; ++slot) {
            const state& c = states_[slot];
            if (c.fd >= 0) error = set_.add(c.fd, all_edges, key_of({slot, c.generation}));
        }
        if (error != 0) detail::fail({error, std::system_category()}, "epoll_ctl");
        shared_noted_ = false;  // for a child of this one
    }

    /// In the child of fork(2), before it has anything of its own: which connections its parent
    /// has, too. Throws std::bad_alloc.
    [[gnu::cold, gnu::noinline]] void note_shared() {
        if (shared_noted_) return;
        if (states_.size() != 0) shared_.grow_to(states_.size() - 1);
        for (std::uint32_t slot = 0; slot != states_.size(); ++slot)
            if (states_[slot].fd >= 0) shared_[slot] = states_[slot].generation;
        shared_noted_ = true;
    }

    /// Whether the parent of this process has the connection, too: a reset would be one for both.
    [[gnu::cold]] bool is_shared(connection_id id) const noexcept {
        return (set_.is_of_another_process() && !shared_noted_) ||
               (id.slot < shared_.size() && shared_[id.slot] == id.generation);
    }

    bool is(const state& c, connection_id id) const noexcept {
        return c.generation == id.generation && c.fd >= 0;
    }

    /// An event other than "bytes came".
    template <class Sink>
    [[gnu::cold, gnu::noinline]] void happened(connection_id id, state& c, std::uint32_t events,
                                               Sink& sink) {
        if (!is(c, id)) return;  // of an earlier connection in this slot
        constexpr std::uint32_t urgent = EPOLLPRI | EPOLLIN;
        if ((events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0 || (events & urgent) == urgent)
            c.flags |= doubtful;
        const bool was_over = c.has(over);
        if ((events & EPOLLERR) != 0) c.flags |= failing;
        if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
            c.flags |= readable;
            if (c.has(receiving) && !c.has(in_list)) receive_in_turn(id, c, sink);
        }
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && is(c, id) && c.has(blocked)) {
            c.clear(blocked);
            sink.writable(id);
        }
        // A reset after the FIN shows in no receive.
        if ((events & EPOLLERR) != 0 && was_over && is(c, id))
            sink.failed(id, detail::error_of(c.fd));
    }

    [[gnu::cold, gnu::noinline]] int look_before_sleeping(epoll_event (&events)[most_events],
                                                          duration timeout) {
        const duration begin = now();
        for (duration looked; looked < settings_.spin; looked = now() - begin) {
            if (const int count = set_.wait(events, {}); count != 0 || looked >= timeout)
                return count;
        }
        if (timeout == duration::max()) return set_.wait(events, timeout);
        const duration left = begin + timeout - now();
        return set_.wait(events, left > duration{} ? left : duration{});
    }

    /// In wait() this is compiled into the loop over the events, down to the handler and the send:
    /// a call in between would cost a tenth of the instructions of an echo. The id is read again
    /// behind the system call, which is cheaper than to keep it.
    template <class Sink>
    [[gnu::always_inline]] void receive(const epoll_event& event, state& c, Sink& sink) {
        const ssize_t n = ::recv(c.fd, buffer_.data(), buffer_.size(), 0);
        // In one comparison: nothing (0 and -1 wrap round), or a full buffer.
        const std::size_t size = static_cast<std::size_t>(n);
        if (size - 1 >= buffer_.size() - 1 || c.flags != receiving) [[unlikely]]
            return received_otherwise(id_of(event), c, n, sink);
        sink.received(id_of(event), buffer_.first(size));
    }

    /// Nothing, or something with perhaps more behind it: what follows a full buffer at once is
    /// still warm in the processor's cache. That is worth it among several that fill it; one that
    /// floods alone would only keep waiting those that send little.
    template <class Sink>
    [[gnu::noinline]] void received_otherwise(connection_id id, state& c, ssize_t n, Sink& sink) {
        for (int left = most_in_a_row;; --left) {
            if (n <= 0) return received_nothing(id, c, n, sink);
            const std::size_t size = static_cast<std::size_t>(n);
            const bool full = size == buffer_.size();
            if (full || c.has(doubtful))
                wait_for_turn(id.slot, c);
            else
                c.clear(readable);
            sink.received(id, buffer_.first(size));
            const bool alone = first_ready_ == last_ready_;
            if (!full || alone || left == 1 || !is(c, id) || !c.has(receiving)) return;
            n = ::recv(c.fd, buffer_.data(), buffer_.size(), 0);
        }
    }

    template <class Sink>
    [[gnu::noinline]] void receive_in_turn(connection_id id, state& c, Sink& sink) {
        const ssize_t n = ::recv(c.fd, buffer_.data(), buffer_.size(), 0);
        received_otherwise(id, c, n, sink);
    }

    template <class Sink>
    [[gnu::cold, gnu::noinline]] void received_nothing(connection_id id, state& c, ssize_t n,
                                                       Sink& sink) {
        if (n < 0 && errno == EINTR) return wait_for_turn(id.slot, c);
        c.clear(readable);
        if (n < 0 && errno == EAGAIN) {
            if (c.has(local) || !c.has(doubtful)) return;
            c.clear(doubtful);
            // A signal at urgent data reads as that too (tcp_recvmsg() of Linux). Urgent data
            // behind something that was lost is no such case: it comes without EPOLLIN.
            if (!c.has(failing)) set_.look_again(c.fd, all_edges, key_of(id));
            return;
        }
        c.clear(receiving);
        c.flags |= over;
        // A reset behind a FIN reads as the end (tcp_recvmsg() of Linux); its errno is elsewhere.
        const int error = n < 0 ? errno : c.has(failing) ? detail::error_of(c.fd) : 0;
        if (error == 0)
            sink.ended(id);
        else
            sink.failed(id, error);
    }

    void wait_for_turn(std::uint32_t slot, state& c) noexcept {
        c.flags |= readable;
        if (c.has(in_list)) return;
        c.flags |= in_list;
        c.next_ready = none;
        if (last_ready_ == none)
            first_ready_ = slot;
        else
            states_[last_ready_].next_ready = slot & none;
        last_ready_ = slot;
    }

    /// A receive for each connection that waits for its turn, up to and with this one.
    template <class Sink>
    [[gnu::noinline]] void take_turns(std::uint32_t last, Sink& sink) {
        for (std::uint32_t slot = none; slot != last;) {
            slot = first_ready_;
            state& c = states_[slot];
            first_ready_ = c.next_ready;
            if (slot == last_ready_) last_ready_ = none;
            c.clear(in_list);
            if (c.fd >= 0 && c.has(receiving) && c.has(readable))
                receive_in_turn({slot, c.generation}, c, sink);
        }
    }

    /// An edge will come when there is room: epoll(7).
    static send_outcome noted(state& c, send_outcome outcome) noexcept {
        if (outcome.is == send_outcome::state::blocked) c.flags |= blocked;
        return outcome;
    }

    detail::receive_buffer buffer_;
    detail::epoll_set set_{key_of({wake_slot, 0})};
    detail::slot_array<state, 256> states_;
    detail::slot_array<std::uint32_t, 256> shared_;  // by slot: the generation the parent has, too
    std::uint32_t first_ready_ = none;
    std::uint32_t last_ready_ = none;
    bool shared_noted_ = false;
};

static_assert(engine<epoll_engine>);

}  // namespace tcp::inline v0_1
