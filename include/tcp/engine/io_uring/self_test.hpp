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

namespace tcp::inline v0::detail::io_uring {

/// One connection of a pair of unix-domain sockets receives, sends back, sees the end that came
/// with the data (kernels have lost it: CVE-2026-23473), and is closed, which its peer sees at once
/// though another one waits (with direct descriptors, kernels kept it). That one is closed while it
/// receives.
class self_test {
public:
    /// Nothing where it works; otherwise the error of what was refused, or std::errc::not_supported
    /// for a wrong result. Done once for each process, in some hundred microseconds; again where
    /// descriptors or memory were missing. Any thread.
    [[gnu::cold]] static std::error_code result() noexcept {
        static atomic<int> known{unknown};
        return known_or_found(known, &self_test::main<false>);
    }
    /// The same with options::direct_descriptors.
    [[gnu::cold]] static std::error_code result_of_direct() noexcept {
        static atomic<int> known{unknown};
        return known_or_found(known, &self_test::main<true>);
    }

private:
    static constexpr int unknown = -1;

    [[gnu::cold]] static std::error_code known_or_found(atomic<int>& known,
                                                        void* (*main)(void*)) noexcept {
        int error = known.load_acquire();
        if (error == unknown) {
            error = on_own_thread(main);
            const bool passing =
                error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
            if (!passing) known.store_release(error);
        }
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
        constexpr connection_id first{0, 1}, second{1, 1};
        constexpr char text[] = "io_uring";
        constexpr std::size_t size = sizeof text;
        char got[size] = {};
        seen events{engine_};
        const auto until = [&](auto holds) {
            for (int left = 100; left != 0 && !holds(); --left)
                engine_.wait(duration::milliseconds(10), events);
            return holds();
        };
        if (engine_.not_direct()) throw std::system_error{engine_.not_direct()};
        const descriptor peer = opened(first), silent = opened(second);
        if (::send(peer.get(), text, size, MSG_NOSIGNAL) != size) return false;
        ::shutdown(peer.get(), SHUT_WR);
        if (!until([&] { return events.in == size && events.out == size && events.over; }))
            return false;
        if (::recv(peer.get(), got, size, 0) != size || std::memcmp(got, text, size) != 0)
            return false;
        const auto ends = [&](connection_id one, const descriptor& its_peer) {
            events.gone = engine_.close(one, close_mode::graceful) ? 1 : 0;
            return until([&] { return events.gone == 1; }) &&
                   ::recv(its_peer.get(), got, size, 0) == 0;
        };
        return ends(first, peer) && ends(second, silent);
    }

    const options settings_;
    io_uring_engine engine_{settings_};
};

}  // namespace tcp::inline v0::detail::io_uring
