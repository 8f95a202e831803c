// expect: tcp::server: each connection gets a copy of the prototype, and Handler cannot be copied;
// give the server a factory instead: tcp::server<my_handler> server{[] { return my_handler{}; }};
#include <tcp/server.hpp>

struct unique {
    unique() = default;
    unique(unique&&) = default;
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<unique> server; }
