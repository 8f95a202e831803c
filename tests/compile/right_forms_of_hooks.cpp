#include <tcp/server.hpp>

// Whatever can be called as a hook is one: const, noexcept, static, a template, inherited.
struct in_other_forms {
    static void on_open(tcp::connection&) {}
    void on_data(auto& peer, auto data) { peer.send(data); }
    void on_end(tcp::connection& peer) const noexcept { peer.close(); }
};
struct inherited : in_other_forms {
    void on_close(const tcp::connection&, tcp::close_reason) {}
};
struct cannot_be_inherited final {
    void on_data(tcp::connection& peer, tcp::bytes data) { peer.send(data); }
};
static_assert(tcp::handler<in_other_forms> && tcp::handler<inherited>);
static_assert(tcp::handler<cannot_be_inherited>);

void serve() {
    tcp::server<in_other_forms> first;
    tcp::server<inherited> second;
    tcp::server<cannot_be_inherited> third;
}
