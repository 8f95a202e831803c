// What the io_uring engine knows of a connection: what it wants, and what the kernel has been asked
// for.
#pragma once

#include <cstdint>

#include <tcp/engine/concept.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// What a request is about: the lowest byte of its user_data.
enum class op : std::uint8_t {
    nothing,
    receive,
    readable,
    send,
    room,
    watch,
    settle,
    accept,
    wake,
    install,
    call
};

/// What is true of a connection, in words that the classes of this engine share.
struct state_flags {
    enum flag : std::uint16_t {
        receiving = 1 << 0,          // open, not paused, not over
        over = 1 << 1,               // there is no more to receive
        receive_asked = 1 << 2,      // the kernel has a request, or is about to be handed it
        receive_cancelled = 1 << 3,  // ... and another one that takes it back
        sending = 1 << 4,            // the kernel has a request
        full = 1 << 5,               // no room for a send
        room_asked = 1 << 6,         // the kernel says when there is some
        watched = 1 << 7,            // the kernel says when it fails behind its end
        settles = 1 << 8,  // a completion comes for settle() alone, or to try a send again
        closing = 1 << 9,
        reset = 1 << 10,           // with a reset
        bulk = 1 << 11,            // much comes, or urgent data: received when a poll says so
        readable_asked = 1 << 12,  // the kernel says when something has come
        broken = 1 << 13,          // the watch has told so
        asked = receive_asked | sending | room_asked | watched | settles | readable_asked,
    };

    using buffer_id = std::uint8_t;
    static constexpr buffer_id no_buffer = UINT8_MAX;
};

/// A connection.
struct state : state_flags {
    state() = default;
    state(int socket, std::uint32_t its_generation) noexcept
        : fd{socket}, generation{its_generation}, flags{receiving} {}

    int fd = -1;  // or its place in the table of the ring, the number of its slot
    std::uint32_t generation = 0;
    std::uint16_t flags = 0;
    buffer_id sends_from = no_buffer;  // the buffer of the send in flight
    bool in_table : 1 = false;
    bool shared : 1 = false;  // the parent of this process has it, too

    bool is(connection_id id) const noexcept { return generation == id.generation && fd >= 0; }
    bool has(flag f) const noexcept { return (flags & f) != 0; }
    void set(flag f) noexcept { flags = static_cast<std::uint16_t>(flags | f); }
    void clear(flag f) noexcept { flags = static_cast<std::uint16_t>(flags & ~f); }

    // The highest bits of the flags count how often in a row little came to a bulk connection.
    void much_came() noexcept { flags = static_cast<std::uint16_t>(flags & ~often); }
    /// Whether that is often.
    bool little_came() noexcept {
        if ((flags & often) == often) return true;
        flags = static_cast<std::uint16_t>(flags + once);
        return false;
    }

private:
    static constexpr unsigned once = 1 << 14;
    static constexpr unsigned often = 3 << 14;
};

/// The poll of a listener: each request has a number of its own.
struct listener_poll {
    int fd = -1;
    std::uint32_t number = 0;
    bool asked = false;
};

/// The user_data of a request.
constexpr std::uint64_t key_of(connection_id id, op what) noexcept {
    return std::uint64_t{id.generation} << 32 | std::uint64_t{id.slot} << 8 |
           static_cast<std::uint64_t>(what);
}
constexpr connection_id id_of(std::uint64_t key) noexcept {
    return {static_cast<std::uint32_t>(key) >> 8, static_cast<std::uint32_t>(key >> 32)};
}
constexpr op op_of(std::uint64_t key) noexcept { return static_cast<op>(key & 0xff); }

}  // namespace tcp::inline v0_1::detail::io_uring
