// expect: tcp::server: Handler cannot be made without arguments; give the server a prototype, as in
// tcp::server server{my_handler{42}}, or a factory
#include <tcp/logged.hpp>
#include <tcp/server.hpp>

struct numbered {
    explicit numbered(int) {}
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<tcp::logged<numbered>> server; }
