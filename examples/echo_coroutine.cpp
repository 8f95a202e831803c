#include <tcp/server.hpp>
#include <tcp/task.hpp>

int main(int argc, char** argv) {
    tcp::server server{[](tcp::connection& peer) -> tcp::task<> {
        while (auto data = co_await peer.receive()) co_await peer.send(data);
    }};
    server.bind(argc > 1 ? argv[1] : "12345");
    server.listen();
    server.run();
}
