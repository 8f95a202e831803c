// expect: and a factory of such is given as tcp::server<my_handler> server{[] { return
// my_handler{42}; }}.
#include <tcp/server.hpp>

struct my_handler {
    explicit my_handler(int) {}
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

void serve() {
    tcp::server server{[] { return my_handler{42}; }};
}
