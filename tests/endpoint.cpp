// tcp::endpoint: text to endpoint and back, socket addresses, and every malformed form.
#include <cstdint>
#include <cstring>
#include <ostream>  // doctest prints error codes
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/endpoint.hpp>

using namespace std::string_literals;
using tcp::address_family;
using tcp::endpoint;

namespace {

static_assert(std::is_same_v<endpoint, tcp::v0_1::endpoint>);
static_assert(std::is_trivially_copyable_v<endpoint>);
static_assert(sizeof(endpoint) <= 116);
static_assert(std::is_convertible_v<int, endpoint>);
static_assert(!std::is_convertible_v<const char*, endpoint>);  // parse or resolve: the caller says
static_assert(!std::is_convertible_v<endpoint, bool>);
static_assert(std::is_nothrow_default_constructible_v<endpoint>);

endpoint parse(std::string_view text) {
    std::error_code failure = std::make_error_code(std::errc::io_error);
    const endpoint result = endpoint::parse(text, failure);
    CAPTURE(std::string{text});
    CHECK(!failure);  // what was in it before is gone
    CHECK(result);
    CHECK(result == endpoint::parse(text));
    return result;
}

std::string what(std::string_view text) {
    try {
        endpoint::parse(text);
    } catch (const std::system_error& thrown) {
        CHECK(thrown.code() == tcp::error::bad_endpoint);
        return thrown.what();
    }
    return "nothing was thrown";
}

bool refused(std::string_view text) {
    std::error_code failure;
    return !endpoint::parse(text, failure) && failure == tcp::error::bad_endpoint &&
           what(text) != "nothing was thrown";
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

template <class Address>
endpoint from(const Address& address, std::size_t size = sizeof(Address)) {
    return endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address),
                                   static_cast<socklen_t>(size));
}

// What the system is told, read back.
endpoint again(const endpoint& e) { return endpoint::from_sockaddr(e.data(), e.size()); }

sockaddr_un path_of(std::size_t length, char filler = 'a') {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memset(address.sun_path, filler, length);
    return address;
}

}  // namespace

TEST_CASE("endpoint: empty") {
    const endpoint none;
    CHECK(none.family() == address_family::none);
    CHECK(!none);
    CHECK(none.port() == 0);
    CHECK(none.address().empty());
    CHECK(none.to_string().empty());
    CHECK(none.size() == 0);
    CHECK(!none.is_wildcard());
    CHECK(none == endpoint{});
    CHECK(none != endpoint{0});
    CHECK_THROWS_AS(none.with_port(80), std::system_error);
}

TEST_CASE("endpoint: a bare port") {
    for (const int port : {0, 1, 80, 1023, 1024, 32767, 32768, 65534, 65535}) {
        const endpoint e = port;
        CHECK(e.family() == address_family::any);
        CHECK(e);
        CHECK(e.port() == port);
        CHECK(e.address() == "*");
        CHECK(e.to_string() == "*:" + std::to_string(port));
        CHECK(e.is_wildcard());
        CHECK(e.size() == sizeof(sockaddr_in6));
        sockaddr_in6 v6{};
        std::memcpy(&v6, e.data(), sizeof v6);
        CHECK(v6.sin6_family == AF_INET6);
        CHECK(ntohs(v6.sin6_port) == port);
        CHECK(std::memcmp(&v6.sin6_addr, &in6addr_any, sizeof in6addr_any) == 0);
        CHECK(parse(std::to_string(port)) == e);
        CHECK(parse(":" + std::to_string(port)) == e);
        CHECK(parse(e.to_string()) == e);
        CHECK(again(e) == parse("[::]:" + std::to_string(port)));
        CHECK(again(e) != e);  // [::] is an address; a bare port is more than that
    }
}

TEST_CASE("endpoint: a number that is no port") {
    for (const int port : {-1, -80, 65536, 70000, 1 << 20, 0x7fff'ffff, -0x7fff'ffff - 1}) {
        const std::string sentence =
            "port " + std::to_string(port) + ": a port is a number from 0 to 65535";
        try {
            const endpoint e = port;
            FAIL("port " << port << " was taken as " << e.to_string());
        } catch (const std::system_error& thrown) {
            CHECK(thrown.code() == tcp::error::bad_endpoint);
            CHECK(std::string{thrown.what()}.substr(0, sentence.size()) == sentence);
        }
        CHECK_THROWS_AS(endpoint{80}.with_port(port), std::system_error);
    }
}

TEST_CASE("endpoint: IPv4") {
    const endpoint e = parse("127.0.0.1:80");
    CHECK(e.family() == address_family::ipv4);
    CHECK(e.port() == 80);
    CHECK(e.address() == "127.0.0.1");
    CHECK(e.size() == sizeof(sockaddr_in));
    CHECK(e.data()->sa_family == AF_INET);
    CHECK(!e.is_wildcard());
    CHECK(parse("0.0.0.0:0").is_wildcard());
    CHECK(!parse("0.0.0.1:0").is_wildcard());
    for (const char* text : {"0.0.0.0:0", "127.0.0.1:1", "255.255.255.255:65535", "10.20.30.40:5"})
        CHECK(parse(text).to_string() == text);
}

TEST_CASE("endpoint: IPv6") {
    const endpoint e = parse("[::1]:80");
    CHECK(e.family() == address_family::ipv6);
    CHECK(e.port() == 80);
    CHECK(e.address() == "::1");
    CHECK(e.size() == sizeof(sockaddr_in6));
    CHECK(e.data()->sa_family == AF_INET6);
    CHECK(!e.is_wildcard());
    CHECK(parse("[::]:0").is_wildcard());
    for (const char* text : {"[::]:0", "[::1]:1", "[2001:db8::8:800:200c:417a]:65535",
                             "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:5", "[64:ff9b::102:304]:9"})
        CHECK(parse(text).to_string() == text);

    // One address, one form (RFC 5952).
    CHECK(parse("[0:0:0:0:0:0:0:1]:80").to_string() == "[::1]:80");
    CHECK(parse("[2001:DB8:0:0::1]:80").to_string() == "[2001:db8::1]:80");
    CHECK(parse("[2001:db8::0001]:80") == parse("[2001:db8::1]:80"));
}

TEST_CASE("endpoint: IPv4 mapped into IPv6 is IPv4") {
    const endpoint e = parse("[::ffff:192.0.2.7]:80");
    CHECK(e.family() == address_family::ipv4);
    CHECK(e.to_string() == "192.0.2.7:80");
    CHECK(e == parse("192.0.2.7:80"));
    CHECK(parse("[::ffff:c000:207]:80") == e);
    CHECK(parse("[::ffff:0.0.0.0]:80").is_wildcard());
    CHECK(parse("[::192.0.2.7]:80").family() == address_family::ipv6);  // compatible, not mapped

    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(80);
    inet_pton(AF_INET6, "::ffff:192.0.2.7", &v6.sin6_addr);
    CHECK(from(v6) == e);
}

TEST_CASE("endpoint: the scope of a link-local address") {
    const unsigned loopback = if_nametoindex("lo");
    if (loopback == 0) {
        MESSAGE("no interface is named lo");
        return;
    }
    const endpoint e = parse("[fe80::1%lo]:80");
    CHECK(e.family() == address_family::ipv6);
    CHECK(e.address() == "fe80::1%lo");
    CHECK(e.to_string() == "[fe80::1%lo]:80");
    sockaddr_in6 v6{};
    std::memcpy(&v6, e.data(), sizeof v6);
    CHECK(v6.sin6_scope_id == loopback);

    CHECK(parse("[fe80::1%" + std::to_string(loopback) + "]:80") == e);
    CHECK(again(e) == e);
    CHECK(e != parse("[fe80::1]:80"));  // without: for bind() to refuse
    CHECK(parse("[ff02::1%lo]:80").to_string() == "[ff02::1%lo]:80");
    CHECK(parse("[febf::1%lo]:80").to_string() == "[febf::1%lo]:80");
    CHECK(e.with_port(81).to_string() == "[fe80::1%lo]:81");

    // A number that no interface has (yet) stays a number.
    CHECK(parse("[fe80::1%4294967295]:80").to_string() == "[fe80::1%4294967295]:80");
    for (const char* scope :
         {"", "0", "nosuch", "lo ", " lo", "+1", "-1", "01", "4294967296", "lo%lo",
          "99999999999999999999", "abcdefghijklmnop", "abcdefghijklmno"}) {
        CAPTURE(scope);
        CHECK(refused("[fe80::1%"s + scope + "]:80"));
    }
    CHECK(refused("[::1%lo]:80"));
    CHECK(refused("[2001:db8::1%lo]:80"));
    CHECK(refused("[%lo]:80"));
    CHECK(refused("[fe80::1]%lo:80"));
    CHECK(contains(what("[fe80::1%nosuch]:80"), "`ip link`"));
    CHECK(contains(what("[::1%lo]:80"), "link-local"));
}

TEST_CASE("endpoint: a unix-domain path") {
    const endpoint e = parse("unix:/run/server.socket");
    CHECK(e.family() == address_family::local);
    CHECK(e.port() == 0);
    CHECK(e.address() == "/run/server.socket");
    CHECK(e.to_string() == "unix:/run/server.socket");
    CHECK(!e.is_wildcard());
    CHECK(again(e) == e);
    CHECK(e != parse("unix:/run/server.socket2"));
    CHECK(e != parse("unix:@/run/server.socket"));
    CHECK_THROWS_AS(e.with_port(80), std::system_error);
    for (const char* text : {"unix:relative", "unix:./@file", "unix:a b:80", "unix:[::1]:80",
                             "unix:unix:x", "unix:80", "unix:/%", "unix:Größe"})
        CHECK(parse(text).to_string() == text);

    // A socket address may count the final NUL, and more behind it.
    sockaddr_un address = path_of(3);
    for (const std::size_t size : {std::size_t{5}, std::size_t{6}, std::size_t{50}, sizeof address})
        CHECK(from(address, size) == parse("unix:aaa"));
}

TEST_CASE("endpoint: how long a path may be") {
    const std::string longest(107, 'a');
    CHECK(parse("unix:" + longest).address() == longest);
    CHECK(again(parse("unix:" + longest)) == parse("unix:" + longest));
    CHECK(refused("unix:" + longest + "a"));
    CHECK(refused("unix:" + std::string(100'000, 'a')));
    CHECK(contains(what("unix:" + longest + "a"), "107"));

    // Linux allows 108 where somebody else made the address, and counts a NUL that is not there.
    const sockaddr_un full = path_of(108);
    for (const std::size_t size : {sizeof full, sizeof full + 1, sizeof full + 100})
        CHECK(from(full, size).address() == std::string(108, 'a'));
    CHECK(again(from(full)) == from(full));
}

TEST_CASE("endpoint: an abstract name") {
    const endpoint e = parse("unix:@server");
    CHECK(e.family() == address_family::local);
    CHECK(e.address() == "@server");
    CHECK(e.to_string() == "unix:@server");
    CHECK(e.size() == sizeof(sa_family_t) + 7);
    CHECK(again(e) == e);
    sockaddr_un address{};
    std::memcpy(&address, e.data(), e.size());
    CHECK(address.sun_path[0] == '\0');
    CHECK(std::memcmp(address.sun_path + 1, "server", 6) == 0);

    const std::string longest = "@" + std::string(107, 'a');
    CHECK(parse("unix:" + longest).address() == longest);
    CHECK(parse("unix:" + longest).size() == sizeof(sockaddr_un));
    CHECK(refused("unix:" + longest + "a"));
    CHECK(parse("unix:@@").address() == "@@");

    // The length is part of an abstract name, a NUL a character like others.
    CHECK(from(address, e.size() + 1) != e);
    CHECK(from(address, e.size() + 1).address() == "@server@");
    CHECK(from(address, e.size() - 1) == parse("unix:@serve"));

    // A file whose name begins with an @ is not the abstract name.
    sockaddr_un file = path_of(0);
    std::memcpy(file.sun_path, "@x", 2);
    CHECK(from(file).to_string() == "unix:./@x");
    CHECK(from(file) != parse("unix:@x"));
}

TEST_CASE("endpoint: a unix-domain socket without a name") {
    const sockaddr_un address = path_of(0);
    const endpoint e = from(address, sizeof(sa_family_t));
    CHECK(e.family() == address_family::local);
    CHECK(e.address().empty());
    CHECK(e.to_string() == "unix:");
    CHECK(e == again(e));
}

TEST_CASE("endpoint: malformed") {
    const std::string_view malformed[] = {
        "",
        " ",
        ":",
        "::",
        ":::",
        "*",
        "**:80",
        "*80",
        "*:",
        ".",
        "-",
        "@",
        "@x",
        "[",
        "]",
        "[]",
        "[]:",
        "[]:80",
        "[:80",
        "]:80",
        "[::1",
        "[::1]",
        "[::1]:",
        "[::1]80",
        "[::1] :80",
        "[::1]: 80",
        "[[::1]]:80",
        "[::1]]:80",
        "[::1]:80:80",
        "[::1]:80]",
        "x[::1]:80",
        "[::1]x:80",
        "[127.0.0.1]:80",
        "[::g]:80",
        "[:::]:80",
        "[::1::]:80",
        "[1:2:3:4:5:6:7]:80",
        "[1:2:3:4:5:6:7:8:9]:80",
        "[12345::]:80",
        "[::256.1.1.1]:80",
        "[0000:0000:0000:0000:0000:ffff:255.255.255.2555]:80",
        "[ ::1]:80",
        "::1",
        "::1:80",
        "::ffff:1.2.3.4:80",
        "fe80::1%lo:80",
        "1:2:3:4:5:6:7:8:80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1: 80",
        "127.0.0.1 :80",
        " 127.0.0.1:80",
        "127.0.0.1:80 ",
        "127.0.0.1:80\n",
        "127.0.0.1:+80",
        "127.0.0.1:-1",
        "127.0.0.1:080",
        "127.0.0.1:00",
        "127.0.0.1:65536",
        "127.0.0.1:4294967376",
        "127.0.0.1:18446744073709551696",
        "127.0.0.1:0x50",
        "127.0.0.1:8e1",
        "127.0.0.1:80.0",
        "127.0.0.1:http",
        "127.0.0.1::80",
        "127.0.0.1:80:80",
        "127.0.0.01:80",
        "0127.0.0.1:80",
        "127.0.0.1.:80",
        ".127.0.0.1:80",
        "127.0.0:80",
        "127.1:80",
        "127.0.0.1.1:80",
        "127.0.0.256:80",
        "127.0.0.-1:80",
        "127..0.1:80",
        "2130706433:80",
        "0x7f.0.0.1:80",
        "1111.2222.3333.4444:80",
        "127.0.0.1/8:80",
        "00127.00000.00000.00001.00000.00000.000000:80",
        "80 ",
        " 80",
        "+80",
        "-1",
        "080",
        "00",
        "0x50",
        "65536",
        "99999",
        "4294967376",
        "80.0",
        "8 0",
        "18446744073709551696",
        "99999999999999999999999999999999",
        "\t80",
        "80\n",
        ":080",
        ":65536",
        ":-1",
        ": 80",
        ":+1",
        ":x",
        "\xc2\xb2:80",
        "\xd9\xa1",
        "localhost",
        "localhost:80",
        "example.com:80",
        "http://127.0.0.1:80",
        "127.0.0.1:80/",
        "user@[::1]:80",
        "unix",
        "unix:",
        "unix:@",
        "UNIX:/x",
        "Unix:@x",
        " unix:/x",
        "unix/x",
        "local:/x",
        "/x",
        "./x",
    };
    for (const std::string_view text : malformed) {
        CAPTURE(std::string{text});
        CHECK(refused(text));
    }
}

TEST_CASE("endpoint: a NUL anywhere") {
    for (const std::string& text : {"80"s, "127.0.0.1:80"s, "[::1]:80"s, "unix:/x"s, "unix:@x"s})
        for (std::size_t at = 0; at <= text.size(); ++at) {
            std::string with = text;
            with.insert(at, 1, '\0');
            CHECK(refused(with));
        }
    CHECK(contains(what("80\0"s), "NUL"));
}

TEST_CASE("endpoint: what is thrown quotes the text and says what is wrong") {
    CHECK(what("localhost:80").substr(0, 16) == "\"localhost:80\": ");
    CHECK(contains(what("localhost:80"), "resolve()"));
    CHECK(contains(what("localhost"), "the port is missing"));
    CHECK(contains(what("127.0.0.1"), "the port is missing"));
    CHECK(contains(what("::1"), "brackets"));
    CHECK(contains(what("::1:80"), "brackets"));
    CHECK(contains(what("[::1]"), "follow the brackets"));
    CHECK(contains(what("[::g]:80"), "no IPv6 address"));
    CHECK(contains(what("127.0.0.1:70000"), "0 to 65535"));
    CHECK(contains(what("127.0.0.1:0080"), "without zeros"));
    CHECK(contains(what("http://localhost:80"), "a scheme"));
    CHECK(contains(what("70000"), "0 to 65535"));
    CHECK(contains(what(""), "\"\": it is empty"));
    CHECK(contains(what("unix:"), "a path or a name"));

    // Neither a terminal nor a log is at the mercy of the text.
    CHECK(contains(what("a\x1b[2J\r\n\x7f:80"), "\"a?[2J???:80\""));
    CHECK(what(std::string(1'000'000, 'x')).size() < 500);
}

TEST_CASE("endpoint: with another port") {
    CHECK(parse("127.0.0.1:80").with_port(81) == parse("127.0.0.1:81"));
    CHECK(parse("[::1]:80").with_port(0) == parse("[::1]:0"));
    CHECK(endpoint{80}.with_port(65535) == endpoint{65535});
    const endpoint e = parse("127.0.0.1:80");
    CHECK(e.with_port(81) != e);
    CHECK(e.port() == 80);
}

TEST_CASE("endpoint: socket addresses that say nothing") {
    CHECK(!endpoint::from_sockaddr(nullptr, 0));
    CHECK(!endpoint::from_sockaddr(nullptr, 100));

    // Too short for their family, to the byte: the rest must not be read (the sanitizer watches).
    const endpoint v4 = parse("127.0.0.1:80");
    const endpoint v6 = parse("[::1]:80");
    for (const endpoint& e : {v4, v6})
        for (socklen_t size = 0; size < e.size(); ++size) {
            std::vector<char> exact(size);
            if (size != 0) std::memcpy(exact.data(), e.data(), size);
            CHECK(!endpoint::from_sockaddr(reinterpret_cast<sockaddr*>(exact.data()), size));
        }
    sockaddr_storage other{};
    for (const int family : {AF_UNSPEC, AF_NETLINK, AF_PACKET, 65535}) {
        other.ss_family = static_cast<sa_family_t>(family);
        CHECK(!from(other));
    }

    // Longer is no harm.
    std::memcpy(&other, v4.data(), v4.size());
    CHECK(from(other) == v4);
    std::memcpy(&other, v6.data(), v6.size());
    CHECK(from(other) == v6);
}

TEST_CASE("endpoint: equal") {
    std::vector<endpoint> all{endpoint{}, endpoint{80}, endpoint{81}};
    for (const char* text :
         {"127.0.0.1:80", "127.0.0.1:81", "127.0.0.2:80", "0.0.0.0:80", "[::]:80", "[::1]:80",
          "[::1]:81", "[::2]:80", "[fe80::1]:80", "[fe80::1%12345]:80", "[fe80::1%12346]:80",
          "unix:a", "unix:b", "unix:aa", "unix:@a", "unix:@b"})
        all.push_back(parse(text));
    for (std::size_t i = 0; i < all.size(); ++i)
        for (std::size_t j = 0; j < all.size(); ++j) CHECK((all[i] == all[j]) == (i == j));

    // The flow label says how packets travel, not where to.
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(80);
    v6.sin6_addr = in6addr_loopback;
    v6.sin6_flowinfo = htonl(12345);
    CHECK(from(v6) == parse("[::1]:80"));
}

TEST_CASE("endpoint: random addresses survive the round trip") {
    std::mt19937 random{20250101};  // NOLINT: the same addresses each time
    for (int i = 0; i < 2'000; ++i) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = static_cast<in_port_t>(random());
        v4.sin_addr.s_addr = static_cast<in_addr_t>(random());
        CHECK(endpoint::parse(from(v4).to_string()) == from(v4));

        sockaddr_in6 v6{};
        v6.sin6_family = AF_INET6;
        v6.sin6_port = static_cast<in_port_t>(random());
        // Bytes of 0 in plenty, for the :: in every place.
        for (auto& byte : v6.sin6_addr.s6_addr)
            byte = random() % 2 == 0 ? 0 : static_cast<unsigned char>(random());
        CHECK(endpoint::parse(from(v6).to_string()) == from(v6));
    }
}

TEST_CASE("endpoint: what parse takes from a soup of characters, it gives back") {
    std::mt19937 random{20250102};  // NOLINT: the same soup each time
    const std::string_view seeds[] = {
        "127.0.0.1:80", "[::1]:80", "[fe80::1%1]:80", "*:80", "unix:/x", "unix:@x", "8080"};
    const std::string_view alphabet = "0123456789abcdef:.[]%*@/- x";
    int taken = 0;
    for (int i = 0; i < 20'000; ++i) {
        std::string text{seeds[random() % std::size(seeds)]};
        for (unsigned edits = random() % 4; edits != 0 && !text.empty(); --edits) {
            const std::size_t at = random() % text.size();
            const char with = alphabet[random() % alphabet.size()];
            switch (random() % 3) {
                case 0: text[at] = with; break;
                case 1: text.insert(at, 1, with); break;
                default: text.erase(at, 1); break;
            }
        }
        std::error_code failure;
        const endpoint e = endpoint::parse(text, failure);
        const bool consistent = static_cast<bool>(e) != static_cast<bool>(failure);
        if (e) ++taken;
        if (!consistent || (e && endpoint::parse(e.to_string(), failure) != e)) {
            CAPTURE(text);
            CHECK(consistent);
            CHECK(endpoint::parse(e.to_string(), failure) == e);
        }
    }
    CHECK(taken > 1'000);
}
