// Who ended a connection, and why, in words.
#include <cstddef>
#include <iterator>
#include <ostream>  // doctest prints string views and error codes
#include <set>
#include <string_view>
#include <system_error>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/close_reason.hpp>

using tcp::close_reason;
using tcp::closed_by;
using tcp::closed_by_count;
using tcp::deadline;
using tcp::limit;
using tcp::to_text;

namespace {

static_assert(std::is_same_v<close_reason, tcp::v0_1::close_reason>);
static_assert(std::is_aggregate_v<close_reason>);
static_assert(std::is_trivially_copyable_v<close_reason>);
static_assert(sizeof(closed_by) == 1 && sizeof(deadline) == 1 && sizeof(limit) == 1);
static_assert(noexcept(to_text(closed_by{})) && noexcept(to_text(close_reason{})));
static_assert(to_text(closed_by::peer_finished) == "peer finished");
static_assert(static_cast<std::size_t>(closed_by::system_error) + 1 == closed_by_count);

constexpr struct {
    closed_by by;
    std::string_view text;
} all[] = {
    {closed_by::peer_finished, "peer finished"},
    {closed_by::peer_reset, "peer reset"},
    {closed_by::handler_closed, "closed by the handler"},
    {closed_by::handler_aborted, "aborted by the handler"},
    {closed_by::handler_threw, "handler threw"},
    {closed_by::deadline, "deadline"},
    {closed_by::limit, "limit"},
    {closed_by::server_stopping, "server stopping"},
    {closed_by::drain_deadline, "drain deadline"},
    {closed_by::system_error, "system error"},
};
static_assert(std::size(all) == closed_by_count);

}  // namespace

TEST_CASE("close_reason: each of closed_by has its words, and a number of its own") {
    std::set<std::string_view> texts;
    for (std::size_t i = 0; i != closed_by_count; ++i) {
        const closed_by by = all[i].by;
        const std::string_view text = all[i].text;
        CAPTURE(text);
        CHECK(static_cast<std::size_t>(by) == i);  // statistics::closed_by is indexed with it
        CHECK(to_text(by) == text);
        CHECK(to_text(close_reason{.by = by}) == text);
        CHECK(texts.insert(text).second);
    }
    CHECK(to_text(static_cast<closed_by>(closed_by_count)) == "unknown");
    CHECK(to_text(static_cast<closed_by>(255)) == "unknown");
    CHECK(to_text(close_reason{.by = static_cast<closed_by>(255)}) == "unknown");
}

TEST_CASE("close_reason: a deadline and a limit say which") {
    CHECK(to_text(close_reason{.by = closed_by::deadline, .passed = deadline::close}) ==
          "deadline: close");
    CHECK(to_text(close_reason{.by = closed_by::limit, .reached = limit::receive}) ==
          "limit: receive");
    CHECK(to_text(close_reason{.by = closed_by::limit, .reached = limit::send_queue}) ==
          "limit: send queue");
}

TEST_CASE("close_reason: which one counts only where it was one") {
    for (const auto& each : all) {
        const closed_by by = each.by;
        const std::string_view text = each.text;
        CAPTURE(text);
        if (by != closed_by::deadline)
            CHECK(to_text(close_reason{
                      .by = by, .passed = deadline::close, .reached = limit::none}) == text);
        if (by != closed_by::limit)
            CHECK(to_text(close_reason{.by = by, .reached = limit::send_queue}) == text);
    }
    CHECK(to_text(close_reason{.by = closed_by::deadline, .reached = limit::receive}) ==
          "deadline");
    CHECK(to_text(close_reason{.by = closed_by::limit, .passed = deadline::close}) == "limit");
}

TEST_CASE("close_reason: as it is made") {
    const close_reason usual;
    CHECK(usual.by == closed_by::peer_finished);
    CHECK(usual.passed == deadline::none);
    CHECK(usual.reached == limit::none);
    CHECK_FALSE(usual.error);
    CHECK(usual.unsent == 0);

    const close_reason full{.by = closed_by::system_error,
                            .error = std::make_error_code(std::errc::timed_out),
                            .unsent = 7};
    CHECK(full.error == std::errc::timed_out);
    CHECK(full.unsent == 7);
    CHECK(to_text(full) == "system error");
}
