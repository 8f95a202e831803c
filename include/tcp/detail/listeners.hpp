// The listening sockets of one engine, numbered from 0: what engine/concept.hpp says of them, up to
// accepting, which each engine does in its own way.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/detail/socket.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

class listeners {
public:
    [[gnu::cold]] endpoint bind(const endpoint& where, std::error_code& failure) {
        listener opened{where, settings_, failure};
        return failure ? endpoint{} : take(std::move(opened));
    }

    [[gnu::cold]] endpoint adopt(int socket, std::error_code& failure) {
        if (!prepare_adopted(socket, settings_, failure)) return {};
        return take(listener{descriptor{socket}});
    }

    endpoint bound(std::uint32_t id) const { return listeners_[id].socket.bound(); }
    void keep_file(std::uint32_t id) { listeners_[id].socket.keep_file(); }

    [[gnu::cold]] int share(std::uint32_t id, std::error_code& failure) {
        const int copy = ::fcntl(listeners_[id].socket.get(), F_DUPFD_CLOEXEC, 0);
        if (copy < 0) failure.assign(errno, std::system_category());
        return copy;
    }

    [[gnu::cold]] void unbind(std::uint32_t first) {
        while (listener_count_ != first) listeners_[--listener_count_].socket.close();
    }

    void listen(std::uint32_t id, int backlog, std::error_code& failure) {
        listen_socket(listeners_[id].socket.get(), backlog, failure);
    }

protected:
    struct listener_state {
        listener socket;
        bool armed = false;
        bool one = false;
    };

    /// Accepts for an armed listener that has something: those that wait now. accept(2).
    template <class Sink, class Engine>
    [[gnu::cold, gnu::noinline]] void accept_some(std::uint32_t id, Sink& sink, Engine& engine) {
        for (unsigned left = waiting(listeners_[id].socket.get()); left != 0; --left) {
            listener_state& l = listeners_[id];
            if (!l.armed) return;
            sockaddr_storage peer;
            socklen_t size = sizeof peer;
            auto* const address = reinterpret_cast<sockaddr*>(&peer);
            const int socket =
                ::accept4(l.socket.get(), address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (socket >= 0) {
                if (l.one) engine.pause_accept(id);
                sink.accepted(id, socket, endpoint::from_sockaddr(address, size));
            } else if (errno == EAGAIN) {
                return;
            } else if (errno != EINTR) {
                sink.accept_failed(id, errno);
            }
        }
    }

    [[gnu::cold]] explicit listeners(const options& settings) noexcept : settings_{settings} {}
    ~listeners() = default;

    const options& settings_;  // of the server
    slot_array<listener_state, 4> listeners_;
    std::uint32_t listener_count_ = 0;
    bool has_local_ = false;  // some listener is a unix-domain one

private:
    static constexpr unsigned most_accepts = 64;  // in a row

    /// How many to accept from a listening socket that has something, 1 to 64: those in its queue,
    /// 64 where it does not say, as a unix-domain one. An accept4(2) that finds none makes a socket
    /// first: 3.3 microseconds, this 0.4. tcp(7), TCP_INFO: of a listening socket the kernel gives
    /// the queue as tcpi_unacked; systems that emulate Linux give 0.
    [[gnu::cold]] static unsigned waiting(int listener) noexcept {
        tcp_info about;
        socklen_t size = offsetof(tcp_info, tcpi_unacked) + sizeof about.tcpi_unacked;
        if (::getsockopt(listener, IPPROTO_TCP, TCP_INFO, &about, &size) != 0) return most_accepts;
        if (about.tcpi_state != TCP_LISTEN || about.tcpi_unacked == 0) return 1;
        return about.tcpi_unacked < most_accepts ? about.tcpi_unacked : most_accepts;
    }

    [[gnu::cold]] endpoint take(listener&& opened) {
        has_local_ = has_local_ || opened.bound().family() == address_family::local;
        listeners_.grow_to(listener_count_);
        listener_state& l = listeners_[listener_count_++];
        l.socket = std::move(opened);
        return l.socket.bound();
    }
};

}  // namespace tcp::inline v0_1::detail
