// What a server has counted since it was made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <tcp/close_reason.hpp>

namespace tcp::inline v0_1 {

/// Why a connection that was accepted got no handler and was reset.
enum class refused_by : unsigned char {
    stopping,          // the server had begun to stop or drain
    handler_failed,    // the handler could not be made, or there was no memory for the connection
    connection_limit,  // options::max_connections
    address_limit,     // options::max_connections_per_address
    admission,         // options::admit said no
};
inline constexpr std::size_t refused_by_count = 5;

/// Why, as a few words: "connection limit". Valid for ever.
constexpr std::string_view to_text(refused_by by) noexcept {
    switch (by) {
        case refused_by::stopping: return "stopping";
        case refused_by::handler_failed: return "handler failed";
        case refused_by::connection_limit: return "connection limit";
        case refused_by::address_limit: return "address limit";
        case refused_by::admission: return "admission";
    }
    return "unknown";
}

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
    std::uint64_t closed_by[closed_by_count] = {};    // closed, by tcp::closed_by
    std::uint64_t refused_by[refused_by_count] = {};  // refused, by tcp::refused_by
};

}  // namespace tcp::inline v0_1
