// What stands in for system calls where the socket of a connection is in the table of the ring
// (options::direct_descriptors) and has no descriptor.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/detail/connected_socket.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/io_uring/requests.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail::io_uring {

class direct_requests : protected requests {
public:
    /// "io_uring"; where direct descriptors were asked for and are not there, also why not.
    std::string_view chosen() const noexcept { return chosen_; }

    /// Why direct descriptors that were asked for are not there; nothing where they are.
    std::error_code not_direct() const noexcept { return not_direct_; }

protected:
    /// As of requests.
    [[gnu::cold]] direct_requests(const options& settings, std::error_code not_direct)
        : requests{settings} {
        if (!settings.direct_descriptors) return;
        if (!not_direct) not_direct.assign(table_.open(ring_), std::system_category());
        if (!not_direct) return;
        not_direct_ = not_direct;
        chosen_ += ", no direct descriptors, since it gave: " + not_direct.message();
    }
    ~direct_requests() = default;

    /// The socket is in the table from now on, if there is a place.
    [[gnu::cold, gnu::noinline]] void put_into_table(connection_id id, state& c) noexcept {
        if (!table_.put(ring_, id.slot, c.fd)) return;
        ::close(std::exchange(c.fd, static_cast<int>(id.slot)));
        c.in_table = true;
    }

    /// sendmsg(2), without waiting. Where the kernel has not done it, for want of memory, a
    /// completion of op::settle says when to try again: the socket is not full, so that no poll
    /// would.
    [[gnu::cold, gnu::noinline]] send_outcome send_message(connection_id id, state& c,
                                                           std::span<const bytes> pieces) {
        bool done = true;
        const send_outcome outcome = send_pieces_by(
            [&](const msghdr& message) -> ssize_t {
                const std::uint64_t key = next_key(op::call);
                submission& one = ask_now(operation::send_message, c, key);
                one.address = address_of(&message);
                one.length = 1;
                one.operation_flags = MSG_NOSIGNAL | MSG_DONTWAIT;
                const int result = result_of(key);
                if (result >= 0) return result;
                done = result != -ECANCELED;
                errno = done ? -result : EAGAIN;
                return -1;
            },
            pieces);
        if (!done && !c.has(settles)) {
            ask(operation::nothing, -1, key_of(id, op::settle));
            c.set(settles);
        }
        return outcome;
    }

    /// shutdown(2) of the sending side. As a request it is done later, by a thread.
    [[gnu::cold, gnu::noinline]] void shutdown_in_table(connection_id id, state& c) {
        if (const own_descriptor socket = descriptor_of(c); socket.get() >= 0) {
            ::shutdown(socket.get(), SHUT_WR);
            return;
        }
        ask(operation::shutdown, id, c, op::settle).length = SHUT_WR;
        c.set(settles);
    }

    /// close(2), with a reset if that is wanted. What is known of it is forgotten.
    void close_now(state& c) {
        if (c.in_table) {
            close_in_table(c);
        } else {
            if (c.has(reset)) reset_on_close(c.fd);
            ::close(c.fd);
        }
        c = {};
    }

    /// A descriptor of a connection, for as long as this lives if it had none.
    class own_descriptor {
    public:
        explicit own_descriptor(int lasting) noexcept : fd_{lasting} {}
        explicit own_descriptor(descriptor&& made) noexcept
            : made_{std::move(made)}, fd_{made_.get()} {}
        /// -1 where there is none left.
        int get() const noexcept { return fd_; }

    private:
        descriptor made_;
        int fd_;
    };
    own_descriptor descriptor_of(const state& c) {
        return c.in_table ? own_descriptor{installed(c)} : own_descriptor{c.fd};
    }

    /// A descriptor that nobody waits for any more.
    [[gnu::cold]] static void came_late(int result) noexcept {
        if (result >= 0) ::close(result);
    }

private:
    [[gnu::cold, gnu::noinline]] void close_in_table(const state& c) {
        if (c.has(reset) && !set_reset(c))
            if (const own_descriptor socket = descriptor_of(c); socket.get() >= 0)
                reset_on_close(socket.get());
        table_.remove(ring_, static_cast<std::uint32_t>(c.fd));
    }

    // setsockopt(2), SO_LINGER.
    bool set_reset(const state& c) {
        const linger now{.l_onoff = 1, .l_linger = 0};
        const std::uint64_t key = next_key(op::call);
        submission& one = ask_now(operation::socket_command, c, key);
        one.offset = both(set_socket_option, 0);
        one.address = both(SOL_SOCKET, SO_LINGER);
        one.option_value = address_of(&now);
        one.option_length = sizeof now;
        return result_of(key) == 0;
    }

    [[gnu::cold, gnu::noinline]] descriptor installed(const state& c) {
        const std::uint64_t key = next_key(op::install);
        ask_now(operation::install_descriptor, c, key);
        return descriptor{result_of(key)};
    }

    std::uint64_t next_key(op about) noexcept { return key_of({0, ++calls_}, about); }

    /// Of one in the table, with a key of its own, by which result_of() finds what it gave.
    submission& ask_now(operation what, const state& c, std::uint64_t key) {
        submission& one = ask(what, c.fd, key);
        one.flags = registered_file;
        return one;
    }

    /// Does it now: nothing that it points at is looked at by the kernel later. Its result;
    /// -ECANCELED where it was not done, -ENOMEM where that cannot be known. Where there is no room
    /// for its completion, the kernel holds it back until there is.
    int result_of(std::uint64_t key) {
        submit_now();
        if (ring_.has_requests()) withdraw(key);
        for (int result = -ECANCELED;;) {
            if (ring_.take_result(key, result)) return result;
            if (!ring_.full_of_completions()) return -ECANCELED;
            try {
                ring_.set_aside();
            } catch (const std::bad_alloc&) {
                return -ENOMEM;
            }
            submit_now();
        }
    }

    std::uint32_t calls_ = 0;
    std::error_code not_direct_;
    std::string chosen_ = "io_uring";
};

}  // namespace tcp::inline v0_1::detail::io_uring
