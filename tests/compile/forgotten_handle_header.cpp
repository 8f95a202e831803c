// expect: #include <tcp/connection_handle.hpp>
#include <tcp/server.hpp>

void serve(tcp::connection& peer) { static_cast<void>(peer.handle()); }
