// An array that grows and whose items stay where they are: chunks of equal size, found by index.
#pragma once

#include <cstddef>
#include <new>

namespace tcp::inline v0_1::detail {

/// Pointers to chunks. By hand: std::vector would cost 6 MB in every compilation of the echo
/// program; and apart from the type of the items, so that it is compiled once.
class chunk_list {
public:
    chunk_list() = default;
    chunk_list(const chunk_list&) = delete;
    chunk_list& operator=(const chunk_list&) = delete;
    [[gnu::cold]] ~chunk_list() { ::operator delete(chunks_); }

    void* operator[](std::size_t index) const noexcept { return chunks_[index]; }
    std::size_t size() const noexcept { return count_; }

    /// Makes room for one more. Throws std::bad_alloc.
    [[gnu::cold, gnu::noinline]] void reserve_one() {
        if (count_ != capacity_) return;
        const std::size_t capacity = capacity_ * 2 + 4;
        void** const larger = static_cast<void**>(::operator new(capacity * sizeof(void*)));
        for (std::size_t i = 0; i != count_; ++i) larger[i] = chunks_[i];
        ::operator delete(chunks_);
        chunks_ = larger;
        capacity_ = capacity;
    }

    void push_reserved(void* chunk) noexcept { chunks_[count_++] = chunk; }
    void* pop() noexcept { return chunks_[--count_]; }

private:
    void** chunks_ = nullptr;
    std::size_t count_ = 0;
    std::size_t capacity_ = 0;
};

template <class T, std::size_t ChunkSize = 64>
class slot_array {
    static_assert((ChunkSize & (ChunkSize - 1)) == 0, "a power of two is found by shifting");

public:
    slot_array() = default;
    [[gnu::cold]] ~slot_array() {
        while (chunks_.size() != 0) delete static_cast<chunk*>(chunks_.pop());
    }

    std::size_t size() const noexcept { return chunks_.size() * ChunkSize; }
    T& operator[](std::size_t index) noexcept { return at(index); }
    const T& operator[](std::size_t index) const noexcept { return at(index); }

    /// Makes room for this index. Throws std::bad_alloc; what was there before stays.
    [[gnu::cold]] void grow_to(std::size_t index) {
        while (index >= size()) {
            chunks_.reserve_one();
            chunks_.push_reserved(new chunk);
        }
    }

private:
    struct chunk {
        T items[ChunkSize];
    };

    T& at(std::size_t index) const noexcept {
        T* const first = static_cast<chunk*>(chunks_[index / ChunkSize])->items;
        return *(first + index % ChunkSize);
    }

    chunk_list chunks_;
};

}  // namespace tcp::inline v0_1::detail
