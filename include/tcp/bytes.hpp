// A view of received or outgoing bytes, and the way between bytes and text.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include <tcp/detail/platform.hpp>  // a compiler that lacks C++20 is told so first

namespace tcp::inline v0_1 {

/// A view of bytes that somebody else owns. What a hook is shown is valid until that hook returns.
using bytes = std::span<const std::byte>;

/// The same bytes seen as text. Nothing is copied or checked: TCP knows no encoding.
inline std::string_view as_text(bytes data) noexcept {
    return {reinterpret_cast<const char*>(data.data()), data.size()};
}

/// The same text seen as bytes. Nothing is copied: the text must outlive the view.
inline bytes as_bytes(std::string_view text) noexcept {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace tcp::inline v0_1
