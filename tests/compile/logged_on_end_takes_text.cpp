// expect: tcp::server: Handler's on_end cannot be called as it will be; write, in its public part,
// void on_end(tcp::connection& peer).
#include <string_view>

#include <tcp/logged.hpp>
#include <tcp/server.hpp>

struct ends {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
    void on_end(std::string_view) {}
};

void serve() { tcp::server server{tcp::logged{ends{}}}; }
