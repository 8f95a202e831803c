#include <cstdio>
#include <functional>
#include <string_view>

#include <tcp.hpp>

struct greeter {
    void on_open(tcp::connection& peer) { peer.send("hello"); }
};
tcp::task<> conversation(tcp::connection& peer) { co_await peer.receive(); }

void to_stdout(std::string_view line) {
    std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
}

void serve() {
    int count = 0;
    tcp::server<tcp::logged<>> echoes;
    tcp::server<tcp::logged<greeter>> by_default;
    tcp::server<tcp::logged<greeter>> by_plain_prototype{greeter{}};
    tcp::server<tcp::logged<greeter>> by_plain_factory{[] { return greeter{}; }};
    tcp::server<tcp::logged<greeter>> with_options{tcp::options{.no_delay = false}};
    tcp::server deduced{tcp::logged{greeter{}}};
    tcp::server to_function{tcp::logged{greeter{}, to_stdout}};
    tcp::server to_lambda{tcp::logged{greeter{}, [&count](std::string_view) { ++count; }}};
    tcp::server to_any{
        tcp::logged{greeter{}, std::function<void(std::string_view)>{to_stdout}},
        tcp::options{.high_mark = 1 << 20},
    };
    tcp::server coroutine{tcp::logged{conversation}};
    tcp::server twice{tcp::logged{tcp::logged<greeter>{}, to_stdout}};
}
