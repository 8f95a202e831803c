// expect: tcp::server: Handler has no hook, so it would never be called; give it at least
// void on_data(tcp::connection& peer, tcp::bytes data).
#include <tcp/server.hpp>

struct silent {
    int count = 0;
};

void serve() { tcp::server<silent> server; }
