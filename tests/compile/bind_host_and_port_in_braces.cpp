// expect: for call to
#include <tcp/server.hpp>

void serve() {
    tcp::server<> server;
    server.bind({"127.0.0.1", 80});  // no text of 80 characters
}
