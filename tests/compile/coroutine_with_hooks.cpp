// expect: tcp::server: Handler is a coroutine, so its hooks would never be called; leave
// either its operator() or its hooks out.
#include <tcp.hpp>

struct both {
    tcp::task<> operator()(tcp::connection& peer) { co_await peer.receive(); }
    void on_close(tcp::connection&, const tcp::close_reason&) {}
};

void serve() { tcp::server<both> server; }
