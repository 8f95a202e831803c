// What an error of accept concerns: accept(2), section ERRORS.
#pragma once

#include <cerrno>

namespace tcp::inline v0_1::detail {

/// Errors of one connection that went away, or of one moment: accepting goes on at once. Every
/// other error is taken for a lack of something (descriptors, memory) that a pause may cure.
constexpr bool passing_accept_error(int error) noexcept {
    switch (error) {
        case ECONNABORTED:
        case EPROTO:
        case ENETDOWN:
        case ENOPROTOOPT:
        case EHOSTDOWN:
        case ENONET:
        case EHOSTUNREACH:
        case EOPNOTSUPP:
        case ENETUNREACH:
        case EPERM:
        case EINTR: return true;
        default: return false;
    }
}

}  // namespace tcp::inline v0_1::detail
