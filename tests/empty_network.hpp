// A network namespace, for tests that change something about their network.
#pragma once

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fstream>
#include <string>

#include <tcp/detail/descriptor.hpp>

namespace tests {

/// From now on this thread has a network with nothing in it but a loopback interface that is up.
/// False where that is not permitted.
inline bool enter_empty_network(bool ipv6 = true) {
    if (::unshare(CLONE_NEWNET) != 0) return false;
    if (!ipv6)
        for (const char* which : {"all", "default", "lo"})
            std::ofstream{std::string{"/proc/sys/net/ipv6/conf/"} + which + "/disable_ipv6"} << 1;
    const tcp::detail::descriptor any{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    ifreq request{};
    request.ifr_name[0] = 'l';
    request.ifr_name[1] = 'o';
    request.ifr_flags = IFF_UP;
    return any && ::ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

}  // namespace tests
