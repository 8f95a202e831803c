// What a coroutine returns: a handler that is one, and the tasks that it awaits.
//
//     tcp::task<int> greet(tcp::connection& peer) {
//         const auto name = co_await peer.receive_until("\n", 100);
//         ...
//         co_return 42;
//     }
//     tcp::server server{[](tcp::connection& peer) -> tcp::task<> {
//         const int number = co_await greet(peer);
//         ...
//     }};
//
// The coroutine starts when the client has connected and sees everything as a value. When it
// returns the connection is closed; what it throws ends its connection alone, with a reset. When
// the connection ends, whatever it waits for gives it the end, once; where it waits again it is
// destroyed, and so are its locals, before the handler.
#pragma once

#include <tcp/detail/platform.hpp>  // before <coroutine>, whose own sentence is of no help

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include <tcp/connection.hpp>
#include <tcp/duration.hpp>
#include <tcp/error.hpp>
#include <tcp/handler.hpp>
#include <tcp/loop/conversation.hpp>
#include <tcp/loop/coroutine_handler.hpp>
#include <tcp/received.hpp>
#include <tcp/timer.hpp>

namespace tcp::inline v0_1 {

template <class T>
class task;

namespace detail {

// ---- what connection's functions for coroutines return, for co_await alone ----

template <class Request>
struct [[nodiscard]] limited_request {
    Request wanted;
    duration length;
};

struct [[nodiscard]] receive_request {
    connection& from;

    auto within(duration length) const noexcept {
        return limited_request<receive_request>{*this, length};
    }
};
struct [[nodiscard]] receive_exactly_request {
    connection& from;
    std::size_t size;

    auto within(duration length) const noexcept {
        return limited_request<receive_exactly_request>{*this, length};
    }
};
struct [[nodiscard]] receive_until_request {
    connection& from;
    std::string_view delimiter;
    std::size_t limit;

    auto within(duration length) const noexcept {
        return limited_request<receive_until_request>{*this, length};
    }
};

struct [[nodiscard]] sleep_request {
    connection& from;
    duration length;
};

// ---- what is awaited ----

struct receive_awaiter {
    conversation& talk;

    bool await_ready() const noexcept { return talk.has_data(); }
    void await_suspend(std::coroutine_handle<> who) const noexcept { talk.wait_for_data(who); }
    received await_resume() const noexcept { return talk.take_data(); }
};

struct wanted_awaiter {
    conversation& talk;
    wanted_bytes these;

    bool await_ready() noexcept { return talk.has(these); }
    void await_suspend(std::coroutine_handle<> who) noexcept { talk.wait_for(these, who); }
    received await_resume() const noexcept { return talk.take(these); }
};

// A receive that gives up when its time has passed. It lies in the frame, and so its timer does.
template <class Receive>
struct limited_awaiter : Receive {
    connection& from;
    duration length;
    timer alarm = {};
    bool late = false;

    void await_suspend(std::coroutine_handle<> who) noexcept {
        Receive::await_suspend(who);
        alarm.start(from, length,
                    [this](connection& peer) { this->talk.on_late_receive(peer, late); });
    }
    received await_resume() noexcept {
        alarm.stop();  // the frame keeps this to the end of a full expression that may await again
        return late ? received{error::timed_out} : Receive::await_resume();
    }
};

struct send_awaiter {
    conversation& talk;
    send_result result;

    bool await_ready() const noexcept { return result ? talk.has_room() : talk.may_refuse(); }
    void await_suspend(std::coroutine_handle<> who) noexcept {
        if (result)
            talk.wait_for_room(result, who);
        else
            talk.wait_for_close(who);
    }
    send_result await_resume() const noexcept { return result; }
};

// It lies in the frame, and so its timer does.
struct sleep_awaiter {
    conversation& talk;
    sleep_request wanted;
    timer alarm = {};

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> who) noexcept {
        talk.wait_for_time(who);
        alarm.start(wanted.from, wanted.length,
                    [sleeper = &talk](connection& peer) { sleeper->on_time(peer); });
    }
    bool await_resume() const noexcept { return !talk.is_over(); }
};

template <class T>
struct task_awaiter;

struct task_promise_base : promise_base {
    struct to_who_awaits {
        bool await_ready() const noexcept { return false; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> done) const noexcept {
            done.promise().talk->ended(done.promise());
        }
        void await_resume() const noexcept {}
    };

    std::suspend_always initial_suspend() const noexcept { return {}; }
    to_who_awaits final_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { failure = std::current_exception(); }

    receive_awaiter await_transform(receive_request wanted) const {
        talk->check_own(wanted.from);
        return {*talk};
    }
    wanted_awaiter await_transform(receive_exactly_request wanted) const {
        talk->check_own(wanted.from);
        return {*talk, wanted_bytes{wanted.size}};
    }
    wanted_awaiter await_transform(receive_until_request wanted) const {
        talk->check_own(wanted.from);
        return {*talk, wanted_bytes{wanted.delimiter, wanted.limit}};
    }
    template <class Request>
    auto await_transform(limited_request<Request> limited) const {
        using receive = decltype(await_transform(limited.wanted));
        return limited_awaiter<receive>{await_transform(limited.wanted), limited.wanted.from,
                                        limited.length};
    }
    sleep_awaiter await_transform(sleep_request wanted) const {
        talk->check_own(wanted.from);
        return {*talk, wanted};
    }
    send_awaiter await_transform(send_result result) const noexcept { return {*talk, result}; }

    template <class T>
    task_awaiter<T> await_transform(task<T>&& other) const noexcept;

    // What a header above has to await: promise.hpp.
    template <class Other>
    requires requires(Other&& wanted, conversation& talk) { wanted.awaited_in(talk); }
    auto await_transform(Other&& wanted) const { return wanted.awaited_in(*talk); }

    // What it returns is found out at once, and so the sentence comes before whatever else is
    // wrong.
    template <class Other>
    static auto await_transform(Other&&) {
        static_assert(
            std::is_void_v<Other>,
            "tcp::task: a task awaits what receive(), receive_exactly(), receive_until(), send() "
            "and sleep_for() of its connection return, a tcp::future, and other tasks; write "
            "co_await std::move(it) for a task that has a name.");
        return std::suspend_never{};
    }
};

template <class T>
struct task_promise : task_promise_base {
    static_assert(std::is_object_v<T> && !std::is_array_v<T>,
                  "tcp::task: a task gives a value; write task<T*> in place of task<T&>.");

    task_promise() noexcept {}
    task_promise(const task_promise&) = delete;
    task_promise& operator=(const task_promise&) = delete;
    ~task_promise() {
        if (returned) value().~T();
    }

    task<T> get_return_object() noexcept;
    template <class From = T>
    requires std::constructible_from<T, From>
    void return_value(From&& from) noexcept(std::is_nothrow_constructible_v<T, From>) {
        ::new (static_cast<void*>(storage)) T(std::forward<From>(from));
        returned = true;
    }
    T take() { return std::move(value()); }
    T& value() noexcept { return *std::launder(reinterpret_cast<T*>(storage)); }

    alignas(T) std::byte storage[sizeof(T)];
    bool returned = false;
};

template <>
struct task_promise<void> : task_promise_base {
    task<void> get_return_object() noexcept;
    void return_void() const noexcept {}
    void take() const noexcept {}
};

}  // namespace detail

/// What a coroutine that serves a connection, or a part of one, returns. It does not begin until it
/// is awaited; tcp::server does that with what a handler returns. It is awaited at most once, by
/// the coroutine of the same connection, on the thread of its loop; it must not outlive the
/// connection. `co_await` gives what the coroutine returns, and throws what leaves it. Its frame
/// comes from memory that the loop uses again and again.
template <class T>
class [[nodiscard]] task {
public:
    using promise_type = detail::task_promise<T>;

    task(task&& other) noexcept : handle_{std::exchange(other.handle_, {})} {}
    task& operator=(task&& other) noexcept {
        if (this != &other) {
            if (handle_) handle_.destroy();
            handle_ = std::exchange(other.handle_, {});
        }
        return *this;
    }
    ~task() {
        if (handle_) handle_.destroy();
    }

private:
    friend promise_type;
    friend detail::conversation;
    friend detail::task_awaiter<T>;
    using handle = std::coroutine_handle<promise_type>;

    explicit task(handle whole) noexcept : handle_{whole} {}
    handle release() noexcept { return std::exchange(handle_, {}); }

    handle handle_;
};

namespace detail {

template <class T>
struct task_awaiter {
    conversation& talk;
    task<T> awaited;

    // Nothing to await is an error of who wrote it; await_resume() says so.
    bool await_ready() const noexcept { return !awaited.handle_; }
    void await_suspend(std::coroutine_handle<> who) const noexcept {
        auto& promise = awaited.handle_.promise();
        promise.talk = &talk;
        promise.awaited_by = who;
        talk.go_on_with(awaited.handle_);
    }
    T await_resume() const {
        if (!awaited.handle_) conversation::misused("a task is awaited once");
        auto& promise = awaited.handle_.promise();
        if (promise.failure) [[unlikely]]
            std::rethrow_exception(std::move(promise.failure));
        return promise.take();
    }
};

template <class T>
task_awaiter<T> task_promise_base::await_transform(task<T>&& other) const noexcept {
    return {*talk, std::move(other)};
}
template <class T>
task<T> task_promise<T>::get_return_object() noexcept {
    return task<T>{std::coroutine_handle<task_promise>::from_promise(*this)};
}
inline task<void> task_promise<void>::get_return_object() noexcept {
    return task<void>{std::coroutine_handle<task_promise>::from_promise(*this)};
}

template <coroutine Callable>
struct hooks_of<Callable> {
    using type = coroutine_handler<Callable>;
    static type from(Callable&& prototype) { return type{std::move(prototype)}; }
};

}  // namespace detail

inline detail::receive_request connection::receive() noexcept { return {*this}; }
inline detail::receive_exactly_request connection::receive_exactly(std::size_t size) noexcept {
    return {*this, size};
}
inline detail::sleep_request connection::sleep_for(duration length) noexcept {
    return {*this, length};
}
inline detail::receive_until_request connection::receive_until(std::string_view delimiter,
                                                               std::size_t limit) noexcept {
    return {*this, delimiter, limit};
}

}  // namespace tcp::inline v0_1
