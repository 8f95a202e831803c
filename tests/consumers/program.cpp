// What every consumer builds: a server that is bound, listens, and is polled once.
#include <tcp/server.hpp>
#include <tcp/version.hpp>

#include "other.hpp"

int main() {
    tcp::server<tcp::echo> server;
    server.bind(tcp::endpoint::parse("127.0.0.1:0"));
    server.listen();
    server.poll();
    return version() == tcp::version_major * 100 + tcp::version_minor ? 0 : 1;
}
