// explain_bind and explain_listen: the cause and the cure, beside what the system says.
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include <doctest/doctest.h>

#include <tcp/explain.hpp>

#include "temporary_folder.hpp"

using namespace std::string_literals;
using tcp::endpoint;

namespace {

std::error_code code(int failure) { return {failure, std::system_category()}; }

std::string explain(std::string_view where, int failure) {
    return tcp::explain_bind(endpoint::parse(where), code(failure));
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("explain: a port in use") {
    const std::string text = explain("127.0.0.1:80", EADDRINUSE);
    CHECK(contains(text, "listens on 127.0.0.1:80"));
    CHECK(contains(text, "another port"));
    CHECK(contains(text, "`ss -ltnp`"));
    CHECK(contains(explain("80", EADDRINUSE), "*:80"));
    CHECK(contains(explain("[::1]:80", EADDRINUSE), "[::1]:80"));
    CHECK(contains(explain("127.0.0.1:0", EADDRINUSE), "ip_local_port_range"));
    CHECK(tcp::explain_listen(endpoint{80}, code(EADDRINUSE)) == explain("80", EADDRINUSE));
}

TEST_CASE("explain: an address that no interface has") {
    const std::string text = explain("192.0.2.1:80", EADDRNOTAVAIL);
    CHECK(contains(text, "192.0.2.1:80"));
    CHECK(contains(text, "no interface"));
    CHECK(contains(text, "`ip address`"));
}

TEST_CASE("explain: a port that needs privilege") {
    int start = 0;
    std::ifstream{"/proc/sys/net/ipv4/ip_unprivileged_port_start"} >> start;
    CHECK(tcp::detail::unprivileged_port_start() == start);
    if (start > 1) {
        const std::string text = explain("127.0.0.1:1", EACCES);
        CHECK(contains(text, "port 1 of 127.0.0.1:1"));
        CHECK(contains(text, "CAP_NET_BIND_SERVICE"));
        CHECK(contains(text, "a port from " + std::to_string(start) + " up"));
    }
    CHECK(contains(explain("65535", EACCES), "policy"));
    CHECK(contains(explain("127.0.0.1:0", EACCES), "policy"));
    CHECK(contains(explain("65535", EPERM), "policy"));
}

TEST_CASE("explain: descriptors and memory") {
    CHECK(contains(explain("80", EMFILE), "`ulimit -n`"));
    CHECK(contains(explain("80", ENFILE), "fs.file-max"));
    CHECK(contains(explain("80", ENOBUFS), "memory"));
    CHECK(contains(explain("80", ENOMEM), "memory"));
}

TEST_CASE("explain: IPv6") {
    CHECK(contains(explain("[::1]:80", EAFNOSUPPORT), "no IPv6"));
    CHECK(contains(explain("80", EAFNOSUPPORT), "no IPv6"));
    CHECK(explain("127.0.0.1:80", EAFNOSUPPORT) == "bind 127.0.0.1:80");
    CHECK(contains(explain("[fe80::1]:80", EINVAL), "on which interface"));
    CHECK(explain("[fe80::1%4294967295]:80", EINVAL) == "bind [fe80::1%4294967295]:80");
    CHECK(explain("[::1]:80", EINVAL) == "bind [::1]:80");
    CHECK(contains(explain("[fe80::1%4294967295]:80", ENODEV), "`ip link`"));
}

TEST_CASE("explain: unix-domain sockets") {
    CHECK(contains(explain("unix:/nosuch/x", ENOENT), "the folder of unix:/nosuch/x"));
    CHECK(contains(explain("unix:/nosuch/x", ENOTDIR), "folder"));
    CHECK(contains(explain("unix:/x", EACCES), "search and write"));
    CHECK(contains(explain("unix:/x", EROFS), "read-only"));
    CHECK(contains(explain("unix:/x", ELOOP), "links"));
    CHECK(contains(explain("unix:/x", ENAMETOOLONG), "unix:@name"));
    CHECK(contains(explain("unix:@x", EADDRINUSE), "another program is bound to unix:@x"));

    const tests::temporary_folder here;
    const std::string path = here.file();
    CHECK(contains(explain("unix:" + path, EADDRINUSE), "another program is bound to"));

    std::ofstream{path} << "precious";
    CHECK(contains(explain("unix:" + path, EADDRINUSE), "not a socket is at unix:" + path));
    unlink(path.c_str());

    const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const endpoint where = endpoint::parse("unix:" + path);
    REQUIRE(bind(server, where.data(), where.size()) == 0);
    CHECK(contains(explain("unix:" + path, EADDRINUSE), "another program is bound to"));
    close(server);
    CHECK(contains(explain("unix:" + path, EADDRINUSE), "a dead program's socket is at"));
    unlink(path.c_str());
}

TEST_CASE("explain: what has no cure of its own names the call and the endpoint") {
    CHECK(explain("127.0.0.1:80", EIO) == "bind 127.0.0.1:80");
    CHECK(tcp::explain_listen(endpoint{80}, code(EIO)) == "listen *:80");
    CHECK(tcp::explain_listen(endpoint{}, tcp::error::not_bound) == "listen");
    CHECK(tcp::explain_bind(endpoint{}, tcp::error::bad_endpoint) == "bind");
    CHECK(explain("127.0.0.1:80", ENOENT) == "bind 127.0.0.1:80");

    // The same number of another category is another error.
    CHECK(tcp::explain_bind(endpoint{80}, {EADDRINUSE, tcp::error_category()}) == "bind *:80");
    CHECK(tcp::explain_bind(endpoint{80}, std::make_error_code(std::errc::address_in_use)) ==
          explain("80", EADDRINUSE));
}

TEST_CASE(
    "explain: every sentence names its endpoint and leaves the system's words to the system") {
    const char* const endpoints[] = {"80",          "127.0.0.1:80",   "[::1]:80", "[fe80::1]:80",
                                     "127.0.0.1:0", "unix:/nosuch/x", "unix:@x"};
    for (const char* where : endpoints)
        for (int failure = 1; failure < 134; ++failure) {
            const std::string text = explain(where, failure);
            const std::string what = std::system_error(code(failure), text).what();
            CAPTURE(what);
            CHECK(contains(text, endpoint::parse(where).to_string()));
            CHECK(!contains(text, code(failure).message()));
            CHECK(what == text + ": " + code(failure).message());
        }
}

TEST_CASE("explain: costs no descriptor and works without one") {
    const int before = dup(0);
    close(before);
    explain("127.0.0.1:1", EACCES);
    explain("unix:@x", EADDRINUSE);
    const int after = dup(0);
    close(after);
    CHECK(before == after);

    rlimit old{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
    const rlimit none{0, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    const std::string text = explain("127.0.0.1:1", EACCES);
    setrlimit(RLIMIT_NOFILE, &old);
    CHECK(contains(text, "a port from 1024 up"));
}
