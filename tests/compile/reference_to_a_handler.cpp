// expect: tcp::server: Handler is a reference; write the class itself, as in
// tcp::server<my_handler>: each connection has a handler of its own.
#include <tcp/server.hpp>

void serve(tcp::echo& mine) { tcp::server<tcp::echo&> server{mine}; }
