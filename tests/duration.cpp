// tcp::duration: every chrono duration goes in exactly, and comes out rounded toward zero.
#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/duration.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t smallest = std::numeric_limits<std::int64_t>::min();

constexpr std::int64_t count(tcp::duration length) { return length.nanoseconds(); }

static_assert(std::is_same_v<tcp::duration, tcp::v0_1::duration>);
static_assert(std::is_trivially_copyable_v<tcp::duration>);
static_assert(std::is_convertible_v<std::chrono::seconds, tcp::duration>);
static_assert(std::is_convertible_v<std::chrono::duration<float>, tcp::duration>);
static_assert(!std::is_convertible_v<int, tcp::duration>);     // of what?
static_assert(!std::is_convertible_v<double, tcp::duration>);  // of what?
static_assert(tcp::duration{} == tcp::duration::nanoseconds(0));
static_assert(tcp::duration{5s} == tcp::duration::milliseconds(5'000));
static_assert(!tcp::chrono_duration<int>);
static_assert(tcp::chrono_duration<std::chrono::milliseconds>);

// A duration as another library may have it: the shape is what counts.
struct frames {
    struct period {
        static constexpr int num = 1;
        static constexpr int den = 50;
    };
    constexpr frames() = default;
    explicit constexpr frames(int n) : n_{n} {}
    constexpr int count() const { return n_; }

private:
    int n_ = 0;
};

}  // namespace

TEST_CASE("duration: every unit of chrono") {
    CHECK(count(7ns) == 7);
    CHECK(count(7us) == 7'000);
    CHECK(count(7ms) == 7'000'000);
    CHECK(count(7s) == 7'000'000'000);
    CHECK(count(7min) == 420'000'000'000);
    CHECK(count(7h) == 25'200'000'000'000);
    CHECK(count(std::chrono::days{7}) == 604'800'000'000'000);
    CHECK(count(std::chrono::weeks{7}) == 4'233'600'000'000'000);
    CHECK(count(std::chrono::months{7}) == 7 * 2'629'746'000'000'000);
    CHECK(count(std::chrono::years{7}) == 7 * 31'556'952'000'000'000);
    CHECK(count(std::chrono::duration<std::int64_t, std::pico>{7'999}) == 7);
    CHECK(count(std::chrono::duration<int, std::ratio<1, 3>>{1}) == 333'333'333);
    CHECK(count(std::chrono::duration<int, std::ratio<1, 60>>{60}) == 1'000'000'000);
    CHECK(count(std::chrono::duration<unsigned char>{255}) == 255'000'000'000);
    CHECK(count(std::chrono::duration<std::uint64_t, std::nano>{7}) == 7);
    CHECK(count(frames{25}) == 500'000'000);
    CHECK(tcp::duration{}.nanoseconds() == 0);
}

TEST_CASE("duration: whole numbers stay whole") {
    bool exact = true;
    for (std::int64_t n = 0; n < 200'000; ++n)
        exact = exact && count(std::chrono::nanoseconds{n}) == n &&
                count(std::chrono::microseconds{n}) == n * 1'000 &&
                count(std::chrono::milliseconds{n}) == n * 1'000'000 &&
                count(std::chrono::seconds{n}) == n * 1'000'000'000 &&
                count(std::chrono::nanoseconds{-n}) == -n;
    CHECK(exact);
    for (std::int64_t n = largest; n > 0; n /= 3) {
        CHECK(count(std::chrono::nanoseconds{n}) == n);
        CHECK(count(std::chrono::nanoseconds{-n}) == -n);
    }
    CHECK(count(std::chrono::nanoseconds{largest - 1}) == largest - 1);
    CHECK(count(std::chrono::microseconds{largest / 1'000}) == largest / 1'000 * 1'000);
}

TEST_CASE("duration: fractions are rounded toward zero") {
    CHECK(count(std::chrono::duration<double>{0.5}) == 500'000'000);
    CHECK(count(std::chrono::duration<double>{1.5}) == 1'500'000'000);
    CHECK(count(std::chrono::duration<double>{-1.5}) == -1'500'000'000);
    CHECK(count(std::chrono::duration<float>{0.25F}) == 250'000'000);
    CHECK(count(std::chrono::duration<double, std::milli>{2.5}) == 2'500'000);
    CHECK(count(std::chrono::duration<double, std::nano>{1.9}) == 1);
    CHECK(count(std::chrono::duration<double, std::nano>{-1.9}) == -1);
    CHECK(count(std::chrono::duration<double, std::ratio<3600>>{0.5}) == 1'800'000'000'000);
    CHECK(count(std::chrono::duration<long double>{1e-9L}) == 1);
}

TEST_CASE("duration: negative") {
    CHECK(count(-7ns) == -7);
    CHECK(count(-7ms) == -7'000'000);
    CHECK(count(-7h) == -25'200'000'000'000);
    CHECK(tcp::duration{-1ns} < tcp::duration{});
}

TEST_CASE("duration: what is too long is the longest") {
    CHECK(count(std::chrono::nanoseconds::max()) == largest);
    CHECK(count(std::chrono::microseconds::max()) == largest);
    CHECK(count(std::chrono::seconds::max()) == largest);
    CHECK(count(std::chrono::hours::max()) == largest);
    CHECK(count(std::chrono::years::max()) == largest);
    CHECK(count(std::chrono::seconds{9'223'372'036}) == 9'223'372'036'000'000'000);
    CHECK(count(std::chrono::seconds{9'223'372'037}) == largest);
    CHECK(count(std::chrono::years{292}) == 292 * 31'556'952'000'000'000);
    CHECK(count(std::chrono::years{293}) == largest);
    CHECK(count(std::chrono::duration<std::uint64_t, std::nano>{~std::uint64_t{0}}) == largest);
    CHECK(count(std::chrono::duration<double>{1e300}) == largest);
    CHECK(count(std::chrono::duration<double>{std::numeric_limits<double>::infinity()}) == largest);

    CHECK(count(std::chrono::nanoseconds::min()) == smallest);
    CHECK(count(std::chrono::seconds::min()) == smallest);
    CHECK(count(std::chrono::hours::min()) == smallest);
    CHECK(count(std::chrono::seconds{-9'223'372'037}) == smallest);
    CHECK(count(std::chrono::duration<double>{-1e300}) == smallest);
    CHECK(count(std::chrono::duration<double>{-std::numeric_limits<double>::infinity()}) ==
          smallest);

    CHECK(count(tcp::duration::max()) == largest);
    CHECK(count(tcp::duration::milliseconds(largest)) == largest);
    CHECK(count(tcp::duration::milliseconds(smallest)) == smallest);
    CHECK(count(tcp::duration::milliseconds(largest / 1'000'000)) ==
          largest / 1'000'000 * 1'000'000);
}

TEST_CASE("duration: whole nanoseconds of odd units stay whole") {
    using tcp::duration;
    for (std::int64_t n = 1; n != 3'000; ++n) {
        CHECK(duration{std::chrono::duration<std::int64_t, std::pico>{1'000 * n}} ==
              duration::nanoseconds(n));
        CHECK(duration{std::chrono::duration<std::int64_t, std::ratio<1, 90'000>>{90 * n}} ==
              duration::milliseconds(n));
    }
    CHECK(duration{std::chrono::duration<std::int64_t, std::ratio<1001, 24'000>>{51}} ==
          duration::nanoseconds(2'127'125'000));
    CHECK(duration{std::chrono::duration<std::int64_t, std::pico>{7'999}} ==
          duration::nanoseconds(7));
}

TEST_CASE("duration: back to chrono") {
    using tcp::duration;
    CHECK(duration{1'999'999ns}.to<std::chrono::milliseconds>() == 1ms);
    CHECK(duration{-1'999'999ns}.to<std::chrono::milliseconds>() == -1ms);
    CHECK(duration{1500ms}.to<std::chrono::seconds>() == 1s);
    CHECK(duration{1500ms}.to<std::chrono::nanoseconds>() == 1'500'000'000ns);
    CHECK(duration{119min}.to<std::chrono::hours>() == 1h);
    CHECK(duration{-119min}.to<std::chrono::hours>() == -1h);
    CHECK(duration{std::chrono::days{13}}.to<std::chrono::weeks>() == std::chrono::weeks{1});
    CHECK(duration{2s}.to<std::chrono::duration<int, std::ratio<1, 60>>>().count() == 120);
    CHECK(duration{3ns}.to<std::chrono::duration<std::int64_t, std::pico>>().count() == 3'000);
    CHECK(duration{500ms}.to<frames>().count() == 25);

    // A floating duration keeps the fraction.
    CHECK(duration{1500ms}.to<std::chrono::duration<double>>().count() == 1.5);
    CHECK(duration{-1500ms}.to<std::chrono::duration<float>>().count() == -1.5F);
    CHECK(duration{1500us}.to<std::chrono::duration<double, std::milli>>().count() == 1.5);
    CHECK(duration{90min}.to<std::chrono::duration<double, std::ratio<3600>>>().count() == 1.5);

    CHECK(duration::max().to<std::chrono::nanoseconds>() == std::chrono::nanoseconds::max());
    CHECK(duration::max().to<std::chrono::hours>().count() == 2'562'047);
    CHECK(duration::nanoseconds(smallest).to<std::chrono::nanoseconds>().count() == smallest);
    for (std::int64_t n = largest; n != 0; n /= -7)
        CHECK(duration::nanoseconds(n).to<std::chrono::nanoseconds>().count() == n);
}

TEST_CASE("duration: order, sum and difference") {
    using tcp::duration;
    const duration least = duration::nanoseconds(smallest);
    const duration most = duration::max();

    CHECK(duration{1s} == duration{1000ms});
    CHECK(duration{1s} != duration{1001ms});
    CHECK(duration{1s} < duration{1001ms});
    CHECK(duration{1s} >= duration{1000ms});
    CHECK(least < most);

    CHECK(duration{1s} + duration{1ms} == duration{1001ms});
    CHECK(duration{1s} - duration{1ms} == duration{999ms});
    CHECK(duration{1s} - 2s == duration{-1s});

    CHECK(most + 1ns == most);
    CHECK(most + most == most);
    CHECK(least + -1ns == least);
    CHECK(least - 1ns == least);
    CHECK(least - most == least);
    CHECK(most - least == most);
    CHECK(most - -1ns == most);
    CHECK(most - most == duration{});
    CHECK(least - least == duration{});
    CHECK(duration{} - least == most);
    CHECK(duration{-1ns} - least == most);
    CHECK(duration{-2ns} - least == most - 1ns);
}
