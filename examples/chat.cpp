// A chat room: what one says, all hear, line by line. `chat [where]`, such as 12345 (if left out)
// or 127.0.0.1:80; then `nc localhost 12345`.
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <tcp/group.hpp>
#include <tcp/server.hpp>

struct guest {
    tcp::group* room;
    tcp::group::member in;  // leaves with its connection
    std::string name;

    void on_open(tcp::connection& peer) {
        name = peer.remote_endpoint().to_string();
        in.join(*room, peer);
        room->send(name + " came\n");
    }
    std::size_t on_data(tcp::connection&, tcp::bytes data) {
        const std::size_t end = tcp::as_text(data).find('\n');
        if (end == std::string_view::npos) return 0;  // shown again when more has come
        room->send(name + ": " + std::string{tcp::as_text(data.first(end + 1))});
        return end + 1;
    }
    void on_close(tcp::connection&, const tcp::close_reason&) { room->send(name + " left\n"); }
};

int main(int argc, char** argv) try {
    tcp::group room;
    tcp::server<guest> server{guest{&room, {}, {}},
                              tcp::options{.receive_limit = 1000, .threads = 0}};
    server.bind(argc > 1 ? argv[1] : "12345");
    server.listen();
    server.run();
} catch (const std::system_error& failure) {
    std::fprintf(stderr, "chat: %s\n", failure.what());
    return 1;
}
