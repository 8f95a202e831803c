// User memory for each idle connection: what 9,000 connections that have each echoed once add to
// the anonymous memory of the server's process. Prints one line; exits with 1 over budget, 2 when
// it cannot measure. What the kernel holds for a socket is not in it: that is the same for all.
#include <cstdio>

#include "contender.hpp"

namespace {

constexpr std::size_t idle = 9000;
constexpr double budget = 128;  // bytes, as the next
constexpr double coroutine_budget = 400;

}  // namespace

int main() try {
    bench::raise_descriptor_limit();
    bench::take_place();
    const std::string here = bench::own_folder();
    const auto ours_with = [&](const char* handler) {
        return bench::idle_bytes({here + "echo_server", "--host", "127.0.0.1", "--port", "0",
                                  "--engine", "epoll", "--handler", handler},
                                 idle);
    };
    const double ours = ours_with("hooks");
    const double coroutine = ours_with("coroutine");
    const double floor = bench::idle_bytes({here + "floor_epoll", "0"}, idle);
    std::printf(
        "user memory for each of %zu idle connections: %.0f bytes (at most %.0f, floor %.0f), in a "
        "coroutine %.0f (at most %.0f)\n",
        idle, ours, budget, floor, coroutine, coroutine_budget);
    return ours > budget || coroutine > coroutine_budget ? 1 : 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "idle_memory: %s\n", error.what());
    return 2;
}
