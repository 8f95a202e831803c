// expect: tcp::server: the hook for the end of a connection, errors included, is named on_close;
// write void on_close(tcp::connection& peer, const tcp::close_reason& why).
#include <tcp/server.hpp>

struct farewell {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_disconnect(tcp::connection&) {}
};

void serve() { tcp::server<farewell> server; }
