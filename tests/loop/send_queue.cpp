// What waits to be sent: every operation against a std::string that does the same, also when memory
// runs out.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/loop/block_pool.hpp>
#include <tcp/loop/send_queue.hpp>
#include <tcp/shared_bytes.hpp>

#include "count_allocations.hpp"

using tcp::as_bytes;
using tcp::as_text;
using tcp::bytes;
using tcp::detail::block_pool;
using tcp::detail::send_queue;

namespace {

static_assert(!std::is_copy_constructible_v<send_queue>);
static_assert(!std::is_copy_assignable_v<send_queue>);
static_assert(std::is_nothrow_default_constructible_v<send_queue>);
static_assert(sizeof(send_queue) <= 2 * sizeof(void*), "each idle connection has one");

using sizes = std::initializer_list<std::size_t>;

constexpr std::size_t long_text = 4 * 1024;  // from here on a string is taken over, not copied

/// Text that does not repeat itself soon, so that a byte out of place is seen.
std::string pattern(std::size_t size, std::uint64_t seed = 1) {
    std::string text(size, '\0');
    std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
    for (char& c : text) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        c = static_cast<char>(state >> 56);
    }
    return text;
}

std::vector<bytes> pieces_of(const send_queue& queue, std::size_t most = 10'000) {
    std::vector<bytes> pieces(most);
    pieces.resize(queue.gather(pieces));
    return pieces;
}

std::string text_of(const send_queue& queue) {
    std::string all;
    for (const bytes piece : pieces_of(queue)) all += as_text(piece);
    return all;
}

/// A queue and its pool; all memory is back when they are gone.
struct bench {
    std::size_t live_before = allocations::live;
    std::unique_ptr<block_pool> pool = std::make_unique<block_pool>();
    send_queue queue;

    bench() = default;
    bench(const bench&) = delete;
    bench& operator=(const bench&) = delete;
    ~bench() {
        allocations::fail_in = 0;
        queue.clear(*pool);
        CHECK(queue.empty());
        pool.reset();
        CHECK(allocations::live == live_before);
    }

    void append(std::string_view text) { queue.append(*pool, as_bytes(text)); }
    void take(std::string&& text) { queue.append_held(*pool, as_bytes(text), std::move(text)); }
    void append_lent(std::string_view text) { queue.append_lent(*pool, as_bytes(text)); }
    void consume(std::size_t count) { queue.consume(*pool, count); }
};

/// Calls it with the nth allocation failing, for n = 1 and up, until none fails. After each failure
/// `unchanged` is called.
template <class Call, class Unchanged>
std::size_t fail_each(Call call, Unchanged unchanged) {
    for (std::size_t n = 1;; ++n) {
        bool failed = false;
        allocations::fail_in = n;
        try {
            call();
        } catch (const std::bad_alloc&) {
            failed = true;
        }
        const bool used_up = allocations::fail_in == 0;
        allocations::fail_in = 0;
        if (!used_up) return n - 1;
        CHECK(failed);
        unchanged();
    }
}

/// The queue beside a string that has the same done to it.
class model {
public:
    explicit model(std::uint64_t seed) : dice_{seed} {}

    void step() {
        switch (below(16)) {
            case 0:
            case 1:
            case 2:
            case 3: return append_bytes();
            case 4:
            case 5: return append_text();
            case 6:
            case 7: return append_lent();
            case 8: return own_lent();
            case 9: return gather_some();
            case 10: return consume_whole_pieces();
            case 11: return below(20) == 0 ? clear() : copy_some();
            default: return consume();
        }
    }

    bool same() const {
        return on_.queue.size() == expected_.size() && on_.queue.empty() == expected_.empty() &&
               text_of(on_.queue) == expected_;
    }
    std::size_t failures() const noexcept { return failures_; }

private:
    std::size_t below(std::size_t bound) {
        return std::uniform_int_distribution<std::size_t>{0, bound - 1}(dice_);
    }

    // Mostly little; sometimes around the sizes at which a queue decides otherwise.
    std::size_t length() {
        switch (below(12)) {
            case 0: return 0;
            case 1: return long_text - 60 + below(120);
            case 2: return below(20'000);
            case 3: return below(100) == 0 ? 200'000 + below(200'000) : below(9'000);
            default: return 1 + below(300);
        }
    }

    /// Does it with memory running out now and then: whether it was done.
    template <class F>
    bool tried(F f) {
        allocations::fail_in = below(3) == 0 ? 1 + below(2) : 0;
        try {
            f();
            allocations::fail_in = 0;
            return true;
        } catch (const std::bad_alloc&) {
            allocations::fail_in = 0;
            ++failures_;
            return false;
        }
    }

    void append_bytes() {
        std::string text = pattern(length(), ++texts_);
        if (tried([&] { on_.append(text); })) expected_ += text;
        std::fill(text.begin(), text.end(), '!');  // it was copied
    }

    void append_text() {
        const std::string text = pattern(length(), ++texts_);
        std::string given = text;
        if (tried([&] { on_.take(std::move(given)); }))
            expected_ += text;
        else
            CHECK(given == text);  // NOLINT(bugprone-use-after-move): still the caller's
    }

    void append_lent() {
        lent_.push_back(pattern(length() + 1, ++texts_));
        const std::string& text = lent_.back();
        if (tried([&] { on_.append_lent(text); }))
            expected_ += text;
        else
            lent_.pop_back();
    }

    void own_lent() {
        if (!tried([&] { on_.queue.own_lent(*on_.pool); })) return;
        for (std::string& text : lent_) std::fill(text.begin(), text.end(), '!');
        lent_.clear();
    }

    void gather_some() {
        const std::vector<bytes> all = pieces_of(on_.queue);
        const std::size_t most = below(6);
        const std::vector<bytes> some = pieces_of(on_.queue, most);
        CHECK(some.size() == std::min(most, all.size()));
        for (std::size_t i = 0; i != some.size(); ++i) {
            CHECK(some[i].data() == all[i].data());
            CHECK(some[i].size() == all[i].size());
        }
    }

    void copy_some() {
        std::vector<std::byte> some(length());
        const std::size_t behind = std::min(below(30'000), expected_.size());
        const std::string_view rest = std::string_view{expected_}.substr(behind);
        const std::size_t count = on_.queue.copy(behind, some);
        CHECK(count == std::min(some.size(), rest.size()));
        CHECK(as_text(some).substr(0, count) == rest.substr(0, count));
    }

    void consume() {
        const std::size_t size = expected_.size();
        drop(below(3) == 0 ? below(size + 1) : std::min(size, length()));
    }
    void consume_whole_pieces() {
        std::size_t count = 0;
        for (const bytes piece : pieces_of(on_.queue, 1 + below(3))) count += piece.size();
        drop(count);
    }
    void drop(std::size_t count) {
        on_.consume(count);
        expected_.erase(0, count);
    }

    void clear() {
        on_.queue.clear(*on_.pool);
        expected_.clear();
        lent_.clear();
    }

    bench on_;  // destroyed last, when all else here has given its memory back
    std::mt19937_64 dice_;
    std::string expected_;
    std::deque<std::string> lent_;  // until they are owned: under ASan a longer use is seen
    std::uint64_t texts_ = 0;
    std::size_t failures_ = 0;
};

}  // namespace

TEST_CASE("send_queue: random operations, beside a string that has the same done to it") {
    std::size_t failures = 0;
    for (std::uint64_t seed = 1; seed != 60; ++seed) {
        CAPTURE(seed);
        model both{seed};
        for (int step = 0; step != 300; ++step) {
            CAPTURE(step);
            both.step();
            REQUIRE(both.same());
        }
        failures += both.failures();
    }
    CHECK((failures > 100 || !allocations::counted));  // memory did run out
}

TEST_CASE("send_queue: an empty one") {
    bench on;
    CHECK(on.queue.empty());
    CHECK(on.queue.size() == 0);
    CHECK(pieces_of(on.queue).empty());
    const std::size_t before = allocations::made;
    on.consume(0);
    on.queue.own_lent(*on.pool);
    on.queue.clear(*on.pool);
    on.append("");
    on.take({});
    CHECK(on.queue.empty());
    CHECK(on.queue.gather({}) == 0);
    CHECK(on.queue.copy(0, {}) == 0);
    CHECK(allocations::made == before);
}

TEST_CASE("send_queue: small sends share a segment, and so a piece of one system call") {
    bench on;
    std::string all;
    for (std::size_t i = 0; i != 40; ++i) {
        const std::string text = pattern(100, i);
        on.append(text);
        all += text;
    }
    CHECK(pieces_of(on.queue).size() == 1);
    CHECK(text_of(on.queue) == all);

    // The rest of the room is filled up before another segment is taken.
    on.append(all);
    all += all;
    CHECK(pieces_of(on.queue).size() == 2);
    CHECK(pieces_of(on.queue)[0].size() > 4'000);
    CHECK(text_of(on.queue) == all);
}

TEST_CASE("send_queue: a short string is copied, a long one taken over") {
    bench on;
    std::string short_one = pattern(long_text - 1);
    std::string long_one = pattern(long_text, 2);
    const std::string expected = short_one + long_one;
    const void* const where = long_one.data();
    on.take(std::move(short_one));
    on.take(std::move(long_one));
    const std::vector<bytes> pieces = pieces_of(on.queue);
    CHECK(static_cast<const void*>(pieces.back().data()) == where);
    CHECK(pieces.back().size() == long_text);
    CHECK(text_of(on.queue) == expected);
}

TEST_CASE("send_queue: few shared bytes are copied, many stand in memory once") {
    bench on;
    std::string expected;
    for (const std::size_t size : {1U, 8U, 100U, 511U, 512U, 5'000U}) {
        const tcp::shared_bytes shared{pattern(size, size)};
        on.queue.append_held(*on.pool, shared.view(), tcp::shared_bytes{shared});
        expected += pattern(size, size);
        CHECK((pieces_of(on.queue).back().data() == shared.view().data()) == (size >= 512));
    }
    CHECK(text_of(on.queue) == expected);

    // A segment for each of them would be 128 bytes for one.
    const long before = static_cast<long>(allocations::made);
    const tcp::shared_bytes one{std::string_view{"x"}};
    for (int i = 0; i != 100'000; ++i)
        on.queue.append_held(*on.pool, one.view(), tcp::shared_bytes{one});
    CHECK(static_cast<long>(allocations::made) - before < 100);
}

TEST_CASE("send_queue: nothing is written behind bytes that are not copied ones") {
    bench on;
    const std::string lent = pattern(5'000);
    const std::string long_one = pattern(6'000, 2);
    on.append_lent(std::string_view{lent}.substr(0, 10));
    on.append("after lent ones");
    on.take(std::string{long_one});
    on.append("after a string");
    CHECK(lent == pattern(5'000));
    CHECK(text_of(on.queue) ==
          lent.substr(0, 10) + "after lent ones" + long_one + "after a string");
}

TEST_CASE("send_queue: lent bytes stay where they are until they are owned") {
    bench on;
    std::string lent = pattern(1'000);
    std::string more = pattern(300'000, 2);
    const std::string expected = "before" + lent.substr(100) + "between" + more + "behind";
    on.append("before");
    on.append_lent(lent);
    on.append("between");
    on.append_lent(more);
    CHECK(static_cast<const void*>(pieces_of(on.queue)[1].data()) == lent.data());
    CHECK(static_cast<const void*>(pieces_of(on.queue)[3].data()) == more.data());

    // What went already is not copied any more.
    on.consume(6 + 100);
    on.append("behind");
    on.queue.own_lent(*on.pool);
    std::fill(lent.begin(), lent.end(), '!');
    std::fill(more.begin(), more.end(), '!');
    CHECK(text_of(on.queue) == expected.substr(6));

    const std::size_t before = allocations::made;
    on.queue.own_lent(*on.pool);  // there is nothing left to own
    CHECK(allocations::made == before);
    on.consume(500);
    CHECK(text_of(on.queue) == expected.substr(506));
}

TEST_CASE("send_queue: lent bytes that went are not touched again") {
    bench on;
    {
        const std::string lent = pattern(100);
        on.append_lent(lent);
        on.append("tail");
        on.consume(100);
    }
    on.queue.own_lent(*on.pool);
    CHECK(text_of(on.queue) == "tail");
}

TEST_CASE("send_queue: consumed in every cutting") {
    const std::string lent = pattern(7, 3);
    const std::string long_one = pattern(long_text + 1, 4);
    const std::string all = "copied" + lent + long_one + "behind";
    for (std::size_t first = 0; first <= all.size(); first += first < 30 ? 1 : 397) {
        CAPTURE(first);
        bench on;
        on.append("copied");
        on.append_lent(lent);
        on.take(std::string{long_one});
        on.append("behind");
        on.consume(first);
        CHECK(on.queue.size() == all.size() - first);
        CHECK(text_of(on.queue) == all.substr(first));
        on.append("more");
        CHECK(text_of(on.queue) == all.substr(first) + "more");
        on.consume(all.size() - first);
        CHECK(text_of(on.queue) == "more");
        on.consume(4);
        CHECK(on.queue.empty());
        CHECK(pieces_of(on.queue).empty());
    }
}

TEST_CASE("62 send_queue: an append that finds no memory changes nothing" *
          doctest::skip(!allocations::counted)) {
    const std::string lent = pattern(50);
    for (const std::size_t size : sizes{1, 4'000, long_text, 100 * long_text}) {
        for (const std::size_t room_taken : sizes{0, 1, 4'000}) {
            CAPTURE(size);
            CAPTURE(room_taken);
            const std::string text = pattern(size, 2);
            const std::string there = pattern(room_taken, 3);
            std::size_t failed = 0;

            bench copied;
            copied.append(there);
            failed += fail_each([&] { copied.append(text); },
                                [&] { CHECK(text_of(copied.queue) == there); });
            CHECK(text_of(copied.queue) == there + text);
            CHECK(copied.queue.size() == size + room_taken);

            bench moved;
            moved.append(there);
            std::string given = text;
            failed += fail_each([&] { moved.take(std::move(given)); },
                                [&] {
                                    CHECK(given == text);  // NOLINT(bugprone-use-after-move)
                                    CHECK(text_of(moved.queue) == there);
                                    CHECK(moved.queue.size() == room_taken);
                                });
            CHECK(text_of(moved.queue) == there + text);

            bench points;
            points.append(there);
            failed += fail_each([&] { points.append_lent(lent); },
                                [&] { CHECK(text_of(points.queue) == there); });
            CHECK(text_of(points.queue) == there + lent);
            CHECK(failed >= 1);
        }
    }
}

TEST_CASE("62 send_queue: own_lent that finds no memory loses nothing and may be tried again" *
          doctest::skip(!allocations::counted)) {
    bench on;
    std::string first = pattern(100), second = pattern(9'000, 2), third = pattern(500, 3);
    const std::string expected = first + second + "between" + third;
    on.append_lent(first);
    on.append_lent(second);
    on.append("between");
    on.append_lent(third);
    const std::size_t failed = fail_each([&] { on.queue.own_lent(*on.pool); },
                                         [&] {
                                             CHECK(text_of(on.queue) == expected);
                                             CHECK(on.queue.size() == expected.size());
                                         });
    CHECK(failed >= 1);
    for (std::string* text : {&first, &second, &third}) std::fill(text->begin(), text->end(), '!');
    CHECK(text_of(on.queue) == expected);
}

TEST_CASE("send_queue: nothing is allocated once the pool is warm") {
    bench on;
    const std::string small = pattern(300);
    const std::string large = pattern(100'000, 2);
    std::size_t before = 0;
    for (int round = 0; round != 100; ++round) {
        if (round == 1) before = allocations::made;
        for (int i = 0; i != 20; ++i) on.append(small);
        on.append(large);
        on.append_lent(large);
        on.queue.own_lent(*on.pool);
        on.consume(on.queue.size() / 2);
        on.append(small);
        on.consume(on.queue.size());
        on.append_lent(small);
        on.queue.clear(*on.pool);
    }
    CHECK(allocations::made == before);
}

TEST_CASE("send_queue: a long string costs its own memory and nothing else once warm") {
    bench on;
    on.take(pattern(long_text));
    on.consume(long_text);
    std::vector<std::string> texts;
    for (std::size_t i = 0; i != 10; ++i) texts.push_back(pattern(long_text, i));
    const std::size_t before = allocations::made;
    for (std::string& text : texts) {
        on.take(std::move(text));
        on.consume(long_text);
    }
    CHECK(allocations::made == before);
}

TEST_CASE("send_queue: an empty one owns nothing") {
    bench on;
    const std::string large = pattern(8'000);
    on.append(large);
    on.consume(large.size());
    const std::size_t before = allocations::made;
    send_queue another;  // gets what the first gave back
    another.append(*on.pool, as_bytes(large));
    CHECK(allocations::made == before);
    CHECK(text_of(another) == large);
    another.clear(*on.pool);
}
