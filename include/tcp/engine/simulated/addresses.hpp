// The addresses that a simulated network gives to those who did not choose their own.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>

namespace tcp::inline v0_1::simulated {

/// The server's machine is 10.0.0.1 and fd00::1. The clients' are 10.0.0.2 and fd00::2; when their
/// ports are used up, the next address is.
class address_book {
public:
    /// What a client is called: as it wants, with a port of its own where it names none.
    endpoint client_for(address_family family, const endpoint& wanted) {
        if (family == address_family::local) return wanted ? wanted : unnamed();
        if (wanted && wanted.port() != 0) return wanted;
        const std::size_t number = clients_++;
        const int port = first_port + static_cast<int>(number % ports);
        if (wanted) return wanted.with_port(port);
        if (number % ports == 0) {
            // Two bytes of the address count up from 2: 10.0.0.2 has the first 16,384 clients.
            const std::size_t machine = number / ports + 2;
            const auto low = std::to_string(machine % 256),
                       high = std::to_string(machine / 256 % 256);
            ipv4_ = endpoint::parse("10.0." + high + "." + low + ":0");
            ipv6_ = endpoint::parse("[fd00::" + high + ":" + low + "]:0");
        }
        return (family == address_family::ipv6 ? ipv6_ : ipv4_).with_port(port);
    }

    /// What the server's end of a connection is called: what the client asked for, where that names
    /// one machine, else where the server listens, where that does.
    static endpoint server_for(const endpoint& to, const endpoint& listens,
                               const endpoint& client) {
        if (to.family() == address_family::local || !to.is_wildcard()) return to;
        if (!listens.is_wildcard()) return listens;
        const std::string_view machine =
            client.family() == address_family::ipv6 ? "[fd00::1]:0" : "10.0.0.1:0";
        return endpoint::parse(machine).with_port(to.port());
    }

private:
    // A unix-domain client that was never bound has a family and no name (unix(7)).
    static endpoint unnamed() {
        sockaddr address{};
        address.sa_family = AF_UNIX;
        return endpoint::from_sockaddr(&address, sizeof address.sa_family);
    }

    static constexpr int first_port = 49152;
    static constexpr std::size_t ports = 16384;

    std::size_t clients_ = 0;
    endpoint ipv4_;
    endpoint ipv6_;
};

}  // namespace tcp::inline v0_1::simulated
