// Who may connect, by address: networks that are allowed, and networks that are denied.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string_view>
#include <system_error>
#include <vector>

#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>

namespace tcp::inline v0_1 {

/// Allows and denies peers by the network that they are in (CIDR: RFC 4632 3.1, RFC 4291 2.3).
///
///     tcp::access_list inside{"10.0.0.0/8", "fd00::/8", "127.0.0.1"};  // they and nobody else
///     inside.deny("10.0.0.13");                                        // but not this one
///     tcp::access_list outside;
///     outside.deny("198.51.100.0/24");                                 // everybody else
///
/// Of the rules that hold for a peer the one with the longest prefix decides, in whatever order
/// they were given. A peer for which none holds is let in exactly if the list allows nothing at
/// all: one that only denies keeps out whom it names, and one that allows something keeps out
/// everybody else, on whichever family of addresses. allow("all") and deny("all") say it in words.
///
/// A rule is written as a network ("10.0.0.0/8", "fd00::/8"), an address ("127.0.0.1", "::1"),
/// "unix:" for the peers without an IP address, which are those of unix-domain sockets, or "all".
/// Ports and scopes do not matter. An IPv4 address mapped into IPv6 is that IPv4 address, of peers
/// as of rules, so that "::/0" holds for no IPv4 peer.
///
/// A value. Asking is for any number of threads at once, while none adds a rule. It takes
/// O(log n) for n rules: one binary search as a rule, and at the very most one for each bit of the
/// address. Adding a rule takes O(n), and O(log n) in ascending order.
class access_list {
public:
    /// Lets everybody in.
    access_list() = default;

    /// Lets these in, as if by allow(), and nobody else. Throws as allow() does.
    access_list(std::initializer_list<const char*> allowed) {
        for (const char* const each : allowed) allow(each);
    }

    /// Adds a rule; one for the same network is replaced. Throws std::system_error
    /// (error::bad_network) with the text and what is wrong with it: bits behind the prefix, a
    /// name, a port. The list is as before then.
    access_list& allow(std::string_view peers) { return add(peers, true); }
    access_list& deny(std::string_view peers) { return add(peers, false); }

    /// The same with a code, error::bad_network.
    access_list& allow(std::string_view peers, std::error_code& failure) {
        return add(peers, true, failure);
    }
    access_list& deny(std::string_view peers, std::error_code& failure) {
        return add(peers, false, failure);
    }

    /// Whether this peer is let in. Any thread; allocates nothing.
    bool operator()(const endpoint& peer) const noexcept {
        const rule* found = nullptr;
        switch (peer.family()) {
            case address_family::ipv4: found = longest(ipv4_, address_of_ipv4(peer)); break;
            case address_family::ipv6: found = longest(ipv6_, address_of_ipv6(peer)); break;
            default: found = local_.empty() ? nullptr : local_.data();
        }
        return found != nullptr ? found->allowed : allowed_ == 0;
    }

private:
    // 128 bits, the first one the highest. An IPv4 address has the first 32 of them.
    struct address {
        std::uint64_t high = 0;
        std::uint64_t low = 0;

        friend bool operator==(const address&, const address&) = default;
    };

    struct network {
        address first;
        int length = 0;  // of the prefix, in bits

        friend bool operator==(const network&, const network&) = default;
        friend bool operator<(const network& a, const network& b) noexcept {
            if (a.first.high != b.first.high) return a.first.high < b.first.high;
            if (a.first.low != b.first.low) return a.first.low < b.first.low;
            return a.length < b.length;
        }
    };

    struct rule {
        network peers;
        bool allowed;
    };

    // In ascending order: networks that hold others stand before them.
    using rules = std::vector<rule>;

    // What the text of a rule names.
    struct named {
        bool ipv4 = false, ipv6 = false, local = false;
        network peers;
    };

    static address masked(const address& a, int length) noexcept {
        constexpr auto all = ~std::uint64_t{};
        if (length >= 128) return a;
        if (length > 64) return {a.high, a.low & (all << (128 - length))};
        return {length == 0 ? 0 : a.high & (all << (64 - length)), 0};
    }

    // How many bits are the same from the first one on.
    static int common(const address& a, const address& b) noexcept {
        const int bits = std::countl_zero(a.high ^ b.high);
        return bits != 64 ? bits : 64 + std::countl_zero(a.low ^ b.low);
    }

    static address address_of(const unsigned char (&octets)[16]) noexcept {
        address result;
        for (int i = 0; i != 8; ++i) {
            result.high = result.high << 8 | octets[i];
            result.low = result.low << 8 | octets[i + 8];
        }
        return result;
    }
    static address address_of_ipv4(const endpoint& peer) noexcept {
        sockaddr_in v4{};
        std::memcpy(&v4, peer.data(), sizeof v4);
        return {std::uint64_t{ntohl(v4.sin_addr.s_addr)} << 32, 0};
    }
    static address address_of_ipv6(const endpoint& peer) noexcept {
        sockaddr_in6 v6{};
        std::memcpy(&v6, peer.data(), sizeof v6);
        return address_of(v6.sin6_addr.s6_addr);
    }

    // The first rule that is not before this network.
    static rules::const_iterator place(rules::const_iterator first, rules::const_iterator last,
                                       const network& of) noexcept {
        return std::lower_bound(first, last, of,
                                [](const rule& r, const network& n) { return r.peers < n; });
    }

    // The networks that hold an address stand before it, longer ones later. So what stands right
    // before it is the one, or shares only so many bits with it: the one has no longer a prefix.
    static const rule* longest(const rules& all, const address& of) noexcept {
        auto last = all.end();
        for (network limit{of, 128 + 1}; last != all.begin();) {
            last = place(all.begin(), last, limit);
            if (last == all.begin()) break;
            const rule& before = *--last;
            const int bits = common(before.peers.first, of);
            if (bits >= before.peers.length) return &before;
            limit = {masked(of, bits), bits + 1};
        }
        return nullptr;
    }

    void put(rules& into, const network& peers, bool allowed) {
        const auto found = place(into.begin(), into.end(), peers);
        const auto index = static_cast<std::size_t>(found - into.begin());
        if (found == into.end() || found->peers != peers) into.insert(found, {peers, false});
        allowed_ -= into[index].allowed ? 1U : 0U;
        allowed_ += allowed ? 1U : 0U;
        into[index].allowed = allowed;
    }

    void put(const named& which, bool allowed) {
        if (which.ipv4) put(ipv4_, which.peers, allowed);
        if (which.ipv6) put(ipv6_, which.peers, allowed);
        if (which.local) put(local_, which.peers, allowed);
    }

    static constexpr const char* bits_behind = "bits are set behind the prefix; write ";

    [[gnu::cold]] access_list& add(std::string_view text, bool allowed) {
        named which;
        if (const char* const wrong = parse(text, which)) {
            detail::sentence said{detail::quoted(text), ": ", wrong};
            if (wrong == bits_behind) said.add(text_of(which));
            detail::fail(error::bad_network, said);
        }
        put(which, allowed);
        return *this;
    }
    [[gnu::cold]] access_list& add(std::string_view text, bool allowed, std::error_code& failure) {
        named which;
        failure.clear();
        if (parse(text, which) != nullptr)
            failure = error::bad_network;
        else
            put(which, allowed);
        return *this;
    }

    static const char* parse(std::string_view text, named& result) noexcept;
    static detail::sentence text_of(const named& which) noexcept;

    rules ipv4_;
    rules ipv6_;
    rules local_;              // one, of length 0, where there is any
    std::size_t allowed_ = 0;  // how many rules allow
};

// Null, or what is wrong with the text. Of bits_behind the result is what was meant.
[[gnu::cold]] inline const char* access_list::parse(std::string_view text, named& result) noexcept {
    if (text.empty()) return "it is empty";
    const bool all = text == "all";
    if (all || text == "unix:") {
        result = {.ipv4 = all, .ipv6 = all, .local = true, .peers = {}};
        return nullptr;
    }
    if (text.substr(0, 5) == "unix:")
        return "peers on unix-domain sockets are not told apart; write unix: for all of them";
    if (text.find_first_of("[]") != text.npos)
        return "an IPv6 address stands without brackets here, as in ::1 or fd00::/8";
    if (text.find('%') != text.npos)
        return "a rule holds on every interface; leave out the % and the scope behind it";

    const std::size_t slash = text.find('/');
    const std::string_view host = text.substr(0, slash);
    const std::size_t colon = host.find(':');
    if (colon != host.npos && host.find(':', colon + 1) == host.npos)
        return "a rule holds for every port; leave out the : and the port";
    result.ipv6 = colon != host.npos;
    result.ipv4 = !result.ipv6;

    char terminated[INET6_ADDRSTRLEN] = {};  // inet_pton(3) wants a NUL at the end
    unsigned char octets[16] = {};
    host.copy(terminated, sizeof terminated - 1);
    if (host.size() >= sizeof terminated || host.find('\0') != host.npos ||
        inet_pton(result.ipv6 ? AF_INET6 : AF_INET, terminated, octets) != 1)
        return "no literal address is there, as in 10.0.0.0/8 or fd00::/8; tcp::resolve() looks up "
               "names";
    network& peers = result.peers;
    peers.length = result.ipv6 ? 128 : 32;
    if (slash != text.npos) {
        const std::int64_t length = detail::parse_decimal(text.substr(slash + 1), peers.length);
        if (length < 0)
            return result.ipv6 ? "the prefix of an IPv6 network is a number from 0 to 128"
                               : "the prefix of an IPv4 network is a number from 0 to 32";
        peers.length = static_cast<int>(length);
    }

    address written = address_of(octets);
    if (peers.length >= 96 && written.high == 0 && written.low >> 32 == 0xffff) {
        written = {written.low << 32, 0};  // mapped (RFC 4291 2.5.5.2)
        peers.length -= 96;
        result.ipv4 = true;
        result.ipv6 = false;
    }
    peers.first = masked(written, peers.length);
    return peers.first == written ? nullptr : bits_behind;
}

[[gnu::cold]] inline detail::sentence access_list::text_of(const named& which) noexcept {
    unsigned char octets[16];
    for (int i = 0; i != 8; ++i) {
        octets[i] = static_cast<unsigned char>(which.peers.first.high >> (56 - 8 * i));
        octets[i + 8] = static_cast<unsigned char>(which.peers.first.low >> (56 - 8 * i));
    }
    char text[INET6_ADDRSTRLEN] = {};
    return {inet_ntop(which.ipv6 ? AF_INET6 : AF_INET, octets, text, sizeof text), "/",
            detail::decimal{which.peers.length}};
}

}  // namespace tcp::inline v0_1
