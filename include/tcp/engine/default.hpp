// What a server uses unless told otherwise: the one place of the library that selects by system.
#pragma once

#if defined(__linux__)
#    include <tcp/engine/epoll/epoll_engine.hpp>
#else
#    error "tcp-server runs on Linux; elsewhere it needs an engine: see tcp/engine/concept.hpp."
#endif

namespace tcp::inline v0_1 {

/// What every Linux has. tcp::native_engine (engine/native.hpp) also tries io_uring.
using default_engine = epoll_engine;

}  // namespace tcp::inline v0_1
