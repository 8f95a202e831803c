// expect: tcp::promise: what is promised is a value that can be moved, such as int or
// std::string; write promise<T*> in place of promise<T&>, and promise<bool> in
// place of promise<void>.
#include <tcp.hpp>

tcp::task<> serve(tcp::connection& peer) {
    tcp::promise<void> done{peer};
    co_await done.get_future();
}
