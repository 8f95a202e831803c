// A list whose links are part of its items: beside a std::deque that has the same done to it.
#include <algorithm>
#include <deque>
#include <random>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/detail/intrusive_list.hpp>

using tcp::detail::intrusive_list;
using tcp::detail::tagged_node;

namespace {

struct red {};
struct blue {};

/// Can be in one list of each kind at the same time.
struct item : tagged_node<red>, tagged_node<blue> {};

using red_list = intrusive_list<red>;
using blue_list = intrusive_list<blue>;

static_assert(std::is_nothrow_default_constructible_v<red_list>);
static_assert(sizeof(tagged_node<red>) == 2 * sizeof(void*));

/// The items from the first to the last; none if the links contradict each other.
template <class List>
std::vector<const item*> items_of(const List& list) {
    std::vector<const item*> items;
    const tcp::detail::list_node* before = nullptr;
    for (const tcp::detail::list_node* n = list.front(); n != nullptr; n = n->next) {
        if (n->previous != before) return {};
        before = n;
        items.push_back(static_cast<const item*>(static_cast<const typename List::node*>(n)));
    }
    if (list.back() != before || list.empty() != items.empty()) return {};
    return items;
}

using items = std::vector<const item*>;

}  // namespace

TEST_CASE("intrusive_list: empty") {
    red_list list;
    item a;
    CHECK(list.empty());
    CHECK(list.front() == nullptr);
    CHECK(list.back() == nullptr);
    CHECK_FALSE(list.contains(a));
    list.remove(a);
    CHECK(list.empty());
}

TEST_CASE("intrusive_list: first in, first out") {
    red_list list;
    item a, b, c;
    list.push_back(a);
    CHECK_FALSE(list.empty());
    CHECK(list.contains(a));
    CHECK(list.front() == &a);
    CHECK(list.back() == &a);
    list.push_back(b);
    list.push_back(c);
    CHECK(items_of(list) == items{&a, &b, &c});
    list.remove(*list.front());
    CHECK(items_of(list) == items{&b, &c});
    list.push_back(a);
    CHECK(items_of(list) == items{&b, &c, &a});
}

TEST_CASE("intrusive_list: taken out at the front, in the middle, at the end and alone") {
    item a, b, c;
    const auto full = [&](red_list& list) {
        for (item* each : {&a, &b, &c}) list.push_back(*each);
    };
    const auto without = [&](item& out) {
        red_list list;
        full(list);
        list.remove(out);
        CHECK_FALSE(list.contains(out));
        CHECK(static_cast<tagged_node<red>&>(out).previous == nullptr);
        CHECK(static_cast<tagged_node<red>&>(out).next == nullptr);
        const items left = items_of(list);
        list.remove(out);  // twice is once
        CHECK(items_of(list) == left);
        for (item* each : {&a, &b, &c}) list.remove(*each);
        CHECK(list.empty());
        CHECK(list.back() == nullptr);
        return left;
    };
    CHECK(without(a) == items{&b, &c});
    CHECK(without(b) == items{&a, &c});
    CHECK(without(c) == items{&a, &b});
}

TEST_CASE("intrusive_list: an item is in one list of each kind at a time") {
    red_list reds;
    blue_list blues;
    item a, b;
    reds.push_back(a);
    CHECK_FALSE(blues.contains(a));
    blues.push_back(b);
    blues.push_back(a);
    reds.push_back(b);
    CHECK(items_of(reds) == items{&a, &b});
    CHECK(items_of(blues) == items{&b, &a});
    reds.remove(a);
    CHECK(items_of(reds) == items{&b});
    CHECK(items_of(blues) == items{&b, &a});

    // It may go over to another list of the same kind.
    red_list others;
    others.push_back(a);
    CHECK(others.contains(a));
    CHECK(items_of(reds) == items{&b});
}

TEST_CASE("intrusive_list: random operations, beside a deque that has the same done to it") {
    std::mt19937_64 dice{3};
    std::vector<item> all(20);
    red_list list;
    blue_list other;  // has no part in it
    for (item& each : all) other.push_back(each);
    std::deque<const item*> expected;
    for (int step = 0; step != 20'000; ++step) {
        item& one = all[dice() % all.size()];
        const auto where = std::find(expected.begin(), expected.end(), &one);
        REQUIRE(list.contains(one) == (where != expected.end()));
        if (dice() % 2 == 0) {
            list.remove(one);
            if (where != expected.end()) expected.erase(where);
        } else if (where == expected.end()) {
            list.push_back(one);
            expected.push_back(&one);
        }
        REQUIRE(items_of(list) == items(expected.begin(), expected.end()));
    }
    CHECK(items_of(other).size() == all.size());
}
