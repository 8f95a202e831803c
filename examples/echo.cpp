#include <cstdlib>
#include <tcp/server.hpp>

struct echo {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};

int main(int argc, char** argv) {
    tcp::server<echo> server;
    server.bind(argc > 1 ? std::atoi(argv[1]) : 12345);
    server.listen();
    server.run();
}
