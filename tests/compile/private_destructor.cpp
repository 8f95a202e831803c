// expect: tcp::server: each connection destroys its Handler after on_close; give Handler a public
// destructor that does not throw.
#include <tcp/server.hpp>

class immortal {
public:
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }

private:
    ~immortal() = default;
};

void serve() { tcp::server<immortal> server; }
