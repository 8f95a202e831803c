// Input and output of one loop with io_uring(7): requests are written down, and one system call
// hands over all of a batch, does the work that is due and waits for the next.
//
// A receive is asked for once (multishot) and completes for each piece that comes, in a buffer that
// the kernel takes when there is something to put into it. A send leaves from where the bytes are,
// the buffer that they were received into if the handler sends them back, and that buffer is the
// kernel's again afterwards.
//
//   receive ──► completion ──► received event ──► send(): asked for ──► completion ──► sent event
//      │
//      ├─ no buffer was free, or the kernel stops for its own reasons: asked for again
//      └─ 0 or an errno: ended or failed
//
// A send never waits in the kernel (MSG_DONTWAIT): it is over when the system call that hands it
// over returns. One that finds no room is asked for again when a poll says that there is some. So
// nothing that lies in a request of the kernel's is lost when it is cancelled, and a loop may go on
// on another thread, with another ring. What comes alone, twice in a row, is answered with send(2):
// the completion of a request would end the wait that hands it over, and the thread could not sleep
// before the next. A busy loop waits for several messages (coalescing.hpp).
//
// Of a connection that fills a buffer and has more, more would be received than its handler is
// ready for, in small pieces: it is received with recv(2) into one large buffer, when a poll says
// that something came, until less comes again. So is one of which the kernel said that there is
// more and did not show it, while it stands at urgent data.
//
// A socket is closed when the kernel has nothing to do for it any more: with a request in it,
// close(2) would send no FIN.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include <tcp/detail/clock.hpp>
#include <tcp/detail/connected_socket.hpp>
#include <tcp/detail/listeners.hpp>
#include <tcp/detail/receive_buffer.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/io_uring/direct_requests.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>
#include <tcp/engine/io_uring/receive_buffers.hpp>
#include <tcp/engine/io_uring/state.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1 {

/// Models tcp::engine. Needs Linux 6.1 or later, and that nobody forbids io_uring.
class io_uring_engine : public detail::listeners, private detail::io_uring::direct_requests {
    using completion = detail::io_uring::completion;
    using op = detail::io_uring::op;
    using state = detail::io_uring::state;

public:
    static constexpr const char* name = "io_uring";
    static constexpr bool puts_off = true;

    /// Throws std::system_error where io_uring cannot be had, std::bad_alloc when there is no
    /// memory. options::direct_descriptors does nothing where they cannot be had, or the caller
    /// knows why not.
    [[gnu::cold]] explicit io_uring_engine(const options& settings, std::error_code not_direct = {})
        : listeners{settings},
          direct_requests{settings, not_direct},
          buffer_{settings.receive_buffer} {}
    [[gnu::cold]] ~io_uring_engine() {
        for (std::size_t i = 0; i != states_.size(); ++i)
            if (states_[i].fd >= 0 && !states_[i].in_table) ::close(states_[i].fd);
    }

    using direct_requests::chosen;
    using direct_requests::not_direct;

    // ---- accepting ----

    int arm_accept(listener_id id, accept_mode mode) {
        listener_state& l = listeners_[id];
        l.one = mode == accept_mode::one;
        if (l.armed) return 0;
        try {
            polls_.grow_to(id);
        } catch (const std::bad_alloc&) {
            return ENOMEM;
        }
        l.armed = true;
        polls_[id].fd = l.socket.get();
        ask_for_clients(id);
        return 0;
    }

    void pause_accept(listener_id id) {
        if (!std::exchange(listeners_[id].armed, false)) return;
        if (std::exchange(polls_[id].asked, false)) cancel({id, polls_[id].number}, op::accept);
    }

    template <engine_sink Sink>
    void accept_now(listener_id id, Sink& sink) {
        accept_some(id, sink, *this);
    }

    [[gnu::cold]] void close_listeners() {
        for (listener_id id = 0; id != listener_count_; ++id) {
            pause_accept(id);
            listeners_[id].socket.close();
        }
        end_accept_polls();  // a socket in which the kernel has a request goes on listening
    }

    // ---- connections ----

    int open(connection_id id, int socket) {
        try {
            if (id.slot > most_slots) throw std::bad_alloc{};
            states_.grow_to(id.slot);
        } catch (const std::bad_alloc&) {
            refuse(socket);
            return ENOMEM;
        }
        if (ring_.is_of_another_process()) submit_now();  // what is there now it shares, this not
        state& c = states_[id.slot] = state{socket, id.generation};
        if (table_.is_open()) put_into_table(id, c);
        ask_for_data(id, c);
        coalescing_.came(id.slot);
        return 0;
    }

    void refuse(int socket) { detail::close_with_reset(socket); }

    void pause_receive(connection_id id) {
        state& c = states_[id.slot];
        c.clear(receiving);
        if ((c.flags & (receive_asked | receive_cancelled)) == receive_asked) {
            c.set(receive_cancelled);
            cancel(id, op::receive);
        }
    }

    void resume_receive(connection_id id) {
        state& c = states_[id.slot];
        if (c.has(over)) return;
        c.set(receiving);
        if ((c.flags & (receive_asked | readable_asked)) == 0) ask_for_data(id, c);
    }

    send_outcome send(connection_id id, std::span<const bytes> pieces) {
        state& c = states_[id.slot];
        if (c.has(full)) return {.is = send_outcome::state::blocked};
        const bool by_itself = pieces.size() == 1 && pieces[0].size() <= most_in_a_request;
        const int socket = !c.in_table ? c.fd : id == borrower_ ? borrowed_ : -1;
        if (!by_itself || (socket >= 0 && (c.has(bulk) || std::exchange(is_alone_, false))))
            return send_now(id, c, socket, pieces);
        const bool shown = lies_in_shown(pieces[0]);
        if (shown && shown_is_held_) return send_now(id, c, socket, pieces);
        ask_to_send(id, c, pieces[0]);
        if (shown) c.sends_from = shown_id_;  // behind that, which may have changed the ring
        shown_is_held_ = shown_is_held_ || shown;
        return {.is = send_outcome::state::in_flight};
    }

    void shutdown_send(connection_id id) {
        state& c = states_[id.slot];
        if (c.in_table) return shutdown_in_table(id, c);
        ::shutdown(c.fd, SHUT_WR);
    }

    bool close(connection_id id, close_mode mode) {
        state& c = states_[id.slot];
        c.clear(receiving);
        // A reset would be one for the parent of this process, too.
        const bool shared = c.shared || ring_.is_of_another_process();
        if (mode == close_mode::reset && !shared) c.set(reset);
        if (!c.has(asked)) {
            close_now(c);
            return true;
        }
        // At once, and not when the kernel has let go: the loop may not be run until then.
        if (c.has(reset) && !c.in_table) detail::reset_now(c.fd);
        c.set(closing);
        if (c.has(sending)) withdraw(key_of(id, op::send));
        if ((c.flags & (receive_asked | receive_cancelled)) == receive_asked)
            cancel(id, op::receive);
        if (c.has(readable_asked)) cancel(id, op::readable);
        if (c.has(room_asked)) cancel(id, op::room);
        if (c.has(watched)) cancel(id, op::watch);
        return false;
    }

    endpoint local_endpoint(connection_id id) {
        return detail::local_endpoint_of(descriptor_of(states_[id.slot]).get());
    }
    endpoint remote_endpoint(connection_id id) {
        return detail::remote_endpoint_of(descriptor_of(states_[id.slot]).get());
    }
    int descriptor(connection_id id) const noexcept {
        return states_[id.slot].in_table ? -1 : states_[id.slot].fd;
    }
    duration since_taken(connection_id id) {
        return detail::since_taken(descriptor_of(states_[id.slot]).get());
    }

    // ---- time and waiting ----

    duration now() const { return detail::monotonic_now(); }
    void wake() noexcept { wakeup_.wake(); }

    void submit() noexcept {
        if (ring_.has_requests()) submit_now();
    }

    template <engine_sink Sink>
    void wait(duration timeout, Sink& sink) {
        if (timeout > duration{} && settings_.spin > duration{})
            timeout = look_before_sleeping(timeout, settings_.spin);
        if (ring_.has_completions() || moved_) timeout = {};
        bulk_before_ = std::exchange(bulk_now_, 0);
        const bool coalesces = coalescing_.longest() > duration{} && ring_.sleeps_until_enough();
        const auto how = enter(timeout, coalesces ? coalescing_.wanted() : 0);
        is_alone_ = std::exchange(came_alone_, !ring_.has_completions(2)) && came_alone_;
        const auto now_there = [&](const completion& one) { deliver(one, sink); };
        if (moved_) [[unlikely]] {
            former_.each_completion(now_there);
            former_ = {};
            moved_ = false;
        }
        ring_.each_completion(now_there);
        if (promised_ != connection_id{}) promise_is_broken();
        if (coalesces) coalescing_.batch_is_over(how);
        if (!ring_.is_of_another_process()) buffers_.publish();
    }

private:
    static constexpr int most_in_a_row = 4;
    static constexpr std::uint32_t most_slots = 0xff'ffff;
    static constexpr std::size_t most_in_a_request = detail::io_uring::receive_buffers::most_size;

    // ---- what came ----

    template <class Sink>
    void deliver(const completion& one, Sink& sink) {
        const op what = detail::io_uring::op_of(one.user_data);
        const connection_id id = detail::io_uring::id_of(one.user_data);
        if (promised_ != connection_id{} && (what != op::receive || id != promised_)) [[unlikely]]
            promise_is_broken();
        if (what == op::receive) return received(id, one, sink);
        if (what == op::send) return sent(id, one.result, sink);
        if (what == op::readable) return is_readable(id, states_[id.slot], sink);
        happened(what, id, one, sink);
    }

    template <class Sink>
    void received(connection_id id, const completion& one, Sink& sink) {
        state& c = states_[id.slot];
        if (one.result > 0) coalescing_.came(id.slot);
        const bool goes_on = (one.flags & detail::io_uring::more_to_come) != 0;
        const bool promises = (one.flags & detail::io_uring::socket_has_more) != 0;
        promised_ = goes_on && promises ? id : connection_id{};
        if (!goes_on) {
            c.clear(receive_asked);
            c.clear(receive_cancelled);
        }
        if ((one.flags & detail::io_uring::has_buffer) != 0) {
            shown_id_ = static_cast<buffer_id>(one.flags >> detail::io_uring::buffer_shift);
            if (one.result > 0 && !c.has(closing)) {
                shown_ = buffers_.filled(shown_id_, static_cast<std::size_t>(one.result));
                sink.received(id, shown_);
                shown_ = {};
                if (promises && one.result == static_cast<std::int32_t>(buffers_.size()))
                    becomes_bulk(id, c);
            }
            if (!std::exchange(shown_is_held_, false)) give_back(shown_id_);
            shown_id_ = no_buffer;
        }
        if (one.result > 0 && c.has(closing) && !c.shared) c.set(reset);  // unread, as in close(2)
        if (one.result <= 0 && !c.has(closing)) received_nothing(id, c, -one.result, sink);
        if (!goes_on) settle(id, c, sink);
    }

    /// What a completion says the socket has more is in the next one, unless a signal came at
    /// urgent data (tcp_recvmsg()). Where nothing was received before it, that leaves no trace.
    [[gnu::cold, gnu::noinline]] void promise_is_broken() {
        const connection_id id = std::exchange(promised_, {});
        state& c = states_[id.slot];
        if (!c.is(id) || c.has(closing) || ring_.is_of_another_process()) return;
        if (::sockatmark(descriptor_of(c).get()) == 1) becomes_bulk(id, c);
    }

    [[gnu::noinline]] void becomes_bulk(connection_id id, state& c) {
        if (!c.is(id) || c.has(closing)) return;
        c.set(bulk);
        c.much_came();
        if ((c.flags & (receive_asked | receive_cancelled)) != receive_asked) return;
        c.set(receive_cancelled);
        cancel(id, op::receive);
    }

    template <class Sink>
    [[gnu::noinline]] void is_readable(connection_id id, state& c, Sink& sink) {
        c.clear(readable_asked);
        if (!c.has(receiving)) return settle(id, c, sink);
        const own_descriptor socket = descriptor_of(c);
        if (socket.get() < 0) {  // there is none left: in small pieces then
            c.clear(bulk);
            return settle(id, c, sink);
        }
        const struct loan {
            connection_id& borrower;
            ~loan() { borrower = {}; }
        } until_here{borrower_};
        borrower_ = id;
        borrowed_ = socket.get();
        // Where several fill it, what follows is still warm in the processor's cache.
        const bool alone = ++bulk_now_ + bulk_before_ < 3;
        for (int left = alone ? 1 : most_in_a_row; left != 0 && c.is(id) && c.has(receiving);
             --left) {
            const ssize_t n = ::recv(socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
            if (n <= 0) {
                received_nothing(id, c, n == 0 ? 0 : errno, sink);
                break;
            }
            const std::size_t size = static_cast<std::size_t>(n);
            sink.received(id, buffer_.first(size));
            if (!c.is(id)) break;
            note_size(c, size, socket.get());
            if (size != buffer_.size()) break;
        }
        settle(id, c, sink);
    }

    /// Behind the event: what is sent in it from the common buffer leaves at once while it is bulk.
    /// At urgent data it stays that.
    void note_size(state& c, std::size_t size, int socket) noexcept {
        if (size >= buffers_.size())
            c.much_came();
        else if (c.little_came() && ::sockatmark(socket) != 1)
            c.clear(bulk);
    }

    template <class Sink>
    [[gnu::cold, gnu::noinline]] void received_nothing(connection_id id, state& c, int error,
                                                       Sink& sink) {
        if (error == ENOBUFS || error == ECANCELED || error == EINTR || error == EAGAIN) return;
        coalescing_.came(id.slot);
        c.clear(receiving);
        c.set(over);
        if (error != 0) return sink.failed(id, error);
        sink.ended(id);
        if (c.is(id) && !c.has(closing)) poll_edges(id, c, op::watch, watched, 0);
    }

    template <class Sink>
    void sent(connection_id id, int result, Sink& sink) {
        state& c = states_[id.slot];
        c.clear(sending);
        sent_from_ = std::exchange(c.sends_from, no_buffer);
        if (!c.has(closing)) {
            const bool none = result == -EAGAIN || result == -EINTR;
            if (result == -EAGAIN) wait_for_room(id, c);
            const int error = result < 0 && !none ? -result : 0;
            sink.sent(id, result < 0 ? 0 : static_cast<std::size_t>(result), error);
        }
        if (sent_from_ != no_buffer) give_back(std::exchange(sent_from_, no_buffer));
        if (c.has(closing)) settle(id, c, sink);
    }

    template <class Sink>
    [[gnu::cold, gnu::noinline]] void happened(op what, connection_id id, const completion& one,
                                               Sink& sink) {
        if (what == op::nothing || what == op::call) return;  // nobody waits for it any more
        if (what == op::install) return came_late(one.result);
        if (what == op::accept) return has_clients(id.slot, id.generation, sink);
        if (what == op::wake) {
            if ((one.flags & detail::io_uring::more_to_come) == 0) ask_for_wakes();
            return;
        }
        state& c = states_[id.slot];
        if (!c.is(id)) return;
        if ((one.flags & detail::io_uring::more_to_come) == 0)
            c.clear(what == op::room ? room_asked : what == op::watch ? watched : settles);
        const int events = one.result > 0 ? one.result : 0;
        if ((what == op::room || what == op::settle) && !c.has(closing)) {
            const bool room = what == op::settle || (events & (POLLOUT | POLLERR | POLLHUP)) != 0;
            if (c.has(full) && room) {
                c.clear(full);
                sink.writable(id);
            }
            if (c.is(id) && c.has(full)) poll_edges(id, c, op::room, room_asked, POLLOUT);
        } else if (what == op::watch && !c.has(closing) && !c.has(broken) &&
                   (events & POLLERR) != 0) {
            c.set(broken);
            sink.failed(id, detail::error_of(descriptor_of(c).get()));
        } else if (what == op::watch && !c.has(closing) && !c.has(broken) && events != 0) {
            poll_edges(id, c, op::watch, watched, 0);  // where completions were many it ended
        }
        settle(id, c, sink);
    }

    /// After an event: what was waiting for it.
    template <class Sink>
    void settle(connection_id id, state& c, Sink& sink) {
        if (!c.is(id)) return;
        if (c.has(closing)) {
            if (c.has(asked)) return;
            close_now(c);
            return sink.closed(id);
        }
        if (c.has(receiving) && (c.flags & (receive_asked | readable_asked)) == 0)
            ask_for_data(id, c);
    }

    template <class Sink>
    void has_clients(listener_id id, std::uint32_t number, Sink& sink) {
        --accept_polls_;
        if (!polls_[id].asked || polls_[id].number != number) return;
        polls_[id].asked = false;
        accept_some(id, sink, *this);
        if (listeners_[id].armed && !polls_[id].asked) ask_for_clients(id);
    }

    // ---- sending and closing ----

    [[gnu::noinline]] send_outcome send_now(connection_id id, state& c, int socket,
                                            std::span<const bytes> pieces) {
        const send_outcome outcome =
            socket >= 0 ? detail::send_pieces(socket, pieces) : send_message(id, c, pieces);
        if (outcome.is == send_outcome::state::blocked) wait_for_room(id, c);
        return outcome;
    }

    bool lies_in_shown(bytes piece) const noexcept {
        return piece.data() >= shown_.data() && piece.data() < shown_.data() + shown_.size();
    }

    detail::receive_buffer buffer_;  // of bulk connections
    bytes shown_;                    // in a received event: what lies in the buffer shown_id_
    bool shown_is_held_ = false;
    bool came_alone_ = false;        // what came last
    bool is_alone_ = false;          // ... and what came before it, and it was not answered yet
    connection_id borrower_;         // in a received event of bulk: has the descriptor below
    int borrowed_ = -1;              // ... from the table or not
    connection_id promised_;         // the completion before said that there is more of it
    std::uint32_t bulk_now_ = 0;     // those received of in this batch
    std::uint32_t bulk_before_ = 0;  // ... and in the one before
};

static_assert(engine<io_uring_engine>);

}  // namespace tcp::inline v0_1
