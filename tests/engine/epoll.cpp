// What only the epoll engine has to do with the system.
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <system_error>

#include <doctest/doctest.h>

#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/server.hpp>

#include "child_process.hpp"

using namespace std::chrono_literals;

TEST_CASE("a program that has closed the engine's descriptors is told, and does not spin") {
    tests::in_child([](tests::findings& found) {
        tcp::server<tcp::echo, tcp::epoll_engine> server;
        server.bind("127.0.0.1:0");
        server.listen();
        server.poll();
        for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
            std::error_code unreadable;
            if (std::filesystem::read_symlink(entry, unreadable) == "anon_inode:[eventpoll]")
                ::close(std::stoi(entry.path().filename()));
        }
        std::string said;
        try {
            server.run_for(1h);
        } catch (const std::system_error& e) {
            said = e.what();
        }
        found.check(said.starts_with("epoll_wait"), "it did not throw");
    });
}
