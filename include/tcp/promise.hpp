// What a coroutine waits for that another thread finds out: the answer of a database, a blocking
// call, a job of a pool.
//
//     tcp::promise<row> lookup{peer};
//     auto found = lookup.get_future();
//     pool.run([lookup = std::move(lookup), key]() mutable { lookup.set_value(look_up(key)); });
//     if (const auto one = co_await found) ...
//
// What the job uses is moved into it: the coroutine's frame may be gone before it is done. A pool
// that keeps its jobs in std::function, which cannot move, takes a std::shared_ptr to the promise.
//
// Both hold what they share. Setting the value posts that to the loop of the connection, as a
// message of its mailbox, and there the coroutine goes on:
//
//     promise (any thread) ──set_value()──► mailbox ──► loop: kept, the coroutine goes on
#pragma once

#include <tcp/detail/platform.hpp>  // before <coroutine>, whose own sentence is of no help

#include <coroutine>
#include <optional>
#include <type_traits>
#include <utility>

#include <tcp/connection.hpp>
#include <tcp/connection_handle.hpp>
#include <tcp/detail/counted_pointer.hpp>
#include <tcp/loop/conversation.hpp>
#include <tcp/loop/loop_context.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/task.hpp>

namespace tcp::inline v0_1 {

template <class T>
class future;

/// The duty to give a coroutine its value. Made on the thread of the connection, in its coroutine;
/// then it may be moved to every thread, used on one at a time, and kept as long as one likes,
/// longer than the connection and the server. Destroyed without a value it lets the coroutine go on
/// with none. As std::promise, but for a coroutine, and no exceptions travel: a T that may be an
/// error says so, such as std::variant.
template <class T>
class promise {
    static_assert(std::is_object_v<T> && std::is_move_constructible_v<T>,
                  "tcp::promise: what is promised is a value that can be moved, such as int or "
                  "std::string; write promise<T*> in place of promise<T&>, and promise<bool> in "
                  "place of promise<void>.");

public:
    /// Throws std::bad_alloc.
    explicit promise(connection& peer) : to_{peer.handle()}, shared_{new shared_state{to_}} {}
    promise(promise&&) noexcept = default;
    promise& operator=(promise&& other) noexcept {
        if (this != &other) {
            keep();
            to_ = std::move(other.to_);
            shared_ = std::move(other.shared_);
        }
        return *this;
    }
    ~promise() { keep(); }

    /// What the coroutine waits for. Called once, before the value is set.
    future<T> get_future() { return future<T>{shared_}; }

    /// Lets the coroutine go on with this value, on the thread of its loop. True when that is on
    /// its way; the end of the connection may still come first. False, and the value destroyed,
    /// when the connection is over; false, and the value left alone, when this promise has set one
    /// or was moved from. The coroutine may go on before this returns, and destroy the promise.
    /// Allocates nothing; throws what making a T of the value throws, and may be tried again then.
    template <class From = T>
    bool set_value(From&& value) {
        if (!shared_) return false;
        shared_->value.emplace(std::forward<From>(value));
        return keep();
    }

private:
    friend future<T>;

    // A message, from when the promise is kept.
    struct shared_state : connection_handle::connection_message {
        explicit shared_state(const connection_handle& h) noexcept
            : connection_handle::connection_message{
                  [](detail::message& m, detail::loop_context& loop) noexcept {
                      static_cast<shared_state&>(m).arrive(loop);
                  },
                  h, 0} {}

        /// Whether the slot still holds the connection that this was made for.
        bool of_this_life() const noexcept { return this->to != nullptr && this->arrived(); }

        void arrive(detail::loop_context& loop) noexcept {
            kept = true;
            if (this->arrived() && awaits != nullptr && awaits->awaits(this))
                loop.call_hook(
                    *this->to,
                    [](void* self, connection& peer) {
                        static_cast<shared_state*>(self)->awaits->on_answer(peer);
                    },
                    this);
            destroy(this);
        }
        static void destroy(shared_state* one) noexcept { one->let_go(); }

        void hold() noexcept { holders.add(); }
        void let_go() noexcept {
            if (holders.remove()) delete this;
        }

        std::optional<T> value;  // the promise's; the loop's once it is kept

        // The loop's.
        detail::conversation* awaits = nullptr;  // there as long as the connection is
        bool kept = false;
        bool awaited = false;

        detail::holder_count holders;
    };

    // This promise may be gone as soon as it is posted.
    bool keep() noexcept {
        if (!shared_) return false;
        const detail::counted_pointer<shared_state> shared = std::move(shared_);
        const connection_handle to = std::move(to_);
        shared->hold();  // for the mailbox
        const bool posted{to.posted(shared.get())};
        if (!posted) shared->value.reset();
        return posted;
    }

    connection_handle to_;
    detail::counted_pointer<shared_state> shared_;
};

/// What a promise will give. It belongs to the coroutine of the connection that the promise was
/// made for, and is for co_await in a task of it, once: that waits until the promise has set its
/// value, and gives it as a std::optional; empty when the promise was destroyed without one, or the
/// connection is over, whichever comes first. Nothing is received meanwhile: that the peer has
/// finished is told by the next receive, and so is its reset where unread bytes wait.
template <class T>
class [[nodiscard]] future {
    using shared_state = typename promise<T>::shared_state;
    using pointer = detail::counted_pointer<shared_state>;

public:
    future(future&&) noexcept = default;
    future& operator=(future&&) noexcept = default;
    ~future() = default;

    class awaiter {
    public:
        awaiter(detail::conversation& talk, pointer shared) noexcept
            : talk_{talk}, shared_{std::move(shared)} {}

        bool await_ready() const noexcept { return shared_->kept; }
        void await_suspend(std::coroutine_handle<> who) const noexcept {
            shared_->awaits = &talk_;
            talk_.wait_for_answer(shared_.get(), who);
        }
        std::optional<T> await_resume() const {
            if (!shared_->kept) return std::nullopt;  // the connection is over
            return std::move(shared_->value);
        }

    private:
        detail::conversation& talk_;
        pointer shared_;
    };

    /// Throws std::system_error (std::errc::invalid_argument) for the future of another connection,
    /// and for one that was awaited already.
    awaiter awaited_in(detail::conversation& talk) const {
        if (!shared_ || std::exchange(shared_->awaited, true))
            talk.misused("a future is awaited once");
        if (shared_->to != nullptr) talk.check_own(*shared_->to);  // null: made in on_close
        if (!talk.is_over() && !shared_->of_this_life())
            talk.misused("the connection of this future is over");
        return {talk, shared_};
    }

private:
    friend promise<T>;
    explicit future(const pointer& shared) noexcept : shared_{shared} {}

    pointer shared_;
};

}  // namespace tcp::inline v0_1
