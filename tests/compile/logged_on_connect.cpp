// expect: tcp::server: the hook for a new connection is named on_open; write
// void on_open(tcp::connection& peer).
#include <tcp/logged.hpp>
#include <tcp/server.hpp>

struct greeter {
    void on_connect(tcp::connection& peer) { peer.send("hello"); }
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<tcp::logged<greeter>> server; }
