// Tells the child of fork(2) from its parent: both have the same descriptors, and what the system
// keeps behind them.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <tcp/detail/platform.hpp>

namespace tcp::inline v0_1::detail {

/// A number that is 0 in every child of the process that opened it, where the system can do that:
/// madvise(2), MADV_WIPEONFORK. To look at it costs what any number costs.
class fork_mark {
public:
    fork_mark() noexcept = default;
    fork_mark(fork_mark&& other) noexcept : number_{std::exchange(other.number_, nullptr)} {}
    fork_mark& operator=(fork_mark&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    [[gnu::cold]] ~fork_mark() {
        if (number_ != nullptr) ::munmap(number_, sizeof *number_);
    }

    /// 0, or an errno. The number is not 0.
    [[gnu::cold]] int open(std::uint32_t number) noexcept {
        void* const page = ::mmap(nullptr, sizeof number, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return errno;
        number_ = static_cast<std::uint32_t*>(page);
        ::madvise(page, sizeof number, MADV_WIPEONFORK);
        *number_ = number;
        return 0;
    }

    std::uint32_t number() const noexcept { return *number_; }
    bool is_of_another_process() const noexcept { return *number_ == 0; }

private:
    std::uint32_t* number_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
