// tcp::access_list: every small case, many rules against a plain search, and every malformed rule.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>  // doctest prints error codes
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/access_list.hpp>

using namespace std::string_literals;
using tcp::access_list;
using tcp::endpoint;

namespace {

static_assert(std::is_same_v<access_list, tcp::v0_1::access_list>);
static_assert(std::is_nothrow_invocable_r_v<bool, const access_list&, const endpoint&>);
static_assert(std::is_copy_assignable_v<access_list>);
static_assert(std::is_nothrow_move_constructible_v<access_list>);

endpoint peer(const std::string& address) {
    return endpoint::parse(address.find(':') == address.npos ? address + ":1"
                                                             : "[" + address + "]:1");
}

bool lets_in(const access_list& list, const std::string& address) { return list(peer(address)); }

endpoint from(const sockaddr_in6& v6) {
    return endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
}

endpoint from(const sockaddr_in& v4) {
    return endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
}

/// A client on a unix-domain socket that was never bound, as almost all.
endpoint unnamed() {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    return endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&local), sizeof(sa_family_t));
}

/// What is said about a rule, up to what the code adds.
std::string wrong(std::string_view text) {
    const access_list before{"10.0.0.0/8"};
    access_list list = before;
    std::error_code failure;
    CHECK(&list.deny(text, failure) == &list);
    CHECK(failure == tcp::error::bad_network);
    CHECK(&list.allow(text, failure = {}) == &list);
    CHECK(failure == tcp::error::bad_network);
    CHECK_THROWS_AS(list.allow(text), std::system_error);
    CHECK(lets_in(list, "10.0.0.0"));
    CHECK_FALSE(lets_in(list, "11.0.0.0"));
    CHECK_FALSE(lets_in(list, "::1"));
    try {
        list.deny(text);
    } catch (const std::system_error& thrown) {
        CHECK(thrown.code() == tcp::error::bad_network);
        const std::string said = thrown.what();
        const std::string end = ": "s + to_text(tcp::error::bad_network);
        REQUIRE(said.size() > end.size());
        CHECK(said.substr(said.size() - end.size()) == end);
        return said.substr(0, said.size() - end.size());
    }
    return "nothing was thrown";
}

/// An address as 16 bytes, of which an IPv4 one has the first four.
struct plain_address {
    bool ipv4;
    unsigned char bytes[16];

    endpoint peer() const {
        if (ipv4) {
            sockaddr_in v4{};
            v4.sin_family = AF_INET;
            std::memcpy(&v4.sin_addr, bytes, 4);
            return from(v4);
        }
        sockaddr_in6 v6{};
        v6.sin6_family = AF_INET6;
        std::memcpy(&v6.sin6_addr, bytes, 16);
        return from(v6);
    }
    bool bit(int n) const { return (bytes[n / 8] >> (7 - n % 8) & 1) != 0; }
    void set(int n, bool to) {
        const int mask = 1 << (7 - n % 8);
        bytes[n / 8] = static_cast<unsigned char>(to ? bytes[n / 8] | mask : bytes[n / 8] & ~mask);
    }
    std::string text() const {
        char written[INET6_ADDRSTRLEN] = {};
        return inet_ntop(ipv4 ? AF_INET : AF_INET6, bytes, written, sizeof written);
    }
};

/// The same as access_list, bit by bit and rule by rule.
struct plain_list {
    struct rule {
        plain_address first;
        int length;
        bool allowed;
    };
    std::vector<rule> rules{};

    static bool holds(const rule& r, const plain_address& a) {
        if (r.first.ipv4 != a.ipv4) return false;
        for (int i = 0; i != r.length; ++i)
            if (r.first.bit(i) != a.bit(i)) return false;
        return true;
    }
    bool operator()(const plain_address& a) const {
        const rule* best = nullptr;
        bool any = false;
        for (const rule& r : rules) {
            if (holds(r, a) && (best == nullptr || r.length >= best->length)) best = &r;
            any = any || (r.allowed && !replaced(r));
        }
        return best != nullptr ? best->allowed : !any;
    }
    bool replaced(const rule& by) const {
        for (const rule* r = &by + 1; r < rules.data() + rules.size(); ++r)
            if (r->length == by.length && holds(*r, by.first)) return true;
        return false;
    }
};

}  // namespace

TEST_CASE("access_list: an empty one lets everybody in") {
    const access_list list;
    for (const char* each : {"0.0.0.0", "255.255.255.255", "127.0.0.1", "::", "::1", "fe80::1"})
        CHECK(lets_in(list, each));
    CHECK(list(unnamed()));
    CHECK(list(endpoint{}));
    CHECK(access_list(std::initializer_list<const char*>{})(unnamed()));
}

TEST_CASE("access_list: one that allows keeps everybody else out") {
    const access_list inside{"10.0.0.0/8", "192.168.0.0/16", "fd00::/8", "127.0.0.1"};
    for (const char* each : {"10.0.0.0", "10.255.255.255", "192.168.0.0", "192.168.255.255",
                             "127.0.0.1", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}) {
        CAPTURE(each);
        CHECK(lets_in(inside, each));
    }
    for (const char* each :
         {"9.255.255.255", "11.0.0.0", "192.167.255.255", "192.169.0.0", "127.0.0.0", "127.0.0.2",
          "0.0.0.0", "255.255.255.255", "fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
          "fe00::", "::", "::1", "a00::", "::10.0.0.1"}) {
        CAPTURE(each);
        CHECK_FALSE(lets_in(inside, each));
    }
    CHECK_FALSE(inside(unnamed()));
    CHECK_FALSE(inside(endpoint{}));
}

TEST_CASE("access_list: one that only denies lets everybody else in") {
    access_list outside;
    outside.deny("198.51.100.0/24").deny("2001:db8::/32");
    CHECK_FALSE(lets_in(outside, "198.51.100.0"));
    CHECK_FALSE(lets_in(outside, "198.51.100.255"));
    CHECK_FALSE(lets_in(outside, "2001:db8::1"));
    for (const char* each : {"198.51.99.255", "198.51.101.0", "2001:db7::", "2001:db9::", "::1"})
        CHECK(lets_in(outside, each));
    CHECK(outside(unnamed()));
}

TEST_CASE("access_list: the longest prefix decides, in whatever order") {
    for (const bool forwards : {true, false}) {
        access_list list;
        const std::vector<std::pair<bool, const char*>> rules{
            {true, "10.0.0.0/8"}, {false, "10.1.0.0/16"}, {true, "10.1.2.0/24"},
            {false, "10.1.2.3"},  {false, "fd00::/8"},    {true, "fd00::/16"}};
        for (std::size_t i = 0; i != rules.size(); ++i) {
            const auto& [allowed, text] = rules[forwards ? i : rules.size() - 1 - i];
            allowed ? list.allow(text) : list.deny(text);
        }
        CHECK(lets_in(list, "10.0.0.1"));
        CHECK(lets_in(list, "10.2.0.0"));
        CHECK_FALSE(lets_in(list, "10.1.0.0"));
        CHECK_FALSE(lets_in(list, "10.1.3.0"));
        CHECK_FALSE(lets_in(list, "10.1.255.255"));
        CHECK(lets_in(list, "10.1.2.0"));
        CHECK(lets_in(list, "10.1.2.2"));
        CHECK(lets_in(list, "10.1.2.4"));
        CHECK(lets_in(list, "10.1.2.255"));
        CHECK_FALSE(lets_in(list, "10.1.2.3"));
        CHECK(lets_in(list, "fd00:ffff::"));
        CHECK_FALSE(lets_in(list, "fd01::"));
        CHECK_FALSE(lets_in(list, "fc00::"));
    }
}

TEST_CASE("access_list: a rule for the same network is replaced") {
    access_list list{"10.0.0.0/8", "10.0.0.0/8"};
    CHECK_FALSE(lets_in(list, "::1"));
    list.deny("10.0.0.0/8");
    CHECK_FALSE(lets_in(list, "10.0.0.1"));
    CHECK(lets_in(list, "11.0.0.1"));  // nothing is allowed any more
    CHECK(lets_in(list, "::1"));
    list.deny("10.0.0.0/8").allow("10.0.0.0/8");
    CHECK(lets_in(list, "10.0.0.1"));
    CHECK_FALSE(lets_in(list, "11.0.0.1"));
    list.allow("::/0").deny("::/0").deny("10.0.0.0/8");
    CHECK(lets_in(list, "11.0.0.1"));
    CHECK_FALSE(lets_in(list, "::1"));
}

TEST_CASE("access_list: all, and unix:") {
    access_list list;
    list.deny("all");
    for (const char* each : {"0.0.0.0", "255.255.255.255", "::", "::1"})
        CHECK_FALSE(lets_in(list, each));
    CHECK_FALSE(list(unnamed()));
    CHECK_FALSE(list(endpoint::parse("unix:/run/client")));
    CHECK_FALSE(list(endpoint::parse("unix:@client")));
    CHECK_FALSE(list(endpoint{}));
    CHECK_FALSE(list(endpoint{80}));
    list.allow("10.0.0.0/8");
    CHECK(lets_in(list, "10.0.0.1"));
    CHECK_FALSE(lets_in(list, "11.0.0.1"));
    CHECK_FALSE(list(unnamed()));
    list.allow("unix:");
    CHECK(list(unnamed()));
    CHECK(list(endpoint::parse("unix:/run/client")));
    CHECK_FALSE(lets_in(list, "::1"));

    // An exception within what is denied, and everybody else is let in.
    access_list exception{"all"};
    exception.deny("10.0.0.0/8").allow("10.1.0.0/16");
    CHECK(lets_in(exception, "11.0.0.1"));
    CHECK(lets_in(exception, "10.1.0.1"));
    CHECK_FALSE(lets_in(exception, "10.2.0.1"));
    CHECK(exception(unnamed()));

    access_list local{"unix:"};
    CHECK(local(unnamed()));
    CHECK_FALSE(lets_in(local, "127.0.0.1"));
    local.deny("unix:");
    CHECK_FALSE(local(unnamed()));
    CHECK(lets_in(local, "127.0.0.1"));
}

TEST_CASE("access_list: prefixes of no bit, and of every one") {
    const access_list all_ipv4{"0.0.0.0/0"};
    CHECK(lets_in(all_ipv4, "0.0.0.0"));
    CHECK(lets_in(all_ipv4, "255.255.255.255"));
    CHECK_FALSE(lets_in(all_ipv4, "::"));
    CHECK_FALSE(lets_in(all_ipv4, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    const access_list all_ipv6{"::/0"};
    CHECK(lets_in(all_ipv6, "::"));
    CHECK(lets_in(all_ipv6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    CHECK_FALSE(lets_in(all_ipv6, "0.0.0.0"));
    for (const char* text : {"10.0.0.13/32", "10.0.0.13", "::ffff:10.0.0.13", "::ffff:a00:d/128"}) {
        const access_list one{text};
        CHECK(lets_in(one, "10.0.0.13"));
        CHECK_FALSE(lets_in(one, "10.0.0.12"));
        CHECK_FALSE(lets_in(one, "10.0.0.14"));
        CHECK_FALSE(lets_in(one, "a00:d::"));
    }
    for (const char* text : {"::1", "::1/128", "0:0:0:0:0:0:0:1"}) {
        const access_list one{text};
        CHECK(lets_in(one, "::1"));
        CHECK_FALSE(lets_in(one, "::"));
        CHECK_FALSE(lets_in(one, "::2"));
        CHECK_FALSE(lets_in(one, "0.0.0.1"));
    }
    const access_list halves{"::/64"};
    CHECK(lets_in(halves, "::ffff:ffff:ffff:ffff"));
    CHECK_FALSE(lets_in(halves, "0:0:0:1::"));
    CHECK(lets_in(access_list{"::/63"}, "0:0:0:1::"));
    CHECK_FALSE(lets_in(access_list{"::/65"}, "::8000:0:0:0"));
}

TEST_CASE("access_list: a mapped IPv4 address is an IPv4 address, and scopes do not matter") {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &v6.sin6_addr);
    CHECK(access_list{"10.0.0.0/8"}(from(v6)));
    CHECK(access_list{"::ffff:10.0.0.0/104"}(from(v6)));
    CHECK(access_list{"::ffff:0:0/96"}(from(v6)));
    CHECK_FALSE(access_list{"::/0"}(from(v6)));
    CHECK_FALSE(access_list{"::/80"}(from(v6)));

    inet_pton(AF_INET6, "fe80::1", &v6.sin6_addr);
    for (const std::uint32_t scope : {0U, 1U, 4'294'967'295U}) {
        v6.sin6_scope_id = scope;
        v6.sin6_flowinfo = scope;
        v6.sin6_port = static_cast<in_port_t>(scope);
        CHECK(access_list{"fe80::/10"}(from(v6)));
        CHECK(access_list{"fe80::1"}(from(v6)));
        CHECK_FALSE(access_list{"fe80::2"}(from(v6)));
    }
}

TEST_CASE("access_list: every prefix of every length, at its bounds") {
    for (const bool ipv4 : {true, false}) {
        const int bits = ipv4 ? 32 : 128;
        for (int length = 0; length <= bits; ++length) {
            for (const bool ones : {true, false}) {
                plain_address first{ipv4, {}};
                for (int i = 0; i < length; i += ones ? 1 : 3) first.set(i, true);
                access_list list;
                list.allow(first.text() + "/" + std::to_string(length));
                plain_address last = first;
                for (int i = length; i != bits; ++i) last.set(i, true);
                CAPTURE(first.text());
                CAPTURE(length);
                CHECK(list(first.peer()));
                CHECK(list(last.peer()));
                for (int i = 0; i != length; ++i) {  // another one before its end
                    plain_address other = last;
                    other.set(i, !other.bit(i));
                    CHECK_FALSE(list(other.peer()));
                }
            }
        }
    }
}

TEST_CASE("access_list: three rules of any kind are a plain search") {
    // Every list of three rules for the networks of 6, 7 and 8 bits in 16.0.0.0/6.
    struct small {
        std::string text;
        plain_address first{true, {16}};
        int length;
    };
    std::vector<small> networks;
    for (int length = 6; length <= 8; ++length)
        for (int first = 0; first != 4; first += 1 << (8 - length)) {
            small one{{}, {true, {static_cast<unsigned char>(16 + first)}}, length};
            one.text = one.first.text() + "/" + std::to_string(length);
            networks.push_back(one);
        }
    REQUIRE(networks.size() == 7);
    std::size_t wrong_ones = 0;
    for (std::size_t choice = 0; choice != 14 * 14 * 14; ++choice) {
        access_list list;
        plain_list plain;
        for (std::size_t rest = choice, i = 0; i != 3; ++i, rest /= 14) {
            const small& one = networks[rest % 14 / 2];
            const bool allowed = rest % 2 == 0;
            allowed ? list.allow(one.text) : list.deny(one.text);
            plain.rules.push_back({one.first, one.length, allowed});
        }
        for (unsigned char first = 14; first != 22; ++first) {
            const plain_address a{true, {first, 1}};
            wrong_ones += list(a.peer()) == plain(a) ? 0U : 1U;
        }
    }
    CHECK(wrong_ones == 0);
}

TEST_CASE("access_list: random rules are a plain search") {
    std::mt19937_64 random{20'260'711};
    const auto below = [&](std::uint64_t n) { return static_cast<int>(random() % n); };
    for (int round = 0; round != 300; ++round) {
        access_list list;
        plain_list plain;
        // Few different bits, so that many networks lie within each other.
        const int width = 1 + below(128);
        const auto any = [&](bool ipv4) {
            plain_address a{ipv4, {}};
            const int from_bit = below(3) * 32;
            for (int i = 0; i != (ipv4 ? 32 : 128); ++i)
                if (i >= from_bit && i < from_bit + width && random() % 4 == 0) a.set(i, true);
            return a;
        };
        const int count = below(60);
        for (int i = 0; i != count; ++i) {
            const bool ipv4 = random() % 2 == 0;
            plain_list::rule r{any(ipv4), 0, random() % 2 == 0};
            r.length = below(ipv4 ? 33 : 129);
            for (int b = r.length; b != (ipv4 ? 32 : 128); ++b) r.first.set(b, false);
            const std::string text = r.first.text() + "/" + std::to_string(r.length);
            r.allowed ? list.allow(text) : list.deny(text);
            plain.rules.push_back(r);
        }
        std::size_t wrong_ones = 0;
        for (int i = 0; i != 300; ++i) {
            plain_address a = any(random() % 2 == 0);
            if (count != 0 && random() % 2 == 0) {  // beside a rule
                a = plain.rules[random() % plain.rules.size()].first;
                const int bit = below(a.ipv4 ? 32 : 128);
                a.set(bit, !a.bit(bit));
            }
            wrong_ones += list(a.peer()) == plain(a) ? 0U : 1U;
        }
        CAPTURE(round);
        CHECK(wrong_ones == 0);
    }
}

TEST_CASE("access_list: thousands of rules, and the most searches for one address") {
    access_list list;
    for (int i = 0; i != 20'000; ++i)
        list.allow("10." + std::to_string(i * 7 % 256) + "." + std::to_string(i / 256) + ".0/25");
    CHECK(lets_in(list, "10.7.0.127"));
    CHECK_FALSE(lets_in(list, "10.7.0.128"));
    CHECK_FALSE(lets_in(list, "10.7.79.0"));
    CHECK(lets_in(list, "10.7.77.0"));

    // Beside the address at each of its bits stands a network that does not hold it.
    access_list beside;
    plain_address ones{false, {}};
    for (int i = 0; i != 128; ++i) {
        beside.deny(ones.text() + "/" + std::to_string(i + 1));
        ones.set(i, true);
    }
    CHECK(beside(ones.peer()));
    beside.allow("::/0");
    CHECK(beside(ones.peer()));
    for (int i = 0; i != 128; ++i) {
        plain_address other = ones;
        other.set(i, false);
        CHECK_FALSE(beside(other.peer()));
    }
}

TEST_CASE("access_list: what is wrong with a rule, and what was meant") {
    const std::string behind = ": bits are set behind the prefix; write ";
    const std::vector<std::pair<std::string, std::string>> meant{
        {"10.1.2.3/8", "10.0.0.0/8"},
        {"10.1.2.3/0", "0.0.0.0/0"},
        {"255.255.255.255/31", "255.255.255.254/31"},
        {"10.0.0.1/24", "10.0.0.0/24"},
        {"fd00::1/8", "fd00::/8"},
        {"fd01::/8", "fd00::/8"},
        {"::1/127", "::/127"},
        {"::1/0", "::/0"},
        {"2001:db8::1:0:0:1/64", "2001:db8::/64"},
        {"2001:DB8::1:0:0:1/80", "2001:db8:0:0:1::/80"},
        {"::ffff:10.1.2.3/104", "10.0.0.0/8"},
        {"::ffff:0:0/95", "::fffe:0:0/95"},
    };
    for (const auto& [text, write] : meant) {
        CHECK(wrong(text) == "\"" + text + "\"" + behind + write);
        CHECK_NOTHROW(access_list{write.c_str()});
    }

    const std::string literal =
        "no literal address is there, as in 10.0.0.0/8 or fd00::/8; tcp::resolve() looks up names";
    const std::string of_ipv4 = "the prefix of an IPv4 network is a number from 0 to 32";
    const std::string of_ipv6 = "the prefix of an IPv6 network is a number from 0 to 128";
    const std::string brackets =
        "an IPv6 address stands without brackets here, as in ::1 or fd00::/8";
    const std::string port = "a rule holds for every port; leave out the : and the port";
    const std::string local =
        "peers on unix-domain sockets are not told apart; write unix: for all of them";
    const std::string scope =
        "a rule holds on every interface; leave out the % and the scope behind it";
    const std::vector<std::pair<std::string, std::string>> others{
        {"", "it is empty"},
        {"localhost", literal},
        {"All", literal},
        {"unix", literal},
        {"10", literal},
        {"10/8", literal},
        {"10.0.0/24", literal},
        {"010.0.0.1", literal},
        {"10.0.0.256", literal},
        {"10.0.0.1 ", literal},
        {" 10.0.0.1", literal},
        {"10.0.0.0-10.0.0.9", literal},
        {"*", literal},
        {"/8", literal},
        {"/", literal},
        {":::", literal},
        {"::g", literal},
        {"1:2:3:4:5:6:7:8:9", literal},
        {"fd00:/:8", port},
        {std::string(100, ':'), literal},
        {std::string(300, '1'), literal},
        {"10.0.0.0/", of_ipv4},
        {"10.0.0.0/33", of_ipv4},
        {"10.0.0.0/-1", of_ipv4},
        {"10.0.0.0/+8", of_ipv4},
        {"10.0.0.0/08", of_ipv4},
        {"10.0.0.0/8 ", of_ipv4},
        {"10.0.0.0/8/8", of_ipv4},
        {"10.0.0.0/255.0.0.0", of_ipv4},
        {"10.0.0.0/99999999999999999999", of_ipv4},
        {"fd00::/", of_ipv6},
        {"fd00::/129", of_ipv6},
        {"fd00::/8x", of_ipv6},
        {"[::1]", brackets},
        {"[::1]:80", brackets},
        {"[fd00::]/8", brackets},
        {"10.0.0.1:80", port},
        {"10.0.0.0:80/8", port},
        {"localhost:80", port},
        {":80", port},
        {"unix:/run/socket", local},
        {"unix:@name", local},
        {"fe80::1%eth0", scope},
        {"fe80::%eth0/10", scope},
    };
    for (const auto& [text, sentence] : others) {
        const std::string shown = text.size() > 200 ? text.substr(0, 200) + "..." : text;
        CHECK(wrong(text) == "\"" + shown + "\": " + sentence);
    }
    CHECK(wrong({"10.0.0.1\0", 9}) == "\"10.0.0.1?\": " + literal);
    CHECK(wrong({"::1\0/8", 6}) == "\"::1?/8\": " + literal);
    CHECK_THROWS_AS((access_list{"10.0.0.0/8", "10.0.0.1/8"}), std::system_error);
}

TEST_CASE("access_list: what was in the code before is gone, and the list can be a function") {
    std::error_code failure = tcp::error::stopped;
    access_list list;
    list.allow("10.0.0.0/8", failure);
    CHECK_FALSE(failure);
    failure = tcp::error::stopped;
    list.deny("10.0.0.1", failure);
    CHECK_FALSE(failure);
    bool (*const ask)(const access_list&, const endpoint&) = [](const auto& l, const auto& who) {
        return l(who);
    };
    CHECK(ask(list, peer("10.0.0.2")));
    CHECK_FALSE(ask(list, peer("10.0.0.1")));
    const access_list copy = list;
    list.deny("all").deny("10.0.0.0/8");
    CHECK(lets_in(copy, "10.0.0.2"));
    CHECK_FALSE(lets_in(list, "10.0.0.2"));
}

TEST_CASE("access_list: several threads may ask at once") {
    const access_list list{"10.0.0.0/8", "fd00::/8"};
    std::atomic<int> wrong_ones{0};
    std::vector<std::thread> threads;
    for (int t = 0; t != 4; ++t)
        threads.emplace_back([&] {
            const endpoint in = peer("fd00::1");
            const endpoint out = peer("11.0.0.1");
            for (int i = 0; i != 1000; ++i)
                if (!list(in) || list(out)) ++wrong_ones;
        });
    for (std::thread& each : threads) each.join();
    CHECK(wrong_ones == 0);
}
