// tcp::shared_bytes: one copy in memory, which lives as long as somebody holds it.
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/bytes.hpp>
#include <tcp/shared_bytes.hpp>

using namespace std::string_view_literals;
using tcp::as_bytes;
using tcp::as_text;
using tcp::shared_bytes;

static_assert(std::is_same_v<shared_bytes, tcp::v0_1::shared_bytes>);
static_assert(std::is_nothrow_default_constructible_v<shared_bytes>);
static_assert(std::is_nothrow_copy_constructible_v<shared_bytes>);
static_assert(std::is_nothrow_move_constructible_v<shared_bytes>);
static_assert(std::is_nothrow_copy_assignable_v<shared_bytes>);
static_assert(std::is_nothrow_move_assignable_v<shared_bytes>);
static_assert(!std::is_convertible_v<tcp::bytes, shared_bytes>, "a copy is made knowingly");
static_assert(!std::is_convertible_v<std::string_view, shared_bytes>);
static_assert(sizeof(shared_bytes) == sizeof(void*));

namespace {

const std::byte* place_of(const shared_bytes& one) { return one.view().data(); }

}  // namespace

TEST_CASE("shared_bytes: nothing") {
    const shared_bytes none;
    CHECK(none.empty());
    CHECK(none.size() == 0);
    CHECK(none.view().empty());
    for (const shared_bytes& one : {shared_bytes{""sv}, shared_bytes{tcp::bytes{}}, none}) {
        CHECK(one.empty());
        CHECK(one.size() == 0);
        CHECK(one.view().empty());
    }
}

TEST_CASE("shared_bytes: a copy of what it was given, zeros among them") {
    std::string text = std::string{"a\0b"sv}.append(70'000, 'x');
    const shared_bytes one{text};
    CHECK_FALSE(one.empty());
    CHECK(one.size() == text.size());
    CHECK(as_text(one.view()) == text);
    CHECK(static_cast<const void*>(place_of(one)) != text.data());
    const std::string before = text;
    text.assign(text.size(), '!');
    CHECK(as_text(one.view()) == before);

    const std::array<std::byte, 1> single{std::byte{0xff}};
    CHECK(shared_bytes{single}.view()[0] == std::byte{0xff});
    CHECK(as_text(shared_bytes{"a literal"}.view()) == "a literal");
}

TEST_CASE("shared_bytes: copies are the same memory") {
    const shared_bytes one{"the same"};
    const shared_bytes two{one};
    shared_bytes three;
    three = two;
    CHECK(place_of(two) == place_of(one));
    CHECK(place_of(three) == place_of(one));
    CHECK(as_text(three.view()) == "the same");

    shared_bytes empty = shared_bytes{};
    three = empty;
    CHECK(three.empty());
    empty = one;
    CHECK(place_of(empty) == place_of(one));
}

TEST_CASE("shared_bytes: moving leaves nothing behind") {
    shared_bytes one{"moved"};
    const std::byte* const place = place_of(one);
    shared_bytes two{std::move(one)};
    CHECK(one.empty());  // NOLINT(bugprone-use-after-move)
    CHECK(place_of(two) == place);
    shared_bytes three{"dropped"};
    three = std::move(two);
    CHECK(two.empty());  // NOLINT(bugprone-use-after-move)
    CHECK(two.size() == 0);
    CHECK(place_of(three) == place);
    CHECK(as_text(three.view()) == "moved");
}

TEST_CASE("shared_bytes: assigned to itself it stays what it is") {
    shared_bytes one{"itself"};
    const std::byte* const place = place_of(one);
    shared_bytes& same = one;
    one = same;
    CHECK(place_of(one) == place);
    one = std::move(same);
    CHECK(place_of(one) == place);
    CHECK(as_text(one.view()) == "itself");
    const shared_bytes copy{one};
    one = copy;
    CHECK(place_of(one) == place);
    CHECK(as_text(one.view()) == "itself");
}

// That the memory is freed then, and not before, is for the address sanitizer to say.
TEST_CASE("shared_bytes: lives as long as its last holder") {
    shared_bytes last;
    {
        std::vector<shared_bytes> holders(100, shared_bytes{std::string(10'000, 'h')});
        for (std::size_t i = 0; i < holders.size(); i += 3) holders[i] = shared_bytes{};
        last = holders[50];
        CHECK(place_of(last) == place_of(holders[1]));
    }
    CHECK(as_text(last.view()) == std::string(10'000, 'h'));
    last = shared_bytes{};
    CHECK(last.empty());
}

TEST_CASE("shared_bytes: copied, read and let go in several threads") {
    const std::string text(1'000, 't');
    for (int round = 0; round != 50; ++round) {
        shared_bytes first{text};
        std::vector<std::thread> threads;
        std::array<bool, 4> right{};
        for (bool& r : right)
            threads.emplace_back([&r, &text, own = first] {
                r = true;
                for (int i = 0; i != 200; ++i) {
                    shared_bytes copy{own};
                    const shared_bytes moved{std::move(copy)};
                    r = r && as_text(moved.view()) == text;
                }
            });
        first = shared_bytes{};  // whoever ends last frees it
        for (std::thread& one : threads) one.join();
        for (const bool r : right) CHECK(r);
    }
}
