// User memory for each idle connection: what 9,000 connections that have each echoed once add to
// the anonymous memory of the server's process. Prints one line; exits with 1 over budget, 2 when
// it cannot measure. What the kernel holds for a socket is not in it: that is the same for all.
#include <cstdio>

#include "load.hpp"

namespace {

constexpr std::size_t idle = 9000;
constexpr double budget = 128;  // bytes, as the next
constexpr double coroutine_budget = 400;

double bytes_for_each(const std::vector<std::string>& command) {
    bench::server_process server(command, bench::place().server);
    bench::latencies forgotten;
    // A round of no length is one message on each connection. The first connection pays for what is
    // made once, such as the receive buffer's pages.
    bench::load first(server.port(), {.connections = 1, .message = 64, .in_flight = 1});
    first.run({}, forgotten);
    const std::int64_t before = server.memory().anonymous;
    bench::load others(server.port(), {.connections = idle, .message = 64, .in_flight = 1});
    others.run({}, forgotten);
    return static_cast<double>(server.memory().anonymous - before) / static_cast<double>(idle);
}

}  // namespace

int main() try {
    bench::raise_descriptor_limit();
    bench::pin(bench::place().load);
    const std::string here = bench::own_folder();
    const auto ours_with = [&](const char* handler) {
        return bytes_for_each({here + "echo_server", "--host", "127.0.0.1", "--port", "0",
                               "--engine", "epoll", "--handler", handler});
    };
    const double ours = ours_with("hooks");
    const double coroutine = ours_with("coroutine");
    const double floor = bytes_for_each({here + "floor_epoll", "0"});
    std::printf(
        "user memory for each of %zu idle connections: %.0f bytes (at most %.0f, floor %.0f), in a "
        "coroutine %.0f (at most %.0f)\n",
        idle, ours, budget, floor, coroutine, coroutine_budget);
    return ours > budget || coroutine > coroutine_budget ? 1 : 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "idle_memory: %s\n", error.what());
    return 2;
}
