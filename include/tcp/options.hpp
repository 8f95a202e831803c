// What can be set about a server, as one aggregate: tcp::options{.high_mark = 1 << 20,
// .close_timeout = 2s}.
#pragma once

#include <cstddef>

#include <tcp/duration.hpp>

namespace tcp::inline v0 {

/// Sizes are bytes. The defaults are safe for a server that faces the internet.
struct options {
    /// A connection whose send queue stands above this after a hook stops reading by itself. What
    /// is above send_queue_limit counts as that.
    std::size_t high_mark = 64 * 1024;

    /// It goes on reading, and on_writable is called, when its queue has fallen to this.
    std::size_t low_mark = 16 * 1024;

    /// A send that finds more than this in the queue ends the connection (tcp::limit::send_queue).
    /// It bounds what a handler can queue that sends without minding the high mark.
    std::size_t send_queue_limit = 64 * 1024 * 1024;

    /// The most that is kept of what an on_data that returns a count did not take
    /// (tcp::limit::receive).
    std::size_t receive_limit = 1024 * 1024;

    /// The most that one on_data is shown. One such buffer serves all connections of a loop; one
    /// that fills it four times in a row lets others have their turn.
    std::size_t receive_buffer = 512 * 1024;

    /// How long after close() the queue may take to be sent, and the peer to finish. With something
    /// unsent then, the connection is reset (tcp::deadline::close); with everything sent, it is
    /// left to the system.
    duration close_timeout = duration::milliseconds(5'000);

    /// TCP_NODELAY: small sends leave at once (tcp(7)).
    bool no_delay = true;

    /// Listen on IPv6 endpoints for IPv6 alone (IPV6_V6ONLY, RFC 3493 5.3). A bare port then means
    /// IPv6 only.
    bool ipv6_only = false;

    /// Kernel buffers of each connection, SO_SNDBUF and SO_RCVBUF (socket(7)); 0 lets the kernel
    /// size them.
    int send_buffer = 0;
    int kernel_receive_buffer = 0;
};

}  // namespace tcp::inline v0
