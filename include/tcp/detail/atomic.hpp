// What this library needs of std::atomic. The header <atomic> alone would cost 7 MB and 30 ms in
// every compilation of the echo program; the compiler's own operations, which it stands on, cost
// nothing.
#pragma once

namespace tcp::inline v0_1::detail {

/// A value that threads and signal handlers share. Each function states its order of memory.
template <class T>
class atomic {
public:
    constexpr atomic() noexcept = default;
    constexpr explicit atomic(T value) noexcept : value_{value} {}
    atomic(const atomic&) = delete;
    atomic& operator=(const atomic&) = delete;

    T load_relaxed() const noexcept { return __atomic_load_n(&value_, __ATOMIC_RELAXED); }
    T load_acquire() const noexcept { return __atomic_load_n(&value_, __ATOMIC_ACQUIRE); }
    /// For the one thread that stores: a plain load, which the compiler may leave out or combine.
    T load_own() const noexcept { return value_; }

    void store_relaxed(T value) noexcept { __atomic_store_n(&value_, value, __ATOMIC_RELAXED); }
    void store_release(T value) noexcept { __atomic_store_n(&value_, value, __ATOMIC_RELEASE); }

    /// The value before. Acquire and release.
    T exchange(T value) noexcept { return __atomic_exchange_n(&value_, value, __ATOMIC_ACQ_REL); }
    T fetch_add(T more) noexcept { return __atomic_fetch_add(&value_, more, __ATOMIC_ACQ_REL); }
    T fetch_subtract(T less) noexcept {
        return __atomic_fetch_sub(&value_, less, __ATOMIC_ACQ_REL);
    }

    /// Whether the value was the expected one and is now the desired one. Acquire and release.
    bool compare_exchange(T expected, T desired) noexcept {
        return __atomic_compare_exchange_n(&value_, &expected, desired, false, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }

private:
    T value_{};
};

}  // namespace tcp::inline v0_1::detail
