// What a signal does to this process, changed for the length of a scope.
#pragma once

#include <signal.h>

#include <doctest/doctest.h>

namespace tests {

/// A disposition of a signal for as long as it lives (sigaction(2)): a handler, SIG_IGN or SIG_DFL,
/// flags, and one signal that is blocked while the handler runs.
class handled_signal {
public:
    handled_signal(int number, void (*how)(int), int flags = 0, int masked = 0) : number_{number} {
        struct sigaction mine {};
        mine.sa_handler = how;
        mine.sa_flags = flags;
        if (masked != 0) ::sigaddset(&mine.sa_mask, masked);
        REQUIRE(::sigaction(number_, &mine, &before_) == 0);
    }
    handled_signal(const handled_signal&) = delete;
    handled_signal& operator=(const handled_signal&) = delete;
    ~handled_signal() { ::sigaction(number_, &before_, nullptr); }

private:
    int number_;
    struct sigaction before_ {};
};

}  // namespace tests
