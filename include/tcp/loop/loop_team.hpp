// What the loops of one server share: the count of their connections, and who takes the next one.
#pragma once

#include <cstddef>
#include <new>

#include <tcp/admission.hpp>
#include <tcp/detail/address_counts.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/options.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1::detail {

/// A loop as the others see it.
struct team_member {
    atomic<std::size_t> connections{0};  // its own, and those that are on their way to it
    loop_context* loop = nullptr;        // null where it is the only one
    team_member* next = nullptr;
};

/// Any thread, once the members have joined.
class loop_team {
public:
    [[gnu::cold]] explicit loop_team(const options& settings)
        : observer{settings.observer},
          by_address_{settings.max_connections_per_address.make()},
          admit_{settings.admit},
          most_{settings.max_connections},
          memory_limit_{settings.memory_limit} {}
    loop_team(const loop_team&) = delete;
    loop_team& operator=(const loop_team&) = delete;
    [[gnu::cold]] ~loop_team() { delete by_address_; }

    void join(team_member& one) noexcept {
        one.next = first_;
        first_ = &one;
    }

    /// A place for one more connection of this peer. False, and why, when there is none. It is
    /// given back with leave(), and with closed() once opened() has named the connection, with
    /// not_opened() before.
    [[gnu::noinline]] bool enter(const endpoint& peer, refused_by& why) noexcept {
        why = refused_by::admission;
        if (!admit_.allows(peer)) return false;
        why = refused_by::connection_limit;
        if (connections_.fetch_add(1) >= most_) {
            leave();
            return false;
        }
        if (by_address_ == nullptr || enter_by_address(peer, why)) return true;
        leave();
        return false;
    }
    void leave() noexcept { connections_.fetch_subtract(1); }

    /// Throws std::bad_alloc, and has given the address's place back then.
    void opened(const void* connection, const endpoint& peer) {
        if (by_address_ != nullptr) name_by_address(connection, peer);
    }
    void closed(const void* connection) noexcept {
        if (by_address_ != nullptr) leave_by_address(connection);
    }
    void not_opened(const endpoint& peer) noexcept {
        if (by_address_ != nullptr) leave_by_address(peer);
    }

    /// Where loops count what waits to be sent; null without a limit. And whether it is too much.
    atomic<std::size_t>* waiting_bytes() noexcept {
        return memory_limit_ != static_cast<std::size_t>(-1) ? &waiting_ : nullptr;
    }
    bool too_much_waits() const noexcept { return waiting_.load_relaxed() > memory_limit_; }

    tcp::observer* const observer;  // null for nobody

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
    // Cold, or the compiler would put the one class that counts addresses into every program.
    [[gnu::cold, gnu::noinline]] bool enter_by_address(const endpoint& peer,
                                                       refused_by& why) noexcept {
        why = refused_by::address_limit;
        try {
            return by_address_->enter(peer);
        } catch (const std::bad_alloc&) {
            why = refused_by::handler_failed;
            return false;
        }
    }

    [[gnu::cold, gnu::noinline]] void name_by_address(const void* connection,
                                                      const endpoint& peer) {
        by_address_->opened(connection, peer);
    }
    [[gnu::cold, gnu::noinline]] void leave_by_address(const void* connection) noexcept {
        by_address_->closed(connection);
    }
    [[gnu::cold, gnu::noinline]] void leave_by_address(const endpoint& peer) noexcept {
        by_address_->leave(peer);
    }

    address_counts* const by_address_;  // of options::max_connections_per_address; null without
    const admission& admit_;
    const std::size_t most_;
    const std::size_t memory_limit_;
    atomic<std::size_t> connections_{0};
    atomic<std::size_t> waiting_{0};  // stays 0 without a limit
    team_member* first_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
