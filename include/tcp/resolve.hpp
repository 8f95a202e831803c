// Names to endpoints.
#pragma once

#include <string_view>
#include <system_error>
#include <vector>

#include <tcp/detail/name_lookup.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0_1 {

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
    detail::name_lookup names{text, failure};
    while (const endpoint one = names.next()) result.push_back(one);
    if (result.empty() && !failure) failure = error::name_not_found;
    return result;
}

/// The same. Throws std::system_error with the text, what is wrong with it, and what to do.
inline std::vector<endpoint> resolve(std::string_view text) {
    std::error_code failure;
    std::vector<endpoint> result = resolve(text, failure);
    if (failure == error::bad_endpoint) endpoint::parse(text);  // throws what is wrong with it
    if (failure) detail::fail(failure, detail::quoted(text));
    return result;
}

}  // namespace tcp::inline v0_1
