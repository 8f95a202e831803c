// Bytes that many connections send and that stand in memory once.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>

#include <tcp/bytes.hpp>
#include <tcp/detail/counted_pointer.hpp>

namespace tcp::inline v0_1 {

/// A piece of memory that never changes and lives as long as somebody holds it: a copy of this
/// object, or a connection that has still to send it. Copying it copies no bytes. Any thread.
class shared_bytes {
public:
    /// Nothing.
    shared_bytes() noexcept = default;

    /// A copy of these bytes, the only one that is made. Throws std::bad_alloc.
    explicit shared_bytes(bytes data) : block_{make(data)} {}
    explicit shared_bytes(std::string_view text) : shared_bytes{as_bytes(text)} {}

    /// Valid as long as this object, or a copy of it, holds them.
    bytes view() const noexcept { return block_ ? bytes{block_->data(), block_->size} : bytes{}; }
    /// How many bytes, and whether none.
    std::size_t size() const noexcept { return block_ ? block_->size : 0; }
    bool empty() const noexcept { return !block_; }

private:
    struct block {
        explicit block(std::size_t length) noexcept : size{length} {}
        std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
        void hold() noexcept { holders.add(); }
        void let_go() noexcept {
            if (holders.remove()) ::operator delete(this);
        }

        detail::holder_count holders;
        std::size_t size;
    };

    static block* make(bytes data) {
        if (data.empty()) return nullptr;
        block* const one = ::new (::operator new(sizeof(block) + data.size())) block{data.size()};
        std::memcpy(one->data(), data.data(), data.size());
        return one;
    }

    detail::counted_pointer<block> block_;
};

}  // namespace tcp::inline v0_1
