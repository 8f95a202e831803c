// A coroutine as a handler like any other: the hooks wake it up.
#pragma once

#include <concepts>
#include <cstddef>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/loop/conversation.hpp>

namespace tcp::inline v0_1::detail {

/// Holds the callable as long as its coroutine lives, since what a lambda captured lies in the
/// lambda, not in the coroutine's frame. A copy has the callable, and a coroutine of its own.
template <class Callable>
class coroutine_handler {
public:
    using says_when_it_waits = void;

    explicit coroutine_handler(Callable&& callable) : callable_(std::move(callable)) {}
    explicit coroutine_handler(const Callable& callable) requires std::copy_constructible<Callable>
        : callable_(callable) {}
    coroutine_handler(const coroutine_handler& other) requires std::copy_constructible<Callable>
        : callable_(other.callable_) {}
    coroutine_handler(coroutine_handler&& other) noexcept : callable_(std::move(other.callable_)) {}
    coroutine_handler& operator=(const coroutine_handler&) = delete;
    ~coroutine_handler() = default;

    void on_open(connection& peer) { talk_.on_open(peer, callable_); }
    [[gnu::always_inline]] std::size_t on_data(connection& peer, bytes data) {
        return talk_.on_data(peer, data);
    }
    void on_end(connection& peer) { talk_.on_end(peer); }
    void on_writable(connection& peer) { talk_.on_writable(peer); }
    void on_close(connection& peer, const close_reason& why) { talk_.on_close(peer, why); }

private:
    [[no_unique_address]] Callable callable_;
    conversation talk_;
};

}  // namespace tcp::inline v0_1::detail
