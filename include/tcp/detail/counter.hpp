// A counter that one thread counts with and any thread may read.
#pragma once

#include <cstdint>

#include <tcp/detail/atomic.hpp>

namespace tcp::inline v0_1::detail {

/// One writer: counting is a load and a store, not a locked instruction.
class counter {
public:
    void add(std::uint64_t n) noexcept { value_.store_relaxed(value_.load_relaxed() + n); }
    void subtract(std::uint64_t n) noexcept { add(0 - n); }
    std::uint64_t read() const noexcept { return value_.load_relaxed(); }

private:
    atomic<std::uint64_t> value_{0};
};

}  // namespace tcp::inline v0_1::detail
