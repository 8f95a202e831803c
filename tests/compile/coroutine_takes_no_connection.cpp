// expect: tcp::server: Handler's operator() is not that of a coroutine handler; write, in its
// public part, tcp::task<> operator()(tcp::connection& peer), or a lambda
#include <tcp.hpp>

void serve() {
    tcp::server server{[]() -> tcp::task<> { co_return; }};
}
