// What the loops of one server share: the count of their connections, and who takes the next one.
#pragma once

#include <cstddef>

#include <tcp/detail/atomic.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0::detail {

/// A loop as the others see it.
struct team_member {
    atomic<std::size_t> connections{0};  // its own, and those that are on their way to it
    mailbox* mail = nullptr;             // null where it is the only loop
    team_member* next = nullptr;
};

/// Any thread, once the members have joined.
class loop_team {
public:
    explicit loop_team(const options& settings) noexcept : most_{settings.max_connections} {}
    loop_team(const loop_team&) = delete;
    loop_team& operator=(const loop_team&) = delete;

    void join(team_member& one) noexcept {
        one.next = first_;
        first_ = &one;
    }

    /// A place for one more connection, given back with leave(). False when there is none.
    bool enter() noexcept {
        if (connections_.fetch_add(1) < most_) return true;
        leave();
        return false;
    }
    void leave() noexcept { connections_.fetch_add(static_cast<std::size_t>(-1)); }

    /// Who shall serve a connection that this loop has accepted, if not the loop itself: the one
    /// with the fewest, where that makes a difference. With few connections none has one more than
    /// another needs to have; with many a sixteenth is not worth the way.
    team_member* lighter_than(const team_member& self) const noexcept {
        const std::size_t own = self.connections.load_relaxed();
        team_member* best = nullptr;
        std::size_t fewest = own;
        for (team_member* one = first_; one != nullptr; one = one->next) {
            const std::size_t count = one->connections.load_relaxed();
            if (count >= fewest) continue;
            fewest = count;
            best = one;
        }
        return own > fewest + fewest / 16 ? best : nullptr;
    }

private:
    const std::size_t most_;
    atomic<std::size_t> connections_{0};
    team_member* first_ = nullptr;
};

}  // namespace tcp::inline v0::detail
