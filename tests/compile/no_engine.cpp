// expect: tcp::server: Engine does not model tcp::engine; tcp/engine/concept.hpp says what one has.
// Leave the parameter out for the engine of this system.
#include <tcp/server.hpp>

struct toy_engine {
    static constexpr const char* name = "toy";
};

void serve() { tcp::server<tcp::echo, toy_engine> server; }
