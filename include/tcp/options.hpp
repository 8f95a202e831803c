// What can be set about a server, as one aggregate: tcp::options{.high_mark = 1 << 20,
// .close_timeout = 2s}.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tcp/admission.hpp>
#include <tcp/duration.hpp>
#include <tcp/observer.hpp>

namespace tcp::inline v0_1 {

/// Sizes are bytes. What one connection takes of memory is bounded, how many there are and for how
/// long is not: a server that faces the internet wants max_connections,
/// max_connections_per_address, and idle_timeout or lifetime, too.
struct options {
    /// A connection whose send queue stands above this after a hook stops reading by itself. What
    /// is above send_queue_limit counts as that.
    std::size_t high_mark = 64 * 1024;

    /// It goes on reading, and on_writable is called, when its queue has fallen to this. Also where
    /// the system takes at once what a hook has queued above the high mark.
    std::size_t low_mark = 16 * 1024;

    /// A send that finds more than this in the queue ends the connection (tcp::limit::send_queue).
    /// It bounds what a handler can queue that sends without minding the high mark.
    std::size_t send_queue_limit = 64 * 1024 * 1024;

    /// The most that is kept of what an on_data that returns a count did not take
    /// (tcp::limit::receive). A message up to this is always shown in one piece; whether a larger
    /// one is depends on how it arrives.
    std::size_t receive_limit = 1024 * 1024;

    /// The most that one on_data is shown. One such buffer serves all connections of a loop; one
    /// that fills it lets others have their turn.
    std::size_t receive_buffer = 512 * 1024;

    /// How many loops run() serves with, each on a thread of its own; the first on the thread that
    /// calls run(). 0 is one for each processor that this thread may use. A connection stays on one
    /// loop, so its hooks never run at the same time; those of different connections do. A new
    /// connection goes to the loop with the fewest, so that a few long ones are spread evenly.
    /// run_for(), poll() and accept() serve on their own thread alone.
    std::size_t threads = 1;

    /// The most connections at a time. Who comes then is accepted and reset at once (RST), and
    /// counted (refused_by::connection_limit): it learns that the server is full, and who waits in
    /// the system's queue would not. SIZE_MAX is no limit but the system's descriptors, at which
    /// clients wait in the system's queue.
    std::size_t max_connections = SIZE_MAX;

    /// The most connections at a time from one address, refused in the same way
    /// (refused_by::address_limit). The addresses of one IPv6 network of 64 bits count as one, and
    /// so do all clients of a unix-domain socket.
    address_limit max_connections_per_address = {};

    /// Asked for each peer that connects, before a handler is made: a function
    /// `bool(const tcp::endpoint&)`, such as a tcp::access_list. Who is not let in is reset
    /// (refused_by::admission).
    admission admit = {};

    /// Told what the server does; null for nobody. It must outlive the server.
    tcp::observer* observer = nullptr;

    /// The most bytes that may wait to be sent to all connections together; what on_data did not
    /// take is not among them. Above it, a connection
    /// for which something waits stops reading until that has left; the others go on, so what waits
    /// may be more by what they are answered. Nothing is dropped and nobody is ended.
    std::size_t memory_limit = static_cast<std::size_t>(-1);

    /// How long behind close() the peer may take nothing of what is still queued, and then how long
    /// it may take to finish. One that goes on reading, however slowly, gets all of it; lifetime
    /// ends that, too. With something unsent then, the connection is reset (tcp::deadline::close);
    /// with everything sent, it is left to the system. After a send that failed: how long what the
    /// peer sent before may wait to be received.
    duration close_timeout = duration::milliseconds(5'000);

    /// The deadlines of a connection, of 12 days at most; duration::max() is none. What
    /// passes one ends with closed_by::deadline and its name in close_reason::passed, unless the
    /// handler has on_timeout, which decides. Never early, and late by two milliseconds and what
    /// the loop is busy with. Measured by the monotonic clock: setting the wall clock changes
    /// nothing.
    ///
    /// idle: nothing was received, and nothing of what was sent was taken. receive: nothing was
    /// received; the time in which receiving is paused does not count. send: something is queued,
    /// and the peer takes nothing. lifetime: since accept. Taken is what the system takes; where it
    /// has no room, what the peer's has taken (tcp(7), TCP_INFO), for it may read long before there
    /// is room again. Of a unix-domain socket that is not known.
    duration idle_timeout = duration::max();
    duration receive_timeout = duration::max();
    duration send_timeout = duration::max();
    duration lifetime = duration::max();

    /// Bytes a second. A peer that sends something, but in the five seconds from then on less than
    /// this, passes deadline::receive_rate: against those that drip to hold a connection. 0 is
    /// none. Not for protocols in which a peer may send little now and then.
    std::size_t min_receive_rate = 0;

    /// How long a loop with nothing to do looks for work before it sleeps. It then wakes up for the
    /// next message in a third of the time, and keeps its processor busy meanwhile: worth it for
    /// few connections whose answers are awaited, and a core to spare. 0 is not at all.
    duration spin = {};

    /// With io_uring: how long a loop that is busy for more than half of its time may let messages
    /// come together before it serves them. That saves processor time, up to two fifths with small
    /// messages; each message, each answer of another thread, and stop(), may come so much later.
    /// Within this time of a deadline or a timer it does not wait so. 0 is not at all, and so is
    /// any with `spin`, with fewer than 16 connections that talk, and before Linux 6.10.
    duration coalescing = duration::nanoseconds(200'000);

    /// With io_uring: connections have no descriptors of the process's but places in a table of
    /// each loop's own, as large as the process's limit (`ulimit -n`). So several loops hold
    /// several times as many connections as the limit allows. Messages of some kilobytes cost no
    /// more; opening a connection, shutdown_send(), asking for an endpoint, and each half megabyte
    /// of what comes at once cost two more system calls. A loop with connections stays on the
    /// thread that it first ran on: elsewhere, run() and its like throw, and a server that is
    /// destroyed there ends them with FIN even where something was unsent. In the child of fork(2)
    /// they end. Where the system does not have it, or is older than Linux 6.14, descriptors are
    /// used, and server::engine() says so.
    bool direct_descriptors = false;

    /// TCP_NODELAY: small sends leave at once (tcp(7)).
    bool no_delay = true;

    /// TCP keep-alive: when nothing came for this long the system asks the peer whether it is still
    /// there, and when no answer comes, to nine questions 75 seconds apart unless
    /// net.ipv4.tcp_keepalive_* says otherwise, the connection ends (closed_by::system_error,
    /// ETIMEDOUT). That also keeps a quiet client's place in the tables of a NAT. Rounded up to
    /// seconds, 9 hours at most; 0 and duration::max() are not at all. RFC 9293 3.8.4, tcp(7),
    /// TCP_KEEPIDLE.
    duration keep_alive = {};

    /// Listen on IPv6 endpoints for IPv6 alone (IPV6_V6ONLY, RFC 3493 5.3). A bare port then means
    /// IPv6 only.
    bool ipv6_only = false;

    /// Kernel buffers of each connection, SO_SNDBUF and SO_RCVBUF (socket(7)); 0 lets the kernel
    /// size them.
    int kernel_send_buffer = 0;
    int kernel_receive_buffer = 0;
};

}  // namespace tcp::inline v0_1
