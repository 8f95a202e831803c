// Who listens where in a simulated network.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <vector>

#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/simulated/link.hpp>

namespace tcp::inline v0_1::simulated {

/// A bound socket of an engine, and the clients that wait to be accepted.
struct listener {
    enum class arming : unsigned char { paused, one, many };
    listener_id id = 0;
    endpoint where;
    bool ipv6_only = false;
    bool listening = false;
    std::size_t backlog = 0;
    arming armed = arming::paused;
    std::deque<link*> queue;

    bool covers(address_family family) const noexcept {
        if (family == where.family()) return true;
        if (where.family() == address_family::any)
            return family == address_family::ipv6 || (family == address_family::ipv4 && !ipv6_only);
        // [::] takes IPv4 clients as well unless it was told not to (ipv6(7), IPV6_V6ONLY).
        return where.family() == address_family::ipv6 && where.is_wildcard() && !ipv6_only &&
               (family == address_family::ipv4 || family == address_family::any);
    }
};

/// Every listener of a world.
class listener_table {
public:
    std::size_t size() const noexcept { return all_.size(); }

    /// Gives a listener its place, and a port where it asked for any. 0 or an errno, as of bind(2).
    int add(listener& one) {
        if (!one.where) return EINVAL;
        if (one.where.family() != address_family::local && one.where.port() == 0) {
            const int port = free_port(one);
            if (port == 0) return EADDRINUSE;
            one.where = one.where.with_port(port);
        }
        if (taken(one)) return EADDRINUSE;
        all_.push_back(&one);
        return 0;
    }

    void remove(listener& one) noexcept { std::erase(all_, &one); }

    /// Who takes a client that connects there: one with that very address before one with every
    /// address.
    listener* find(const endpoint& to) const noexcept {
        listener* found = nullptr;
        for (listener* const one : all_) {
            if (!one->listening) continue;
            if (one->where == to) return one;
            if (found == nullptr && reaches(to, *one)) found = one;
        }
        return found;
    }

private:
    static bool reaches(const endpoint& to, const listener& one) noexcept {
        if (to.family() == address_family::local || one.where.family() == address_family::local)
            return false;  // by its very name only
        if (to.port() != one.where.port()) return false;
        if (to.is_wildcard()) return true;  // a client that says only a port means this machine
        return one.where.is_wildcard() && one.covers(to.family());
    }

    bool taken(const listener& by) const noexcept {
        return std::any_of(all_.begin(), all_.end(), [&](const listener* one) {
            if (one->where == by.where) return true;
            if (one->where.port() != by.where.port() ||
                one->where.family() == address_family::local ||
                by.where.family() == address_family::local)
                return false;
            return (one->where.is_wildcard() && one->covers(by.where.family())) ||
                   (by.where.is_wildcard() && by.covers(one->where.family()));
        });
    }

    int free_port(listener& one) {
        constexpr int first = 32768, count = 16384;  // below the clients' ports
        const endpoint asked = one.where;
        for (int tries = 0; tries < count; ++tries) {
            const int port = first + next_port_++ % count;
            one.where = asked.with_port(port);
            if (!taken(one)) return port;
        }
        return 0;
    }

    std::vector<listener*> all_;
    int next_port_ = 0;
};

}  // namespace tcp::inline v0_1::simulated
