// What a connection knows of the loop it lives on: nothing of its engine, nothing of its handler.
#pragma once

#include <cstddef>

#include <tcp/bytes.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/detail/intrusive_list.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/loop/block_pool.hpp>
#include <tcp/loop/timer_wheel.hpp>

namespace tcp::inline v0_1 {

class connection;

namespace detail {

struct touched {};  // needs looking after by its loop

class mailbox;

// Its address tells threads apart.
inline thread_local constinit char thread_mark = 0;

class loop_context {
public:
    loop_context() = default;
    loop_context(const loop_context&) = delete;
    loop_context& operator=(const loop_context&) = delete;

    /// Ask the system; for functions that are called now and then.
    enum class side : bool { local, remote };
    virtual endpoint endpoint_of(const connection&, side) = 0;
    virtual int descriptor_of(const connection&) = 0;

    /// The engine's clock.
    virtual duration time() const = 0;

    /// Calls a function as if it were a hook of this connection.
    virtual void call_hook(connection&, void (*function)(void*, connection&), void* argument) = 0;

    /// Makes a loop that waits look around. Any thread.
    virtual void wake() noexcept = 0;

    /// Whether the thread that asks is running this loop. Any thread.
    bool runs_here() const noexcept { return runner.load_relaxed() == &thread_mark; }

    /// Takes bytes of what the running hook was shown for sending from there. False when they lie
    /// elsewhere, or are not the next ones.
    bool lend_first(bytes data) noexcept {
        if (!lent.empty() || !in_shown(data)) return false;
        lent = data;
        return true;
    }
    bool lend_next(bytes data) noexcept {
        if (!in_shown(data) || data.data() != lent.data() + lent.size()) return false;
        lent = {lent.data(), lent.size() + data.size()};
        return true;
    }

    atomic<const void*> runner{nullptr};  // the thread_mark of the thread that runs the loop
    mailbox* mail = nullptr;              // made when it is first asked for

    block_pool pool;
    timer_wheel timers;
    std::size_t send_queue_limit = 0;
    std::size_t high_mark = 0;
    std::size_t low_mark = 0;
    std::size_t receive_limit = 0;

    // The connection whose hook is running, and what that hook was shown in the engine's buffer:
    // what it sends from there is lent, not copied. `lent` comes behind the connection's queue.
    connection* current = nullptr;
    bytes shown;
    bytes lent;

    // Connections that something was asked of since they were last looked after.
    intrusive_list<touched> touched_ones;

protected:
    ~loop_context() = default;

private:
    bool in_shown(bytes data) const noexcept {
        return data.data() >= shown.data() &&
               data.data() + data.size() <= shown.data() + shown.size();
    }
};

}  // namespace detail
}  // namespace tcp::inline v0_1
