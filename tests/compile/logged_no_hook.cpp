// expect: tcp::server: Handler has no hook, so it would never be called; give it at least
// void on_data(tcp::connection& peer, tcp::bytes data).
#include <tcp/logged.hpp>
#include <tcp/server.hpp>

struct silent {};

void serve() { tcp::server<tcp::logged<silent>> server; }
