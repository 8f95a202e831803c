// Told what a server does, for tracing and logs of operation.
#pragma once

#include <exception>

#include <tcp/close_reason.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1 {

class connection;

/// Override what is of interest and give its address to options::observer; it lives until the
/// server is gone and its run() has returned.
/// Each function is called on the thread of a loop, with options::threads on several at a time, and
/// keeps that loop waiting. A connection is known by its address, until closed(). What a message
/// holds is the handler's to see: tcp::logged shows it.
class observer {
public:
    virtual ~observer() = default;

    /// Before on_open.
    virtual void opened(const connection&, const endpoint& /*peer*/) noexcept {}

    /// Behind on_close, which happens while the connection is still there.
    virtual void closed(const connection&, const close_reason&) noexcept {}

    /// What left a hook. Its connection is reset, unless that was on_close; the others go on.
    virtual void threw(const connection&, const std::exception_ptr&) noexcept {}

    /// A peer that got no handler.
    virtual void refused(const endpoint& /*peer*/, refused_by) noexcept {}

    /// An errno of accept(2), as when descriptors ran out.
    virtual void accept_failed(int /*error*/) noexcept {}

    /// Reading stopped since too much waits to be sent, and goes on.
    virtual void paused(const connection&) noexcept {}
    virtual void resumed(const connection&) noexcept {}
};

}  // namespace tcp::inline v0_1
