// expect: tcp::logged: the second argument is called with each line; write
// [](std::string_view line) { ... }.
#include <cstdio>

#include <tcp/logged.hpp>
#include <tcp/server.hpp>

void serve() { tcp::server server{tcp::logged{tcp::echo{}, stdout}}; }
