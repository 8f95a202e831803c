#include <memory>

#include <tcp.hpp>

struct conversation {
    tcp::task<> operator()(tcp::connection& peer) {
        while (auto data = co_await peer.receive()) co_await peer.send(data);
    }
};

struct only_moves {
    std::unique_ptr<int> state = std::make_unique<int>(1);
    tcp::task<> operator()(tcp::connection& peer) { co_await peer.receive_exactly(4); }
};

tcp::task<> function(tcp::connection& peer) {
    const auto line = co_await peer.receive_until("\r\n", 100);
    co_await peer.send(line.text());
}

void serve() {
    tcp::server<conversation> by_default;
    tcp::server<conversation> by_prototype{conversation{}, tcp::options{.high_mark = 1 << 20}};
    tcp::server<conversation> by_factory{[] { return conversation{}; }};
    tcp::server<only_moves> by_factory_only{[] { return only_moves{}; }};
    tcp::server deduced{conversation{}};
    tcp::server by_function{function};
    tcp::server by_lambda{[](tcp::connection& peer) -> tcp::task<> { co_await peer.send("bye"); }};
    tcp::server with_options{
        [](auto& peer) mutable -> tcp::task<> { co_await peer.receive(); },
        tcp::options{.high_mark = 1 << 20},
    };
    static_assert(tcp::coroutine<conversation> && tcp::handler<conversation>);
}
