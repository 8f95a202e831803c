// expect: Without a coroutine it is a class with void on_data(tcp::connection& peer,
// tcp::bytes data)
#include <tcp/server.hpp>

void serve() {
    tcp::server server{[](auto& peer, tcp::bytes data) { peer.send(data); }};
}
