// Which errors of accept concern one connection or one moment: behaviour 12.
#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <iterator>

#include <doctest/doctest.h>

#include <tcp/detail/accept_error.hpp>

using tcp::detail::passing_accept_error;

namespace {

static_assert(passing_accept_error(ECONNABORTED));
static_assert(!passing_accept_error(EMFILE));
static_assert(noexcept(passing_accept_error(0)));

constexpr int passing[] = {
    ECONNABORTED,  // gone again before it was accepted
    EINTR,         // a signal
    EPERM,         // a firewall's rule
    EPROTO,        // and what the network had to say of the new connection, accept(2)
    ENETDOWN,     ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH,
};

}  // namespace

TEST_CASE("12 accept_error: what concerns one connection or one moment passes") {
    for (const int error : passing) {
        CAPTURE(error);
        CHECK(passing_accept_error(error));
    }
}

TEST_CASE("11 accept_error: a lack of descriptors or memory is not over at once") {
    for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
        CAPTURE(error);
        CHECK_FALSE(passing_accept_error(error));
    }
}

TEST_CASE("12 accept_error: every other number is taken for a lack, so that nothing spins") {
    for (int error = -200; error != 1'000; ++error) {
        CAPTURE(error);
        const bool known =
            std::find(std::begin(passing), std::end(passing), error) != std::end(passing);
        CHECK(passing_accept_error(error) == known);
    }
}
