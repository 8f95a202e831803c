// Memory for what waits: blocks of a few sizes, kept for the next one that waits. One pool for each
// loop, so that a connection whose bytes wait now and then costs no allocation once the loop is
// warm.
#pragma once

#include <bit>
#include <cstddef>
#include <new>

#include <tcp/detail/atomic.hpp>

namespace tcp::inline v0_1::detail {

class block_pool {
public:
    block_pool() = default;
    block_pool(const block_pool&) = delete;
    block_pool& operator=(const block_pool&) = delete;
    ~block_pool() {
        for (free_block* list : free_)
            while (list != nullptr) ::operator delete(static_cast<void*>(pop(list)));
    }

    /// The size of the block that allocate(least) gives.
    static constexpr std::size_t block_size(std::size_t least) noexcept {
        if (least > largest) return (least + smallest - 1) & ~(smallest - 1);
        if (least <= smallest) return smallest;
        const std::size_t power = std::bit_ceil(least);
        return least <= power / 4 * 3 ? power / 4 * 3 : power;
    }

    /// A block of block_size(least) bytes. Throws std::bad_alloc.
    [[gnu::noinline]] void* allocate(std::size_t least) {
        const std::size_t size = block_size(least);
        if (size <= largest) {
            if (free_block*& list = free_[index(size)]; list != nullptr) {
                kept_[index(size)] -= size;
                return pop(list);
            }
        }
        return ::operator new(size);
    }

    /// Takes back what allocate() gave, with the size of the block.
    [[gnu::noinline]] void free(void* block, std::size_t size) noexcept {
        if (size > largest || kept_[index(size)] + size > most_kept)
            return ::operator delete(block);
        kept_[index(size)] += size;
        free_block*& list = free_[index(size)];
        list = ::new (block) free_block{list};
    }

    /// So many more, or fewer, bytes wait to be sent.
    void count_waiting(std::size_t bytes) const noexcept {
        if (waiting_bytes != nullptr) waiting_bytes->fetch_add(bytes);
    }
    atomic<std::size_t>* waiting_bytes = nullptr;  // of the whole server; null: not counted

private:
    struct free_block {
        free_block* next;
    };

    // Powers of two, and one in the middle between two of them: 128, 192, 256, 384, ...
    static constexpr std::size_t smallest = 128;
    static constexpr std::size_t largest = 256 * 1024;
    static constexpr std::size_t most_kept = 1024 * 1024;  // of each size

    static constexpr std::size_t index(std::size_t size) noexcept {
        const std::size_t power = std::bit_ceil(size);
        const auto doublings =
            static_cast<std::size_t>(std::countr_zero(power) - std::countr_zero(smallest));
        return 2 * doublings - (size != power ? 1 : 0);
    }
    static free_block* pop(free_block*& list) noexcept {
        free_block* const first = list;
        list = first->next;
        return first;
    }

    static constexpr std::size_t sizes = 2 * std::bit_width(largest / smallest) - 1;
    free_block* free_[sizes] = {};
    std::size_t kept_[sizes] = {};
};

}  // namespace tcp::inline v0_1::detail
