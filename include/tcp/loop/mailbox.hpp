// What other threads ask of a loop: messages, delivered in the order in which they were posted.
//
//   any thread ──► post(): under the lock ──► waiting ──► wake
//                                                          │
//   the loop ◄── deliver(): one after the other ◄──────────┘
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <tcp/detail/atomic.hpp>
#include <tcp/detail/counted_pointer.hpp>
#include <tcp/detail/mutex.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/loop/loop_context.hpp>

namespace tcp::inline v0_1::detail {

/// Something for a loop to do.
struct message {
    /// Called once, on the thread of the loop. It destroys the message.
    using delivery = void (*)(message&, loop_context&) noexcept;

    explicit message(delivery d, std::uint32_t s = 0, std::size_t count = 0) noexcept
        : deliver{d}, slot{s}, size{count} {}

    message* next = nullptr;
    delivery deliver;
    std::uint32_t slot;  // of the connection that it has bytes for
    std::size_t size;    // bytes
};

/// It outlives its loop as long as somebody holds it: who posts then hears that the loop is gone.
///
/// A lock, not a lock-free list: with it "that connection is alive, and this message is on its way"
/// is one step, so a message is either refused or reaches its connection before on_close is called.
/// The lock is held for some instructions, and for the system call that wakes a sleeping loop.
class mailbox {
public:
    explicit mailbox(loop_context& loop) noexcept : loop_{&loop} {}
    mailbox(const mailbox&) = delete;
    mailbox& operator=(const mailbox&) = delete;

    // A program that makes no mailbox calls virtual functions only, and has none of this in it.

    // ---- any thread ----

    void hold() noexcept { holders_.add(); }
    virtual void let_go() noexcept {
        if (holders_.remove()) delete this;
    }

    /// False when the loop is gone or this condition, which is looked at under the lock, does not
    /// hold: then the message is still the caller's.
    template <class Condition>
    bool post(message& one, Condition holds) noexcept {
        const mutex::guard lock{mutex_};
        if (loop_ == nullptr || !holds()) return false;
        one.next = nullptr;
        (first_ != nullptr ? last_->next : first_) = &one;
        last_ = &one;
        if (one.size != 0) under_way_[one.slot].fetch_add(one.size);
        const std::size_t before = count_.load_relaxed();
        count_.store_release(before + 1);
        // Behind the count, which is what the loop looks at when it wakes up, and before it sleeps.
        // A hook's loop looks there anyhow; what else runs on its thread may run while it waits, as
        // the scripts of a simulation do.
        const bool in_hook = loop_->runs_here() && loop_->current != nullptr;
        if (before == 0 && !in_hook) loop_->wake();
        return true;
    }

    /// In a condition: whether no more than so many bytes posted to the connection of this slot
    /// have not reached it. The one after which it is false makes arrived() say so.
    bool has_room(std::uint32_t slot, std::size_t most) noexcept {
        for (;;) {  // the loop takes away from it meanwhile
            const std::size_t bytes = under_way_[slot].load_relaxed();
            if (bytes <= most) return true;
            if (under_way_[slot].compare_exchange(bytes, bytes | refused)) return false;
        }
    }

    /// Whether the loop is there and this condition holds.
    template <class Condition>
    bool holds(Condition condition) noexcept {
        const mutex::guard lock{mutex_};
        return loop_ != nullptr && condition();
    }

    // ---- the thread of the loop ----

    bool waiting() const noexcept { return count_.load_acquire() != 0; }

    /// Delivers what is there now. What is posted meanwhile has its turn next time.
    virtual void deliver(loop_context& loop) noexcept {
        for (std::size_t left = count_.load_relaxed(); left != 0; --left)
            if (message* const one = take()) one->deliver(*one, loop);
    }

    /// From now on what is posted to the connection of this slot is counted. Throws std::bad_alloc.
    void count_for(std::uint32_t slot) {
        const mutex::guard lock{mutex_};
        under_way_.grow_to(slot);
    }

    /// So many bytes posted to this connection have reached it. False when some were refused for
    /// want of room: what it sends would have a hole.
    bool arrived(std::uint32_t slot, std::size_t bytes) noexcept {
        return (under_way_[slot].fetch_subtract(bytes) & refused) == 0;
    }

    /// Changes the generation of a slot, so that nothing can be posted to its connection any more.
    /// How many bytes were that have not reached it, and never will.
    virtual std::size_t dismiss(std::uint32_t slot, atomic<std::uint32_t>& generation,
                                std::uint32_t next) noexcept {
        const mutex::guard lock{mutex_};
        generation.store_relaxed(next);
        return slot < under_way_.size() ? under_way_[slot].exchange(0) & ~refused : 0;
    }

    /// Nothing can be posted from now on, unless something waits: false then.
    virtual bool close_if_empty() noexcept {
        const mutex::guard lock{mutex_};
        if (first_ != nullptr) return false;
        loop_ = nullptr;
        return true;
    }

    /// The loop ends: nothing can be posted from now on. What was is delivered.
    virtual void close(loop_context& loop) noexcept {
        {
            const mutex::guard lock{mutex_};
            loop_ = nullptr;
        }
        while (message* const one = take()) one->deliver(*one, loop);
    }

private:
    static constexpr std::size_t refused = ~(static_cast<std::size_t>(-1) >> 1);  // the highest bit

    virtual ~mailbox() = default;

    message* take() noexcept {
        const mutex::guard lock{mutex_};
        message* const one = first_;
        if (one == nullptr) return nullptr;
        first_ = one->next;
        count_.store_relaxed(count_.load_relaxed() - 1);
        return one;
    }

    mutex mutex_;
    loop_context* loop_;  // null when it is gone
    message* first_ = nullptr;
    message* last_ = nullptr;
    atomic<std::size_t> count_{0};
    slot_array<atomic<std::size_t>, 256> under_way_;  // bytes, by slot; grows under the lock
    holder_count holders_;
};

}  // namespace tcp::inline v0_1::detail
