// A host's name to endpoints, one after the other, through the system's name service.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0_1::detail {

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

/// The endpoints that a text names, as tcp::resolve() gives them. It may block.
class name_lookup {
public:
    [[gnu::cold]] name_lookup(std::string_view text, std::error_code& failure) {
        literal_ = endpoint::parse(text, failure);
        const std::size_t colon = text.rfind(':');
        if (literal_ || colon == text.npos) return;
        const std::int64_t port = parse_decimal(text.substr(colon + 1), 65535);
        const std::string host{text.substr(0, colon)};
        if (port < 0 || !is_host_name(host)) return;
        port_ = static_cast<int>(port);

        addrinfo hints{};
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = AI_PASSIVE;
        const int answer = ::getaddrinfo(host.c_str(), nullptr, &hints, &found_);
        failure = name_error(answer, errno);
        if (answer != 0) found_ = nullptr;
        next_ = found_;
    }
    name_lookup(const name_lookup&) = delete;
    name_lookup& operator=(const name_lookup&) = delete;
    [[gnu::cold]] ~name_lookup() {
        if (found_ != nullptr) ::freeaddrinfo(found_);
    }

    /// The next endpoint, each once; an empty one after the last.
    [[gnu::cold]] endpoint next() {
        if (literal_) return std::exchange(literal_, endpoint{});
        for (; next_ != nullptr; next_ = next_->ai_next) {
            const endpoint here = address_of(next_);
            bool known = !here;  // of a family that is none of ours
            for (const addrinfo* one = found_; one != next_; one = one->ai_next)
                known = known || address_of(one) == here;
            if (known) continue;
            next_ = next_->ai_next;
            return here.with_port(port_);
        }
        return {};
    }

private:
    static endpoint address_of(const addrinfo* one) noexcept {
        return endpoint::from_sockaddr(one->ai_addr, one->ai_addrlen);
    }

    endpoint literal_;
    addrinfo* found_ = nullptr;
    addrinfo* next_ = nullptr;
    int port_ = 0;
};

}  // namespace tcp::inline v0_1::detail
