#include <string>
#include <string_view>
#include <system_error>

#include <tcp/server.hpp>

// A port, literal or not, zero too; a text; an endpoint; and each without exceptions.
void serve(int port, const std::string& where) {
    tcp::server<> server;
    server.bind(0);
    server.bind(12345);
    server.bind(port);
    server.bind(where);
    server.bind(where.c_str());
    server.bind(std::string_view{where});
    server.bind("127.0.0.1", 8080);
    server.bind(where, port);
    server.bind("127.0.0.1:0");
    server.bind(tcp::endpoint::parse("[::1]:0"));

    std::error_code failure;
    server.bind(0, failure);
    server.bind(port, failure);
    server.bind("127.0.0.1:0", failure);
    server.listen(failure);
    server.listen(16);
}
