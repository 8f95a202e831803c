// What a simulated network does to its users: how slow, how narrow, how unreliable.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tcp/duration.hpp>
#include <tcp/engine/simulated/random.hpp>

namespace tcp::inline v0_1::simulated {

/// The weather of a simulated world. The default is a benign network: ordered, lossless, no
/// surprises. Sizes are bytes; what is named per_mille is how often in a thousand occasions.
/// Nothing in here breaks the promises that TCP, a kernel or an engine (engine/concept.hpp) makes:
/// a server must hold its own in any of it.
struct faults {
    // The way between client and server. Segments never overtake one another.
    duration latency_min = duration::nanoseconds(100'000);
    duration latency_max = duration::nanoseconds(100'000);
    std::size_t segment_min = 1460;  // data is cut into segments of a size between these two
    std::size_t segment_max = 1460;
    std::size_t server_window = 128 * 1024;  // received by the server's system, not yet read
    std::size_t client_window = 128 * 1024;  // received by the client's system, not yet read
    std::size_t send_capacity = 128 * 1024;  // taken from the server, not yet arrived at the client
    unsigned reset_per_mille = 0;  // segments to the server behind which both sides are reset

    // Accepting.
    int backlog_max = 4096;                // what listen(2) is silently limited to (somaxconn)
    std::size_t socket_limit = 100'000;    // sockets of one engine, listeners included; then EMFILE
    unsigned accept_failed_per_mille = 0;  // EMFILE and its like; the client stays in the queue
    unsigned accept_aborted_per_mille =
        0;                               // ECONNABORTED: it is gone, the engine goes on by itself
    unsigned open_failed_per_mille = 0;  // open() gives an errno

    // Sending.
    unsigned short_send_per_mille = 0;         // fewer bytes are taken than there is room for
    unsigned blocked_send_per_mille = 0;       // no byte is taken though there is room
    unsigned in_flight_per_mille = 0;          // the send ends later, as io_uring's do
    unsigned spurious_writable_per_mille = 0;  // after a blocked send: the event comes too early

    // Receiving.
    std::size_t receive_max = 1024 * 1024;  // shown at once, besides options::receive_buffer
    unsigned more_receives_per_mille = 0;   // a connection has several events in one wait()
    unsigned late_receive_per_mille = 0;    // what came before pause_receive() is shown after it

    // Closing and waiting.
    unsigned late_close_per_mille = 0;     // close() returns false, closed comes later
    unsigned shuffle_per_mille = 0;        // for each batch: its events come in another order
    unsigned spurious_wait_per_mille = 0;  // wait() returns early with nothing, as after a signal
    duration completion_max = duration::milliseconds(1);  // how long what ends later takes at most
    duration oversleep_max{};                             // how late a timeout of wait() may end

    /// Weather for fuzzing: each knob is left alone or turned to anything, small values as likely
    /// as large ones. Resets and failures are rare enough for most connections to get somewhere.
    static faults wild(random& dice) {
        faults drawn;
        const auto now_and_then = [&](unsigned& knob, unsigned most) {
            if (dice.chance(500)) knob = static_cast<unsigned>(dice.magnitude(1, most));
        };
        const auto size = [&](std::size_t& knob, std::size_t least, std::size_t most) {
            if (dice.chance(500)) knob = static_cast<std::size_t>(dice.magnitude(least, most));
        };
        const auto length = [&](duration& knob, std::int64_t most) {
            if (dice.chance(500))
                knob = duration::nanoseconds(
                    static_cast<std::int64_t>(dice.magnitude(1, static_cast<std::uint64_t>(most))));
        };
        length(drawn.latency_max, 50'000'000);
        drawn.latency_min = dice.chance(500) ? duration{} : drawn.latency_max;
        size(drawn.segment_max, 1, 64 * 1024);
        drawn.segment_min = dice.chance(500) ? 1 : drawn.segment_max;
        size(drawn.server_window, 1, 256 * 1024);
        size(drawn.client_window, 1, 256 * 1024);
        size(drawn.send_capacity, 1, 256 * 1024);
        size(drawn.receive_max, 1, 64 * 1024);
        if (dice.chance(100)) drawn.reset_per_mille = static_cast<unsigned>(dice.magnitude(1, 50));

        if (dice.chance(200)) drawn.backlog_max = static_cast<int>(dice.magnitude(1, 16));
        if (dice.chance(200)) drawn.socket_limit = dice.magnitude(2, 32);
        now_and_then(drawn.accept_failed_per_mille, 300);
        now_and_then(drawn.accept_aborted_per_mille, 100);
        now_and_then(drawn.open_failed_per_mille, 100);
        now_and_then(drawn.short_send_per_mille, 900);
        now_and_then(drawn.blocked_send_per_mille, 500);
        now_and_then(drawn.in_flight_per_mille, 1000);
        now_and_then(drawn.spurious_writable_per_mille, 500);
        now_and_then(drawn.more_receives_per_mille, 1000);
        now_and_then(drawn.late_receive_per_mille, 1000);
        now_and_then(drawn.late_close_per_mille, 1000);
        now_and_then(drawn.shuffle_per_mille, 1000);
        now_and_then(drawn.spurious_wait_per_mille, 300);
        length(drawn.completion_max, 20'000'000);
        length(drawn.oversleep_max, 5'000'000);
        return drawn;
    }
};

}  // namespace tcp::inline v0_1::simulated
