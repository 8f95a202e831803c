// Sends a file to everyone who connects, however slowly they read, with no more than about 100 KB
// of memory for each. `send_file FILE [port]`, 12345 if left out; then `nc localhost 12345 > copy`.
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <tcp/server.hpp>

struct sender {
    const char* path;
    std::ifstream file;

    void on_open(tcp::connection& peer) {
        file.open(path, std::ios::binary);
        go_on(peer);
    }
    void on_writable(tcp::connection& peer) { go_on(peer); }

    void go_on(tcp::connection& peer) {
        char piece[32 * 1024];
        while (peer.writable()) {
            file.read(piece, sizeof piece);
            if (file.gcount() == 0) return peer.close();
            peer.send(std::string_view{piece, static_cast<std::size_t>(file.gcount())});
        }
    }
};

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    tcp::server<sender> server{[&] { return sender{argv[1], {}}; }};
    server.bind(argc > 2 ? std::atoi(argv[2]) : 12345);
    server.listen();
    server.run();
}
