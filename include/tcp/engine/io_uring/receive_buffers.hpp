// The buffers that the kernel receives into: it takes one when bytes are there, so a connection
// without any has none.
//
//     free ──► offered to the kernel ──► filled: a received event ──► free
//                                                      │                ▲
//                                                      └─ held by a send ┘
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <tcp/bytes.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>
#include <tcp/engine/io_uring/ring.hpp>

namespace tcp::inline v0_1::detail::io_uring {

class receive_buffers {
public:
    static constexpr std::uint16_t count = 128;
    static constexpr std::uint32_t most_size = 16 * 1024;
    static constexpr std::uint32_t least_size = 256;
    static constexpr std::uint16_t group = 0;

    /// Memory for all, and the first page of each at once: what small messages need is there from
    /// the start. All together hold about `total`: so much may be received at once of a connection
    /// whose handler is not ready for it. 0, or an errno.
    [[gnu::cold]] int open(const ring& r, std::size_t total) noexcept {
        const auto lesser = [](std::size_t a, std::size_t b) { return a < b ? a : b; };
        const std::size_t fair = total / count > least_size ? total / count : least_size;
        size_ = static_cast<std::uint32_t>(lesser(lesser(fair, most_size), total));
        constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS;
        if (const int error = memory_.map(std::size_t{count} * most_size, flags, -1, 0); error != 0)
            return error;
        for (std::uint16_t id = 0; id != count; ++id) *memory_.at<char>(place_of(id)) = 0;
        return offer_to(r, {});
    }

    /// Which ones.
    struct set {
        bool is_in[count] = {};
        bool& operator[](std::size_t id) noexcept { return is_in[id]; }
    };

    /// Offers all but these to this ring. The one that had them before fills none any more. 0, or
    /// an errno.
    [[gnu::cold]] int offer_to(const ring& r, set used) noexcept {
        mapping fresh;  // shared: the kernel keeps the page, and fork(2) must not part us from it
        if (const int error = fresh.map(count * sizeof(provided_buffer),
                                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
            error != 0)
            return error;
        buffer_ring_registration wanted{};
        wanted.ring = address_of(fresh.at<void>());
        wanted.entries = count;
        wanted.group = group;
        if (::syscall(register_call, r.fd(), register_buffer_ring, &wanted, 1) != 0) return errno;
        offered_ = static_cast<mapping&&>(fresh);
        tail_ = 0;
        for (std::uint16_t id = 0; id != count; ++id)
            if (!used[id]) give_back(id);
        publish();
        return 0;
    }

    bytes filled(std::uint16_t id, std::size_t length) const noexcept {
        return {memory_.at<const std::byte>(place_of(id)), length};
    }

    /// The kernel may fill it again, from publish() on.
    void give_back(std::uint16_t id) noexcept {
        provided_buffer& one = offered_.at<provided_buffer>()[tail_++ % count];
        one.address = address_of(memory_.at<void>(place_of(id)));
        one.length = size_;
        one.id = id;
    }
    void publish() noexcept {
        __atomic_store_n(&offered_.at<provided_buffer>()->tail, tail_, __ATOMIC_RELEASE);
    }

    std::uint32_t size() const noexcept { return size_; }

private:
    static constexpr std::size_t place_of(std::uint16_t id) noexcept {
        return std::size_t{id} * most_size;
    }

    mapping memory_;
    mapping offered_;  // the ring of those that the kernel may fill
    std::uint16_t tail_ = 0;
    std::uint32_t size_ = most_size;
};

}  // namespace tcp::inline v0_1::detail::io_uring
