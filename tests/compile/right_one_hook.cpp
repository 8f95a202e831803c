#include <tcp/server.hpp>

struct greeter {
    void on_open(tcp::connection& peer) { peer.send("hello\n"); }
};
static_assert(tcp::handler<greeter>);

void serve() { tcp::server<greeter> server; }
