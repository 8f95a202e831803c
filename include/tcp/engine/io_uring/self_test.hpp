// Whether io_uring does here what the engine asks of it. Found out by doing it: versions of kernels
// say little, and filters and settings forbid parts of it.
#pragma once

#include <pthread.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <system_error>

#include <tcp/bytes.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// A connection of a pair of unix-domain sockets receives, sends back, and sees the end that came
/// with the data: one that the kernel receives from already (kernels have lost that end:
/// CVE-2026-23473), and one that has it before it is asked. Both are closed, which their peers see
/// at once though another one waits (with direct descriptors, kernels kept them). That one is
/// closed while it receives.
class self_test {
public:
    /// Nothing where it works; otherwise the error of what was refused, or std::errc::not_supported
    /// for a wrong result. Done once for each process, in some hundred microseconds; again in a
    /// child of fork(2), which may be permitted less, and where descriptors or memory were missing.
    /// Any thread.
    [[gnu::cold]] static std::error_code result() noexcept {
        static atomic<std::uint64_t> known{0};
        return known_or_found(known, &self_test::main<false>);
    }
    /// The same with options::direct_descriptors.
    [[gnu::cold]] static std::error_code result_of_direct() noexcept {
        static atomic<std::uint64_t> known{0};
        return known_or_found(known, &self_test::main<true>);
    }

private:
    // Known is an errno, and behind it the process that found it.
    [[gnu::cold]] static std::error_code known_or_found(atomic<std::uint64_t>& known,
                                                        void* (*main)(void*)) noexcept {
        const std::uint64_t found = known.load_acquire();
        const auto process = static_cast<std::uint64_t>(::getpid()) << 32;
        if (found >> 32 << 32 == process)
            return {static_cast<int>(found & 0xffff'ffff), std::system_category()};
        const int error = on_own_thread(main);
        const bool passing =
            error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
        if (!passing) known.store_release(process | static_cast<std::uint32_t>(error));
        return {error, std::system_category()};
    }

    // Closing a ring interrupts a system call of the thread that made it: that is not the caller's.
    [[gnu::cold]] static int on_own_thread(void* (*main)(void*)) noexcept {
        int found = 0;
        pthread_t thread{};
        const int error = ::pthread_create(&thread, nullptr, main, &found);
        if (error != 0) return error;
        ::pthread_join(thread, nullptr);
        return found;
    }

    explicit self_test(bool direct)
        : settings_{.receive_buffer = 4096, .direct_descriptors = direct} {}

    template <bool Direct>
    static void* main(void* error) noexcept {
        int& found = *static_cast<int*>(error);
        try {
            if (!self_test{Direct}.works()) found = ENOTSUP;
        } catch (const std::system_error& e) {
            found = e.code().value();
        } catch (const std::exception&) {
            found = ENOMEM;
        }
        return nullptr;
    }

    struct seen : null_sink {
        explicit seen(io_uring_engine& e) noexcept : engine{e} {}
        void received(connection_id id, bytes data) {
            in += data.size();
            const send_outcome outcome = engine.send(id, {&data, 1});
            if (outcome.is == send_outcome::state::done) out += outcome.taken;
        }
        void sent(connection_id, std::size_t count, int) noexcept { out += count; }
        void ended(connection_id) noexcept { over = true; }
        void closed(connection_id) noexcept { ++gone; }

        io_uring_engine& engine;
        std::size_t in = 0, out = 0, gone = 0;
        bool over = false;
    };

    // The peer of a new connection.
    descriptor opened(connection_id id) {
        int pair[2] = {};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
            throw std::system_error{errno, std::system_category()};
        descriptor peer{pair[1]};
        if (const int error = engine_.open(id, pair[0]); error != 0)
            throw std::system_error{error, std::system_category()};
        return peer;
    }

    bool works() {
        constexpr connection_id silent{0, 1};
        if (engine_.not_direct()) throw std::system_error{engine_.not_direct()};
        const descriptor its_peer = opened(silent);
        return talks({1, 1}, true) && talks({2, 1}, false) && ends(silent, its_peer);
    }

    bool talks(connection_id id, bool asked_before) {
        constexpr char text[] = "io_uring";
        constexpr std::size_t size = sizeof text;
        char got[size] = {};
        events_.in = events_.out = 0;
        events_.over = false;
        const descriptor peer = opened(id);
        if (asked_before) engine_.wait({}, events_);
        if (::send(peer.get(), text, size, MSG_NOSIGNAL) != size) return false;
        ::shutdown(peer.get(), SHUT_WR);
        return until([&] { return events_.in == size && events_.out == size && events_.over; }) &&
               ::recv(peer.get(), got, size, 0) == size && std::memcmp(got, text, size) == 0 &&
               ends(id, peer);
    }

    bool ends(connection_id id, const descriptor& peer) {
        char nothing = 0;
        events_.gone = engine_.close(id, close_mode::graceful) ? 1 : 0;
        return until([&] { return events_.gone == 1; }) && ::recv(peer.get(), &nothing, 1, 0) == 0;
    }

    template <class Condition>
    bool until(Condition holds) {
        for (int left = 100; left != 0 && !holds(); --left)
            engine_.wait(duration::milliseconds(10), events_);
        return holds();
    }

    const options settings_;
    io_uring_engine engine_{settings_};
    seen events_{engine_};
};

}  // namespace tcp::inline v0_1::detail::io_uring
