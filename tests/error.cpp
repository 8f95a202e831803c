// tcp::error: each has its sentence, and lives in std::error_code as it should.
#include <cstring>
#include <ostream>  // doctest prints error codes
#include <set>
#include <string>
#include <system_error>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/error.hpp>

namespace {

constexpr tcp::error all[] = {
    tcp::error::not_bound,         tcp::error::not_listening,
    tcp::error::already_listening, tcp::error::already_running,
    tcp::error::stopped,           tcp::error::bad_endpoint,
    tcp::error::name_not_found,    tcp::error::name_service_failed,
    tcp::error::bad_options,       tcp::error::receive_limit,
    tcp::error::send_queue_limit,  tcp::error::not_open,
    tcp::error::not_a_listener,    tcp::error::incomplete,
    tcp::error::bad_network,       tcp::error::timed_out,
};

static_assert(std::is_same_v<tcp::error, tcp::v0_1::error>);
static_assert(std::is_error_code_enum_v<tcp::error>);
static_assert(!std::is_error_condition_enum_v<tcp::error>);

}  // namespace

TEST_CASE("error: each has a sentence of its own that fits behind a colon") {
    std::set<std::string> sentences;
    for (const tcp::error each : all) {
        const std::string sentence = tcp::to_text(each);
        CAPTURE(sentence);
        CHECK(sentence.size() > 20);
        CHECK(sentence != "unknown error");
        CHECK(sentence.back() != '.');
        CHECK(sentences.insert(sentence).second);
        CHECK(std::error_code{each}.message() == sentence);
    }
    CHECK(sentences.size() == static_cast<std::size_t>(tcp::error::timed_out));
}

TEST_CASE("error: a number that is none of them") {
    CHECK(std::strcmp(tcp::to_text(static_cast<tcp::error>(0)), "unknown error") == 0);
    CHECK(tcp::error_category().message(12345) == "unknown error");
    CHECK(tcp::error_category().message(-1) == "unknown error");
}

TEST_CASE("error: as std::error_code") {
    const std::error_code code = tcp::error::stopped;
    CHECK(code);  // none is 0, so that each counts as an error
    CHECK(code == tcp::error::stopped);
    CHECK(code != tcp::error::not_bound);
    CHECK(code == make_error_code(tcp::error::stopped));
    CHECK(&code.category() == &tcp::error_category());
    CHECK(std::string{code.category().name()} == "tcp");

    // The same number of the system is another error.
    CHECK(code != std::error_code(code.value(), std::system_category()));
    CHECK(code != std::error_code(code.value(), std::generic_category()));
    CHECK(std::error_code{tcp::error::not_bound} != std::errc::operation_not_permitted);
}

TEST_CASE("error: thrown") {
    try {
        throw std::system_error(tcp::error::not_bound, "listen");
    } catch (const std::system_error& thrown) {
        CHECK(thrown.code() == tcp::error::not_bound);
        CHECK(std::string{thrown.what()} ==
              std::string{"listen: "} + tcp::to_text(tcp::error::not_bound));
    }
}
