// Files that a ring holds in a table of its own (direct descriptors): its requests name them by
// their place there, and they count against no limit of the process's.
#pragma once

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>

#include <tcp/detail/platform.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>
#include <tcp/engine/io_uring/ring.hpp>

namespace tcp::inline v0_1::detail::io_uring {

class descriptor_table {
public:
    /// A table with room for as many as the process may have descriptors, the most that the kernel
    /// gives to one ring. 0, or an errno: EOPNOTSUPP where a connection that is closed would stay
    /// open for as long as another one waits.
    [[gnu::cold]] int open(const ring& r) noexcept {
        size_ = 0;
        if (!r.lets_go_at_once()) return EOPNOTSUPP;
        rlimit most{};
        if (::getrlimit(RLIMIT_NOFILE, &most) != 0) return errno;
        files_registration wanted{};
        wanted.count = most.rlim_cur < most_of_a_ring ? static_cast<std::uint32_t>(most.rlim_cur)
                                                      : most_of_a_ring;
        wanted.flags = empty_table;
        if (::syscall(register_call, r.fd(), register_files, &wanted, sizeof wanted) != 0)
            return errno;
        size_ = wanted.count;
        return 0;
    }

    bool is_open() const noexcept { return size_ != 0; }

    /// Whether it is there now, too.
    bool put(const ring& r, std::uint32_t at, int fd) noexcept {
        return at < size_ && update(r, at, fd);
    }
    /// Closed, unless there are other descriptors of it.
    void remove(const ring& r, std::uint32_t at) noexcept { update(r, at, -1); }

private:
    static constexpr std::uint32_t most_of_a_ring = 1 << 20;

    static bool update(const ring& r, std::uint32_t at, int fd) noexcept {
        files_update wanted{};
        wanted.at = at;
        wanted.descriptors = address_of(&fd);
        return ::syscall(register_call, r.fd(), update_files, &wanted, 1) == 1;
    }

    std::uint32_t size_ = 0;
};

}  // namespace tcp::inline v0_1::detail::io_uring
