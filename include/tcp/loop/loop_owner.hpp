// Who keeps a loop alive: its server, and the call that is running it. A server may be destroyed
// inside a hook, or while another thread runs it.
#pragma once

#include <cstdint>
#include <utility>

#include <tcp/detail/atomic.hpp>
#include <tcp/detail/clock.hpp>

namespace tcp::inline v0_1::detail {

template <class Loop>
class loop_owner {
    struct shared {
        template <class... Arguments>
        explicit shared(Arguments&&... arguments) : loop{std::forward<Arguments>(arguments)...} {}

        /// Whether that was the end of it.
        [[gnu::noinline]] bool let_go() noexcept {
            if (owners.fetch_subtract(1) != 1) return false;
            delete this;
            return true;
        }

        Loop loop;
        atomic<int> owners{1};
        atomic<int> running{0};
    };

public:
    template <class... Arguments>
    explicit loop_owner(std::in_place_t, Arguments&&... arguments)
        : shared_{new shared{std::forward<Arguments>(arguments)...}} {}
    loop_owner(const loop_owner&) = delete;
    loop_owner& operator=(const loop_owner&) = delete;

    /// Stops a loop that is being run. In one of its own hooks it goes on to the end of the batch,
    /// without the server; in another thread that end is waited for. Nobody can run it any more,
    /// not even its last hooks.
    ~loop_owner() {
        if (!shared_->running.compare_exchange(0, 1)) {
            shared_->loop.stop();
            while (!shared_->loop.runs_here() && !shared_->running.compare_exchange(0, 1))
                sleep_for(a_moment);
        }
        shared_->let_go();
    }

    Loop& operator*() const noexcept { return shared_->loop; }
    Loop* operator->() const noexcept { return &shared_->loop; }

    /// The right to run the loop, held by one call at a time.
    class turn {
    public:
        explicit turn(const loop_owner& owner) noexcept {
            if (!owner.shared_->running.compare_exchange(0, 1)) return;
            shared_ = owner.shared_;
            shared_->loop.begin_run();
            shared_->owners.fetch_add(1);
        }
        turn(const turn&) = delete;
        turn& operator=(const turn&) = delete;
        ~turn() {
            if (shared_ == nullptr) return;
            shared_->loop.end_run();
            if (shared_->let_go()) return;
            shared_->running.store_release(0);  // a server that waits for this goes on now
        }

        explicit operator bool() const noexcept { return shared_ != nullptr; }
        Loop* operator->() const noexcept { return &shared_->loop; }

    private:
        shared* shared_ = nullptr;
    };

private:
    // Looking again and again is enough for a rare case; std::atomic::wait would be compiled into
    // every program.
    static constexpr duration a_moment = duration::nanoseconds(100'000);

    shared* shared_;
};

}  // namespace tcp::inline v0_1::detail
