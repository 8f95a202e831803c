// Every public header together, and twice.
#include <tcp.hpp>

#include <tcp.hpp>
#include <tcp/server.hpp>

tcp::server<tcp::echo> make();
