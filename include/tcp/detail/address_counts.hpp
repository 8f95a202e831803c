// How many connections each address has, for options::max_connections_per_address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include <tcp/detail/mutex.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/endpoint.hpp>

namespace tcp::inline v0_1::detail {

/// Any thread. It is used by its virtual functions alone, and what implements them is a template:
/// a program without the limit has nothing of it, and does not compile it either.
class address_counts {
public:
    virtual ~address_counts() = default;

    /// A place for one more connection of this peer; false when it has as many as it may. Throws
    /// std::bad_alloc.
    virtual bool enter(const endpoint& peer) = 0;

    /// Gives the place back: that of a peer which got no connection.
    virtual void leave(const endpoint& peer) noexcept = 0;

    /// The place is this connection's, which gives it back when it is over. Throws std::bad_alloc,
    /// and has given it back then.
    virtual void opened(const void* connection, const endpoint& peer) = 0;
    virtual void closed(const void* connection) noexcept = 0;
};

/// What counts as one address: of IPv6 the network of 64 bits, since a host may use all of it (RFC
/// 6177); clients of a unix-domain socket are all one.
struct address_key {
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    explicit address_key(const endpoint& peer) noexcept {
        if (peer.family() == address_family::ipv4) {
            low = 1 +
                  std::uint64_t{reinterpret_cast<const sockaddr_in*>(peer.data())->sin_addr.s_addr};
        } else if (peer.family() == address_family::ipv6) {
            std::memcpy(&high, &reinterpret_cast<const sockaddr_in6*>(peer.data())->sin6_addr,
                        sizeof high);
        } else {
            low = static_cast<std::uint64_t>(-1);  // as no address has it
        }
    }
    friend bool operator==(const address_key&, const address_key&) noexcept = default;
    /// A multiplication carries upwards only, and the networks of one site differ in the last bytes
    /// of `high`: they are folded down before.
    std::uint64_t hash() const noexcept {
        const std::uint64_t mixed = high ^ low * 0x9e3779b97f4a7c15U;
        return (mixed ^ mixed >> 32) * 0xff51afd7ed558ccdU;
    }
};

/// A hash table of items that know their hash() and have a `next`.
template <class Item>
class chained_table {
public:
    chained_table() = default;
    chained_table(const chained_table&) = delete;
    chained_table& operator=(const chained_table&) = delete;
    ~chained_table() {
        for (std::size_t i = 0; i != size_; ++i)
            while (heads_[i] != nullptr) delete std::exchange(heads_[i], heads_[i]->next);
        ::operator delete(heads_);
    }

    /// Where the pointer to such an item stands, or null.
    template <class Is>
    Item** find(std::uint64_t hash, Is is) noexcept {
        if (size_ == 0) return nullptr;
        for (Item** at = head(hash); *at != nullptr; at = &(*at)->next)
            if (is(**at)) return at;
        return nullptr;
    }

    /// Throws std::bad_alloc.
    template <class... Arguments>
    Item& add(Arguments&&... arguments) {
        if (count_ >= size_) grow();
        auto* const one = new Item{std::forward<Arguments>(arguments)...};
        link(one);
        ++count_;
        return *one;
    }

    void remove(Item** at) noexcept {
        delete std::exchange(*at, (*at)->next);
        --count_;
    }

private:
    Item** head(std::uint64_t hash) noexcept { return &heads_[hash >> 32 & (size_ - 1)]; }
    void link(Item* one) noexcept {
        Item** const first = head(one->hash());
        one->next = std::exchange(*first, one);
    }
    void grow() {
        const std::size_t size = size_ == 0 ? 64 : size_ * 2;
        Item** const larger = static_cast<Item**>(::operator new(size * sizeof(Item*)));
        for (std::size_t i = 0; i != size; ++i) larger[i] = nullptr;
        Item** const before = std::exchange(heads_, larger);
        const std::size_t count = std::exchange(size_, size);
        for (std::size_t i = 0; i != count; ++i)
            for (Item* one = before[i]; one != nullptr;) link(std::exchange(one, one->next));
        ::operator delete(before);
    }

    Item** heads_ = nullptr;
    std::size_t size_ = 0;  // a power of two, or 0
    std::size_t count_ = 0;
};

template <class Mutex>
class address_table final : public address_counts {
public:
    explicit address_table(std::size_t most) noexcept : most_{most} {}

    bool enter(const endpoint& peer) override {
        const address_key key{peer};
        const typename Mutex::guard lock{mutex_};
        address** const found = find(key);
        address& one = found != nullptr ? **found : addresses_.add(key);
        if (one.count >= most_) return false;
        ++one.count;
        return true;
    }
    void leave(const endpoint& peer) noexcept override {
        const typename Mutex::guard lock{mutex_};
        give_back(address_key{peer});
    }
    void opened(const void* connection, const endpoint& peer) override {
        const address_key key{peer};
        const typename Mutex::guard lock{mutex_};
        try {
            holders_.add(connection, key);
        } catch (...) {
            give_back(key);
            throw;
        }
    }
    void closed(const void* connection) noexcept override {
        const typename Mutex::guard lock{mutex_};
        holder** const found = holders_.find(holder::hash_of(connection), [&](const holder& one) {
            return one.connection == connection;
        });
        if (found == nullptr) return;
        give_back((*found)->key);
        holders_.remove(found);
    }

private:
    struct address {
        explicit address(const address_key& k) noexcept : key{k} {}
        std::uint64_t hash() const noexcept { return key.hash(); }
        address_key key;
        std::size_t count = 0;
        address* next = nullptr;
    };
    struct holder {
        holder(const void* c, const address_key& k) noexcept : connection{c}, key{k} {}
        static std::uint64_t hash_of(const void* c) noexcept {
            return reinterpret_cast<std::uintptr_t>(c) * std::uint64_t{0x9e3779b97f4a7c15U};
        }
        std::uint64_t hash() const noexcept { return hash_of(connection); }
        const void* connection;
        address_key key;
        holder* next = nullptr;
    };
    address** find(const address_key& key) noexcept {
        return addresses_.find(key.hash(), [&](const address& one) { return one.key == key; });
    }
    void give_back(const address_key& key) noexcept {
        if (address** const found = find(key); found != nullptr && --(*found)->count == 0)
            addresses_.remove(found);
    }

    const std::size_t most_;
    Mutex mutex_;
    chained_table<address> addresses_;
    chained_table<holder> holders_;
};

}  // namespace tcp::inline v0_1::detail
