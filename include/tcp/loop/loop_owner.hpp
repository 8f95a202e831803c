// Who keeps a loop alive: its server, and the call that is running it. A server may be destroyed
// inside a hook, or while another thread runs it.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace tcp::inline v0::detail {

// Its address tells threads apart.
inline thread_local constinit char thread_mark = 0;

template <class Loop>
class loop_owner {
    struct shared {
        template <class... Arguments>
        explicit shared(Arguments&&... arguments) : loop{std::forward<Arguments>(arguments)...} {}

        [[gnu::noinline]] void let_go() noexcept {
            if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
        }

        Loop loop;
        std::atomic<int> owners{1};
        std::atomic<int> running{0};
        std::atomic<const void*> runner{nullptr};
    };

public:
    template <class... Arguments>
    explicit loop_owner(std::in_place_t, Arguments&&... arguments)
        : shared_{new shared{std::forward<Arguments>(arguments)...}} {}
    loop_owner(const loop_owner&) = delete;
    loop_owner& operator=(const loop_owner&) = delete;

    /// Stops a loop that is being run. In one of its own hooks it goes on to the end of the batch,
    /// without the server; in another thread that end is waited for.
    ~loop_owner() {
        if (shared_->running.load(std::memory_order_acquire) != 0) {
            shared_->loop.stop();
            if (shared_->runner.load(std::memory_order_relaxed) != &thread_mark)
                shared_->running.wait(1, std::memory_order_acquire);
        }
        shared_->let_go();
    }

    Loop& operator*() const noexcept { return shared_->loop; }
    Loop* operator->() const noexcept { return &shared_->loop; }

    /// The right to run the loop, held by one call at a time.
    class turn {
    public:
        explicit turn(const loop_owner& owner) noexcept {
            int idle = 0;
            if (!owner.shared_->running.compare_exchange_strong(idle, 1)) return;
            shared_ = owner.shared_;
            shared_->runner.store(&thread_mark, std::memory_order_relaxed);
            shared_->owners.fetch_add(1, std::memory_order_relaxed);
        }
        turn(const turn&) = delete;
        turn& operator=(const turn&) = delete;
        ~turn() {
            if (shared_ == nullptr) return;
            shared_->runner.store(nullptr, std::memory_order_relaxed);
            shared_->running.store(0, std::memory_order_release);
            shared_->running.notify_all();
            shared_->let_go();
        }

        explicit operator bool() const noexcept { return shared_ != nullptr; }
        Loop* operator->() const noexcept { return &shared_->loop; }

    private:
        shared* shared_ = nullptr;
    };

private:
    shared* shared_;
};

}  // namespace tcp::inline v0::detail
