// expect: tcp: exceptions are needed; compile without -fno-exceptions.
// flags: -fno-exceptions
#include <tcp.hpp>
