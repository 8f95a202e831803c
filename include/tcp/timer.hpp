// A timer for handlers: calls a function later, as if it were a hook of its connection.
//
//     struct greeter {
//         tcp::timer reminder;
//         void on_open(tcp::connection& peer) {
//             reminder.start(peer, 10s, [](tcp::connection& quiet) { quiet.send("hello?\n"); });
//         }
//         ...
//     };
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include <tcp/connection.hpp>
#include <tcp/duration.hpp>
#include <tcp/loop/timer_wheel.hpp>

namespace tcp::inline v0_1 {

/// Waits once for a time, on the loop of a connection. Usually a member of the handler. All of it
/// is for the thread of that loop. It allocates nothing, and starting and stopping cost the same
/// however many timers wait.
class timer : private detail::user_timer_node {
public:
    timer() noexcept = default;

    /// A copy does not wait: each connection has a copy of the prototype's timers.
    timer(const timer&) noexcept : timer{} {}
    timer& operator=(const timer&) noexcept {  // NOLINT(bugprone-unhandled-self-assignment)
        return *this;
    }
    ~timer() { stop(); }

    /// Calls `call(tcp::connection&)` when this time has passed, unless stop() or start() is called
    /// before, or the connection ends. A time of 0 or less is the next millisecond. Never early,
    /// and late by two milliseconds and what the loop is busy with. What the function throws ends
    /// the connection, as with a hook. Not in on_close, where it does nothing.
    ///
    /// The function is kept in here: it captures `this` or as much as fits into two pointers.
    template <class F>
    void start(connection& peer, duration after, F call) noexcept {
        static_assert(std::is_invocable_v<F&, connection&>,
                      "tcp::timer: the function cannot be called as it will be; write "
                      "[...](tcp::connection& peer) { ... }.");
        constexpr std::size_t size = sizeof(F), alignment = alignof(F);
        static_assert(
            size <= room && alignment <= alignof(void*) && std::is_trivially_copyable_v<F>,
            "tcp::timer: the function captures too much; capture `this` and keep the "
            "rest in the handler.");
        stop();
        if ((peer.flags_ & connection::finished) != 0) return;
        ::new (static_cast<void*>(function_)) F(call);
        call_ = [](void* function, connection& c) { (*static_cast<F*>(function))(c); };
        when_due = &is_due;
        peer_ = &peer;
        generation_ = peer.generation_.load_relaxed();
        detail::loop_context& loop = *peer.loop_;
        wheel_ = &loop.timers;
        const duration from_now = after > duration{} ? after : duration{};  // the past is no time
        wheel_->start(*this, detail::tick_from(loop.time() + from_now));
    }

    /// Waits no more. Nothing happens to one that does not wait.
    void stop() noexcept {
        if (waits()) wheel_->stop(*this);
    }

    /// Whether it waits: started, and its function neither called nor stopped yet.
    bool waiting() const noexcept { return waits(); }

private:
    template <class Handler, class Engine>
    friend class detail::connection_driver;

    static constexpr std::size_t room = 2 * sizeof(void*);

    static void is_due(detail::user_timer_node& node) {
        timer& self = static_cast<timer&>(node);
        connection& peer = *self.peer_;
        if (peer.generation_.load_relaxed() != self.generation_) return;  // it is over
        alignas(void*) unsigned char function[room];  // it may start this timer with another one
        std::memcpy(function, self.function_, room);
        peer.loop_->call_hook(peer, self.call_, function);
    }

    connection* peer_ = nullptr;
    detail::timer_wheel* wheel_ = nullptr;
    void (*call_)(void*, connection&) = nullptr;
    alignas(void*) unsigned char function_[room] = {};
    std::uint32_t generation_ = 0;  // of the connection: its slot may be another's by then
};

}  // namespace tcp::inline v0_1
