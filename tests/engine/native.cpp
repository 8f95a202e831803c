// Which engine is chosen, what it says of that, and that either serves.
#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include <tcp/engine/native.hpp>
#include <tcp/server.hpp>

#include "blocking_client.hpp"
#include "child_process.hpp"

using tests::blocking_client;

namespace {

using server = tcp::server<tcp::echo, tcp::native_engine>;

constexpr long setup_call = 425, enter_call = 426, register_call = 427;  // of io_uring

/// Whether it echoes, with two loops and one descriptor handed over.
bool serves(server& one) {
    const tcp::endpoint where = one.bind("127.0.0.1:0");
    one.listen();
    std::thread runner{[&] { one.run(); }};
    const std::string text(100'000, 'x');
    bool all = true;
    {
        const blocking_client first{where}, second{where};
        all = first.echoes("hello") && second.echoes(text) && first.finishes() && second.finishes();
    }
    one.stop();
    runner.join();
    return all;
}

}  // namespace

TEST_CASE("io_uring that does not do what it is asked for is not used") {
    tests::in_child([](tests::findings& found) {
        // It is handed over, says that it was, and nothing happens.
        if (!tests::refuse_call(enter_call, 2, 1, 0) || !tests::refuse_call(enter_call, 2, 0, 0))
            return found.not_permitted("seccomp");
        server fallen_back;
        found.check(fallen_back.engine().substr(0, 6) == "epoll,", fallen_back.engine());
        found.check(serves(fallen_back), "it does not serve");
    });
}

TEST_CASE("a lack of descriptors is not what a process keeps in mind of io_uring") {
    tests::in_child([](tests::findings& found) {
        using tcp::detail::io_uring::self_test;
        bool permitted = true;
        std::error_code then;
        std::thread{[&] {  // what is refused is refused to this thread and those that it makes
            permitted = tests::refuse_call(setup_call, 0, 256, EMFILE);
            then = self_test::result();
        }}
            .join();
        if (!permitted) return found.not_permitted("seccomp");
        found.check(then == std::errc::too_many_files_open, then.message());
        const std::error_code now = self_test::result();
        found.check(now != std::errc::too_many_files_open, now.message());
    });
}

TEST_CASE("loops that cannot share the listener, for want of descriptors, end with that") {
    tests::in_child([](tests::findings& found) {
        server one{tcp::echo{}, tcp::options{.threads = 3}};
        one.bind("127.0.0.1:0");
        one.listen();
        if (!tests::refuse_call(SYS_fcntl, 1, F_DUPFD_CLOEXEC, EMFILE))
            return found.not_permitted("seccomp");
        std::error_code failure;
        one.run(failure);
        found.check(failure == std::errc::too_many_files_open, failure.message());
    });
}

TEST_CASE("the native engine serves") {
    server one{tcp::echo{}, tcp::options{.threads = 2}};
    const std::string chosen{one.engine()};
    CAPTURE(chosen);
    CHECK((chosen == "io_uring" || chosen.substr(0, 27) == "epoll, since io_uring gave: "));
    CHECK(serves(one));
}

TEST_CASE("without io_uring it is epoll, and says why") {
    struct refusal {
        long call;
        unsigned argument;
        int value, error;
        const char* why;
    };
    // Forbidden, as by the filters of containers; an old kernel; buffers that it does not know; too
    // little memory that may be locked.
    for (const refusal& one : {refusal{setup_call, 0, 256, EPERM, "Operation not permitted"},
                               refusal{setup_call, 0, 256, ENOSYS, "Function not implemented"},
                               refusal{register_call, 1, 22, EINVAL, "Invalid argument"},
                               refusal{setup_call, 0, 256, ENOMEM, "Cannot allocate memory"}}) {
        CAPTURE(one.why);
        tests::in_child([&](tests::findings& found) {
            if (!tests::refuse_call(one.call, one.argument, one.value, one.error))
                return found.not_permitted("seccomp");
            server fallen_back{tcp::echo{}, tcp::options{.threads = 2}};
            const std::string chosen{fallen_back.engine()};
            found.check(chosen == "epoll, since io_uring gave: " + std::string{one.why}, chosen);
            found.check(serves(fallen_back), "it does not serve");
        });
    }
}
