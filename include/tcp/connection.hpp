// What a handler is given: one peer, to send to and to end.
//
// A connection never calls the engine. It queues and remembers what was asked of it, and its loop
// carries that out as soon as the hook returns, or, for a connection other than the one whose hook
// it is, at the end of the batch.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/detail/intrusive_list.hpp>
#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>
#include <tcp/loop/deadlines.hpp>
#include <tcp/loop/kept_bytes.hpp>
#include <tcp/loop/loop_context.hpp>
#include <tcp/loop/send_queue.hpp>
#include <tcp/shared_bytes.hpp>

namespace tcp::inline v0_1 {

// A compiler shows the line of what is declared here alone, and so which header was forgotten.
namespace detail {
template <class Handler, class Engine>
class connection_driver;
template <class Handler, class Engine>
class connection_hooks;
template <class Engine>
class connection_io;
template <class Handler>
class connection_table;
class conversation;
class sent_since;
struct receive_request;          // #include <tcp/task.hpp>
struct receive_exactly_request;  // #include <tcp/task.hpp>
struct receive_until_request;    // #include <tcp/task.hpp>
struct sleep_request;            // #include <tcp/task.hpp>
}  // namespace detail

class connection_handle;  // #include <tcp/connection_handle.hpp>
class group;              // #include <tcp/group.hpp>
class timer;              // #include <tcp/timer.hpp>

/// Whether what was sent is on its way. It converts to bool; error() says why not.
class send_result {
public:
    constexpr send_result() noexcept = default;
    constexpr explicit send_result(tcp::error why) noexcept : error_{why} {}

    constexpr explicit operator bool() const noexcept { return error_ == tcp::error{}; }
    std::error_code error() const noexcept {
        return *this ? std::error_code{} : make_error_code(error_);
    }

private:
    tcp::error error_{};
};

/// One peer. It lives from before on_open until on_close returns; a reference to it must not be
/// kept longer. Every function is for the thread of its loop, inside a hook.
class connection : private detail::tagged_node<detail::touched>, private detail::timer_node {
public:
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;

    /// Queues these bytes behind what was sent before; they leave when the hook returns. Any number
    /// of sends, in order, never interleaved. The bytes are the caller's again when this returns:
    /// what lies in the data that the running on_data was shown is sent from there, everything else
    /// is copied. Nothing is sent, and the result says so, after close(), abort() or
    /// shutdown_send(), in on_close, and when the peer is gone. Throws std::bad_alloc.
    send_result send(bytes data) {
        if (flags_ == in_use && queue_.empty() && loop_->current == this && loop_->lend_first(data))
            [[likely]]
            return {};
        return send_slowly(data);
    }
    send_result send(std::string_view text) { return send(as_bytes(text)); }
    /// The same of a text that ends with a NUL, which is not sent; not null.
    send_result send(const char* text) { return send(std::string_view{text}); }

    /// The same, and takes the string over: a long one is not copied.
    send_result send(std::string&& text);

    /// The same, and only points at the bytes: many connections send what stands in memory once.
    /// Fewer than 512 are copied, which is less than what remembers them.
    send_result send(const shared_bytes& data);

    /// Bytes that were sent and that the system has not taken yet.
    std::size_t send_queue_size() const noexcept { return queue_.size() + lent().size(); }

    /// Whether a handler that has more to send should go on: it can send, and its queue is not
    /// above options::high_mark. After a hook that saw this false, on_writable or on_close follows:
    ///
    ///     while (peer.writable() && has_more()) peer.send(next_piece());
    bool writable() const noexcept { return (flags_ & no_send) == 0 && !above_high_mark(); }

    /// Ends the connection in order: what is queued is sent, as long as the peer takes some of it
    /// within each options::close_timeout, then FIN; then the peer has that long to finish too.
    /// What it still sends is dropped. on_data is not called again; on_close is, at the end. RFC
    /// 9293 3.6. Doing it twice is doing it once.
    void close() noexcept { end(closed_by::handler_closed, close_wanted); }

    /// Ends the connection at once: the queue is dropped and the peer sees a reset (RST). RFC 9293
    /// 3.10.5.
    void abort() noexcept { end(closed_by::handler_aborted, reset_now); }

    /// Finishes sending: what is queued is sent, then FIN. The peer's data still comes.
    /// shutdown(2), SHUT_WR. When both sides have finished the connection ends.
    void shutdown_send() noexcept {
        flags_ |= shutdown_wanted;
        touch();
    }

    /// No on_data and no on_end until resume_receive(); what the peer sends waits in the kernel,
    /// which stops the peer when its buffer is full. A reset is seen after resuming too. Pausing
    /// twice is pausing once.
    void pause_receive() noexcept {
        flags_ |= user_paused;
        touch();
    }

    /// Receiving goes on. What an on_data that returns a count had left is shown again at once.
    void resume_receive() noexcept {
        if ((flags_ & user_paused) == 0) return;
        flags_ = (flags_ & ~user_paused) | show_kept;
        touch();
    }

    /// Bytes that an on_data that returns a count has left. In on_end: what is missing its rest.
    std::size_t unread_size() const noexcept { return kept_.size(); }

    /// Whether resume_receive() is called for. Pauses at the high mark do not count.
    bool receive_paused() const noexcept { return (flags_ & user_paused) != 0; }

    /// The endpoint of this side, and of the peer. Asked of the system (getsockname(2),
    /// getpeername(2)), not stored: empty when the system no longer knows, as in on_close after
    /// both sides have finished. In on_open the peer is always known.
    endpoint local_endpoint() const {
        return loop_->endpoint_of(*this, detail::loop_context::side::local);
    }
    endpoint remote_endpoint() const {
        return loop_->endpoint_of(*this, detail::loop_context::side::remote);
    }

    /// The descriptor of the connection's socket, for what this library does not do itself:
    /// setsockopt(2), TCP_INFO (tcp(7)), SO_PEERCRED (unix(7)). It is only lent, valid until
    /// on_close: closing it, or reading or writing past the library, breaks the connection. -1
    /// where there is none: in on_close, with options::direct_descriptors, in a simulation.
    int native_handle() const {
        return (flags_ & finished) != 0 ? -1 : loop_->descriptor_of(*this);
    }

    /// A name for this connection that other threads may use, and that may be kept when the
    /// connection is over. In on_close it names nobody already. In <tcp/connection_handle.hpp>.
    /// Throws std::bad_alloc, the first time on each loop.
    connection_handle handle();

    // ---- in coroutines, with <tcp/task.hpp> ----
    //
    // For co_await, in the coroutine of this connection and the tasks that it awaits; anywhere else
    // it throws std::system_error (std::errc::invalid_argument). Each gives a tcp::received: bytes
    // that are valid until the next co_await, or how receiving ended. A reset gives the system's
    // error, everything else that ends the connection std::errc::connection_aborted. Receiving
    // after pause_receive() resumes it. `co_await peer.send(...)` sends at once and gives the
    // send_result; where this connection's queue, to whichever one sends, is above the high mark
    // then, it waits until that has fallen to the low mark.
    //
    // `co_await peer.receive().within(5s)`, and the same of the other receives, gives up when
    // nothing, or not all, has come for so long: error::timed_out, nothing was taken, and the next
    // receive gives what has come. Never early, and late by two milliseconds and what the loop is
    // busy with; a length of 0 or less is the next millisecond. What is there already is given at
    // once. Where the connection ends, or closes since a receive is asked for again behind its end,
    // that is what is told, and the time has no say.

    /// Waits for bytes and gives all that are there. The peer's end gives none and no error; a
    /// receive after that one closes the connection.
    detail::receive_request receive() noexcept;

    /// Waits for so many bytes and gives these. error::receive_limit, at once, for more than
    /// options::receive_limit; error::incomplete when the peer finishes before: what came of them
    /// is there for a receive() that follows at once.
    detail::receive_exactly_request receive_exactly(std::size_t size) noexcept;

    /// Waits for a delimiter and gives the bytes up to its end. The delimiter must live until then.
    /// error::receive_limit when it does not end within `limit` bytes, or within
    /// options::receive_limit: nothing was taken then, and other receives go on.
    /// error::incomplete as above. Each call looks at each byte once, however they arrive.
    detail::receive_until_request receive_until(
        std::string_view delimiter, std::size_t limit = static_cast<std::size_t>(-1)) noexcept;

    /// Waits for so long; a length of 0 or less is the next millisecond. Gives true, or false as
    /// soon as the connection ends. What the peer sends meanwhile waits for the next receive, and
    /// so does its FIN, and behind unread bytes its reset. Never early, and late by two
    /// milliseconds and what the loop is busy with.
    detail::sleep_request sleep_for(duration length) noexcept;

protected:
    connection() noexcept : timer_node{kind::deadlines} {}
    ~connection() = default;

private:
    template <class Handler, class Engine>
    friend class detail::connection_driver;
    template <class Handler, class Engine>
    friend class detail::connection_hooks;
    template <class Engine>
    friend class detail::connection_io;
    template <class Handler>
    friend class detail::connection_table;
    friend class connection_handle;
    friend class group;
    friend class timer;
    friend class detail::conversation;
    friend class detail::sent_since;

    // The state of a connection is the set of what has happened to it; none of these: open, both
    // ways.
    //
    //   open ──► on_open ──► on_data ... ──► on_end ──────► both sides done ──────────┐
    //              │            │              │            (or no on_end: close)     ▼
    //              └── close() ─┴──────────────┴─► close_wanted ─► fin_sent ──► finished (on_close)
    //              └── abort(), a throw, a limit ─► abort_wanted ─────────────────────▲
    enum flag : std::uint32_t {
        user_paused = 1 << 0,
        mark_paused = 1 << 1,    // above the high mark; until the low one
        engine_paused = 1 << 2,  // what the engine was told
        show_kept = 1 << 3,      // resumed: show what was kept
        peer_done = 1 << 4,      // the peer's FIN came
        end_unseen = 1 << 5,     // ... or its failure, while paused: the handler does not know yet
        shutdown_wanted = 1 << 6,
        close_wanted = 1 << 7,
        abort_wanted = 1 << 8,  // on_close next
        fin_sent = 1 << 9,
        send_failed = 1 << 10,   // nothing leaves any more; what was received is still shown
        send_blocked = 1 << 11,  // the engine says when to go on
        send_in_flight = 1 << 12,
        finished = 1 << 13,      // on_close was called
        reset_wanted = 1 << 14,  // RST, not FIN
        in_use = 1 << 15,        // this slot holds a connection
        close_timed = 1 << 16,   // its close deadline has begun
        send_timed = 1 << 17,    // its send deadline has begun
        awaits_room = 1 << 18,   // on_writable when the queue is not above the high mark
        timed = 1 << 19,         // there are deadlines besides that of closing
        reset_now = abort_wanted | reset_wanted,
        no_send = shutdown_wanted | close_wanted | abort_wanted | send_failed | finished,
    };

    bool above_high_mark() const noexcept { return send_queue_size() > loop_->high_mark; }

    bytes lent() const noexcept { return loop_->current == this ? loop_->lent : bytes{}; }

    // The connection whose hook is running is looked after when that hook returns.
    void touch() noexcept {
        if (loop_->current != this && !loop_->touched_ones.contains(*this))
            loop_->touched_ones.push_back(*this);
    }

    // The first reason stays; but a reset replaces a close that is not done yet.
    [[gnu::noinline]] void end(closed_by by, std::uint32_t how) noexcept {
        if ((flags_ & finished) != 0) return;
        std::uint32_t settled = abort_wanted | send_failed;
        if ((how & reset_wanted) == 0) settled |= close_wanted;
        if ((flags_ & settled) == 0) reason_ = by;
        flags_ |= how;
        touch();
    }

    // The sends after the lent bytes come behind them.
    [[gnu::noinline]] void own_lent() {
        if (const bytes data = lent(); !data.empty()) {
            queue_.append(loop_->pool, data);
            loop_->lent = {};
        }
    }

    send_result send_slowly(bytes data);
    template <class Holder>
    send_result send_held(bytes data, Holder&& holder);

    // Of handles and groups, outside of hooks. False when it does not send any more.
    template <class Data>
    [[gnu::cold]] bool send_or_end(const Data& data) noexcept {
        try {
            return static_cast<bool>(send(data));
        } catch (...) {  // a hole in what it sends would be worse
            errno_ = ENOMEM;
            end(closed_by::system_error, reset_now);
            return false;
        }
    }

    error may_queue() noexcept {
        if ((flags_ & no_send) != 0) return error::not_open;
        if (send_queue_size() <= loop_->send_queue_limit) return {};
        end_at_send_queue_limit();
        return error::send_queue_limit;
    }
    [[gnu::cold]] void end_at_send_queue_limit() noexcept {
        end(closed_by::limit, reset_now);
        which_ = static_cast<unsigned char>(limit::send_queue);
    }

    // The smallest come last: a small handler has its place in the same word.
    detail::loop_context* loop_ = nullptr;
    detail::send_queue queue_;
    detail::kept_bytes kept_;
    std::uint32_t slot_ = 0;
    detail::atomic<std::uint32_t> generation_{1};  // odd; even from on_close on
    std::uint32_t flags_ = 0;
    detail::connection_clock clock_;
    std::int16_t errno_ = 0;  // what ended receiving or sending
    closed_by reason_ : 4 = {};
    unsigned char which_ : 4 = 0;  // the deadline or the limit, where that is the reason
};

[[gnu::noinline]] inline send_result connection::send_slowly(bytes data) {
    if (const auto why = may_queue(); why != error{}) return send_result{why};
    if (data.empty()) return {};
    if (loop_->current != this) {
        queue_.append(loop_->pool, data);
        touch();
        return {};
    }
    if (loop_->lend_first(data) || loop_->lend_next(data)) return {};
    own_lent();
    queue_.append(loop_->pool, data);
    return {};
}

inline send_result connection::send(std::string&& text) {
    return send_held(as_bytes(text), std::move(text));
}
inline send_result connection::send(const shared_bytes& data) {
    return send_held(data.view(), shared_bytes{data});
}

template <class Holder>
[[gnu::noinline]] inline send_result connection::send_held(bytes data, Holder&& holder) {
    if (const auto why = may_queue(); why != error{}) return send_result{why};
    if (data.empty()) return {};
    own_lent();
    queue_.append_held(loop_->pool, data, std::forward<Holder>(holder));
    touch();
    return {};
}

}  // namespace tcp::inline v0_1
