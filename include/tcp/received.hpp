// What a coroutine gets from a receive: bytes, or how receiving ended, as a value.
#pragma once

#include <cstddef>
#include <string_view>
#include <system_error>

#include <tcp/bytes.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0_1 {

namespace detail {
class conversation;
}

/// Received bytes, valid until the next co_await; or the end, when it converts to false and error()
/// says whether that was in order.
class received {
public:
    /// The end: the peer has finished sending.
    constexpr received() noexcept = default;
    /// Bytes, and the end for this reason; for tests of what takes one.
    constexpr explicit received(bytes data) noexcept : data_{data}, why_{none} {}
    constexpr explicit received(tcp::error why) noexcept : received{-static_cast<int>(why)} {}

    /// Whether these are the bytes that were asked for. Only receive_exactly(0) gives none.
    constexpr explicit operator bool() const noexcept { return why_ == none; }

    /// The bytes, as such and as text, and how many; none at the end.
    // NOLINTNEXTLINE(google-explicit-constructor): it is for send(), as the bytes of on_data are
    constexpr operator bytes() const noexcept { return data_; }
    constexpr bytes data() const noexcept { return data_; }
    std::string_view text() const noexcept { return as_text(data_); }
    constexpr std::size_t size() const noexcept { return data_.size(); }

    /// Why there are no bytes. Empty with bytes, and when the peer finished in order; otherwise
    /// error::incomplete (it finished in the middle of what was waited for), error::receive_limit,
    /// error::timed_out (the connection goes on), std::errc::connection_aborted (this side ended
    /// the connection), or the system's.
    std::error_code error() const noexcept {
        if (why_ == none || why_ == finished) return {};
        if (why_ < 0) return make_error_code(static_cast<tcp::error>(-why_));
        return {why_, std::system_category()};
    }

private:
    friend class detail::conversation;

    constexpr explicit received(int why) noexcept : why_{why} {}
    static int number_of(const std::error_code& why) noexcept {
        return why.category() == error_category() ? -why.value() : why.value();
    }

    static constexpr int none = 0;
    static constexpr int finished = -1'000'000;

    bytes data_;
    int why_ = finished;  // positive: the system's error; negative: the library's
};

}  // namespace tcp::inline v0_1
