// Names to endpoints, through the system's name service.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0 {

namespace detail {

// What getaddrinfo(3) returned, as an error code.
inline std::error_code name_error(int result, int system) noexcept {
    switch (result) {
        case 0: return {};
        case EAI_NONAME:
        case EAI_NODATA:  // the name is there, but has no address
        case EAI_ADDRFAMILY: return make_error_code(error::name_not_found);
        case EAI_SYSTEM: return {system, std::system_category()};
        case EAI_MEMORY: return {ENOMEM, std::system_category()};
        default: return make_error_code(error::name_service_failed);
    }
}

// Whether this may be a host's name. What ends in a number is an address or a slip of the pen:
// getaddrinfo would read 010.0.0.1 as 8.0.0.1 and 127.1 as 127.0.0.1, after inet_aton(3).
inline bool is_host_name(std::string_view host) noexcept {
    if (!host.empty() && host.back() == '.') host.remove_suffix(1);  // a root's dot
    if (host.empty()) return false;
    for (const char c : host)
        if (static_cast<unsigned char>(c) <= ' ' || c == '\x7f' ||
            std::string_view{"[]:%/@*\"\\"}.find(c) != host.npos)
            return false;
    const std::size_t dot = host.rfind('.');
    const std::string_view last = dot == host.npos ? host : host.substr(dot + 1);
    const bool hexadecimal = last.substr(0, 2) == "0x" || last.substr(0, 2) == "0X";
    return !last.empty() &&
           (hexadecimal ? last.find_first_not_of("0123456789abcdefABCDEF", 2) != last.npos
                        : last.find_first_not_of("0123456789") != last.npos);
}

}  // namespace detail

/// The endpoints that a text names: one for each form that endpoint::parse() takes, and every
/// address of the host for "name:port", each once, in the order in which the system would try them
/// (RFC 6724).
///
/// Blocks while the name service is asked, which can take as long as it pleases: not for handlers.
/// May be called from every thread. On failure the result is empty and the code is
/// error::bad_endpoint, error::name_not_found, error::name_service_failed, or the system's. See
/// getaddrinfo(3).
inline std::vector<endpoint> resolve(std::string_view text, std::error_code& failure) {
    std::vector<endpoint> result;
    if (const endpoint literal = endpoint::parse(text, failure)) {
        result.push_back(literal);
        return result;
    }
    const std::size_t colon = text.rfind(':');
    if (colon == text.npos) return result;
    const std::int64_t port = detail::parse_decimal(text.substr(colon + 1), 65535);
    const std::string host{text.substr(0, colon)};
    if (port < 0 || !detail::is_host_name(host)) return result;

    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* found = nullptr;
    const int answer = getaddrinfo(host.c_str(), nullptr, &hints, &found);
    failure = detail::name_error(answer, errno);
    if (answer != 0) return result;

    struct owner {
        addrinfo* list;
        ~owner() { freeaddrinfo(list); }
    } const owned{found};
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
        endpoint address = endpoint::from_sockaddr(each->ai_addr, each->ai_addrlen);
        if (!address) continue;  // of a family that is none of ours
        address = address.with_port(static_cast<int>(port));
        bool known = false;
        for (const endpoint& earlier : result) known = known || earlier == address;
        if (!known) result.push_back(address);
    }
    if (result.empty()) failure = make_error_code(error::name_not_found);
    return result;
}

/// The same. Throws std::system_error with the text and what to do.
inline std::vector<endpoint> resolve(std::string_view text) {
    std::error_code failure;
    std::vector<endpoint> result = resolve(text, failure);
    if (failure) throw std::system_error(failure, detail::quoted(text));
    return result;
}

}  // namespace tcp::inline v0
