// expect: tcp::server:
#include <tcp/server.hpp>

struct unique {
    explicit unique(int) {}
    unique(const unique&) = delete;
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<unique> server; }
