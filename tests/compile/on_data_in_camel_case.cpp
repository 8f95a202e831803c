// expect: tcp::server: the hook for received bytes is named on_data; write
// void on_data(tcp::connection& peer, tcp::bytes data).
#include <tcp/server.hpp>

struct chat {
    void on_open(tcp::connection& peer) { peer.send("hello"); }
    void onData(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() { tcp::server<chat> server; }
