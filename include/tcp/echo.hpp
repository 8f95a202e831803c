// The default handler.
#pragma once

#include <tcp/bytes.hpp>
#include <tcp/connection.hpp>

namespace tcp::inline v0_1 {

/// Sends back what it receives: the Echo Protocol, RFC 862.
struct echo {
    void on_data(connection& peer, bytes data) { peer.send(data); }
};

}  // namespace tcp::inline v0_1
