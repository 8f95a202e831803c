// The timers of one loop. Starting and stopping one costs the same however many there are.
//
// Time is counted in ticks of a millisecond. A timer waits in a slot of the lowest wheel on which
// its tick and the present one stand in different slots, and moves to a lower wheel when the time
// of its slot comes:
//
//     wheel 0   64 slots of 1 tick       this 64 ms      what is here is due exactly then
//     wheel 1   64 slots of 64 ticks     these 4 s
//     wheel 2   64 slots of 4,096        these 4 min     ... and so on: five wheels, 12 days
//     beyond    a list of what is later
//
// All of a lower wheel comes before the next slot of a higher one, so the first wheel with anything
// on it knows when to look next.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include <tcp/detail/intrusive_list.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0_1::detail {

/// A point in time: milliseconds of the loop's clock.
using tick = std::int64_t;

constexpr tick never = INT64_MAX;
constexpr std::int64_t nanoseconds_of_a_tick = 1'000'000;

/// The tick that has begun, and the first one that is not before this time.
constexpr tick tick_of(duration time) noexcept {
    return time.nanoseconds() / nanoseconds_of_a_tick;
}
constexpr tick tick_from(duration time) noexcept {
    const std::int64_t ns = time.nanoseconds();
    return ns / nanoseconds_of_a_tick + (ns % nanoseconds_of_a_tick > 0 ? 1 : 0);
}

/// What waits for its time: a part of who wants to be told, and which kind of part.
class timer_node : public list_node {
public:
    enum class kind : std::int64_t { deadlines, of_user };  // of a connection; a tcp::timer

    explicit timer_node(kind what) noexcept : due_and_kind_{static_cast<std::int64_t>(what)} {}

    kind what() const noexcept { return static_cast<kind>(due_and_kind_ & 1); }
    tick due() const noexcept { return due_and_kind_ >> 1; }
    bool waits() const noexcept { return next != nullptr; }

private:
    friend class timer_wheel;
    std::int64_t due_and_kind_;  // in one word: each idle connection has it
};

/// A timer that says what happens then. Only those that are used have their code in a program.
struct user_timer_node : timer_node {
    user_timer_node() noexcept : timer_node{kind::of_user} {}
    void (*when_due)(user_timer_node&) = nullptr;
};

class timer_wheel {
public:
    timer_wheel() noexcept {
        for (list_node& head : heads_) head.previous = head.next = &head;
    }
    ~timer_wheel() {
        for (list_node& head : heads_)
            while (!empty(head)) stop(static_cast<timer_node&>(*head.next));
    }
    timer_wheel(const timer_wheel&) = delete;
    timer_wheel& operator=(const timer_wheel&) = delete;

    /// Due at this tick. What is past is due at the next one, so that a timer which starts itself
    /// again in its own call does not hold up the rest.
    [[gnu::noinline]] void start(timer_node& timer, tick due) noexcept {
        stop(timer);
        constexpr tick last = never / 2;
        const tick clamped = due <= now_ ? now_ + 1 : due < last ? due : last;
        timer.due_and_kind_ = clamped * 2 + static_cast<std::int64_t>(timer.what());
        place(timer);
    }

    /// Nothing happens to one that does not wait.
    void stop(timer_node& timer) noexcept {
        if (timer.waits()) take_out(timer);
    }

    /// When due() has something to do: not later than the first timer, though perhaps earlier.
    tick next() const noexcept { return first_list().begins; }

    /// Takes out the first timer that is due now or earlier; null when none is. Time never goes
    /// back.
    [[gnu::noinline]] timer_node* due(tick now) noexcept {
        for (;;) {
            if (list_node& head = heads_[expired]; !empty(head)) {
                auto* const first = static_cast<timer_node*>(head.next);
                stop(*first);
                return first;
            }
            const waiting_list first = first_list();
            if (first.begins > now) break;
            now_ = first.begins;
            sort(first.index);
        }
        if (now > now_) now_ = now;
        return nullptr;
    }

private:
    static constexpr std::size_t slot_bits = 6;
    static constexpr std::size_t slots = 1 << slot_bits;
    static constexpr std::size_t levels = 5;
    static constexpr std::size_t all_bits = levels * slot_bits;
    static constexpr std::size_t expired = levels * slots;  // due, and not taken out yet
    static constexpr std::size_t beyond = expired + 1;

    struct waiting_list {
        std::size_t index;
        tick begins;
    };

    static bool empty(const list_node& head) noexcept { return head.next == &head; }

    [[gnu::noinline]] waiting_list first_list() const noexcept {
        if (!empty(heads_[expired])) return {expired, now_};
        for (std::size_t level = 0; level != levels; ++level) {
            if (occupied_[level] == 0) continue;
            const auto slot = static_cast<std::size_t>(std::countr_zero(occupied_[level]));
            const std::size_t shift = level * slot_bits;
            const tick wheel = now_ >> (shift + slot_bits) << slot_bits;  // its slot 0
            return {level * slots + slot, (wheel + static_cast<tick>(slot)) << shift};
        }
        if (empty(heads_[beyond])) return {beyond, never};
        return {beyond, ((now_ >> all_bits) + 1) << all_bits};
    }

    [[gnu::noinline]] void take_out(timer_node& timer) noexcept {
        list_node* const before = timer.previous;
        before->next = timer.next;
        timer.next->previous = before;
        if (before == timer.next) {  // the head of its list, which is empty now
            const auto index = static_cast<std::size_t>(before - heads_);
            if (index < expired) occupied_[index / slots] &= ~(std::uint64_t{1} << index % slots);
        }
        timer.previous = timer.next = nullptr;
    }

    /// The list for this tick, as seen from now.
    std::size_t list_of(tick due) const noexcept {
        if (due <= now_) return expired;
        const auto differing = static_cast<std::uint64_t>(due ^ now_);
        const std::size_t level =
            (63 - static_cast<std::size_t>(std::countl_zero(differing))) / slot_bits;
        if (level >= levels) return beyond;
        return level * slots + (static_cast<std::size_t>(due >> (level * slot_bits)) & (slots - 1));
    }

    /// Moves what is on this list to where it belongs now.
    void sort(std::size_t index) noexcept {
        list_node& head = heads_[index];
        list_node* one = head.next;
        head.previous->next = nullptr;  // the end, while they are moved
        head.previous = head.next = &head;
        if (index < expired) occupied_[index / slots] &= ~(std::uint64_t{1} << index % slots);
        while (one != nullptr) {
            auto& timer = static_cast<timer_node&>(*one);
            one = one->next;
            place(timer);
        }
    }

    [[gnu::noinline]] void place(timer_node& timer) noexcept {
        const std::size_t index = list_of(timer.due());
        if (index < expired) occupied_[index / slots] |= std::uint64_t{1} << index % slots;
        list_node& head = heads_[index];
        timer.previous = head.previous;
        timer.next = &head;
        head.previous->next = &timer;
        head.previous = &timer;
    }

    list_node heads_[beyond + 1];
    std::uint64_t occupied_[levels] = {};
    tick now_ = 0;
};

}  // namespace tcp::inline v0_1::detail
