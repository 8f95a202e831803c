// What an engine is: the input and output of one loop. The loop decides, an engine only carries
// out, and neither knows the other's type: the loop takes the engine as a parameter, the engine is
// handed a sink.
//
// The life of a connection inside an engine:
//
//   accepted event, with a socket
//      │                 refuse(socket): gone, with a reset; no further event
//      ▼
//   open(id, socket)     from here on its name is id: slot and generation, never a descriptor
//      │
//      ├─ received, ended, failed    while receiving is not paused; behind ended only failed, when
//      │                             it is reset, paused or not; behind failed nothing
//      ├─ send() ── done ──────────  finished in the return value; there is no event
//      │         ├─ blocked ──────►  one writable event, when send() is worth calling again
//      │         └─ in_flight ────►  one sent event; the pieces stay in place until then
//      ▼
//   close(id) ── true ─────────────  closed in the return value; there is no event
//             └─ false ───────────►  one closed event, after every operation in flight was reaped
//
// Rules:
//   * An operation ends either in its return value or in one event, never in both.
//   * Nothing is delivered for a connection after its closed event, or after close() returned true.
//     After close() returned false only closed is delivered. An id whose generation is not the
//     current one is dropped.
//   * Engines never re-enter the loop: events are delivered from wait() alone, those of accepting
//     from accept_now(), too. The loop may call any function of the engine from inside an event.
//   * The bytes of a received event belong to the engine. They stay in place until the event
//     returns; those among them that were handed to a send() that is in flight stay until its sent
//     event returns.
//   * An engine waits only in wait(), and only wake() may be called from another thread or a signal
//     handler.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include <tcp/bytes.hpp>
#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>

namespace tcp::inline v0_1 {

/// The name of a connection in its loop. A slot is used again; its generation is then another.
struct connection_id {
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
    friend constexpr bool operator==(connection_id, connection_id) noexcept = default;
};

/// One listening socket of an engine, in the order of bind().
using listener_id = std::uint32_t;

/// How many connections arm_accept() asks for.
enum class accept_mode : unsigned char { one, many };

/// How close() ends a connection: its descriptor closed (FIN, RST if input is unread), or reset
/// (RST, output dropped).
enum class close_mode : unsigned char { graceful, reset };

/// What send() says.
struct send_outcome {
    enum class state : unsigned char { done, blocked, in_flight, failed };
    state is = state::done;
    int error = 0;  // errno, when failed
    std::size_t taken =
        0;  // bytes the system took now: the first of the pieces; 0 when in_flight or failed
};

/// What an engine delivers its events to: the loop.
template <class S>
concept engine_sink = requires(S& sink, listener_id listener, int socket, const endpoint& peer,
                               connection_id id, bytes data, std::size_t count, int error) {
    sink.accepted(listener, socket,
                  peer);  // the socket is the sink's to open() or refuse(); after accept_mode::one
                          // the listener is paused
    sink.accept_failed(
        listener, error);  // an errno of accept(2), passing or not; accepting goes on until paused
    sink.received(id, data);  // never empty
    sink.ended(id);           // the peer has finished sending
    sink.failed(id, error);   // receiving ended with this errno
    sink.writable(id);        // after a blocked send
    sink.sent(id, count,
              error);  // the send in flight ended: so many bytes were taken; error is 0 or errno
    sink.closed(id);   // after a close() that returned false
    sink.woken();      // after wake(), or not: that only ends wait(); several wakes may become one
};

namespace detail {
/// A sink that does nothing, to state the concept of an engine with.
struct null_sink {
    void accepted(listener_id, int, const endpoint&) noexcept {}
    void accept_failed(listener_id, int) noexcept {}
    void received(connection_id, bytes) noexcept {}
    void ended(connection_id) noexcept {}
    void failed(connection_id, int) noexcept {}
    void writable(connection_id) noexcept {}
    void sent(connection_id, std::size_t, int) noexcept {}
    void closed(connection_id) noexcept {}
    void woken() noexcept {}
};
}  // namespace detail

/// The input and output of one loop.
template <class E>
concept engine = requires(E& e, const E& fixed, const endpoint& where, listener_id listener,
                          int socket, int backlog, connection_id id, std::span<const bytes> pieces,
                          close_mode close, accept_mode accept, duration timeout,
                          detail::null_sink& sink, std::error_code& failure) {
    { E::name } -> std::convertible_to<const char*>;

    // Whether what is asked for begins as late as in wait() or submit(), whichever comes first.
    { E::puts_off } -> std::convertible_to<bool>;

    // Listeners. bind() may be called for several endpoints, each gives the next listener_id, and
    // unbind() takes back those from this one on, before listen(); listen() is called once for
    // each. bound() gives the endpoint again. adopt() does the same with a socket that is bound
    // already, perhaps listens, and belongs to the engine from then on. share() gives a second
    // descriptor of a listener's socket, for another engine to adopt(), and leaves the first as it
    // is. Nothing is accepted before arm_accept(), which
    // gives 0, or the errno that kept it from arming.
    { e.bind(where, failure) } -> std::same_as<endpoint>;
    { e.adopt(socket, failure) } -> std::same_as<endpoint>;
    { e.share(listener, failure) } -> std::same_as<int>;
    { e.keep_file(listener) } -> std::same_as<void>;
    { fixed.bound(listener) } -> std::same_as<endpoint>;
    { e.unbind(listener) } -> std::same_as<void>;
    { e.listen(listener, backlog, failure) } -> std::same_as<void>;
    { e.arm_accept(listener, accept) } -> std::same_as<int>;
    { e.pause_accept(listener) } -> std::same_as<void>;
    {
        e.accept_now(listener, sink)
        }
        -> std::same_as<void>;  // of one that is armed: some of those that wait, outside of wait()
    { e.close_listeners() } -> std::same_as<void>;

    // Connections. Receiving is armed by open(). The ids must name an open connection.
    {
        e.open(id, socket)
        } -> std::same_as<int>;  // 0, or the errno that kept it from opening: the socket is closed
    { e.refuse(socket) } -> std::same_as<void>;
    {
        e.pause_receive(id)
        } -> std::same_as<void>;  // an event that was under way may still come: the loop keeps it
    { e.resume_receive(id) } -> std::same_as<void>;
    {
        e.send(id, pieces)
        } -> std::same_as<send_outcome>;  // not while one is in flight; at least one byte
    {
        e.shutdown_send(id)
        } -> std::same_as<void>;  // FIN, after what was taken; not while one is in flight
    { e.close(id, close) } -> std::same_as<bool>;
    {
        e.local_endpoint(id)
        } -> std::same_as<endpoint>;  // empty where the system does not know it (any more)
    { e.remote_endpoint(id) } -> std::same_as<endpoint>;
    { fixed.descriptor(id) } -> std::same_as<int>;  // -1 where there is none
    {
        e.since_taken(id)
        } -> std::same_as<duration>;  // how long ago the peer last took some of what was sent, as
                                      // far as the system knows: max() where it does not

    // Time and waiting. now() is monotonic and never goes back. wait() delivers what is there, or
    // waits until something is or the timeout (at least 0) has passed; it may return early with
    // nothing. submit() is called when the loop is left and no wait() follows.
    { fixed.now() } -> std::same_as<duration>;
    { e.wake() }
    noexcept;
    { e.wait(timeout, sink) } -> std::same_as<void>;
    { e.submit() }
    noexcept;
};

}  // namespace tcp::inline v0_1
