// The one main function of the test programs.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstddef>
#include <iostream>
#include <span>
#include <string_view>
#include <system_error>

#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/options.hpp>

namespace {

/// Why this system has no io_uring for us, a seccomp filter or a setting; empty where it has.
std::string_view io_uring_forbidden() {
    try {
        tcp::io_uring_engine{tcp::options{}};
    } catch (const std::system_error& e) {
        if (e.code() == std::errc::operation_not_permitted) return "not permitted";
        if (e.code() == std::errc::function_not_supported) return "not in this kernel";
    }
    return {};
}

/// Whether this lists the test cases, or runs one by its name.
bool listed_or_one(int count, const char* const* words) {
    for (const std::string_view word : std::span{words, static_cast<std::size_t>(count)}) {
        if (word == "--list-test-cases") return true;
        if (word.substr(0, 12) == "--test-case=" && word.find('*') == word.npos) return true;
    }
    return false;
}

}  // namespace

// Many cases together go without those of io_uring where that is forbidden. One case alone says so
// by failing with the kernel's error, which CTest takes for skipped.
int main(int count, char** words) {
    doctest::Context context{count, words};
    const std::string_view forbidden = io_uring_forbidden();
    if (!forbidden.empty() && !listed_or_one(count, words)) {
        std::cerr << "tests: without those of io_uring, which is " << forbidden << '\n';
        context.addFilter("test-case-exclude", "*io_uring_engine>*");
        context.addFilter("source-file-exclude", "*engine/io_uring/*");
    }
    return context.run();
}
