// Sends a file to everyone who connects, however slowly they read, with no more than about 100 KB
// of memory for each. `send_file FILE [where]`, 12345 if left out; then `nc localhost 12345 >
// copy`.
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <string_view>
#include <system_error>
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
            if (!file.is_open() || file.bad()) return peer.abort();  // no end of a file
            if (file.gcount() == 0) return peer.close();
            peer.send(std::string_view{piece, static_cast<std::size_t>(file.gcount())});
        }
    }
};

int main(int argc, char** argv) try {
    if (argc < 2) return std::fputs("send_file FILE [where]\n", stderr), 2;
    tcp::server<sender> server{[&] { return sender{argv[1], {}}; }};
    server.bind(argc > 2 ? argv[2] : "12345");
    server.listen();
    server.run();
} catch (const std::system_error& failure) {
    std::fprintf(stderr, "send_file: %s\n", failure.what());
    return 1;
}
