// expect: #include <tcp/task.hpp>
#include <tcp/server.hpp>

void serve(tcp::connection& peer) { static_cast<void>(peer.receive()); }
