// A counter that one thread counts with and any thread may read.
#pragma once

#include <atomic>
#include <cstdint>

namespace tcp::inline v0::detail {

/// One writer: counting is a load and a store, not a locked instruction.
class counter {
public:
    void add(std::uint64_t n) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    void subtract(std::uint64_t n) noexcept { add(0 - n); }
    std::uint64_t read() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace tcp::inline v0::detail
