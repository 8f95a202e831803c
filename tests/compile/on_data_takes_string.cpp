// expect: tcp::server: Handler's on_data cannot be called as it will be; write, in its public part,
// void on_data(tcp::connection& peer, tcp::bytes data), or return a std::size_t that says how many
// bytes were taken.
#include <string>

#include <tcp/server.hpp>

struct lines {
    void on_data(tcp::connection& peer, std::string line) { peer.send(line); }
};

void serve() { tcp::server<lines> server; }
