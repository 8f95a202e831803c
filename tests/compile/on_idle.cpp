// expect: tcp::server: the hook for a deadline that passed is named on_timeout; write
// void on_timeout(tcp::connection& peer, tcp::deadline which).
#include <tcp/server.hpp>

struct guard {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_idle(tcp::connection& peer) { peer.close(); }
};

void serve() { tcp::server<guard> server; }
