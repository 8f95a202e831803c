// An address and a port: where a server listens, or where a peer is. Text to endpoint and back,
// literal addresses only; names are looked up in resolve.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>

#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0_1 {

class endpoint;
namespace detail {
sentence text_of(const endpoint& where) noexcept;  // what to_string() gives
}

/// What kind of address an endpoint has.
enum class address_family : unsigned char {
    none,   // no address: a default endpoint
    any,    // a bare port: every local address, IPv4 and IPv6
    ipv4,   // ip(7)
    ipv6,   // ipv6(7)
    local,  // a unix-domain socket, with a path or an abstract name (unix(7))
};

/// An address and a port. A value: 116 bytes, copied as bytes, bound to nothing. Each function may
/// be called from every thread, as on any value.
class endpoint {
public:
    /// No address.
    constexpr endpoint() noexcept : local_{} {}

    /// A bare port, 0 to 65535: every local address, IPv4 and IPv6. 0 lets the system choose a
    /// port. Throws std::system_error (error::bad_endpoint) for other numbers.
    endpoint(int port)  // NOLINT(google-explicit-constructor): server.bind(80) is what it is for
        : v6_{}, length_{sizeof v6_}, family_{address_family::any} {
        v6_.sin6_family = AF_INET6;
        v6_.sin6_port = htons(checked(port));
    }

    /// The endpoint that a text names: "8080", ":8080" or "*:8080" (a bare port), "127.0.0.1:80",
    /// "[::1]:80", "[fe80::1%eth0]:80" (the scope of a link-local address by name or number, RFC
    /// 4007 11), "unix:/path", "unix:@abstract" (unix(7)). Nothing more: no names, no leading
    /// zeros, no blanks. Throws std::system_error (error::bad_endpoint) with the text and what is
    /// wrong with it.
    static endpoint parse(std::string_view text);

    /// The same; on failure the result is empty and the code error::bad_endpoint. Allocates
    /// nothing.
    static endpoint parse(std::string_view text, std::error_code& failure) noexcept;

    /// The endpoint in a socket address of the system, of so many bytes; empty where that is too
    /// short or of another family. An IPv4 address mapped into IPv6 (RFC 4291 2.5.5.2) becomes the
    /// IPv4 address. The bytes are copied.
    static endpoint from_sockaddr(const sockaddr* address, socklen_t size) noexcept;

    constexpr address_family family() const noexcept { return family_; }
    explicit constexpr operator bool() const noexcept { return family_ != address_family::none; }

    /// The port; 0 where there is none.
    std::uint16_t port() const noexcept {
        switch (family_) {
            case address_family::any:
            case address_family::ipv6: return ntohs(v6_.sin6_port);
            case address_family::ipv4: return ntohs(v4_.sin_port);
            default: return 0;
        }
    }

    /// The same address with another port, 0 to 65535. Throws std::system_error
    /// (error::bad_endpoint) for other numbers, and for an endpoint that has no port: an empty or
    /// unix-domain one.
    endpoint with_port(int port) const;

    /// Whether it stands for every local address: a bare port, 0.0.0.0 or [::].
    bool is_wildcard() const noexcept {
        if (family_ == address_family::ipv4) return v4_.sin_addr.s_addr == INADDR_ANY;
        return family_ == address_family::any ||
               (family_ == address_family::ipv6 && IN6_IS_ADDR_UNSPECIFIED(&v6_.sin6_addr));
    }

    /// The address without the port: "127.0.0.1", "::1", "fe80::1%eth0", "/path", "@abstract", "*"
    /// for a bare port, "" for none. A NUL in an abstract name is shown as '@', as ss(8) does.
    std::string address() const;

    /// The text that parse() takes, of everything that can be named: "127.0.0.1:80", "[::1]:80",
    /// "unix:/path", "unix:@abstract", "*:80" for a bare port, "" for none; "unix:" for a
    /// unix-domain client without a name, which is for reading only.
    std::string to_string() const;

    /// The socket address for system calls: data() points into this endpoint and lives as long as
    /// it. A bare port gives in6addr_any.
    const sockaddr* data() const noexcept { return &generic_; }
    socklen_t size() const noexcept { return length_; }

    friend bool operator==(const endpoint& a, const endpoint& b) noexcept { return a.equals(b); }

private:
    static constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);

    static std::uint16_t checked(int port);
    detail::sentence address_text() const noexcept;
    friend detail::sentence detail::text_of(const endpoint& where) noexcept;
    bool equals(const endpoint& other) const noexcept;
    static const char* parse_ip(std::string_view text, endpoint& result) noexcept;
    static const char* parse_local(std::string_view path, endpoint& result) noexcept;
    static const char* parse_any(std::string_view text, endpoint& result) noexcept;

    // What a unix-domain address holds: a path without its final NUL, or NUL and an abstract name.
    std::string_view path() const noexcept { return {local_.sun_path, length_ - path_offset}; }

    union {
        sockaddr_un local_;  // the largest
        sockaddr generic_;
        sockaddr_in v4_;
        sockaddr_in6 v6_;  // of a bare port, too
    };
    std::uint8_t length_ = 0;
    address_family family_ = address_family::none;
};

namespace detail {

// A text in quotes for an error message: short, and without characters that a terminal or log
// obeys.
[[gnu::cold]] inline sentence quoted(std::string_view text) noexcept {
    constexpr std::size_t longest = 200;
    sentence result{"\""};
    for (const char c : text.substr(0, longest))
        result.add(static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? "?"
                                                                      : std::string_view{&c, 1});
    result.add(text.size() > longest ? "...\"" : "\"");
    return result;
}

// A decimal number from 0 to max, digits only and no leading zero; -1 otherwise.
inline std::int64_t parse_decimal(std::string_view text, std::int64_t max) noexcept {
    if (text.empty() || (text.size() > 1 && text[0] == '0')) return -1;
    std::int64_t value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return -1;
        value = value * 10 + (c - '0');
        if (value > max) return -1;
    }
    return value;
}

inline constexpr const char* port_range = "a port is a number from 0 to 65535";

}  // namespace detail

[[gnu::cold]] inline std::uint16_t endpoint::checked(int port) {
    if (port < 0 || port > 65535)
        detail::fail(error::bad_endpoint,
                     detail::sentence{"port ", detail::decimal{port}, ": ", detail::port_range});
    return static_cast<std::uint16_t>(port);
}

inline endpoint endpoint::with_port(int port) const {
    endpoint result = *this;
    switch (family_) {
        case address_family::any:
        case address_family::ipv6: result.v6_.sin6_port = htons(checked(port)); return result;
        case address_family::ipv4: result.v4_.sin_port = htons(checked(port)); return result;
        default:
            detail::fail(error::bad_endpoint,
                         detail::sentence{detail::quoted(detail::text_of(*this)), " has no port"});
    }
}

[[gnu::cold]] inline endpoint endpoint::from_sockaddr(const sockaddr* address,
                                                      socklen_t size) noexcept {
    endpoint result;
    // The family is copied out, too: a sockaddr_in must not be read as a sockaddr when this is
    // inlined.
    sa_family_t kind = AF_UNSPEC;
    constexpr std::size_t kind_offset = offsetof(sockaddr, sa_family);
    if (address == nullptr || size < kind_offset + sizeof kind) return result;
    std::memcpy(&kind, reinterpret_cast<const char*>(address) + kind_offset, sizeof kind);
    const auto take = [&](void* to, std::size_t length, address_family family) {
        std::memcpy(to, address, length);
        result.length_ = static_cast<std::uint8_t>(length);
        result.family_ = family;
    };
    if (kind == AF_INET && size >= sizeof v4_) {
        take(&result.v4_, sizeof v4_, address_family::ipv4);
    } else if (kind == AF_INET6 && size >= sizeof v6_) {
        take(&result.v6_, sizeof v6_, address_family::ipv6);
        if (IN6_IS_ADDR_V4MAPPED(&result.v6_.sin6_addr)) {
            sockaddr_in v4{};
            v4.sin_family = AF_INET;
            v4.sin_port = result.v6_.sin6_port;
            std::memcpy(&v4.sin_addr, result.v6_.sin6_addr.s6_addr + 12, sizeof v4.sin_addr);
            return from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
        }
    } else if (kind == AF_UNIX) {
        // The system reports one byte more than the structure has for a path that fills it
        // (unix(7), BUGS).
        std::size_t length = size < sizeof local_ ? size : sizeof local_;
        take(&result.local_, length, address_family::local);
        if (length > path_offset && result.local_.sun_path[0] != '\0')
            length = path_offset + strnlen(result.local_.sun_path, length - path_offset);
        result.length_ = static_cast<std::uint8_t>(length);
    }
    return result;
}

inline bool endpoint::equals(const endpoint& other) const noexcept {
    if (family_ != other.family_) return false;
    switch (family_) {
        case address_family::none: return true;
        case address_family::ipv4:
            return v4_.sin_port == other.v4_.sin_port &&
                   v4_.sin_addr.s_addr == other.v4_.sin_addr.s_addr;
        case address_family::any:
        case address_family::ipv6:  // a flow label is no part of an address
            return v6_.sin6_port == other.v6_.sin6_port &&
                   v6_.sin6_scope_id == other.v6_.sin6_scope_id &&
                   IN6_ARE_ADDR_EQUAL(&v6_.sin6_addr, &other.v6_.sin6_addr);
        case address_family::local: return path() == other.path();
    }
    return false;
}

// The functions that parse give null and the result, or what is wrong with the text.
inline const char* endpoint::parse_any(std::string_view text, endpoint& result) noexcept {
    if (text.empty()) return "it is empty";
    if (text.find('\0') != text.npos) return "a NUL is no part of an endpoint";
    if (text.substr(0, 5) == "unix:") return parse_local(text.substr(5), result);
    return parse_ip(text, result);
}

inline const char* endpoint::parse_local(std::string_view path, endpoint& result) noexcept {
    if (path.empty() || path == "@") return "a unix-domain endpoint has a path or a name";
    // The final NUL of a path is counted though Linux could do without: other programs rely on it.
    const bool abstract = path[0] == '@';
    if (path.size() > sizeof local_.sun_path - (abstract ? 0 : 1))
        return "a unix-domain path or name has at most 107 bytes";
    result = {};
    result.local_.sun_family = AF_UNIX;
    std::memcpy(result.local_.sun_path, path.data(), path.size());
    if (abstract) result.local_.sun_path[0] = '\0';
    result.length_ = static_cast<std::uint8_t>(path_offset + path.size());
    result.family_ = address_family::local;
    return nullptr;
}

inline const char* endpoint::parse_ip(std::string_view text, endpoint& result) noexcept {
    const std::size_t colon = text.rfind(':');
    const bool bracketed = !text.empty() && text[0] == '[';
    std::string_view host = text.substr(0, colon == text.npos ? 0 : colon);
    if (host.find(':') != host.npos && !bracketed)
        return host.find("//") != host.npos
                   ? "a scheme is no part of an endpoint, as in localhost:80"
                   : "an IPv6 address stands in brackets before its port, as in [::1]:80";
    if (bracketed && (colon == text.npos || host.back() != ']'))
        return "a colon and a port follow the brackets, as in [::1]:80";
    if (colon == text.npos && text.find_first_not_of("0123456789") != text.npos)
        return "the port is missing, as in 80 or 127.0.0.1:80";
    // Without a colon this is the whole text: npos + 1 is 0.
    const std::int64_t port = detail::parse_decimal(text.substr(colon + 1), 65535);
    if (port < 0) return "a port is a number from 0 to 65535, without zeros before it";

    if (host.empty() || host == "*") {
        result = endpoint{static_cast<int>(port)};
        return nullptr;
    }
    char terminated[INET6_ADDRSTRLEN] = {};  // the system's functions want a NUL at the end
    if (!bracketed) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(static_cast<std::uint16_t>(port));
        host.copy(terminated, sizeof terminated - 1);
        if (host.size() >= sizeof terminated || inet_pton(AF_INET, terminated, &v4.sin_addr) != 1)
            return "no IPv4 address stands before the port; names are for server::bind() and "
                   "tcp::resolve()";
        result = from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
        return nullptr;
    }
    host = host.substr(1, host.size() - 2);
    const std::size_t percent = host.find('%');
    const std::string_view scope = percent == host.npos ? "" : host.substr(percent + 1);
    host = host.substr(0, percent);
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<std::uint16_t>(port));
    host.copy(terminated, sizeof terminated - 1);
    if (host.size() >= sizeof terminated || inet_pton(AF_INET6, terminated, &v6.sin6_addr) != 1)
        return "no IPv6 address stands between the brackets";
    if (percent != text.npos) {
        if (!IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) && !IN6_IS_ADDR_MC_LINKLOCAL(&v6.sin6_addr))
            return "a scope (%...) belongs to a link-local address only";
        char name[IF_NAMESIZE] = {};
        if (!scope.empty() && scope.size() < sizeof name) {
            scope.copy(name, sizeof name - 1);
            v6.sin6_scope_id = if_nametoindex(name);
        }
        const std::int64_t number = detail::parse_decimal(scope, 0xffff'ffff);
        if (v6.sin6_scope_id == 0 && number > 0)
            v6.sin6_scope_id = static_cast<std::uint32_t>(number);
        if (v6.sin6_scope_id == 0)
            return "no interface has the name or number after %; `ip link` lists them";
    }
    result = from_sockaddr(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
    return nullptr;
}

inline endpoint endpoint::parse(std::string_view text) {
    endpoint result;
    if (const char* wrong = parse_any(text, result))
        detail::fail(error::bad_endpoint, detail::sentence{detail::quoted(text), ": ", wrong});
    return result;
}

inline endpoint endpoint::parse(std::string_view text, std::error_code& failure) noexcept {
    endpoint result;
    failure.clear();
    if (parse_any(text, result) != nullptr) failure = make_error_code(error::bad_endpoint);
    return result;
}

[[gnu::cold]] inline detail::sentence endpoint::address_text() const noexcept {
    detail::sentence result;
    char text[INET6_ADDRSTRLEN] = {};
    switch (family_) {
        case address_family::none: break;
        case address_family::any: result.add("*"); break;
        case address_family::ipv4:
            result.add(inet_ntop(AF_INET, &v4_.sin_addr, text, sizeof text));
            break;
        case address_family::ipv6: {
            result.add(inet_ntop(AF_INET6, &v6_.sin6_addr, text, sizeof text));
            if (v6_.sin6_scope_id == 0) break;
            result.add("%");
            char name[IF_NAMESIZE] = {};
            if (if_indextoname(v6_.sin6_scope_id, name) != nullptr)
                result.add(name);
            else
                result.add(detail::decimal{v6_.sin6_scope_id});
            break;
        }
        case address_family::local:  // empty: a client's socket that was never bound
            if (path().starts_with('@')) result.add("./");  // not the abstract one of this name
            for (const char& c : path()) result.add(c == '\0' ? "@" : std::string_view{&c, 1});
    }
    return result;
}

[[gnu::cold]] inline detail::sentence detail::text_of(const endpoint& where) noexcept {
    sentence text;
    const bool local = where.family() == address_family::local;
    const bool ipv6 = where.family() == address_family::ipv6;
    if (!where) return text;
    text.add(local ? "unix:" : ipv6 ? "[" : "");
    text.add(where.address_text());
    if (local) return text;
    text.add(ipv6 ? "]:" : ":");
    text.add(decimal{where.port()});
    return text;
}

inline std::string endpoint::address() const { return address_text().str(); }
inline std::string endpoint::to_string() const { return detail::text_of(*this).str(); }

}  // namespace tcp::inline v0_1
