// The library's own errors: calls in the wrong order or state. What the system refuses keeps the
// system's code (`ec == std::errc::address_in_use`).
#pragma once

#include <string>
#include <system_error>

#include <tcp/detail/platform.hpp>  // a compiler that lacks C++20 is told so first

namespace tcp::inline v0_1 {

/// What went wrong, as a std::error_code (`ec == tcp::error::stopped`). to_text() says what to do.
enum class error {
    not_bound = 1,        // listen() and release() before bind()
    not_listening,        // run() and its like before listen()
    already_listening,    // bind() and listen() after listen()
    already_running,      // run() and its like while another one goes on
    stopped,              // bind() and listen() after stop()
    bad_endpoint,         // a text or number that names no endpoint
    name_not_found,       // a host's name without an address
    name_service_failed,  // the name service did not answer
    bad_options,          // options that contradict each other
    receive_limit,        // more left unread, or waited for, than may be
    send_queue_limit,     // more queued than options::send_queue_limit
    not_open,             // a send when nothing can be sent any more
    incomplete,           // the peer finished in the middle of what a receive waits for
    not_a_listener,       // adopt() of a descriptor that is no bound stream socket
    bad_network,          // a text that is no rule of an access_list
    timed_out,            // what a receive waits for did not come within the time it was given
};

/// What an error means and what to do about it, as one sentence.
constexpr const char* to_text(error e) noexcept {
    switch (e) {
        case error::not_bound:
            return "no endpoint is bound yet; call bind(endpoint) before listen()";
        case error::not_listening:
            return "the server does not listen yet; call bind(endpoint), then listen()";
        case error::already_listening:
            return "the server listens already; bind every endpoint before the one call of "
                   "listen()";
        case error::already_running:
            return "the server is being run already; call run(), run_for(), poll() or accept() "
                   "from one place";
        case error::stopped: return "the server was stopped and stays so; make a new one";
        case error::bad_endpoint:
            return "not an endpoint; write a port, 127.0.0.1:80, [::1]:80, name:80, unix:/path or "
                   "unix:@name";
        case error::name_not_found:
            return "no address is known for this name; check its spelling or use an address";
        case error::name_service_failed:
            return "the name service did not answer; try again or use an address";
        case error::bad_options: return "these options contradict each other";
        case error::receive_limit:
            return "the handler left more bytes than options::receive_limit; take them, or raise "
                   "the limit";
        case error::send_queue_limit:
            return "the send queue passed options::send_queue_limit; send less until on_writable, "
                   "or raise the limit";
        case error::not_open: return "the connection no longer sends";
        case error::not_a_listener:
            return "the descriptor is not a bound stream socket; give one that bind(2) was called "
                   "on and connect(2) was not";
        case error::incomplete: return "the peer finished in the middle of what was waited for";
        case error::bad_network:
            return "not a rule; write 10.0.0.0/8, fd00::/8, an address, unix: or all";
        case error::timed_out: return "what was waited for did not come in time";
    }
    return "unknown error";
}

/// The category of tcp::error. `ec.message()` is the sentence of to_text(). One for all shared
/// libraries of a program, however they are compiled.
[[gnu::visibility("default")]] inline const std::error_category& error_category() noexcept {
    class category final : public std::error_category {
        const char* name() const noexcept override { return "tcp"; }
        [[gnu::cold]] std::string message(int value) const override {
            return to_text(static_cast<error>(value));
        }
    };
    static const category instance;
    return instance;
}

/// What makes a std::error_code of it, without being called by name. Any thread.
inline std::error_code make_error_code(error e) noexcept {
    return {static_cast<int>(e), error_category()};
}

}  // namespace tcp::inline v0_1

template <>
struct std::is_error_code_enum<tcp::error> : std::true_type {};
