// Why a bind or listen failed, and what to do about it: one sentence for std::system_error, which
// adds what the system says.
#pragma once

#include <string>
#include <system_error>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/detail/socket.hpp>
#include <tcp/endpoint.hpp>

namespace tcp::inline v0_1 {

namespace detail {

// The first port that needs no privilege (ip(7), ip_unprivileged_port_start).
[[gnu::cold]] inline int unprivileged_port_start() noexcept {
    const descriptor file{
        ::open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY | O_CLOEXEC)};
    char text[8] = {};
    const auto length = file ? ::read(file.get(), text, sizeof text) : 0;
    int port = 0;
    for (ssize_t i = 0; i < length && text[i] >= '0' && text[i] <= '9'; ++i)
        port = port * 10 + (text[i] - '0');
    return length > 0 ? port : 1024;
}

// What stands before and behind the endpoint in a sentence; nothing where there is no cure to tell.
struct cause {
    const char* before = nullptr;
    const char* behind = "";
};

[[gnu::cold]] inline cause cause_of_use(const endpoint& where) {
    if (where.family() != address_family::local) {
        if (where.port() == 0)
            return {"no port is free for ",
                    "; close connections, or widen net.ipv4.ip_local_port_range"};
        return {
            "another program, or another socket of this one, listens on ",
            "; stop it, or choose another port (0 lets the system choose); `ss -ltnp` shows who"};
    }
    const sentence path = file_of(where);
    struct stat file {};
    if (!path.empty() && ::lstat(path.c_str(), &file) == 0) {
        if (!S_ISSOCK(file.st_mode))
            return {"a file that is not a socket is at ", "; move it away, or choose another path"};
        if (!has_owner(where))
            return {"a dead program's socket is at ",
                    " and could not be removed; remove it, or choose another path"};
    }
    return {"another program is bound to ",
            "; stop it, or choose another one; `ss -xap` shows who"};
}

[[gnu::cold]] inline cause cause_of_errno(const endpoint& where, int failure) {
    const bool local = where.family() == address_family::local;
    switch (failure) {
        case EADDRINUSE: return cause_of_use(where);
        case EACCES:
        case EPERM:
            if (local)
                return {"this user may not make a socket at ",
                        "; choose a folder that this user may search and write"};
            return {"the system's policy forbids ",
                    "; look at SELinux, AppArmor or the service manager's rules"};
        case EADDRNOTAVAIL:
            return {"no interface of this machine has the address of ",
                    "; `ip address` lists those there are, and a bare port takes them all"};
        case EMFILE:
            return {"this process has no descriptor left for ",
                    "; raise its limit (`ulimit -n`), or close some"};
        case ENFILE: return {"the system has no descriptor left for ", "; raise fs.file-max"};
        case ENOBUFS:
        case ENOMEM: return {"the system has no memory left for a socket on "};
        case EAFNOSUPPORT:
            if (where.family() == address_family::ipv4 || local) return {};
            return {"this system has no IPv6 for ", "; use an IPv4 address, or 0.0.0.0 for all"};
        case ENODEV: return {"the interface of ", " is gone; `ip link` lists those there are"};
        case EINVAL: {
            if (where.family() != address_family::ipv6) return {};
            const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(where.data());
            if (!IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) || v6->sin6_scope_id != 0) return {};
            return {"", " is link-local; say on which interface, as in [fe80::1%eth0]:80"};
        }
        case ENAMETOOLONG:
            return {"the path of ", " is too long; choose a shorter one, or unix:@name"};
        default: break;
    }
    if (!local) return {};
    switch (failure) {
        case ENOENT:
        case ENOTDIR: return {"the folder of ", " is not there; make it, or choose another path"};
        case EROFS:
            return {"",
                    " is on a file system that is read-only; choose another path, as below /run"};
        case ELOOP: return {"the path of ", " runs through a circle of links; choose another"};
        default: return {};
    }
}

[[gnu::cold]] inline sentence explain(const char* call, const endpoint& where,
                                      std::error_code failure) noexcept {
    const sentence text = text_of(where);
    const int value = failure.category() == std::system_category() ||
                              failure.category() == std::generic_category()
                          ? failure.value()
                          : 0;
    const int start = value == EACCES || value == EPERM ? unprivileged_port_start() : 0;
    if (where.port() != 0 && where.port() < start)
        return {"port ",
                decimal{where.port()},
                " of ",
                text,
                " needs root or CAP_NET_BIND_SERVICE; run with it, or choose a port from ",
                decimal{start},
                " up"};
    if (const cause why = cause_of_errno(where, value); why.before != nullptr)
        return {why.before, text, why.behind};
    return {call, where ? " " : "", text};
}

/// Throws that.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail_at(const char* call, const endpoint& where,
                                                           std::error_code failure) {
    fail(failure, explain(call, where, failure));
}

}  // namespace detail

/// Why bind() failed on this endpoint, and the cure, without what `failure.message()` says: for
/// `throw std::system_error(failure, explain_bind(where, failure))`. What has no cure of its own,
/// and the library's own errors, whose message is a cure already, get just "bind" and the endpoint.
/// To be called soon after the failure: it looks at the path and at the system's settings. May be
/// called from every thread. See bind(2), ip(7), ipv6(7), unix(7).
inline std::string explain_bind(const endpoint& where, std::error_code failure) {
    return detail::explain("bind", where, failure).str();
}

/// The same for listen(), which is the call that refuses a port that somebody else bound first and
/// listens on (listen(2)).
inline std::string explain_listen(const endpoint& where, std::error_code failure) {
    return detail::explain("listen", where, failure).str();
}

}  // namespace tcp::inline v0_1
