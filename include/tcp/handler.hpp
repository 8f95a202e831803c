// The hooks of a handler as concepts, and the sentences that a wrong handler gets.
//
//   void        on_open(connection&)                      a client connected
//   void        on_data(connection&, bytes)               it sent these bytes; all were taken
//   std::size_t on_data(connection&, bytes)               ... so many were taken, or all if this is
//                                                         more than there were; the rest is shown
//                                                         again: at once if some were taken, and
//                                                         in one piece with what comes next
//   void        on_end(connection&)                       it has finished sending; without this
//                                                         hook the queue is sent, then it closes
//   void        on_writable(connection&)                  the queue fell to the low mark after
//                                                         passing the high one
//   void        on_timeout(connection&, deadline)         a deadline of the options, though not
//                                                         that of close(), passed, and begins
//                                                         anew; without this hook the
//                                                         connection is ended
//   void        on_close(connection&, const close_reason&)
//                                                         it is over; once for each on_open
//
// Each is optional, and one at least must be there. A hook that throws ends its own connection
// only, with a reset; what on_close throws changes nothing. options::observer is told of it.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>

namespace tcp::inline v0_1 {

template <class T = void>
class task;  // #include <tcp/task.hpp>

/// A handler that is a coroutine: called once for each connection, with it, it returns a task<>.
template <class H>
concept coroutine = (std::is_class_v<H> || std::is_pointer_v<H>)&&requires(H& h, connection& peer) {
    { h(peer) } -> std::same_as<task<void>>;
};

/// Which hooks a handler has, declared as they will be called.
template <class H>
concept has_on_open = requires(H& h, connection& peer) {
    { h.on_open(peer) } -> std::same_as<void>;
};
template <class H>
concept has_void_on_data = requires(H& h, connection& peer, bytes data) {
    { h.on_data(peer, data) } -> std::same_as<void>;
};
template <class H>
concept has_counting_on_data = requires(H& h, connection& peer, bytes data) {
    { h.on_data(peer, data) } -> std::same_as<std::size_t>;
};
template <class H>
concept has_on_data = has_void_on_data<H> || has_counting_on_data<H>;
template <class H>
concept has_on_end = requires(H& h, connection& peer) {
    { h.on_end(peer) } -> std::same_as<void>;
};
template <class H>
concept has_on_writable = requires(H& h, connection& peer) {
    { h.on_writable(peer) } -> std::same_as<void>;
};
template <class H>
concept has_on_timeout = requires(H& h, connection& peer, deadline which) {
    { h.on_timeout(peer, which) } -> std::same_as<void>;
};
template <class H>
concept has_on_close = requires(H& h, connection& peer, const close_reason& reason) {
    { h.on_close(peer, reason) } -> std::same_as<void>;
};

namespace detail {

// Whether a class has a member of this name, whatever its parameters, overloaded, templated or
// private: the name is ambiguous where two bases have it.
struct names_of_hooks {
    int on_open;
    int on_data;
    int on_end;
    int on_writable;
    int on_timeout;
    int on_close;
};
template <class H>
struct with_names : H, names_of_hooks {};
template <class H>
concept derivable = std::is_class_v<H> && !std::is_final_v<H>;

template <class H>
concept declares_on_open = has_on_open<H> || requires {
    &H::on_open;
} ||(derivable<H> && !requires { &with_names<H>::on_open; });
template <class H>
concept declares_on_data = has_on_data<H> || requires {
    &H::on_data;
} ||(derivable<H> && !requires { &with_names<H>::on_data; });
template <class H>
concept declares_on_end = has_on_end<H> || requires {
    &H::on_end;
} ||(derivable<H> && !requires { &with_names<H>::on_end; });
template <class H>
concept declares_on_writable = has_on_writable<H> || requires {
    &H::on_writable;
} ||(derivable<H> && !requires { &with_names<H>::on_writable; });
template <class H>
concept declares_on_timeout = has_on_timeout<H> || requires {
    &H::on_timeout;
} ||(derivable<H> && !requires { &with_names<H>::on_timeout; });
template <class H>
concept declares_on_close = has_on_close<H> || requires {
    &H::on_close;
} ||(derivable<H> && !requires { &with_names<H>::on_close; });
template <class H>
concept declares_a_hook = declares_on_open<H> || declares_on_data<H> || declares_on_end<H> ||
    declares_on_writable<H> || declares_on_timeout<H> || declares_on_close<H>;

// Whether a class can be called, with whatever parameters.
struct name_of_call {
    void operator()();
};
template <class H>
struct with_call : H, name_of_call {};
template <class H>
concept declares_call = requires {
    &H::operator();
}
|| std::is_function_v<std::remove_pointer_t<H>> ||
    (derivable<H> && !requires { &with_call<H>::operator(); });

// Names that other libraries use for a hook that this handler does not have.
template <class H>
concept misnames_on_open =
    !declares_on_open<H> && (
                                requires { &H::on_connect; } || requires { &H::on_connected; } ||
                                requires { &H::on_connection; } || requires { &H::on_accept; } ||
                                requires { &H::on_opened; } || requires { &H::onOpen; });
template <class H>
concept misnames_on_data =
    !declares_on_data<H> &&
    (
        requires { &H::on_message; } || requires { &H::on_read; } || requires { &H::on_receive; } ||
        requires { &H::on_recv; } || requires { &H::on_received; } || requires { &H::onData; } ||
        requires { &H::onMessage; });
template <class H>
concept misnames_on_end =
    !declares_on_end<H> &&
    (
        requires { &H::on_eof; } || requires { &H::on_half_close; } || requires { &H::on_finish; });
template <class H>
concept misnames_on_writable =
    !declares_on_writable<H> &&
    (
        requires { &H::on_write; } || requires { &H::on_drain; } || requires { &H::on_ready; });
template <class H>
concept misnames_on_timeout =
    !declares_on_timeout<H> && (
                                   requires { &H::on_idle; } || requires { &H::on_timed_out; } ||
                                   requires { &H::on_deadline; });
template <class H>
concept misnames_on_close =
    !declares_on_close<H> && (
                                 requires { &H::on_closed; } || requires { &H::on_disconnect; } ||
                                 requires { &H::on_disconnected; } || requires { &H::on_error; } ||
                                 requires { &H::onClose; });

// Each hook that is declared can be called.
template <class H>
inline constexpr bool hooks_are_callable =
    has_on_open<H> == declares_on_open<H>&& has_on_data<H> == declares_on_data<H>&& has_on_end<H> ==
    declares_on_end<H>&& has_on_writable<H> == declares_on_writable<H>&& has_on_timeout<H> ==
    declares_on_timeout<H>&& has_on_close<H> == declares_on_close<H>;
template <class H>
inline constexpr bool misnames_a_hook =
    misnames_on_open<H> || misnames_on_data<H> || misnames_on_end<H> || misnames_on_writable<H> ||
    misnames_on_timeout<H> || misnames_on_close<H>;

}  // namespace detail

/// What can be a handler: a coroutine, or a class with at least one hook, and none declared in
/// another way than it will be called.
template <class H>
concept handler = (coroutine<H> && !detail::declares_a_hook<H>) ||
                  (std::is_class_v<H> && std::destructible<H> && detail::declares_a_hook<H> &&
                   detail::hooks_are_callable<H> && !detail::misnames_a_hook<H>);

namespace detail {

// Every sentence about handlers stands here. Behind it the failing call is instantiated, so that
// the compiler prints the true cause as well.
template <class H>
consteval bool check_handler() {
    static_assert(!std::is_reference_v<H>,
                  "tcp::server: Handler is a reference; write the class itself, as in "
                  "tcp::server<my_handler>: each connection has a handler of its own.");
    static_assert(!std::is_pointer_v<H> || declares_call<H>,
                  "tcp::server: a pointer is not a handler; write the class itself, as in "
                  "tcp::server<my_handler>; what connections share is what a member points to.");
    static_assert(std::is_class_v<H> || std::is_reference_v<H> || std::is_pointer_v<H>,
                  "tcp::server: Handler is a class with hooks; write struct my_handler { void "
                  "on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); } };");
    static_assert(
        std::destructible<H>,
        "tcp::server: each connection destroys its Handler after on_close; give Handler a "
        "public destructor that does not throw.");

    static_assert(!misnames_on_open<H>,
                  "tcp::server: the hook for a new connection is named on_open; write void "
                  "on_open(tcp::connection& peer).");
    static_assert(!misnames_on_data<H>,
                  "tcp::server: the hook for received bytes is named on_data; write void "
                  "on_data(tcp::connection& peer, tcp::bytes data).");
    static_assert(
        !misnames_on_end<H>,
        "tcp::server: the hook for a peer that has finished sending is named on_end; write "
        "void on_end(tcp::connection& peer).");
    static_assert(
        !misnames_on_writable<H>,
        "tcp::server: the hook for a queue with room again is named on_writable; write void "
        "on_writable(tcp::connection& peer).");
    static_assert(
        !misnames_on_timeout<H>,
        "tcp::server: the hook for a deadline that passed is named on_timeout; write void "
        "on_timeout(tcp::connection& peer, tcp::deadline which).");
    static_assert(
        !misnames_on_close<H>,
        "tcp::server: the hook for the end of a connection, errors included, is named "
        "on_close; write void on_close(tcp::connection& peer, const tcp::close_reason& why).");
    static_assert(
        declares_a_hook<H> || misnames_a_hook<H> || declares_call<H> || !std::is_class_v<H>,
        "tcp::server: Handler has no hook, so it would never be called; give it at least "
        "void on_data(tcp::connection& peer, tcp::bytes data).");

    if constexpr (declares_call<H> && !declares_a_hook<H>) {
        static_assert(
            coroutine<H>,
            "tcp::server: Handler's operator() is not that of a coroutine handler; write, in its "
            "public part, tcp::task<> operator()(tcp::connection& peer), or a lambda or function "
            "[](tcp::connection& peer) -> tcp::task<> { co_await peer.send(\"hello\"); }, with "
            "#include <tcp/task.hpp>. Without a coroutine it is a class with void "
            "on_data(tcp::connection& peer, tcp::bytes data), and a factory of such is given as "
            "tcp::server<my_handler> server{[] { return my_handler{42}; }}.");
        using true_cause [[maybe_unused]] =
            decltype(std::declval<H&>()(std::declval<connection&>()));
    }
    if constexpr (declares_on_open<H> && !has_on_open<H>) {
        static_assert(
            has_on_open<H>,
            "tcp::server: Handler's on_open cannot be called as it will be; write, in its "
            "public part, void on_open(tcp::connection& peer).");
        using true_cause [[maybe_unused]] =
            decltype(std::declval<H&>().on_open(std::declval<connection&>()));
    }
    if constexpr (declares_on_data<H> && !has_on_data<H>) {
        static_assert(
            has_on_data<H>,
            "tcp::server: Handler's on_data cannot be called as it will be; write, in its "
            "public part, void on_data(tcp::connection& peer, tcp::bytes data), or return a "
            "std::size_t that says how many bytes were taken.");
        using true_cause [[maybe_unused]] = decltype(std::declval<H&>().on_data(
            std::declval<connection&>(), std::declval<bytes>()));
    }
    if constexpr (declares_on_end<H> && !has_on_end<H>) {
        static_assert(has_on_end<H>,
                      "tcp::server: Handler's on_end cannot be called as it will be; write, in its "
                      "public part, void on_end(tcp::connection& peer).");
        using true_cause [[maybe_unused]] =
            decltype(std::declval<H&>().on_end(std::declval<connection&>()));
    }
    if constexpr (declares_on_writable<H> && !has_on_writable<H>) {
        static_assert(
            has_on_writable<H>,
            "tcp::server: Handler's on_writable cannot be called as it will be; write, in "
            "its public part, void on_writable(tcp::connection& peer).");
        using true_cause [[maybe_unused]] =
            decltype(std::declval<H&>().on_writable(std::declval<connection&>()));
    }
    if constexpr (declares_on_timeout<H> && !has_on_timeout<H>) {
        static_assert(
            has_on_timeout<H>,
            "tcp::server: Handler's on_timeout cannot be called as it will be; write, in its "
            "public part, void on_timeout(tcp::connection& peer, tcp::deadline which).");
        using true_cause [[maybe_unused]] = decltype(std::declval<H&>().on_timeout(
            std::declval<connection&>(), std::declval<deadline>()));
    }
    if constexpr (declares_on_close<H> && !has_on_close<H>) {
        static_assert(
            has_on_close<H>,
            "tcp::server: Handler's on_close cannot be called as it will be; write, in its "
            "public part, void on_close(tcp::connection& peer, const tcp::close_reason& why).");
        using true_cause [[maybe_unused]] = decltype(std::declval<H&>().on_close(
            std::declval<connection&>(), std::declval<const close_reason&>()));
    }
    return true;
}

template <coroutine H>
consteval bool check_handler() {
    static_assert(std::destructible<H>,
                  "tcp::server: each connection destroys its Handler after its end; give Handler a "
                  "public destructor that does not throw.");
    static_assert(!declares_a_hook<H>,
                  "tcp::server: Handler is a coroutine, so its hooks would never be called; leave "
                  "either its operator() or its hooks out.");
    return true;
}

// The class with hooks that serves for a handler: itself, except for coroutines (tcp/task.hpp).
template <class H>
struct hooks_of {
    using type = H;
    static H&& from(H&& prototype) noexcept { return static_cast<H&&>(prototype); }
};

template <class H>
H default_handler() {
    static_assert(!std::is_pointer_v<H>,
                  "tcp::server: Handler is a pointer to a function; give the server that function: "
                  "tcp::server server{serve};");
    static_assert(
        std::default_initializable<H>,
        "tcp::server: Handler cannot be made without arguments; give the server a prototype, as in "
        "tcp::server server{my_handler{42}}, or a factory, as in tcp::server<my_handler> server{[] "
        "{ return "
        "my_handler{42}; }}.");
    return H();
}

// A handler that can be copied for each connection.
template <class H>
H&& prototype(H&& handler) {
    static_assert(std::copy_constructible<H>,
                  "tcp::server: each connection gets a copy of the prototype, and Handler cannot "
                  "be copied; give "
                  "the server a factory instead: tcp::server<my_handler> server{[] { return "
                  "my_handler{}; }};");
    return static_cast<H&&>(handler);
}

}  // namespace detail
}  // namespace tcp::inline v0_1
