// The server: bind, listen, accept, run, drain, stop.
#pragma once

#include <concepts>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/detail/check_options.hpp>
#include <tcp/detail/name_lookup.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/duration.hpp>
#include <tcp/echo.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/default.hpp>
#include <tcp/error.hpp>
#include <tcp/explain.hpp>
#include <tcp/handler.hpp>
#include <tcp/loop/event_loops.hpp>
#include <tcp/loop/loop_owner.hpp>
#include <tcp/loop/loop_threads.hpp>
#include <tcp/options.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1 {

namespace detail {
struct without_options {};

inline std::string_view view_of(std::string_view text) noexcept { return text; }
inline std::string_view view_of(const char* text) noexcept { return text != nullptr ? text : ""; }

[[gnu::cold]] inline sentence text_of(std::string_view host, int port) noexcept {
    const bool bare = host.find(':') != host.npos && !host.starts_with('[');
    return {bare ? "[" : "", host, bare ? "]:" : ":", decimal{port}};
}
}  // namespace detail

/// Binds, listens, accepts, and gives every connection a Handler of its own.
///
/// What can fail comes twice: throwing std::system_error, whose what() says what to do, and with a
/// std::error_code&. One thread at a time, but for these: stop(), drain(), pause_accept() and
/// resume_accept() are for any thread, hook and signal handler; statistics(), loop_count(),
/// engine() and the destructor for any thread.
///
/// It may be made before fork(2) and run in several processes: each serves those whom it accepts.
/// Stopping or destroying it in one takes nothing from the others.
template <class Handler = echo, class Engine = default_engine>
class server {
    static_assert(
        tcp::engine<Engine>,
        "tcp::server: Engine does not model tcp::engine; tcp/engine/concept.hpp says what one has. "
        "Leave the parameter out for the engine of this system.");

    static_assert(detail::check_handler<Handler>());

public:
    /// The queue of connections that wait for accept, unless listen() is told otherwise. The system
    /// may cap it (net.core.somaxconn).
    static constexpr int default_backlog = 4096;

    // A server made without options has nothing in it that only options ask for.

    /// A server with default-made handlers. Throws std::system_error for options that contradict
    /// each other (error::bad_options) and when there are no descriptors.
    server() : server{detail::without_options{}, detail::default_handler<Handler>()} {}
    explicit server(const options& settings)
        : server{detail::default_handler<Handler>(), settings} {}

    /// Each accepted connection gets a copy of the prototype. What all connections share is what
    /// the prototype points to. More arguments are the engine's: a simulation.
    explicit server(Handler prototype) : server{detail::without_options{}, std::move(prototype)} {}
    template <class... EngineArguments>
    explicit server(Handler prototype, const options& settings, EngineArguments&&... arguments)
        : loops_{std::in_place, others<EngineArguments...>, detail::checked(settings),
                 source(std::move(prototype)), std::forward<EngineArguments>(arguments)...} {}

    /// Each accepted connection gets what the factory returns. It is called on the loop's thread,
    /// once for each; with options::threads on several at a time. What it throws resets that
    /// connection alone, which is counted (refused_by::handler_failed).
    template <class Factory, class... EngineArguments>
    requires(std::is_invocable_r_v<Handler, Factory&> &&
             !std::convertible_to<Factory, Handler>) explicit server(Factory factory,
                                                                     const options& settings = {},
                                                                     EngineArguments&&... arguments)
        : loops_{std::in_place, others<EngineArguments...>, detail::checked(settings),
                 std::move(factory), std::forward<EngineArguments>(arguments)...} {}

    server(const server&) = delete;
    server& operator=(const server&) = delete;

    /// Ends every connection (closed_by::server_stopping). Allowed in a hook of its own, and while
    /// another thread runs the server, whose run() then returns before this does.
    ~server() = default;

    // ---- bind, listen, accept ----

    /// Binds an endpoint, as often as wanted, before listen(). A port alone means every local
    /// address, IPv4 and IPv6. Returns the endpoint with the true port: port 0 lets the system
    /// choose one. Never shares a port that another program listens on. Of unix:/path: the file of
    /// a socket on which nobody listens any more is replaced, for which the folder is locked for a
    /// moment (flock(2)); its permissions are those that umask(2) leaves; it is removed when the
    /// server ends, by the path as it was given, so not behind a chdir(2) from a relative one.
    /// bind(2), ip(7), unix(7). Errors: error::already_listening, error::stopped, or the system's.
    [[gnu::cold]] endpoint bind(const endpoint& where) {
        std::error_code failure;
        const endpoint bound = bind(where, failure);
        if (failure) detail::fail_at("bind", where, failure);
        return bound;
    }
    endpoint bind(int port) { return bind(endpoint{port}); }
    endpoint bind(int port, std::error_code& failure) {
        failure = error::bad_endpoint;
        return port < 0 || port > 65535 ? endpoint{} : bind(endpoint{port}, failure);
    }
    [[gnu::cold]] endpoint bind(const endpoint& where, std::error_code& failure) {
        if (!may_bind(failure)) return {};
        const endpoint bound = loops_->first().engine().bind(where, failure);
        if (failure) return {};
        one_more_bound();
        return bound;
    }

    /// The same with a text: "80", ":80", "*:80", "127.0.0.1:80", "[::1]:80", "unix:/path",
    /// "unix:@name", or "name:80", which binds every address of that name that this system has, or
    /// none; returns the first. Asks the name service for a name alone, which may block. Errors:
    /// those above, and error::bad_endpoint (what is thrown says what is wrong with the text; null
    /// is an empty one), error::name_not_found, error::name_service_failed.
    // A template: a string_view made of {"127.0.0.1", 80} would be 80 characters long.
    template <std::convertible_to<std::string_view> Text>
    endpoint bind(const Text& where) {
        return bind_text(detail::view_of(where));
    }
    template <std::convertible_to<std::string_view> Text>
    endpoint bind(const Text& where, std::error_code& failure) {
        endpoint last;
        return bind_all(detail::view_of(where), failure, last);
    }

    /// The same with what stands before the port, and the port: "127.0.0.1", "::1", "name", "".
    template <std::convertible_to<std::string_view> Text>
    endpoint bind(const Text& host, int port) {
        return bind_text(detail::text_of(detail::view_of(host), port));
    }
    template <std::convertible_to<std::string_view> Text>
    endpoint bind(const Text& host, int port, std::error_code& failure) {
        return bind(detail::text_of(detail::view_of(host), port), failure);
    }

    /// Takes over a socket that somebody else has bound, and that may listen already: one of
    /// tcp::listen_fds(), or one that release() of another process gave. Call listen() all the
    /// same. On success the descriptor is the server's; the file of a unix-domain socket stays at
    /// the end. Errors: error::not_a_listener, those of bind(), or the system's: EBADF, ENOTSOCK.
    [[gnu::cold]] endpoint adopt(int socket) {
        std::error_code failure;
        const endpoint bound = adopt(socket, failure);
        if (failure)
            detail::fail(failure, detail::sentence{"adopt(", detail::decimal{socket},
                                                   ") takes what tcp::listen_fds() or release() "
                                                   "gave"});
        return bound;
    }
    [[gnu::cold]] endpoint adopt(int socket, std::error_code& failure) {
        if (!may_bind(failure)) return {};
        const endpoint bound = loops_->first().engine().adopt(socket, failure);
        if (!failure) one_more_bound();
        return bound;
    }

    /// How many sockets are bound or adopted: one bind() of a name may bind several.
    listener_id bound_count() const noexcept { return loops_->first().listeners(); }

    /// A descriptor of the socket that was bound or adopted as the nth, for a process that takes
    /// over: it adopts it, and nobody who connects meanwhile notices. This server goes on until
    /// drain(). The descriptor is the caller's, CLOEXEC (clear that in the child, fcntl(2)), and so
    /// is the file of a unix-domain socket. Before the server drains or stops, and not while a
    /// signal or another thread may make it. Errors: error::not_bound where nothing is,
    /// std::errc::invalid_argument where no nth is, error::stopped, or the system's.
    [[gnu::cold]] int release(std::size_t nth = 0) {
        std::error_code failure;
        const int copy = release(nth, failure);
        if (failure)
            detail::fail(failure, detail::sentence{"release(", detail::decimal{nth},
                                                   "), counted from 0, of ",
                                                   detail::decimal{bound_count()}, " bound"});
        return copy;
    }
    [[gnu::cold]] int release(std::size_t nth, std::error_code& failure) {
        failure.clear();
        const auto id = static_cast<listener_id>(nth);
        if (nth >= bound_count()) failure = make_error_code(std::errc::invalid_argument);
        if (bound_count() == 0) failure = error::not_bound;
        if (loops_->stop_wanted()) failure = error::stopped;
        if (failure) return -1;
        const int copy = loops_->first().engine().share(id, failure);
        if (!failure) loops_->first().engine().keep_file(id);
        return copy;
    }

    /// Starts the system's queue of connections on all bound endpoints. A negative backlog is the
    /// longest that the system allows. listen(2). Errors: error::not_bound,
    /// error::already_listening, error::stopped, or the system's.
    [[gnu::cold]] void listen(int backlog = default_backlog) {
        std::error_code failure;
        endpoint last;
        listen_all(backlog, failure, last);
        if (failure) detail::fail_at("listen", last, failure);
    }
    void listen(int backlog, std::error_code& failure) {
        endpoint last;
        listen_all(backlog, failure, last);
    }
    void listen(std::error_code& failure) { listen(default_backlog, failure); }

    /// Accepts one connection, serves it to its end on this thread, and returns how it ended.
    /// Others wait in the system's queue. After stop(): closed_by::server_stopping. Errors:
    /// error::not_listening, error::already_running.
    [[gnu::cold]] close_reason accept() {
        return thrown_if_failed([this](std::error_code& failure) { return accept(failure); });
    }
    close_reason accept(std::error_code& failure) {
        close_reason how{.by = closed_by::server_stopping};
        if (const turn now{loops_}; may_run(now, failure)) now->first().accept_one(how);
        return how;
    }

    // ---- run ----

    /// Accepts and serves until stop(), or until drain() has ended. Errors: error::not_listening,
    /// error::already_running. Both forms throw std::system_error, when every loop has ended, where
    /// the system does not let the engine go on; the connections end with the server then.
    void run() {
        thrown_if_failed([this](std::error_code& failure) { return run(failure), true; });
    }
    [[gnu::cold]] void run(std::error_code& failure) {
        const turn now{loops_};
        if (may_run(now, failure)) now->run(failure);
    }

    /// Accepts and serves for so long, for a program that has a loop of its own; a length of 0 or
    /// less is poll(). False when the server has stopped. Errors, and exceptions, of this and of
    /// poll(): those of run().
    bool run_for(duration length) {
        return thrown_if_failed([&](std::error_code& failure) { return run_for(length, failure); });
    }
    bool run_for(duration length, std::error_code& failure) {
        const turn now{loops_};
        if (!may_run(now, failure)) return false;
        auto& loop = now->first();
        loop.accept_many();
        const duration end = loop.now() + length;
        for (duration left = length; left > duration{}; left = end - loop.now())
            if (!loop.turn(left)) return false;
        return loop.turn(duration{});
    }

    /// Deals with what is there, without waiting. False when the server has stopped.
    bool poll() {
        return thrown_if_failed([this](std::error_code& failure) { return poll(failure); });
    }
    bool poll(std::error_code& failure) { return run_for(duration{}, failure); }

    // ---- end, and pause: any thread, any hook, any signal handler ----

    /// Ends the server: run() closes every connection (closed_by::server_stopping) and returns.
    /// Before run(), run() returns at once. It stays stopped. Doing it twice is doing it once.
    void stop() noexcept { loops_->stop(); }

    /// Accepts those that wait in the system's queue, some thousands at most (none while accepting
    /// is paused), and then nobody more; lets the connections finish by themselves; closes those
    /// that are left after so long (closed_by::drain_deadline). Then run() returns, and the server
    /// is stopped. statistics().open says how many there are still. A second call sets another
    /// deadline.
    void drain(duration at_most) noexcept { loops_->drain(at_most); }

    /// Accepts no more until resume_accept(): who connects waits in the system's queue. Those
    /// connected are served. Both take effect when the loops see them, soon; twice is once.
    void pause_accept() noexcept { loops_->hold_accepting(true); }
    void resume_accept() noexcept { loops_->hold_accepting(false); }

    // ---- observe ----

    /// What was counted until now. Any thread, without stopping anything.
    tcp::statistics statistics() const noexcept {
        tcp::statistics sum;
        for (std::size_t i = 0; i != loops_->size(); ++i) loops_->counters(i).add_to(sum);
        return sum;
    }

    /// What one loop has counted, zeros where there is none of this number, and how many loops
    /// there are: options::threads. Any thread.
    tcp::statistics statistics(std::size_t loop) const noexcept {
        tcp::statistics own;
        if (loop < loops_->size()) loops_->counters(loop).add_to(own);
        return own;
    }
    std::size_t loop_count() const noexcept { return loops_->size(); }

    /// The name of the engine that serves. Of one that chooses, tcp::native_engine, what it chose
    /// and why; valid as long as the server.
    std::string_view engine() const noexcept {
        if constexpr (requires(const Engine& e) { e.chosen(); })
            return loops_->first().engine().chosen();
        else
            return Engine::name;
    }

private:
    using hooks = detail::hooks_of<Handler>;
    using loops = detail::event_loops<typename hooks::type, Engine>;
    using owner = detail::loop_owner<loops>;
    using turn = typename owner::turn;

    server(detail::without_options, Handler&& prototype)
        : loops_{std::in_place, nullptr, options{}, source(std::move(prototype))} {}

    static auto source(Handler&& prototype) {
        return hooks::from(detail::prototype<Handler>(std::move(prototype)));
    }

    // An engine with arguments, a simulation, is one thread's.
    template <class... EngineArguments>
    static constexpr typename loops::maker others = [] {
        using threads = detail::loop_threads<typename hooks::type, Engine>;
        if constexpr (sizeof...(EngineArguments) == 0)
            return &threads::make;
        else
            return &threads::refuse;
    }();

    template <class F>
    [[gnu::cold]] static auto thrown_if_failed(F call) {
        std::error_code failure;
        auto result = call(failure);
        if (failure) detail::fail(failure, "tcp::server");
        return result;
    }

    [[gnu::cold]] bool may_bind(std::error_code& failure) const noexcept {
        failure.clear();
        if (loops_->stop_wanted())
            failure = error::stopped;
        else if (listening_)
            failure = error::already_listening;
        return !failure;
    }

    // A stopped server may be run: run() returns at once.
    bool may_run(const turn& now, std::error_code& failure) const noexcept {
        failure.clear();
        if (!now)
            failure = error::already_running;
        else if (!listening_ && !loops_->stop_wanted())
            failure = error::not_listening;
        return !failure;
    }

    [[gnu::cold]] endpoint bind_text(std::string_view where) {
        std::error_code failure;
        endpoint last;
        const endpoint bound = bind_all(where, failure, last);
        if (failure && last) detail::fail_at("bind", last, failure);
        if (failure == error::bad_endpoint) endpoint::parse(where);  // throws what is wrong with it
        if (failure) detail::fail(failure, detail::sentence{"bind ", detail::quoted(where)});
        return bound;
    }

    // `last` is the endpoint that was tried last, if it came to that.
    [[gnu::cold]] endpoint bind_all(std::string_view text, std::error_code& failure,
                                    endpoint& last) {
        if (!may_bind(failure)) return {};
        const listener_id before = bound_count();
        for (int left = 16;; --left) {
            endpoint first;
            const bool another = bind_each(text, failure, first, last);
            if (!failure) return first;
            take_back(before);
            if (!another || left == 0) return {};
            failure = {};
        }
    }

    // Whether another port may do where this fails: the system chose it for the first address, and
    // it is taken on this one.
    [[gnu::cold]] bool bind_each(std::string_view text, std::error_code& failure, endpoint& first,
                                 endpoint& last) {
        std::error_code absent;
        detail::name_lookup names{text, failure};
        while (const endpoint one = names.next()) {
            // Port 0 means one port, the same on every address.
            last =
                first && one.port() == 0 && first.port() != 0 ? one.with_port(first.port()) : one;
            const endpoint bound = bind(last, failure);
            // A name may stand for addresses that this system does not have: localhost without
            // IPv6.
            if (failure == std::errc::address_not_available ||
                failure == std::errc::address_family_not_supported)
                absent = std::exchange(failure, {});
            if (failure) return first && one.port() == 0 && failure == std::errc::address_in_use;
            if (!first) first = bound;
        }
        if (!first && !failure) failure = absent ? absent : make_error_code(error::name_not_found);
        return false;
    }

    // Unbinds all but the first so many.
    [[gnu::cold]] void take_back(listener_id count) {
        loops_->first().engine().unbind(count);
        loops_->first().set_listeners(count);
    }
    void one_more_bound() noexcept { loops_->first().set_listeners(bound_count() + 1); }
    [[gnu::cold]] void listen_all(int backlog, std::error_code& failure, endpoint& last) {
        if (!may_bind(failure)) return;
        if (bound_count() == 0) failure = error::not_bound;
        for (listener_id i = 0; i != bound_count() && !failure; ++i) {
            last = loops_->first().engine().bound(i);
            loops_->first().engine().listen(i, backlog, failure);
        }
        listening_ = !failure;
    }

    owner loops_;
    bool listening_ = false;
};

// tcp::server server{my_handler{...}};
template <class Handler, class... Rest>
server(Handler, Rest&&...) -> server<Handler>;
template <class Handler>
server(Handler, const options&) -> server<Handler>;

}  // namespace tcp::inline v0_1
