// A handler that says what happens to its connections, one line for each thing:
//
//     tcp::server<tcp::logged<my_handler>> server;
//     tcp::server server{tcp::logged{my_handler{42}}};
//
//     connected by 127.0.0.1:54321
//     127.0.0.1:54321: received 6 bytes: hello\n
//     127.0.0.1:54321: sending back 6 bytes: hello\n
//     127.0.0.1:54321: peer finished sending        (in on_end)
//     127.0.0.1:54321: send queue has room          (in on_writable)
//     127.0.0.1:54321: deadline: idle               (in on_timeout)
//     127.0.0.1:54321: on_data threw: no such word
//     127.0.0.1:54321: closed: peer reset (Connection reset by peer), 10 bytes unsent
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/echo.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/handler.hpp>

namespace tcp::inline v0_1 {

/// Where the lines of a tcp::logged go unless it is told otherwise: to stderr, each in one write,
/// so that those of several threads do not mix. Any thread. Throws std::bad_alloc.
struct lines_to_stderr {
    void operator()(std::string_view line) const {
        std::string whole{line};
        whole += '\n';
        std::fwrite(whole.data(), 1, whole.size(), stderr);
    }
};

namespace detail {

inline constexpr std::size_t most_shown = 60;  // bytes of what was received or sent
inline constinit atomic<unsigned long long> unnamed_clients{0};

/// The beginning of a text, as a part of a line. Only printable ASCII is shown as it is: a peer
/// must not be able to write to a terminal, or to make one line look like two.
class escaped {
public:
    explicit escaped(std::string_view text) noexcept : escaped{text, text.size()} {}

    /// The beginning of so many bytes.
    escaped(std::string_view text, std::size_t whole) noexcept {
        const std::string_view beginning = text.substr(0, most);
        for (const char c : beginning) add(c);
        if (beginning.size() < whole) text_.add("...");
    }
    operator std::string_view() const noexcept {  // NOLINT(google-explicit-constructor): a part
        return text_;
    }

private:
    void add(char c) noexcept {
        constexpr std::string_view digits = "0123456789abcdef";
        const auto code = static_cast<unsigned char>(c);
        switch (c) {
            case '\n': return text_.add("\\n");
            case '\r': return text_.add("\\r");
            case '\t': return text_.add("\\t");
            case '\\': return text_.add("\\\\");
            default: break;
        }
        if (code >= 0x20 && code < 0x7f) return text_.add({&c, 1});
        text_.add("\\x");
        text_.add(digits.substr(code / 16, 1));
        text_.add(digits.substr(code % 16, 1));
    }

    static constexpr std::size_t most = 120;  // the longest endpoint; all of it fits if escaped
    sentence text_;
};

/// "1 byte", "5 bytes".
inline sentence byte_count(std::size_t count) noexcept {
    return {decimal{count}, count == 1 ? " byte" : " bytes"};
}

/// What is queued for a peer from now on. Within one hook nothing leaves the queue.
class sent_since {
public:
    explicit sent_since(const connection& peer) noexcept
        : peer_{peer}, before_{peer.send_queue_size()} {}

    std::size_t size() const noexcept { return peer_.send_queue_size() - before_; }

    /// The beginning of it; the end of the queue may lie where the handler was shown it.
    escaped beginning() const noexcept {
        std::byte first[most_shown];
        std::size_t count = peer_.queue_.copy(before_, first);
        const std::size_t queued = peer_.queue_.size();
        const bytes lent = peer_.lent();
        for (std::size_t i = before_ > queued ? before_ - queued : 0;
             i < lent.size() && count != most_shown; ++i)
            first[count++] = lent[i];
        return escaped{as_text({first, count}), size()};
    }

private:
    const connection& peer_;
    const std::size_t before_;
};

/// The hooks of a logged handler that every one has. None of them changes what it means that the
/// wrapped handler does not have it.
template <class Handler, class Sink>
class logged_hooks {
    static_assert(check_handler<Handler>());
    static_assert(std::is_invocable_v<Sink&, std::string_view>,
                  "tcp::logged: the second argument is called with each line; write "
                  "[](std::string_view line) { ... }.");

public:
    using hooks = typename hooks_of<Handler>::type;

    void on_open(connection& peer) {
        remember(peer);
        say_line({"connected by ", name_});
        if constexpr (has_on_open<hooks>) call(peer, "on_open", [&] { hooks_.on_open(peer); });
    }

    // The same bytes may be shown several times; they were received once.
    auto on_data(connection& peer, bytes data)
        -> std::conditional_t<has_counting_on_data<hooks>, std::size_t, void> {
        const bytes fresh = data.subspan(left_ < data.size() ? left_ : data.size());
        if (!fresh.empty())
            say({"received ", byte_count(fresh.size()), ": ",
                 escaped{as_text(fresh).substr(0, most_shown), fresh.size()}});
        if constexpr (has_counting_on_data<hooks>) {
            const std::size_t taken =
                call(peer, "on_data", [&] { return hooks_.on_data(peer, data); });
            left_ = data.size() - (taken < data.size() ? taken : data.size());
            return taken;
        } else if constexpr (has_void_on_data<hooks>) {
            call(peer, "on_data", [&] { hooks_.on_data(peer, data); });
        }
    }

    void on_close(connection& peer, const close_reason& why) {
        say_closed(why);
        if constexpr (has_on_close<hooks>)
            call(peer, "on_close", [&] { hooks_.on_close(peer, why); });
    }

protected:
    logged_hooks(Handler&& handler, Sink&& sink)
        : hooks_{hooks_of<Handler>::from(std::move(handler))}, sink_{std::move(sink)} {}

    // A line that cannot be written is no reason to end a connection.
    void say_line(std::initializer_list<std::string_view> parts) noexcept {
        try {
            const sentence line{parts};
            sink_(std::string_view{line});
        } catch (...) {}
    }
    void say(std::initializer_list<std::string_view> parts) noexcept {
        const sentence rest{parts};
        say_line({name_, ": ", rest});
    }

    /// Calls a hook, and says what it sent and what it threw.
    template <class Hook>
    auto call(connection& peer, std::string_view name, Hook hook) {
        try {
            const says_what_was_sent afterwards{*this, sent_since{peer},
                                                name == "on_data" ? "sending back " : "sending "};
            return hook();
        } catch (const std::exception& thrown) {
            say({name, " threw: ", escaped{thrown.what()}});
            throw;
        } catch (...) {
            say({name, " threw"});
            throw;
        }
    }

    [[no_unique_address]] hooks hooks_;

private:
    struct says_what_was_sent {
        says_what_was_sent(logged_hooks& of, sent_since sent, std::string_view how) noexcept
            : log{of}, what{sent}, verb{how} {}
        says_what_was_sent(const says_what_was_sent&) = delete;
        says_what_was_sent& operator=(const says_what_was_sent&) = delete;
        ~says_what_was_sent() {
            if (const std::size_t size = what.size(); size != 0)
                log.say({verb, byte_count(size), ": ", what.beginning()});
        }
        logged_hooks& log;
        const sent_since what;
        const std::string_view verb;
    };

    // Later the system may not know the peer any more.
    void remember(const connection& peer) noexcept {
        try {
            const endpoint remote = peer.remote_endpoint();
            constexpr std::size_t longest = 120;  // what happened must fit behind it
            name_ = std::string_view{escaped{remote.to_string()}};
            if (name_.size() > longest) name_.replace(longest, std::string::npos, "...");
            // Clients of unix-domain sockets seldom have a name.
            if (name_ == "unix:" || name_.empty())
                name_ += std::string_view{
                    sentence{"client ", decimal{unnamed_clients.fetch_add(1) + 1}}};
        } catch (...) {}
    }

    void say_closed(const close_reason& why) noexcept {
        try {
            sentence line{"closed: ", to_text(why)};
            if (why.error) line = {line, " (", escaped{why.error.message()}, ")"};
            if (why.unsent != 0) line = {line, ", ", byte_count(why.unsent), " unsent"};
            say({line});
        } catch (...) {}
    }

    [[no_unique_address]] Sink sink_;
    std::string name_;
    std::size_t left_ = 0;  // of what on_data was shown
};

// ---- the hooks that a logged handler has only where the wrapped one has them ----

template <class Base>
class logged_on_end : public Base {
public:
    using Base::Base;
    void on_end(connection& peer) {
        this->say({"peer finished sending"});
        this->call(peer, "on_end", [&] { this->hooks_.on_end(peer); });
    }
};
template <class Base>
class logged_on_writable : public Base {
public:
    using Base::Base;
    void on_writable(connection& peer) {
        this->say({"send queue has room"});
        this->call(peer, "on_writable", [&] { this->hooks_.on_writable(peer); });
    }
};
template <class Base>
class logged_on_timeout : public Base {
public:
    using Base::Base;
    void on_timeout(connection& peer, deadline which) {
        this->say({to_text(close_reason{.by = closed_by::deadline, .passed = which})});
        this->call(peer, "on_timeout", [&] { this->hooks_.on_timeout(peer, which); });
    }
};

// A base class and not a constraint: a hook that is constrained away is declared all the same.
template <class Base>
using with_on_end = std::conditional_t<has_on_end<typename Base::hooks>, logged_on_end<Base>, Base>;
template <class Base>
using with_on_writable =
    std::conditional_t<has_on_writable<typename Base::hooks>, logged_on_writable<Base>, Base>;
template <class Base>
using with_on_timeout =
    std::conditional_t<has_on_timeout<typename Base::hooks>, logged_on_timeout<Base>, Base>;

// A coroutine.
template <class Base>
class logged_waits : public Base {
public:
    using Base::Base;
    using says_when_it_waits = void;
};
template <class Hooks>
concept waits_by_itself = requires {
    typename Hooks::says_when_it_waits;
};
template <class Base>
using with_waits =
    std::conditional_t<waits_by_itself<typename Base::hooks>, logged_waits<Base>, Base>;

template <class Handler, class Sink>
using all_logged_hooks =
    with_waits<with_on_timeout<with_on_writable<with_on_end<logged_hooks<Handler, Sink>>>>>;

}  // namespace detail

/// A handler, with hooks or a coroutine, that does what Handler does and says what happens: who
/// connected, what it received and sent, and why it ended. A line names the peer's endpoint,
/// shows at most 60 bytes of data, and has no characters but printable ASCII: others are escaped
/// (\n, \x1b). What is sent outside of the connection's own hooks (by a timer, after sleep_for()
/// or a tcp::future, by another connection's hook) is not said.
///
/// Its hooks are called, and call the sink, on the thread of the loop. What the sink throws is
/// dropped.
template <class Handler = echo, class Sink = lines_to_stderr>
class logged : public detail::all_logged_hooks<Handler, Sink> {
    using base = detail::all_logged_hooks<Handler, Sink>;

public:
    /// With a default-made handler and sink.
    logged() requires std::default_initializable<Handler> && std::default_initializable<Sink>
        : base{detail::default_handler<Handler>(), Sink{}} {}

    /// The sink is called with each line, without its end; each connection has a copy. Not
    /// explicit: a server of logged handlers takes the prototype or the factory of plain ones.
    // NOLINTNEXTLINE(google-explicit-constructor)
    logged(Handler handler, Sink sink = {}) : base{std::move(handler), std::move(sink)} {}
};

}  // namespace tcp::inline v0_1
