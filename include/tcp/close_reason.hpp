// Who ended a connection, and why.
#pragma once

#include <cstddef>
#include <string_view>
#include <system_error>

#include <tcp/detail/platform.hpp>  // a compiler that lacks C++20 is told so first

namespace tcp::inline v0_1 {

/// Who or what ended a connection.
enum class closed_by : unsigned char {
    peer_finished,    // the peer finished sending, and all that was queued for it was sent
    peer_reset,       // the peer, or somebody between, reset the connection
    handler_closed,   // close() was called, and the queue was sent
    handler_aborted,  // abort() was called
    handler_threw,    // an exception left a hook
    deadline,         // a deadline passed: close_reason::passed says which
    limit,            // a limit was reached: close_reason::reached says which
    server_stopping,  // stop() was called, or the server was destroyed
    drain_deadline,   // drain() was called, and its deadline passed
    system_error,     // the system reported close_reason::error
};
inline constexpr std::size_t closed_by_count = 10;

/// Which deadline passed.
enum class deadline : unsigned char {
    none,
    close,         // options::close_timeout, with something still unsent
    idle,          // options::idle_timeout
    receive,       // options::receive_timeout
    send,          // options::send_timeout
    lifetime,      // options::lifetime
    receive_rate,  // options::min_receive_rate
};

/// Which limit was reached.
enum class limit : unsigned char {
    none,
    receive,     // options::receive_limit
    send_queue,  // options::send_queue_limit
};

/// How a connection ended. Given to on_close, and returned by server::accept().
struct close_reason {
    closed_by by = closed_by::peer_finished;
    deadline passed = deadline::none;
    limit reached = limit::none;
    std::error_code error = {};  // the system's, or the library's, where there was one
    std::size_t unsent = 0;      // bytes that were queued and that the system did not take
};

/// Who or what, as a few words without a number: "peer finished". Valid for ever.
constexpr std::string_view to_text(closed_by by) noexcept {
    switch (by) {
        case closed_by::peer_finished: return "peer finished";
        case closed_by::peer_reset: return "peer reset";
        case closed_by::handler_closed: return "closed by the handler";
        case closed_by::handler_aborted: return "aborted by the handler";
        case closed_by::handler_threw: return "handler threw";
        case closed_by::deadline: return "deadline";
        case closed_by::limit: return "limit";
        case closed_by::server_stopping: return "server stopping";
        case closed_by::drain_deadline: return "drain deadline";
        case closed_by::system_error: return "system error";
    }
    return "unknown";
}

/// The reason as a few words: "peer finished", "limit: send queue".
constexpr std::string_view to_text(const close_reason& reason) noexcept {
    if (reason.by == closed_by::deadline) {
        switch (reason.passed) {
            case deadline::none: break;
            case deadline::close: return "deadline: close";
            case deadline::idle: return "deadline: idle";
            case deadline::receive: return "deadline: receive";
            case deadline::send: return "deadline: send";
            case deadline::lifetime: return "deadline: lifetime";
            case deadline::receive_rate: return "deadline: receive rate";
        }
    }
    if (reason.by == closed_by::limit && reason.reached == limit::receive) return "limit: receive";
    if (reason.by == closed_by::limit && reason.reached == limit::send_queue)
        return "limit: send queue";
    return to_text(reason.by);
}

}  // namespace tcp::inline v0_1
