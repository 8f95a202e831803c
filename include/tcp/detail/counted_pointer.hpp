// Shared ownership of what counts its owners itself. std::shared_ptr would cost 300 ms in every
// compilation.
#pragma once

#include <utility>

#include <tcp/detail/atomic.hpp>

namespace tcp::inline v0_1::detail {

/// How many hold it: one, to begin with. Any thread.
class holder_count {
public:
    void add() noexcept { count_.fetch_add(1); }
    /// Whether that was the last one.
    bool remove() noexcept { return count_.fetch_subtract(1) == 1; }

private:
    atomic<long> count_{1};
};

/// One owner of a T, which has hold() and let_go(); or of nothing. Any number of threads may have
/// one of the same T, each its own.
template <class T>
class counted_pointer {
public:
    constexpr counted_pointer() noexcept = default;
    /// Is the owner that the T was made with.
    constexpr explicit counted_pointer(T* made) noexcept : held_{made} {}
    /// Is one owner more.
    static counted_pointer of(T& shared) noexcept {
        shared.hold();
        return counted_pointer{&shared};
    }

    counted_pointer(const counted_pointer& other) noexcept : held_{other.held_} {
        if (held_ != nullptr) held_->hold();
    }
    counted_pointer(counted_pointer&& other) noexcept
        : held_{std::exchange(other.held_, nullptr)} {}
    counted_pointer& operator=(counted_pointer other) noexcept {
        std::swap(held_, other.held_);
        return *this;
    }
    ~counted_pointer() {
        if (held_ != nullptr) held_->let_go();
    }

    T* get() const noexcept { return held_; }
    T& operator*() const noexcept { return *held_; }
    T* operator->() const noexcept { return held_; }
    explicit operator bool() const noexcept { return held_ != nullptr; }
    friend bool operator==(const counted_pointer&, const counted_pointer&) noexcept = default;

private:
    T* held_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
