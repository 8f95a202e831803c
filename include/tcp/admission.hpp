// Who may connect: a function that is asked before anything is made for a connection, and how many
// may from one address.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <tcp/detail/address_counts.hpp>
#include <tcp/detail/counted_pointer.hpp>
#include <tcp/endpoint.hpp>

namespace tcp::inline v0_1 {

/// A number of connections, for options::max_connections_per_address. A value.
class address_limit {
public:
    /// No limit.
    constexpr address_limit() noexcept = default;

    /// So many; the largest std::size_t is no limit.
    // NOLINTBEGIN(google-explicit-constructor): a number is one
    template <class Table = detail::address_table<detail::mutex>>
    constexpr address_limit(std::size_t most) noexcept
        : most_{most}, make_{most != no_limit ? &make_one<Table> : nullptr} {}
    // NOLINTEND(google-explicit-constructor)

    /// That number.
    constexpr std::size_t most() const noexcept { return most_; }

    // Only a program that sets a limit names what counts, and has it compiled: hence the template.
    detail::address_counts* make() const { return make_ != nullptr ? make_(most_) : nullptr; }

private:
    static constexpr std::size_t no_limit = static_cast<std::size_t>(-1);

    template <class Table>
    static detail::address_counts* make_one(std::size_t most) {
        return new Table{most};
    }

    std::size_t most_ = no_limit;
    detail::address_counts* (*make_)(std::size_t) = nullptr;
};

/// Holds any function `bool(const tcp::endpoint& peer)`, such as a tcp::access_list: for
/// options::admit. Copies share the one function. With options::threads it is called on several
/// threads at a time. Who is refused, and whose function throws, is reset and counted
/// (refused_by::admission).
class admission {
public:
    /// Everybody may connect.
    constexpr admission() noexcept = default;

    /// Asks a copy of this function. Throws std::bad_alloc, and what copying or moving it throws.
    // NOLINTBEGIN(google-explicit-constructor): a function is one
    template <class F>
    requires(std::is_invocable_r_v<bool, const F&, const endpoint&>) admission(F allows)
        : held_{new holder<F>{std::move(allows)}} {}
    // NOLINTEND(google-explicit-constructor)

    /// What the function says of this peer; no if it throws.
    bool allows(const endpoint& peer) const noexcept { return !held_ || held_->ask(*held_, peer); }

private:
    struct held {
        bool (*ask)(const held&, const endpoint&) noexcept;
        void (*destroy)(held*) noexcept;
        detail::holder_count holders = {};

        void hold() noexcept { holders.add(); }
        void let_go() noexcept {
            if (holders.remove()) destroy(this);
        }
    };
    template <class F>
    struct holder : held {
        explicit holder(F&& f)
            : held{
                  [](const held& self, const endpoint& peer) noexcept {
                      try {
                          return static_cast<bool>(static_cast<const holder&>(self).function(peer));
                      } catch (...) {
                          return false;
                      }
                  },
                  [](held* self) noexcept { delete static_cast<holder*>(self); }},
              function(std::move(f)) {}
        const F function;
    };

    detail::counted_pointer<held> held_;
};

}  // namespace tcp::inline v0_1
