// tcp::resolve: literals as endpoint::parse() takes them, names through the system's name service.
#include <sched.h>
#include <sys/mount.h>

#include <fstream>
#include <ostream>  // doctest prints error codes
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/resolve.hpp>

#include "child_process.hpp"
#include "temporary_folder.hpp"

using namespace std::string_literals;
using tcp::endpoint;
using tests::findings;
using tests::in_child;

namespace {

std::error_code failure_of(std::string_view text) {
    std::error_code failure;
    return tcp::resolve(text, failure).empty() ? failure : std::error_code{};
}

bool has(const std::vector<endpoint>& all, const char* text) {
    for (const endpoint& each : all)
        if (each == endpoint::parse(text)) return true;
    return false;
}

// A name service of our own: files that lie over the system's, where only this process sees them.
bool replace_name_service(const std::string& hosts, const std::string& services) {
    const tests::temporary_folder here;
    const char* const folder = here.path().c_str();
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", folder, "tmpfs", 0, nullptr) != 0)
        return false;
    const auto cover = [&](const char* name, const std::string& text) {
        const std::string file = here.file(name);
        std::ofstream{file} << text;
        return mount(file.c_str(), ("/etc/"s + name).c_str(), nullptr, MS_BIND, nullptr) == 0;
    };
    const bool covered =
        cover("hosts", hosts) && cover("nsswitch.conf", "hosts: " + services + "\n") &&
        cover("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    umount2(folder, MNT_DETACH);  // the three stay where they lie; the folder is left empty
    return covered;
}

}  // namespace

TEST_CASE("resolve: a literal is itself") {
    for (const char* text : {"8080", ":8080", "*:8080", "127.0.0.1:80", "[::1]:80",
                             "[::ffff:1.2.3.4]:80", "unix:/path", "unix:@name"}) {
        CAPTURE(text);
        std::error_code failure = tcp::error::stopped;
        const std::vector<endpoint> all = tcp::resolve(text, failure);
        CHECK(!failure);
        REQUIRE(all.size() == 1);
        CHECK(all[0] == endpoint::parse(text));
        CHECK(tcp::resolve(text) == all);
    }
}

TEST_CASE("resolve: neither a literal nor a name with a port") {
    const std::string refused[] = {""s,
                                   "localhost"s,
                                   "localhost:"s,
                                   "localhost:http"s,
                                   "localhost:-1"s,
                                   "localhost:65536"s,
                                   "localhost:080"s,
                                   "localhost: 80"s,
                                   "localhost :80"s,
                                   " localhost:80"s,
                                   "local host:80"s,
                                   "localhost:80 "s,
                                   "localhost:80:80"s,
                                   "localhost\n:80"s,
                                   "localhost\0:80"s,
                                   "[localhost]:80"s,
                                   "http://localhost:80"s,
                                   "localhost/x:80"s,
                                   "user@localhost:80"s,
                                   ".:80"s,
                                   "localhost..:80"s,
                                   "localhost%lo:80"s,
                                   "::1"s,
                                   "::1:80"s,
                                   "[::1]"s,
                                   "unix:"s,
                                   "70000"s,
                                   "**:80"s};
    // What getaddrinfo(3) would take for an address, though hardly for the one meant.
    const std::string numbers[] = {
        "127.1:80"s,     "2130706433:80"s, "0x7f000001:80"s, "0x7f.1:80"s,    "0X7F.1:80"s,
        "010.0.0.1:80"s, "127.0.0.1.:80"s, "127.0.0.01:80"s, "256.0.0.1:80"s, "1.2.3.4.5:80"s,
        "1.2.3.0x4:80"s, "1.2.3.0x:80"s,   "name.1:80"s,     "0:80"s};
    for (const std::string& text : refused) {
        CAPTURE(text);
        CHECK(failure_of(text) == tcp::error::bad_endpoint);
    }
    for (const std::string& text : numbers) {
        CAPTURE(text);
        CHECK(failure_of(text) == tcp::error::bad_endpoint);
    }
}

TEST_CASE("resolve: what may be a name") {
    for (const char* name :
         {"localhost", "a", "example.com", "example.com.", "xn--bcher-kva.example", "1a",
          "1.2.3.4.example", "a_b", "0xyz", "0x1.example", "a-b.c-d", "b\xc3\xbc"}) {
        CAPTURE(name);
        CHECK(tcp::detail::is_host_name(name));
    }
}

TEST_CASE("resolve: localhost") {
    const std::vector<endpoint> all = tcp::resolve("localhost:8080");
    CHECK((has(all, "127.0.0.1:8080") || has(all, "[::1]:8080")));
    for (const endpoint& each : all) CHECK(each.port() == 8080);
}

TEST_CASE("resolve: a name that is not there") {
    // Which of the two depends on whether this machine can ask anybody.
    const std::error_code failure = failure_of("nosuch.invalid:80");
    CHECK((failure == tcp::error::name_not_found || failure == tcp::error::name_service_failed));
    try {
        tcp::resolve("nosuch.invalid:80");
        FAIL("found");
    } catch (const std::system_error& thrown) {
        CHECK(std::string{thrown.what()}.substr(0, 21) == "\"nosuch.invalid:80\": ");
    }
    CHECK_THROWS_WITH_AS(tcp::resolve("127.1:80"), doctest::Contains("no IPv4 address"),
                         std::system_error);
    CHECK_THROWS_WITH_AS(tcp::resolve("localhost"), doctest::Contains("the port is missing"),
                         std::system_error);
    CHECK(failure_of(std::string(64, 'a') + ".invalid:80"));  // a label has at most 63 bytes
    CHECK(failure_of(std::string(100'000, 'a') + ":80"));     // and a name 253
}

TEST_CASE("resolve: what getaddrinfo says") {
    using tcp::detail::name_error;
    CHECK(!name_error(0, EIO));
    CHECK(name_error(EAI_NONAME, 0) == tcp::error::name_not_found);
    CHECK(name_error(EAI_NODATA, 0) == tcp::error::name_not_found);
    CHECK(name_error(EAI_ADDRFAMILY, 0) == tcp::error::name_not_found);
    CHECK(name_error(EAI_AGAIN, 0) == tcp::error::name_service_failed);
    CHECK(name_error(EAI_FAIL, 0) == tcp::error::name_service_failed);
    CHECK(name_error(EAI_SYSTEM, EMFILE) == std::errc::too_many_files_open);
    CHECK(name_error(EAI_MEMORY, 0) == std::errc::not_enough_memory);
}

TEST_CASE("resolve: each address once, and a failure by its name") {
    in_child([](findings& found) {
        if (!replace_name_service("192.0.2.7 several.test\n"
                                  "192.0.2.7 several.test\n"
                                  "2001:db8::7 several.test\n"
                                  "::ffff:192.0.2.7 several.test\n"
                                  "192.0.2.8 several.test\n"
                                  "2001:db8::7 several.test\n",
                                  "files"))
            return found.not_permitted("a namespace");
        std::error_code failure;
        const std::vector<endpoint> all = tcp::resolve("several.test:80", failure);
        found.check(!failure && all.size() == 3, "each address once");
        found.check(
            has(all, "192.0.2.7:80") && has(all, "192.0.2.8:80") && has(all, "[2001:db8::7]:80"),
            "which addresses");
        found.check(failure_of("nosuch.test:80") == tcp::error::name_not_found, "name_not_found");
    });
}

TEST_CASE("resolve: a name service that is not there") {
    in_child([](findings& found) {
        if (!replace_name_service("", "dns")) return found.not_permitted("a namespace");
        found.check(failure_of("example.test:80") == tcp::error::name_service_failed,
                    "name_service_failed");
    });
}
