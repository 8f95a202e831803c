// An array that grows and whose items stay where they are: chunks of equal size, found by index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace tcp::inline v0::detail {

template <class T, std::size_t ChunkSize = 64>
class slot_array {
    static_assert((ChunkSize & (ChunkSize - 1)) == 0, "a power of two is found by shifting");

public:
    slot_array() = default;
    slot_array(const slot_array&) = delete;
    slot_array& operator=(const slot_array&) = delete;
    [[gnu::cold]] ~slot_array() {
        while (count_ != 0) delete chunks_[--count_];
        ::operator delete(chunks_);
    }

    std::size_t size() const noexcept { return count_ * ChunkSize; }
    T& operator[](std::size_t index) noexcept {
        T* const first = chunks_[index / ChunkSize]->items;
        return *(first + index % ChunkSize);
    }
    const T& operator[](std::size_t index) const noexcept {
        return chunks_[index / ChunkSize]->items[index % ChunkSize];
    }

    /// Makes room for this index. Throws std::bad_alloc; what was there before stays.
    [[gnu::cold]] void grow_to(std::size_t index) {
        while (index >= size()) {
            if (count_ == capacity_) grow();
            chunks_[count_] = new chunk;
            ++count_;
        }
    }

private:
    struct chunk {
        T items[ChunkSize];
    };

    // By hand: std::vector would cost 6 MB in every compilation of the echo program.
    [[gnu::cold]] void grow() {
        const std::size_t capacity = capacity_ * 2 + 4;
        auto** const larger = static_cast<chunk**>(::operator new(capacity * sizeof(void*)));
        for (std::size_t i = 0; i != count_; ++i) larger[i] = chunks_[i];
        ::operator delete(chunks_);
        chunks_ = larger;
        capacity_ = capacity;
    }

    chunk** chunks_ = nullptr;
    std::size_t count_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace tcp::inline v0::detail
