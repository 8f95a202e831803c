// tcp::bytes: a view, and the way between bytes and text.
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/bytes.hpp>

using namespace std::string_view_literals;

static_assert(std::is_same_v<tcp::bytes, tcp::v0_1::bytes>);
static_assert(std::is_trivially_copyable_v<tcp::bytes>);
static_assert(noexcept(tcp::as_text(tcp::bytes{})));
static_assert(noexcept(tcp::as_bytes(""sv)));

TEST_CASE("bytes: text and back is the same memory") {
    const std::string text = "Grüße\r\n";
    const tcp::bytes view = tcp::as_bytes(text);
    CHECK(view.size() == text.size());
    CHECK(static_cast<const void*>(view.data()) == text.data());
    CHECK(tcp::as_text(view) == text);
    CHECK(tcp::as_text(view).data() == text.data());
}

TEST_CASE("bytes: every value, NUL among them") {
    std::string text;
    for (int value = 0; value < 256; ++value) text += static_cast<char>(value);
    const tcp::bytes view = tcp::as_bytes(text);
    bool same = view.size() == 256;
    for (std::size_t i = 0; i < view.size(); ++i)
        same = same && std::to_integer<std::size_t>(view[i]) == i;
    CHECK(same);
    CHECK(tcp::as_text(view) == text);
    CHECK(tcp::as_bytes("a\0b"sv).size() == 3);
}

TEST_CASE("bytes: a literal ends before its NUL") { CHECK(tcp::as_bytes("abc").size() == 3); }

TEST_CASE("bytes: empty") {
    CHECK(tcp::as_bytes("").empty());
    CHECK(tcp::as_bytes(std::string_view{}).empty());
    CHECK(tcp::as_text({}).empty());
    CHECK(tcp::as_text(tcp::bytes{}) == "");
}

TEST_CASE("bytes: from what holds bytes") {
    const std::vector<std::byte> vector{std::byte{'h'}, std::byte{'i'}};
    CHECK(tcp::as_text(vector) == "hi");
    const std::array<std::byte, 2> array{std::byte{'h'}, std::byte{'o'}};
    CHECK(tcp::as_text(array) == "ho");
    std::byte raw[] = {std::byte{'!'}};
    CHECK(tcp::as_text(raw) == "!");
    CHECK(tcp::as_text(tcp::as_bytes("hello").subspan(1, 3)) == "ell");
}
