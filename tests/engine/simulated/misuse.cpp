// Each rule of engine/concept.hpp that the simulated engine holds its caller to is broken here
// once.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "rig.hpp"

using namespace simulated_tests;
using tcp::close_mode;

namespace {

// The call fails with a sentence that has this part in it.
template <class Call>
void check_violation(Call call, const char* part) {
    INFO(part);
    CHECK_THROWS_WITH_AS(call(), doctest::Contains(part), std::logic_error);
}

struct open_rig : rig {
    explicit open_rig(const tcp::simulation::faults& weather = {})
        : rig{weather}, peer{(listen(), open())} {}
    ~open_rig() {
        if (!closed && !engine.close(first, close_mode::reset)) run();
    }
    tcp::simulation::client peer;
    bool closed = false;
};

const tcp::simulation::faults in_flight{.in_flight_per_mille = 1000};

}  // namespace

TEST_CASE("a violation names the seed, the time, the call and the connection") {
    rig r{{}, {}, 77};
    check_violation(
        [&] {
            r.engine.pause_receive({3, 4});
        },
        "(seed 77, at 0 us): pause_receive() of what is not open, connection 3 of "
        "generation 4");
    CHECK(r.world.violations().size() == 1);
}

TEST_CASE("calls for what was never opened") {
    rig r;
    check_violation([&] { r.send(first, "x"); }, "send() of what is not open");
    check_violation([&] { r.engine.resume_receive(first); }, "resume_receive() of what");
    check_violation([&] { r.engine.shutdown_send(first); }, "shutdown_send() of what");
    check_violation([&] { r.engine.close(first, close_mode::graceful); }, "close() of what");
    check_violation([&] { r.engine.local_endpoint(first); }, "local_endpoint() of what");
    check_violation([&] { r.engine.remote_endpoint(first); }, "remote_endpoint() of what");
    check_violation([&] { r.engine.refuse(3); }, "refuse() of socket 3");
    check_violation([&] { r.engine.open(first, 3); }, "open() of socket 3");
}

TEST_CASE("calls after close") {
    open_rig r{{.late_close_per_mille = 1000}};
    CHECK_FALSE(r.engine.close(first, close_mode::graceful));
    check_violation([&] { r.send(first, "x"); }, "send() after close()");
    check_violation([&] { r.engine.close(first, close_mode::graceful); }, "close() after close()");
    r.run();
    check_violation([&] { r.send(first, "x"); }, "send() of what is not open");
    r.closed = true;
}

TEST_CASE("a generation that is not the current one") {
    open_rig r;
    check_violation([&] { r.send({0, 2}, "x"); }, "send() of what is not open");
}

TEST_CASE("opening wrongly") {
    open_rig r;
    r.sink.opens = false;
    r.world.connect(7);
    r.run();
    const int socket = r.sink.sockets.at(1);
    check_violation([&] { r.engine.open({0, 2}, socket); }, "slot that is not free");
    check_violation([&] { r.engine.open({UINT32_MAX, 1}, socket); }, "beyond 16 million");
    CHECK(r.engine.close(first, close_mode::reset));
    check_violation([&] { r.engine.open(first, socket); }, "generation that the slot had before");
    CHECK(r.engine.open({0, 2}, socket) == 0);
    check_violation([&] { r.engine.open({1, 1}, socket); }, "neither opened nor refused");
    check_violation([&] { r.engine.refuse(socket); }, "neither opened nor refused");
    CHECK(r.engine.close({0, 2}, close_mode::reset));
    r.closed = true;
}

TEST_CASE("sending wrongly") {
    open_rig r{in_flight};
    check_violation([&] { r.send(first, ""); }, "send() of no bytes");
    check_violation([&] { r.engine.send(first, {}); }, "send() of no bytes");
    const std::string text = "text";
    r.send(first, text);
    check_violation([&] { r.send(first, text); }, "send() while one is in flight");
    check_violation([&] { r.engine.shutdown_send(first); },
                    "shutdown_send() while a send is in flight");
    CHECK(r.run() == events{"sent 0 4 0"});
}

TEST_CASE("changing bytes of a send in flight") {
    open_rig r{in_flight};
    std::string text(100, 'a');
    r.send(first, text);
    SUBCASE("before sent") {
        text[99] = 'b';
        check_violation([&] { r.run(); }, "bytes of a send in flight were changed");
    }
    SUBCASE("before closed") {
        CHECK_FALSE(r.engine.close(first, close_mode::graceful));
        text[0] = 'b';
        check_violation([&] { r.run(); }, "bytes of a send in flight were changed");
        r.closed = true;
    }
}

TEST_CASE("sending bytes of an event that has returned") {
    open_rig r;
    struct keeping_sink : recorder {
        tcp::bytes seen;
        explicit keeping_sink(rig& on) : recorder{on.engine} {}
        void received(tcp::connection_id, tcp::bytes got) { seen = got.subspan(1); }
    } sink{r};
    r.peer.send("gone");
    r.engine.wait(milliseconds(1), sink);
    check_violation([&] { r.engine.send(first, {&sink.seen, 1}); }, "bytes that were lent");
}

TEST_CASE("a loop that spins") {
    rig r;
    r.world.set_spin_limit(100);
    const auto spin = [&](int times) {
        for (int i = 0; i != times; ++i) r.engine.wait({}, r.sink);
    };
    SUBCASE("without events") {
        check_violation([&] { spin(102); }, "the loop spins");
    }
    SUBCASE("with the same failure again and again") {
        r.world.set_faults({.socket_limit = 1});
        r.listen();
        r.world.connect(7);
        check_violation([&] { r.run(); }, "the loop spins");
    }
    SUBCASE("not when time passes") {
        for (int i = 0; i != 1000; ++i) r.engine.wait(duration::nanoseconds(1), r.sink);
    }
}

TEST_CASE("listeners out of order") {
    rig r;
    std::error_code failure;
    check_violation([&] { r.engine.listen(0, 1, failure); }, "never bound");
    r.engine.bind(7, failure);
    check_violation([&] { r.engine.arm_accept(0, tcp::accept_mode::many); },
                    "arm_accept() before listen()");
    check_violation([&] { r.engine.pause_accept(0); }, "pause_accept() before listen()");
    check_violation([&] { r.engine.arm_accept(1, tcp::accept_mode::many); }, "never bound");
    r.engine.listen(0, 1, failure);
    check_violation([&] { r.engine.listen(0, 1, failure); }, "for the second time");
    r.engine.close_listeners();
    check_violation([&] { r.engine.close_listeners(); }, "for the second time");
    check_violation([&] { r.engine.arm_accept(0, tcp::accept_mode::many); },
                    "after close_listeners()");
    check_violation([&] { r.engine.pause_accept(0); }, "after close_listeners()");
    check_violation([&] { r.engine.bind(8, failure); }, "after close_listeners()");
}

TEST_CASE("waiting wrongly") {
    rig r;
    check_violation([&] { r.engine.wait(duration::nanoseconds(-1), r.sink); }, "timeout below 0");
    r.sink.react = [&](const std::string&) { r.engine.wait({}, r.sink); };
    r.engine.wake();
    check_violation([&] { r.engine.wait({}, r.sink); }, "while wait() delivers");
}

TEST_CASE("a script that never lets time pass") {
    rig r;
    std::function<void()> again = [&] { r.world.after({}, again); };
    again();
    check_violation([&] { r.world.advance(milliseconds(1)); }, "a million things");
}

TEST_CASE("violations can be recorded only, and the call then does nothing") {
    open_rig r{in_flight};
    r.world.on_violation(tcp::simulation::reaction::records);
    CHECK(r.send(first, "").is == tcp::send_outcome::state::failed);
    CHECK(r.send({9, 9}, "x").is == tcp::send_outcome::state::failed);
    const std::string text = "text";
    r.send(first, text);
    CHECK(r.send(first, text).error == EBUSY);
    CHECK(r.engine.open({1, 1}, 99) == EBADF);
    CHECK(r.engine.close({9, 9}, close_mode::graceful));
    r.engine.pause_receive({9, 9});
    r.engine.resume_receive({9, 9});
    r.engine.shutdown_send({9, 9});
    r.engine.shutdown_send(first);
    r.engine.refuse(99);
    CHECK_FALSE(r.engine.local_endpoint({9, 9}));
    r.engine.wait(duration::max(), r.sink);
    r.engine.wait(duration::max(), r.sink);
    CHECK(r.world.violations().size() == 12);
    CHECK(r.run() == events{"sent 0 4 0"});
}

TEST_CASE("an exception on its way is not replaced by a violation") {
    rig r;
    try {
        struct late {
            rig& on;
            ~late() { on.engine.pause_receive({9, 9}); }
        } destroyed{r};
        throw std::runtime_error("first");
    } catch (const std::runtime_error& caught) {
        CHECK(std::string(caught.what()) == "first");
    }
    CHECK(r.world.violations().size() == 1);
}
