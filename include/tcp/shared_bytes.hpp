// Bytes that many connections send and that stand in memory once.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/detail/atomic.hpp>

namespace tcp::inline v0 {

/// A piece of memory that never changes and lives as long as somebody holds it: a copy of this
/// object, or a connection that has still to send it. Copying it copies no bytes. Any thread.
class shared_bytes {
public:
    /// Nothing.
    shared_bytes() noexcept = default;

    /// A copy of these bytes, the only one that is made. Throws std::bad_alloc.
    explicit shared_bytes(bytes data) : block_{make(data)} {}
    explicit shared_bytes(std::string_view text) : shared_bytes{as_bytes(text)} {}

    shared_bytes(const shared_bytes& other) noexcept : block_{other.block_} {
        if (block_ != nullptr) block_->holders.fetch_add(1);
    }
    shared_bytes(shared_bytes&& other) noexcept : block_{std::exchange(other.block_, nullptr)} {}
    shared_bytes& operator=(shared_bytes other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~shared_bytes() {
        if (block_ != nullptr && block_->holders.fetch_add(-1) == 1) ::operator delete(block_);
    }

    /// Valid as long as this object, or a copy of it, holds them.
    bytes view() const noexcept {
        return block_ != nullptr ? bytes{block_->data(), block_->size} : bytes{};
    }
    std::size_t size() const noexcept { return block_ != nullptr ? block_->size : 0; }
    bool empty() const noexcept { return block_ == nullptr; }

private:
    struct block {
        explicit block(std::size_t length) noexcept : size{length} {}
        std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1); }

        detail::atomic<long> holders{1};
        std::size_t size;
    };

    static block* make(bytes data) {
        if (data.empty()) return nullptr;
        block* const one = ::new (::operator new(sizeof(block) + data.size())) block{data.size()};
        std::memcpy(one->data(), data.data(), data.size());
        return one;
    }

    block* block_ = nullptr;
};

}  // namespace tcp::inline v0
