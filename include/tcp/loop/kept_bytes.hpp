// The received bytes that a handler has not taken yet, in one piece. A connection that keeps
// nothing owns no memory.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>

#include <tcp/bytes.hpp>
#include <tcp/loop/block_pool.hpp>

namespace tcp::inline v0_1::detail {

class kept_bytes {
public:
    kept_bytes() = default;
    kept_bytes(const kept_bytes&) = delete;
    kept_bytes& operator=(const kept_bytes&) = delete;

    bool empty() const noexcept { return header_ == nullptr; }
    std::size_t size() const noexcept { return empty() ? 0 : header_->end - header_->begin; }

    /// Valid until the next append(), consume() or clear().
    bytes view() const noexcept {
        return empty() ? bytes{} : bytes{storage() + header_->begin, size()};
    }

    /// Copies to the end. Throws std::bad_alloc and changes nothing when there is no memory.
    [[gnu::noinline]] void append(block_pool& pool, bytes data) {
        if (data.empty()) return;
        if (empty() || header_->end + data.size() > capacity()) make_room(pool, data.size());
        std::memcpy(storage() + header_->end, data.data(), data.size());
        header_->end += data.size();
    }

    /// The first so many bytes were taken.
    void consume(block_pool& pool, std::size_t count) noexcept {
        if (count == size()) return clear(pool);
        header_->begin += count;
    }

    void clear(block_pool& pool) noexcept {
        if (empty()) return;
        pool.free(header_, header_->block);
        header_ = nullptr;
    }

private:
    struct header {
        std::size_t block;
        std::size_t begin;
        std::size_t end;
    };

    std::byte* storage() const noexcept { return reinterpret_cast<std::byte*>(header_ + 1); }
    std::size_t capacity() const noexcept { return header_->block - sizeof(header); }

    // Moves to the front where at least half of the room was taken already, to a block of twice the
    // size elsewhere: either way each byte moves a bounded number of times.
    void make_room(block_pool& pool, std::size_t more) {
        const bytes before = view();
        if (!empty() && header_->begin >= capacity() / 2 && before.size() + more <= capacity()) {
            std::memmove(storage(), before.data(), before.size());
            header_->begin = 0;
            header_->end = before.size();
            return;
        }
        const std::size_t least = sizeof(header) + before.size() * 2 + more;
        header* const larger =
            ::new (pool.allocate(least)) header{block_pool::block_size(least), 0, before.size()};
        header* const old = header_;
        header_ = larger;
        if (old == nullptr) return;
        std::memcpy(storage(), before.data(), before.size());
        pool.free(old, old->block);
    }

    header* header_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
