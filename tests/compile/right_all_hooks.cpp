#include <cstddef>

#include <tcp/server.hpp>

struct everything {
    void on_open(tcp::connection& peer) { peer.send("hello\n"); }
    std::size_t on_data(tcp::connection&, tcp::bytes data) { return data.size(); }
    void on_end(tcp::connection& peer) { peer.close(); }
    void on_writable(tcp::connection&) {}
    void on_timeout(tcp::connection& peer, tcp::deadline) { peer.close(); }
    void on_close(tcp::connection&, const tcp::close_reason&) {}
};
static_assert(tcp::handler<everything>);

void serve() { tcp::server<everything> server; }
