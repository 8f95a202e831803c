// Sentences made of parts, numbers as parts, and a sentence thrown.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <ostream>  // doctest prints error codes
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/detail/sentence.hpp>

using namespace std::string_view_literals;
using tcp::detail::decimal;

namespace {

static_assert(!std::is_copy_constructible_v<decimal>);
static_assert(!std::is_convertible_v<int, decimal>);
static_assert(std::is_convertible_v<decimal, std::string_view>);

std::string sentence(std::initializer_list<std::string_view> parts) {
    return tcp::detail::sentence(parts).str();
}

std::string text(long long value) { return sentence({decimal{value}}); }

}  // namespace

TEST_CASE("sentence: the parts, one behind the other") {
    CHECK(sentence({}) == "");
    CHECK(tcp::detail::sentence{}.empty());
    CHECK(std::string{tcp::detail::sentence{"a", "b"}.c_str()} == "ab");
    CHECK(sentence({""}) == "");
    CHECK(sentence({"one"}) == "one");
    CHECK(sentence({"one", " ", "", "two"}) == "one two");
    CHECK(sentence({"a\0b"sv, "c"sv}) == "a\0bc"sv);
    CHECK(sentence({"abcdef"sv.substr(1, 2), "!"}) == "bc!");  // a part ends where its view ends
    CHECK(sentence({std::string(500, 'x'), std::string(12, 'y')}) ==
          std::string(500, 'x') + std::string(11, 'y'));  // what does not fit is cut off
    CHECK(sentence({"port ", decimal{80}, " of ", decimal{-1}}) == "port 80 of -1");
}

TEST_CASE("sentence: a number") {
    constexpr long long smallest = std::numeric_limits<long long>::min();
    constexpr long long largest = std::numeric_limits<long long>::max();
    CHECK(text(0) == "0");
    CHECK(text(7) == "7");
    CHECK(text(-7) == "-7");
    CHECK(text(10) == "10");
    CHECK(text(65'535) == "65535");
    CHECK(text(largest) == std::to_string(largest));
    CHECK(text(smallest) == std::to_string(smallest));
    CHECK(text(smallest + 1) == std::to_string(smallest + 1));
    for (long long value = 1; value < largest / 9; value = value * 9 + 8) {
        CHECK(text(value) == std::to_string(value));
        CHECK(text(-value) == std::to_string(-value));
    }
}

TEST_CASE("sentence: a number of any type") {
    constexpr unsigned long long largest = std::numeric_limits<unsigned long long>::max();
    CHECK(sentence({decimal{largest}}) == std::to_string(largest));
    CHECK(sentence({decimal{std::size_t{1} << 63}}) == "9223372036854775808");
    CHECK(sentence({decimal{std::numeric_limits<int>::min()}}) == "-2147483648");
    CHECK(sentence({decimal{std::uint16_t{65'535}}}) == "65535");
    CHECK(sentence({decimal{static_cast<signed char>(-128)}}) == "-128");
    CHECK(sentence({decimal{0U}, decimal{0L}}) == "00");
}

TEST_CASE("sentence: thrown, with what the code means behind it") {
    const auto why = std::make_error_code(std::errc::address_in_use);
    try {
        tcp::detail::fail(why, "the port is taken");
    } catch (const std::system_error& thrown) {
        CHECK(thrown.code() == why);
        CHECK(std::string{thrown.what()} == "the port is taken: " + why.message());
        return;
    }
    FAIL("nothing was thrown");
}
