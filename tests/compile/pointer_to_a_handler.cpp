// expect: tcp::server: a pointer is not a handler; write the class itself, as in
// tcp::server<my_handler>; what connections share is what a member points to.
#include <tcp/server.hpp>

void serve(tcp::echo& mine) { tcp::server server{&mine}; }
