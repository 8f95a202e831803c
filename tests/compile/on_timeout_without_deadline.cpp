// expect: tcp::server: Handler's on_timeout cannot be called as it will be; write, in its public
// part, void on_timeout(tcp::connection& peer, tcp::deadline which).
#include <tcp/server.hpp>

struct guard {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_timeout(tcp::connection& peer) { peer.close(); }
};

void serve() { tcp::server<guard> server; }
