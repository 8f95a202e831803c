// Listening sockets of Linux, the files of unix-domain ones, and the endpoints of a socket.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <system_error>

#include <tcp/detail/clock.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

/// The endpoint that this system call tells; empty where it fails.
[[gnu::noinline]] inline endpoint endpoint_of(int fd,
                                              int (*call)(int, sockaddr*, socklen_t*)) noexcept {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    return call(fd, generic, &size) == 0 ? endpoint::from_sockaddr(generic, size) : endpoint{};
}

/// The endpoint at this end of a socket; empty where the system does not know it (getsockname(2)).
/// Of a socket that listens on a bare port it says [::]: the listener knows better.
inline endpoint local_endpoint_of(int fd) noexcept { return endpoint_of(fd, ::getsockname); }

/// The endpoint at the other end; empty where the system does not know it, as after a reset
/// (getpeername(2)).
inline endpoint remote_endpoint_of(int fd) noexcept { return endpoint_of(fd, ::getpeername); }

/// What a unix-domain endpoint is bound to: a path, or NUL and an abstract name; empty for none.
inline std::string_view name_of(const endpoint& where) noexcept {
    constexpr std::size_t offset = offsetof(sockaddr_un, sun_path);
    if (where.family() != address_family::local) return {};
    return {reinterpret_cast<const sockaddr_un*>(where.data())->sun_path, where.size() - offset};
}

/// The file of a unix-domain endpoint; empty for an abstract name and for every other endpoint.
[[gnu::cold]] inline sentence file_of(const endpoint& where) noexcept {
    const std::string_view name = name_of(where);
    return name.empty() || name[0] == '\0' ? sentence{} : sentence{name};
}

/// Whether an open socket, listening or not yet, is bound to this file. A datagram socket asks
/// first: the system finds the owner by the file's inode and only then refuses the wrong type
/// (EPROTOTYPE), so that a server that lives is not shown a connection. The stream socket is for
/// systems that emulate Linux and refuse the datagram socket without looking. connect(2), unix(7).
[[gnu::cold]] inline bool has_owner(const endpoint& where) noexcept {
    for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
        const descriptor probe{::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!probe || ::connect(probe.get(), where.data(), where.size()) == 0 ||
            errno != ECONNREFUSED)
            return true;
    }
    return false;
}

/// Binds, and replaces a socket file that a program left behind. Gives 0 or an errno. What is not a
/// socket, has an owner, or cannot be asked is never removed.
[[gnu::cold]] inline int bind_file(int fd, const endpoint& where) {
    if (::bind(fd, where.data(), where.size()) == 0) return 0;
    const int failure = errno;
    const sentence path = file_of(where);
    if (failure != EADDRINUSE || path.empty()) return failure;

    // Of two servers that start at once one could remove the file that the other has just made. The
    // lock of the folder prevents it. It may be a neighbour's, who replaces another file: that one
    // is waited for, up to a tenth of a second.
    const std::size_t slash = name_of(where).rfind('/');
    const sentence folder{slash == std::string_view::npos ? "."
                                                          : name_of(where).substr(0, slash + 1)};
    const descriptor lock{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    for (int left = 50; lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0; --left) {
        if (errno != EWOULDBLOCK) break;
        if (left == 0) return EADDRINUSE;
        sleep_for(duration::milliseconds(2));
    }

    struct stat file {};
    if (::lstat(path.c_str(), &file) != 0 || !S_ISSOCK(file.st_mode) || has_owner(where) ||
        ::unlink(path.c_str()) != 0)
        return EADDRINUSE;
    return ::bind(fd, where.data(), where.size()) == 0 ? 0 : errno;
}

/// What TCP alone knows of the options. False, and errno, where the system refuses it.
[[gnu::cold]] inline bool set_tcp_options(int socket, const options& how) noexcept {
    const auto set = [socket](int level, int name, int value) noexcept {
        return ::setsockopt(socket, level, name, &value, sizeof value) == 0;
    };
    constexpr std::int64_t a_second = 1'000'000'000, most = 32'767;  // tcp(7)
    const std::int64_t length =
        how.keep_alive == duration::max() ? 0 : how.keep_alive.nanoseconds();
    const std::int64_t seconds = length / a_second + (length % a_second != 0);
    return (!how.no_delay || set(IPPROTO_TCP, TCP_NODELAY, 1)) &&
           (seconds == 0 ||
            (set(SOL_SOCKET, SO_KEEPALIVE, 1) &&
             set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(seconds < most ? seconds : most))));
}

/// Opens a socket and binds it. Gives the socket, or none and an errno.
[[gnu::cold]] inline descriptor open_bound(const endpoint& where, const options& how,
                                           bool ipv6_only, int& failure) {
    const bool inet = where.family() != address_family::local;
    const bool ipv6 = inet && where.family() != address_family::ipv4;
    const int domain = ipv6 ? AF_INET6 : inet ? AF_INET : AF_UNIX;
    descriptor socket{::socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    const auto set = [&](int level, int name, int value) noexcept {
        return ::setsockopt(socket.get(), level, name, &value, sizeof value) == 0;
    };
    // Accepted sockets inherit the options of the listener, which saves a system call for each
    // connection. SO_REUSEADDR lets a server start while connections of its last run are in
    // TIME_WAIT; Linux still refuses a second listener. SO_REUSEPORT would not: it is never set
    // here. IPV6_V6ONLY is set in both cases, since net.ipv6.bindv6only is anybody's.
    const bool ready =
        socket && (!inet || set(SOL_SOCKET, SO_REUSEADDR, 1)) &&
        (!ipv6 || set(IPPROTO_IPV6, IPV6_V6ONLY, ipv6_only)) &&
        (!inet || set_tcp_options(socket.get(), how)) &&
        (how.kernel_send_buffer <= 0 || set(SOL_SOCKET, SO_SNDBUF, how.kernel_send_buffer)) &&
        (how.kernel_receive_buffer <= 0 || set(SOL_SOCKET, SO_RCVBUF, how.kernel_receive_buffer));
    failure = ready ? bind_file(socket.get(), where) : errno;
    if (failure != 0) socket.reset();
    return socket;
}

/// Opens a socket, non-blocking and CLOEXEC, and binds it; listen_socket() comes next. On success
/// `bound` is the endpoint with its true port: of a bare port again a bare port where the socket
/// serves IPv4 and IPv6, 0.0.0.0 where the system has no IPv6, [::] with options::ipv6_only. On
/// failure the result and `bound` are empty, the code is error::bad_endpoint or the system's
/// (bind(2), ip(7), ipv6(7), unix(7)), and nothing is left open. A port that is bound but not
/// listened on yet is refused only by listen_socket().
[[gnu::cold]] inline descriptor bind_socket(const endpoint& where, const options& how,
                                            std::error_code& failure, endpoint& bound) {
    bound = {};
    failure.clear();
    const bool unnamed = where.family() == address_family::local && name_of(where).empty();
    if (!where || unnamed) {
        failure = make_error_code(error::bad_endpoint);
        return {};
    }
    bool dual_stack = where.family() == address_family::any && !how.ipv6_only;
    int problem = 0;
    descriptor socket = open_bound(where, how, how.ipv6_only, problem);
    if (dual_stack && (problem == EAFNOSUPPORT || problem == EADDRNOTAVAIL)) {
        sockaddr_in everywhere{};
        everywhere.sin_family = AF_INET;
        everywhere.sin_port = htons(where.port());
        const auto* const address = reinterpret_cast<const sockaddr*>(&everywhere);
        socket =
            open_bound(endpoint::from_sockaddr(address, sizeof everywhere), how, false, problem);
        dual_stack = false;
    }
    if (socket) {
        bound = local_endpoint_of(socket.get());
        if (!bound)
            problem = errno;
        else if (dual_stack)
            bound = endpoint{bound.port()};
    }
    if (problem == 0) return socket;
    failure.assign(problem, std::system_category());
    return {};
}

/// Makes a socket that somebody else has bound ready to accept(): non-blocking, CLOEXEC. Gives
/// false and an error, and leaves the descriptor the caller's, when it is not such a socket
/// (socket(7)).
[[gnu::cold]] inline bool prepare_adopted(int fd, const options& how, std::error_code& failure) {
    int type = 0, domain = 0;
    socklen_t size = sizeof type;
    failure.clear();
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
        ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
        failure.assign(errno, std::system_category());  // EBADF, ENOTSOCK
        return false;
    }
    const bool inet = domain == AF_INET || domain == AF_INET6;
    const endpoint bound = local_endpoint_of(fd);
    const bool named = inet ? bound.port() != 0 : !name_of(bound).empty();
    if (type != SOCK_STREAM || (!inet && domain != AF_UNIX) || !named || remote_endpoint_of(fd)) {
        failure = make_error_code(error::not_a_listener);
        return false;
    }
    if (inet) set_tcp_options(fd, how);
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
        ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) == 0)
        return true;
    failure.assign(errno, std::system_category());
    return false;
}

/// Starts the system's queue of connections (listen(2)). Only now Linux refuses a port that another
/// socket was bound to first and listens on: std::errc::address_in_use.
inline void listen_socket(int fd, int backlog, std::error_code& failure) noexcept {
    failure.clear();
    if (::listen(fd, backlog) != 0) failure.assign(errno, std::system_category());
}

/// A bound or listening socket that removes the file it made, if it is a unix-domain one.
///
/// The file goes at the end of the listener, and only if it is still the one that bind made, and in
/// the process that made it: a child of fork(2) that ends must not take it from its parent.
class listener {
public:
    listener() noexcept = default;

    /// As bind_socket().
    listener(const endpoint& where, const options& how, std::error_code& failure)
        : socket_{bind_socket(where, how, failure, bound_)} {
        const sentence path = file_of(bound_);
        struct stat file {};
        if (path.empty() || ::lstat(path.c_str(), &file) != 0) return;
        device_ = file.st_dev;
        inode_ = file.st_ino;
        maker_ = ::getpid();
    }

    /// Adopts a socket that somebody else bound; its file stays. An empty `bound` is asked of the
    /// system.
    explicit listener(descriptor socket, const endpoint& bound = {}) noexcept
        : bound_{bound ? bound : local_endpoint_of(socket.get())},
          socket_{static_cast<descriptor&&>(socket)} {}

    listener(listener&& other) noexcept
        : bound_{other.bound_},
          socket_{static_cast<descriptor&&>(other.socket_)},
          device_{other.device_},
          inode_{other.inode_},
          maker_{other.maker_} {
        other.forget();
    }
    listener& operator=(listener&& other) noexcept {
        if (this == &other) return *this;
        close();
        socket_ = static_cast<descriptor&&>(other.socket_);
        bound_ = other.bound_;
        device_ = other.device_;
        inode_ = other.inode_;
        maker_ = other.maker_;
        other.forget();
        return *this;
    }
    ~listener() { close(); }

    int get() const noexcept { return socket_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(socket_); }

    /// The endpoint it is bound to, with its true port. Empty after close() and release().
    const endpoint& bound() const noexcept { return bound_; }

    /// Closes the socket; what waits in its queue is reset. Its file is removed.
    [[gnu::cold]] void close() noexcept {
        // First the file, then the socket: while that is open, no other file can get the inode's
        // number.
        if (maker_ != 0 && maker_ == ::getpid()) unlink_if_ours();
        socket_.reset();
        forget();
    }

    /// The duty to remove its file is somebody else's from now on.
    void keep_file() noexcept { maker_ = 0; }

    /// Hands over the socket, and the duty to remove its file.
    int release() noexcept {
        forget();
        return socket_.release();
    }

private:
    void unlink_if_ours() const noexcept {
        const sentence path = file_of(bound_);
        struct stat file {};
        if (::lstat(path.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_)
            ::unlink(path.c_str());
    }
    void forget() noexcept {
        bound_ = {};
        maker_ = 0;
    }

    endpoint bound_;  // before the socket, whose making fills it in
    descriptor socket_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
    pid_t maker_ = 0;  // 0: there is no file, or it is not ours to remove
};

}  // namespace tcp::inline v0_1::detail
