// expect: tcp::server: Handler's on_open cannot be called as it will be; write, in its public part,
// void on_open(tcp::connection& peer).
#include <tcp/server.hpp>

struct greeter {
    void on_open(tcp::connection peer) { peer.send("hello"); }
};

void serve() { tcp::server<greeter> server; }
