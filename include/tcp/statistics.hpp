// What a server has counted since it was made.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tcp/close_reason.hpp>

namespace tcp::inline v0 {

/// A copy of a server's counters. Each is exact in itself; together they are a snapshot of a moment
/// only while the server does not run.
struct statistics {
    std::uint64_t accepted = 0;  // connections that got a handler, and so an on_open
    std::uint64_t refused = 0;   // connections that were accepted and closed before on_open
    std::uint64_t open = 0;      // connections between on_open and on_close
    std::uint64_t closed = 0;    // connections whose on_close was called
    std::uint64_t bytes_received = 0;
    std::uint64_t bytes_sent = 0;  // taken by the system
    std::uint64_t accept_errors = 0;
    std::uint64_t pauses = 0;    // times a connection stopped reading because of its high mark
    std::uint64_t timeouts = 0;  // deadlines that passed, those that on_timeout spared included
    std::uint64_t closed_by[closed_by_count] = {};  // closed, by tcp::closed_by
};

}  // namespace tcp::inline v0
