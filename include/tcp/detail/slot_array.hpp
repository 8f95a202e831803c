// An array that grows and whose items stay where they are: chunks of equal size, found by index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace tcp::inline v0::detail {

template <class T, std::size_t ChunkSize = 64>
class slot_array {
    static_assert((ChunkSize & (ChunkSize - 1)) == 0, "a power of two is found by shifting");

public:
    slot_array() = default;
    slot_array(const slot_array&) = delete;
    slot_array& operator=(const slot_array&) = delete;
    [[gnu::cold]] ~slot_array() {
        for (void* chunk : chunks_) delete[] static_cast<T*>(chunk);
    }

    std::size_t size() const noexcept { return chunks_.size() * ChunkSize; }
    T& operator[](std::size_t index) noexcept {
        return static_cast<T*>(chunks_[index / ChunkSize])[index % ChunkSize];
    }
    const T& operator[](std::size_t index) const noexcept {
        return static_cast<T*>(chunks_[index / ChunkSize])[index % ChunkSize];
    }

    /// Makes room for this index. Throws std::bad_alloc and changes nothing when there is no
    /// memory.
    [[gnu::cold]] void grow_to(std::size_t index) {
        while (index >= size()) {
            chunks_.push_back(nullptr);
            try {
                chunks_.back() = new T[ChunkSize];
            } catch (...) {
                chunks_.pop_back();
                throw;
            }
        }
    }

private:
    std::vector<void*> chunks_;  // of T, but one std::vector serves every T
};

}  // namespace tcp::inline v0::detail
