// expect: tcp::task: a task awaits what receive(), receive_exactly(), receive_until(), send()
// and sleep_for() of its connection return, a tcp::future, and other tasks; write
// co_await std::move(it) for a task that has a name.
#include <tcp.hpp>

tcp::task<int> number() { co_return 42; }

tcp::task<> serve(tcp::connection&) {
    auto named = number();
    co_await named;
}
