// expect: tcp::server: each connection gets a copy of the prototype, and Handler cannot
// be copied; give the server a factory instead
#include <memory>

#include <tcp.hpp>

void serve() {
    tcp::server server{
        tcp::logged{[state = std::make_unique<int>(1)](tcp::connection& peer) -> tcp::task<> {
            co_await peer.receive();
        }}};
}
