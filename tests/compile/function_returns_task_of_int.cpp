// expect: tcp::server: Handler's operator() is not that of a coroutine handler; write, in its
// public part, tcp::task<> operator()(tcp::connection& peer), or a lambda or function
#include <tcp.hpp>

tcp::task<int> serve(tcp::connection&) { co_return 42; }

void run() { tcp::server server{serve}; }
