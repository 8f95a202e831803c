// The version: one source, and the inline namespace that carries its major number.
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <system_error>
#include <type_traits>
#include <typeinfo>

#include <doctest/doctest.h>

#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/options.hpp>
#include <tcp/version.hpp>

namespace {

namespace fs = std::filesystem;

static_assert(tcp::version_major == 0 &&
              tcp::version_minor == 1);  // with them the names below change
static_assert(tcp::v0_1::version_major == 0);
static_assert(std::is_same_v<tcp::options, tcp::v0_1::options>);
static_assert(std::is_same_v<decltype(tcp::version_major), const int>);
static_assert(tcp::version_major >= 0 && tcp::version_minor >= 0 && tcp::version_patch >= 0);
static_assert(tcp::version_major + tcp::version_minor + tcp::version_patch > 0);

std::string text_of(const fs::path& file) {
    std::ifstream stream{file, std::ios::binary};
    return {std::istreambuf_iterator<char>{stream}, {}};
}

/// The sources this was built from, looked for beside this file and above the folder of the build;
/// empty where they are not.
fs::path sources() {
    const fs::path marker = "include/tcp/version.hpp";
    std::error_code ignored;
    const fs::path beside = fs::absolute(__FILE__, ignored).parent_path().parent_path();
    if (fs::exists(beside / marker, ignored)) return beside;
    for (fs::path above = fs::current_path(ignored); above != above.root_path();
         above = above.parent_path())
        if (fs::exists(above / marker, ignored)) return above;
    return {};
}

}  // namespace

TEST_CASE("version: the name of every type carries what may change the interface") {
    std::string name = "v" + std::to_string(tcp::version_major);
    if (tcp::version_major == 0) name += "_" + std::to_string(tcp::version_minor);
    const std::string inner = "3tcp" + std::to_string(name.size()) + name;  // the ABI's lengths
    for (const char* mangled :
         {typeid(tcp::endpoint).name(), typeid(tcp::options).name(), typeid(tcp::closed_by).name(),
          typeid(tcp::connection*).name(), typeid(tcp::detail::send_queue).name()}) {
        CAPTURE(mangled);
        CHECK(std::string{mangled}.find(inner) != std::string::npos);
    }
}

TEST_CASE("version: the header is its one source") {
    const fs::path root = sources();
    if (root.empty()) {
        MESSAGE("the sources are not at hand");
        return;
    }
    // As CMakeLists.txt and meson.build read it: three lines, each with one number.
    const std::string header = text_of(root / "include/tcp/version.hpp");
    const std::regex line{"int version_(major|minor|patch) = ([0-9]+);"};
    std::string version;
    for (std::sregex_iterator found{header.begin(), header.end(), line}, end; found != end; ++found)
        version += (version.empty() ? "" : ".") + (*found)[2].str();
    CHECK(version == std::to_string(tcp::version_major) + "." + std::to_string(tcp::version_minor) +
                         "." + std::to_string(tcp::version_patch));

    for (const char* build_file : {"CMakeLists.txt", "meson.build"}) {
        CAPTURE(build_file);
        const std::string text = text_of(root / build_file);
        CHECK(text.find("include/tcp/version.hpp") != std::string::npos);
        CHECK(text.find(version) == std::string::npos);
    }
}

TEST_CASE("version: every header opens the inline namespace of this version") {
    const fs::path root = sources();
    if (root.empty()) return;
    const std::string inline_name = "v" + std::to_string(tcp::version_major);
    const std::regex opening{R"((?:^|\n)\s*namespace tcp\b(::inline (v[0-9]+))?[^{;\n]*\{)"};
    std::size_t headers = 0;
    for (const auto& entry : fs::recursive_directory_iterator(root / "include")) {
        if (entry.path().extension() != ".hpp" || entry.path().filename() == "version.hpp")
            continue;
        ++headers;
        const std::string text = text_of(entry.path());
        CAPTURE(entry.path().string());
        for (std::sregex_iterator found{text.begin(), text.end(), opening}, end; found != end;
             ++found)
            CHECK((*found)[2].str() == inline_name);
    }
    CHECK(headers > 20);
}
