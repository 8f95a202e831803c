// expect: tcp::timer: the function captures too much; capture `this` and keep the rest in the
// handler.
#include <string>

#include <tcp/server.hpp>
#include <tcp/timer.hpp>

struct greeter {
    tcp::timer reminder;
    void on_open(tcp::connection& peer) {
        const std::string text = "still there?";
        reminder.start(peer, {}, [text](tcp::connection& c) { c.send(text); });
    }
};

void serve() { tcp::server<greeter> server; }
