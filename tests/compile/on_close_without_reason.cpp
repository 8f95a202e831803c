// expect: tcp::server: Handler's on_close cannot be called as it will be; write, in its public
// part, void on_close(tcp::connection& peer, const tcp::close_reason& why).
#include <tcp/server.hpp>

struct farewell {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_close(tcp::connection&) {}
};

void serve() { tcp::server<farewell> server; }
