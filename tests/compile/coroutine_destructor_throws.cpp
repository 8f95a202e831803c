// expect: tcp::server: each connection destroys its Handler after its end; give Handler a public
// destructor that does not throw.
#include <tcp.hpp>

struct leaving {
    leaving() = default;
    leaving(const leaving&) = default;
    ~leaving() noexcept(false) {}
    tcp::task<> operator()(tcp::connection& peer) { co_await peer.receive(); }
};

void serve() {
    tcp::server<leaving> server{[] { return leaving{}; }};
}
