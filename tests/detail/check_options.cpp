// Options that cannot work are refused, each with a sentence that names the one to change.
#include <chrono>
#include <cstddef>
#include <limits>
#include <ostream>  // doctest prints error codes
#include <string>
#include <system_error>
#include <utility>

#include <doctest/doctest.h>

#include <tcp/detail/check_options.hpp>

using namespace std::chrono_literals;
using tcp::options;

namespace {

/// What is said of these options; nothing where they are taken.
std::string refusal(const options& settings) {
    try {
        const options& same = tcp::detail::checked(settings);
        CHECK(&same == &settings);
    } catch (const std::system_error& thrown) {
        CHECK(thrown.code() == tcp::error::bad_options);
        const std::string text = thrown.what();
        const std::string meaning = std::string{": "} + tcp::to_text(tcp::error::bad_options);
        const std::size_t end = text.rfind(meaning);
        REQUIRE(end != text.npos);
        CHECK(end + meaning.size() == text.size());
        return text.substr(0, end);
    }
    return {};
}

constexpr std::size_t most = std::numeric_limits<std::size_t>::max();

}  // namespace

TEST_CASE("check_options: the defaults are taken") { CHECK(refusal({}) == ""); }

TEST_CASE("check_options: the low mark is not above the high one") {
    CHECK(refusal({.high_mark = 10, .low_mark = 11}) ==
          "options::low_mark 11 is above options::high_mark 10; lower the first or raise the "
          "second");
    CHECK(refusal({.high_mark = 1'000}) ==
          "options::low_mark " + std::to_string(tcp::options{}.low_mark) +
              " is above options::high_mark 1000; lower the first or raise the second");
    CHECK(refusal({.high_mark = 0, .low_mark = 1}) != "");
    CHECK(refusal({.high_mark = most - 1, .low_mark = most}) != "");

    CHECK(refusal({.high_mark = 10, .low_mark = 10}) == "");
    CHECK(refusal({.high_mark = 10, .low_mark = 9}) == "");
    CHECK(refusal({.high_mark = 0, .low_mark = 0}) == "");
    CHECK(refusal({.high_mark = 1, .low_mark = 0}) == "");
    CHECK(refusal({.high_mark = most, .low_mark = most}) == "");
}

TEST_CASE("check_options: the sentence has the true numbers, the largest too") {
    CHECK(refusal({.high_mark = 10, .low_mark = most}) ==
          "options::low_mark " + std::to_string(most) +
              " is above options::high_mark 10; lower the first or raise the second");
}

TEST_CASE("check_options: something can be received") {
    CHECK(refusal({.receive_buffer = 0}) ==
          "options::receive_buffer is 0, so nothing could be received; give it at least 1 byte");
    CHECK(refusal({.receive_buffer = 1}) == "");
}

TEST_CASE("check_options: no time is negative") {
    CHECK(refusal({.close_timeout = -1ns}) ==
          "options::close_timeout is negative; give 0 to wait for no peer");
    CHECK(refusal({.close_timeout = -1h}) != "");
    CHECK(refusal({.close_timeout = 0s}) == "");
    CHECK(refusal({.close_timeout = 1ns}) == "");
    CHECK(refusal({.close_timeout = tcp::duration::max()}) == "");
    CHECK(refusal({.close_timeout = 12 * 24h}) == "");
    CHECK(refusal({.close_timeout = 12 * 24h + 1ns}) ==
          "options::close_timeout is above 12 days; give duration::max() to wait for ever");
}

TEST_CASE("check_options: no kernel buffer has a negative size") {
    const std::string rest = " is negative; give 0 to let the kernel choose";
    constexpr int smallest = std::numeric_limits<int>::min();
    constexpr int largest = std::numeric_limits<int>::max();
    CHECK(refusal({.kernel_send_buffer = -1}) == "options::kernel_send_buffer" + rest);
    CHECK(refusal({.kernel_receive_buffer = -1}) == "options::kernel_receive_buffer" + rest);
    CHECK(refusal({.kernel_send_buffer = smallest, .kernel_receive_buffer = 4096}) ==
          "options::kernel_send_buffer" + rest);
    CHECK(refusal({.kernel_send_buffer = 4096, .kernel_receive_buffer = smallest}) ==
          "options::kernel_receive_buffer" + rest);
    CHECK(refusal({.kernel_send_buffer = 0, .kernel_receive_buffer = 0}) == "");
    CHECK(refusal({.kernel_send_buffer = largest, .kernel_receive_buffer = largest}) == "");
}

TEST_CASE("check_options: what is unusual but works is taken") {
    CHECK(refusal({.send_queue_limit = most}) == "");
    CHECK(refusal({.receive_limit = 0}) == "");
    CHECK(refusal({.no_delay = false, .ipv6_only = true}) == "");
}

TEST_CASE("check_options: lengths of time and counts that make no sense") {
    const std::pair<const char*, tcp::duration options::*> all[] = {
        {"idle_timeout", &options::idle_timeout},
        {"receive_timeout", &options::receive_timeout},
        {"send_timeout", &options::send_timeout},
        {"lifetime", &options::lifetime}};
    for (const auto& [name, set] : all) {
        options o;
        o.*set = 0s;
        CHECK(refusal(o) == std::string{"options::"} + name +
                                " is not above 0; leave it out, or give duration::max(), for none");
        o.*set = -1s;
        CHECK(refusal(o) != "");
        o.*set = 12 * 24h + 1ns;
        CHECK(refusal(o) ==
              std::string{"options::"} + name +
                  " is above 12 days; leave it out, or give duration::max(), for none");
        for (const tcp::duration length :
             {tcp::duration{1ns}, tcp::duration{12 * 24h}, tcp::duration::max()}) {
            o.*set = length;
            CHECK(refusal(o) == "");
        }
    }
    CHECK(refusal({.max_connections = 0}) ==
          "options::max_connections is 0, so nobody could be served; give at least 1");
    CHECK(refusal({.max_connections = 1}) == "");
    CHECK(refusal({.spin = -1ns}) == "options::spin is negative; give 0 for not at all");
    CHECK(refusal({.spin = 1ms}) == "");
    for (const tcp::duration wrong : {tcp::duration{-1ns}, tcp::duration{1001ms}})
        CHECK(refusal({.coalescing = wrong}) ==
              "options::coalescing is not between 0, for not at all, and a second");
    CHECK(refusal({.coalescing = 0ns}) == "");
    CHECK(refusal({.coalescing = 1s}) == "");
    CHECK(refusal({.keep_alive = -1ns}) ==
          "options::keep_alive is negative; give 0 for not at all");
    CHECK(refusal({.keep_alive = tcp::duration::max()}) == "");
}
