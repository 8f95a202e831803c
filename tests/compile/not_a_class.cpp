// expect: tcp::server: Handler is a class with hooks; write struct my_handler { void
// on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); } };
#include <tcp/server.hpp>

void serve() { tcp::server<int> server; }
