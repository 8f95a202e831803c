// expect: tcp::server: Handler's on_data cannot be called as it will be; write, in its public part,
// void on_data(tcp::connection& peer, tcp::bytes data), or return a std::size_t that says how many
// bytes were taken.
#include <tcp/server.hpp>

class shy {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<shy> server; }
