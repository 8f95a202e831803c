// Binding and listening: behaviours 1 to 7, 9 and 67, through the server.
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <ostream>  // doctest prints error codes
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <tcp/resolve.hpp>

#include "beds.hpp"
#include "child_process.hpp"
#include "empty_network.hpp"
#include "temporary_folder.hpp"

using conformance::stage;
using tcp::address_family;
using tcp::endpoint;
using tcp::detail::descriptor;
using tests::enter_empty_network;
using tests::findings;
using tests::in_child;
using tests::open_descriptors;
using tests::temporary_folder;
using namespace std::chrono_literals;

namespace {

/// A socket of another program: bound here, and listening unless told otherwise.
struct foreign_socket {
    explicit foreign_socket(const endpoint& at, std::vector<int> options = {}, bool listens = true)
        : fd{::socket(at.data()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
        const int on = 1;
        for (const int option : options)
            REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, option, &on, sizeof on) == 0);
        if (::bind(fd.get(), at.data(), at.size()) != 0 || (listens && !listen()))
            failure.assign(errno, std::system_category());
        where = tcp::detail::local_endpoint_of(fd.get());
    }
    bool listen() const { return ::listen(fd.get(), 16) == 0; }

    descriptor fd;
    endpoint where;
    std::error_code failure;
};

struct refusal {
    std::error_code code;
    std::string text;
    bool says(std::string_view words) const { return text.find(words) != text.npos; }
};

/// What the throwing form of a call throws.
template <class F>
refusal refusal_of(F call) {
    try {
        call();
    } catch (const std::system_error& e) {
        return {e.code(), e.what()};
    }
    return {};
}

/// Both forms fail with this error of ours. The first takes nothing, the second an error_code.
template <class Throwing, class Quiet>
void check_error(tcp::error expected, Throwing throwing, Quiet quiet) {
    CHECK(refusal_of(throwing).code == expected);
    std::error_code failure;
    quiet(failure);
    CHECK(failure == expected);
}

/// A client of this endpoint gets back what it sends.
template <class Bed, class Server>
bool echoes(Bed& bed, Server& server, const endpoint& where) {
    auto client = bed.connect(where);
    client.send("hello");
    if (!bed.until(server, [&] { return client.received() == "hello"; })) return false;
    client.shutdown_send();
    return bed.until(server, [&] { return client.ended(); });
}

// The literal 0 is a null pointer, too: of a text, for example.
template <class Server>
concept binds_literal_zero = requires(Server& server, std::error_code& failure) {
    server.bind(0);
    server.bind(0, failure);
};
constexpr int any_port = 0;

bool has_ipv6() { return !foreign_socket{endpoint::parse("[::1]:0")}.failure; }

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// A name with two addresses, for this process alone.
bool know_pair_test() {
    const temporary_folder here;
    const std::string hosts = here.file();
    std::ofstream{hosts} << "127.0.0.1 pair.test\n127.0.0.2 pair.test\n";
    const bool ours = ::unshare(CLONE_NEWNS) == 0 &&
                      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                      ::mount(hosts.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) == 0;
    ::unlink(hosts.c_str());
    std::error_code failure;
    return ours && tcp::resolve("pair.test:0", failure).size() == 2;
}

/// How many connections of this port are in TIME_WAIT at the server's end.
int time_waits(int port) {
    std::ifstream table{"/proc/net/tcp"};
    int count = 0;
    for (std::string line; std::getline(table, line);) {
        unsigned local_port = 0, state = 0;
        if (std::sscanf(line.c_str(), " %*u: %*x:%x %*x:%*x %x", &local_port, &state) == 2 &&
            static_cast<int>(local_port) == port && state == 6)
            ++count;
    }
    return count;
}

}  // namespace

TEST_ON_BEDS("1 a port in use: address_in_use, with the cure in the text, nothing leaked", Bed,
             SYSTEM_BEDS) {
    const foreign_socket other{endpoint::parse("127.0.0.1:0")};
    REQUIRE(!other.failure);
    const std::string port = std::to_string(other.where.port());
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const std::vector<int> before = open_descriptors();

    for (const std::string& where : {"127.0.0.1:" + port, "0.0.0.0:" + port, ":" + port}) {
        CAPTURE(where);
        for (const bool as_text : {true, false}) {
            const endpoint parsed = endpoint::parse(where);
            std::error_code failure;
            const endpoint bound =
                as_text ? server.bind(where, failure) : server.bind(parsed, failure);
            CHECK_FALSE(bound);
            CHECK(failure == std::errc::address_in_use);
            const refusal said =
                refusal_of([&] { as_text ? server.bind(where) : server.bind(parsed); });
            CHECK(said.code == std::errc::address_in_use);
            CHECK(said.says("listens on " + parsed.to_string()));
            CHECK(said.says("stop it, or choose another port"));
            CHECK(said.says("`ss -ltnp` shows who"));
            CHECK(said.says(said.code.message()));
        }
        CHECK(open_descriptors() == before);
    }
    CHECK(refusal_of([&] { server.bind(other.where.port()); }).code == std::errc::address_in_use);
    CHECK(open_descriptors() == before);

    // The server is none the worse for it.
    CHECK(echoes(bed, server, bed.listen(server)));
}

TEST_ON_BEDS("1 a port that another program takes between bind and listen", Bed, SYSTEM_BEDS) {
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const endpoint first = server.bind("127.0.0.1:0");
    const endpoint second = server.bind("127.0.0.1:0");
    {
        const foreign_socket other{second, {SO_REUSEADDR}};
        REQUIRE(!other.failure);
        const std::vector<int> before = open_descriptors();
        std::error_code failure;
        server.listen(failure);
        CHECK(failure == std::errc::address_in_use);
        const refusal said = refusal_of([&] { server.listen(); });
        CHECK(said.code == std::errc::address_in_use);
        CHECK(said.says("listens on " + second.to_string()));
        CHECK(said.says("stop it, or choose another port"));
        CHECK(open_descriptors() == before);
        // It does not listen, then.
        check_error(
            tcp::error::not_listening, [&] { server.run(); },
            [&](std::error_code& f) { server.run(f); });
    }
    server.listen();
    CHECK(echoes(bed, server, first));
    CHECK(echoes(bed, server, second));
}

TEST_ON_BEDS("1 a unix-domain path in use", Bed, SYSTEM_BEDS) {
    const temporary_folder here;
    const std::string where = "unix:" + here.file();
    Bed bed;
    {
        auto server = bed.make(tcp::echo{});
        server.bind(where);
        server.listen();
        auto late = bed.make(tcp::echo{});
        const std::vector<int> before = open_descriptors();
        const refusal said = refusal_of([&] { late.bind(where); });
        CHECK(said.code == std::errc::address_in_use);
        CHECK(said.says("another program is bound to " + where));
        CHECK(open_descriptors() == before);
        CHECK(echoes(bed, server, endpoint::parse(where)));
    }
    CHECK_FALSE(exists(here.file()));
    auto next = bed.make(tcp::echo{});
    next.bind(where);
    next.listen();
    CHECK(echoes(bed, next, endpoint::parse(where)));
}

TEST_ON_BEDS("1 a name of which one address is in use: nothing is left bound", Bed, SYSTEM_BEDS) {
    in_child([](findings& found) {
        if (!know_pair_test()) return found.not_permitted("a name with two addresses");
        std::error_code failure;
        const endpoint last = tcp::resolve("pair.test:0", failure).back();
        const foreign_socket other{last};
        const std::string where = "pair.test:" + std::to_string(other.where.port());

        Bed bed;
        auto server = bed.make(tcp::echo{});
        const std::vector<int> before = open_descriptors();
        const refusal said = refusal_of([&] { server.bind(where); });
        found.check(said.code == std::errc::address_in_use, "address_in_use");
        found.check(said.says("listens on " + other.where.to_string()), "which address it is");
        found.check(open_descriptors() == before, "a descriptor is left open");
        server.listen(failure);
        found.check(failure == tcp::error::not_bound, "an address is left bound");

        // Port 0 is one port, the same on both.
        auto both = bed.make(tcp::echo{});
        const endpoint bound = both.bind("pair.test:0");
        both.listen();
        found.check(bound.port() != 0, "the true port of a name");
        for (const char* address : {"127.0.0.1:0", "127.0.0.2:0"})
            found.check(echoes(bed, both, endpoint::parse(address).with_port(bound.port())),
                        "both addresses of a name echo");
    });
}

TEST_ON_BEDS("1 port 0 of a name: a port that is free on each of its addresses", Bed, SYSTEM_BEDS) {
    in_child([](findings& found) {
        if (!enter_empty_network(false) || !know_pair_test())
            return found.not_permitted("a network, and a name with two addresses");
        // Eight ports to choose from, of which each address has lost two.
        std::ofstream{"/proc/sys/net/ipv4/ip_local_port_range"} << "40000 40007";
        std::vector<foreign_socket> others;
        for (const int port : {40002, 40003})
            for (const char* address : {"127.0.0.1:0", "127.0.0.2:0"})
                others.emplace_back(
                    endpoint::parse(address).with_port(port + (address[8] == '2' ? 2 : 0)));
        Bed bed;
        for (int i = 0; i != 40; ++i) {
            auto server = bed.make(tcp::echo{});
            std::error_code failure;
            const endpoint bound = server.bind("pair.test:0", failure);
            found.check(!failure, "a port is found");
            found.check(bound.port() >= 40000 && bound.port() != 40002, "and a free one");
            found.check(server.bound_count() == 2, "on both");
        }
    });
}

TEST_ON_BEDS("2 an address that no interface has", Bed, SYSTEM_BEDS) {
    int everywhere = 0;
    std::ifstream{"/proc/sys/net/ipv4/ip_nonlocal_bind"} >> everywhere;
    if (everywhere != 0) {
        MESSAGE("net.ipv4.ip_nonlocal_bind is on here");
        return;
    }
    Bed bed;
    auto server = bed.make(tcp::echo{});
    const std::vector<int> before = open_descriptors();
    std::vector<std::string> all{"192.0.2.1:0", "192.0.2.1:8080"};
    if (has_ipv6()) all.emplace_back("[2001:db8::1]:0");
    for (const std::string& where : all) {
        CAPTURE(where);
        std::error_code failure;
        CHECK_FALSE(server.bind(where, failure));
        CHECK(failure == std::errc::address_not_available);
        const refusal said = refusal_of([&] { server.bind(endpoint::parse(where)); });
        CHECK(said.code == std::errc::address_not_available);
        CHECK(said.says("no interface of this machine has the address of " + where));
        CHECK(said.says("a bare port takes them all"));
        CHECK(open_descriptors() == before);
    }
    check_error(
        tcp::error::not_bound, [&] { server.listen(); },
        [&](std::error_code& f) { server.listen(f); });
}

TEST_ON_BEDS("3 a port that needs privilege", Bed, SYSTEM_BEDS) {
    in_child([](findings& found) {
        constexpr unsigned nobody = 65534;
        if (::geteuid() == 0 &&
            (::setresgid(nobody, nobody, nobody) != 0 || ::setresuid(nobody, nobody, nobody) != 0))
            return found.not_permitted("another user");
        int start = 0;
        std::ifstream{"/proc/sys/net/ipv4/ip_unprivileged_port_start"} >> start;
        if (start < 2) return found.not_permitted("a port that needs privilege");
        Bed bed;
        auto server = bed.make(tcp::echo{});
        for (const char* const where : {"127.0.0.1:1", ":1"}) {
            std::error_code failure;
            found.check(!server.bind(where, failure), "it was bound");
            found.check(failure == std::errc::permission_denied, "permission_denied");
            const refusal said = refusal_of([&] { server.bind(where); });
            found.check(said.code == std::errc::permission_denied, "the throwing form");
            found.check(said.says("needs root or CAP_NET_BIND_SERVICE"), "the cause");
            found.check(said.says("choose a port from " + std::to_string(start) + " up"),
                        "the cure");
        }
        found.check(echoes(bed, server, bed.listen(server)), "it echoes on another port");
    });
}

TEST_ON_BEDS("4 port 0: the true port is returned", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(tcp::echo{});
    CHECK(binds_literal_zero<decltype(server)>);
    std::error_code failure = tcp::error::stopped;
    const endpoint by_number = server.bind(any_port);
    const endpoint by_text = server.bind("127.0.0.1:0");
    const endpoint quiet = server.bind(endpoint::parse("127.0.0.1:0"), failure);
    CHECK(!failure);
    server.listen();

    CHECK(by_number.is_wildcard());
    CHECK(by_text.address() == "127.0.0.1");
    CHECK(quiet.address() == "127.0.0.1");
    std::vector<int> ports{by_number.port(), by_text.port(), quiet.port()};
    std::sort(ports.begin(), ports.end());
    CHECK(ports.front() != 0);
    CHECK(std::unique(ports.begin(), ports.end()) == ports.end());
    for (const endpoint& where : {by_number, by_text, quiet}) CHECK(echoes(on.bed, server, where));
}

TEST_ON_BEDS("5 calls in the wrong order: defined errors, in both forms", Bed, CONFORMANCE_BEDS) {
    using tcp::error;
    const auto check_listen = [](auto& server, error expected) {
        check_error(
            expected, [&] { server.listen(); }, [&](std::error_code& f) { server.listen(f); });
        check_error(
            expected, [&] { server.listen(16); },
            [&](std::error_code& f) { server.listen(16, f); });
    };
    const auto check_bind = [](auto& server, error expected) {
        check_error(
            expected, [&] { server.bind("127.0.0.1:0"); },
            [&](std::error_code& f) { CHECK_FALSE(server.bind("127.0.0.1:0", f)); });
        check_error(
            expected, [&] { server.bind(any_port); },
            [&](std::error_code& f) { CHECK_FALSE(server.bind(any_port, f)); });
    };
    const auto check_run = [](auto& server, error expected) {
        check_error(
            expected, [&] { server.run(); }, [&](std::error_code& f) { server.run(f); });
        check_error(
            expected, [&] { server.run_for(1ms); },
            [&](std::error_code& f) { CHECK_FALSE(server.run_for(1ms, f)); });
        check_error(
            expected, [&] { server.poll(); },
            [&](std::error_code& f) { CHECK_FALSE(server.poll(f)); });
        check_error(
            expected, [&] { server.accept(); }, [&](std::error_code& f) { server.accept(f); });
    };
    const auto check_stopped_run = [](auto& server) {
        std::error_code failure = error::bad_options;
        server.run(failure);
        CHECK(!failure);
        server.run();
        failure = error::bad_options;
        CHECK_FALSE(server.run_for(1ms, failure));
        CHECK(!failure);
        CHECK_FALSE(server.run_for(1ms));
        CHECK_FALSE(server.poll());
        failure = error::bad_options;
        CHECK(server.accept(failure).by == tcp::closed_by::server_stopping);
        CHECK(!failure);
        CHECK(server.accept().by == tcp::closed_by::server_stopping);
    };

    stage<Bed> on;
    {
        auto server = on.bed.make(conformance::scripted{on.does});
        check_listen(server, error::not_bound);
        check_run(server, error::not_listening);

        std::error_code failure = error::bad_options;
        const endpoint where = server.bind(endpoint::parse("127.0.0.1:0"), failure);
        CHECK(!failure);
        check_run(server, error::not_listening);

        failure = error::bad_options;
        server.listen(failure);
        CHECK(!failure);
        check_listen(server, error::already_listening);
        check_bind(server, error::already_listening);

        // In a hook of its own.
        bool called = false;
        on.does.on_data = [&](tcp::connection& peer, tcp::bytes data) {
            check_run(server, error::already_running);
            check_listen(server, error::already_listening);
            check_bind(server, error::already_listening);
            called = true;
            peer.send(data);
        };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        failure = error::bad_options;
        CHECK(server.poll(failure));
        CHECK(!failure);
        CHECK(echoes(on.bed, server, where));
        CHECK(called);

        server.stop();
        for (int again = 0; again != 2; ++again) {
            check_bind(server, error::stopped);
            check_listen(server, error::stopped);
            check_stopped_run(server);
        }
    }
    {
        auto server = on.bed.make(tcp::echo{});
        server.stop();
        check_bind(server, error::stopped);
        check_listen(server, error::stopped);
        check_stopped_run(server);
    }
    {
        auto server = on.bed.make(tcp::echo{});
        server.bind("127.0.0.1:0");
        server.stop();
        check_bind(server, error::stopped);
        check_listen(server, error::stopped);
        check_stopped_run(server);
    }
}

TEST_ON_BEDS("5 a server that has drained is stopped", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(tcp::echo{});
    on.bed.listen(server);
    server.drain(1s);
    server.run();
    check_error(
        tcp::error::stopped, [&] { server.bind("127.0.0.1:0"); },
        [&](std::error_code& f) { server.bind("127.0.0.1:0", f); });
    check_error(
        tcp::error::stopped, [&] { server.listen(); },
        [&](std::error_code& f) { server.listen(f); });
    server.run();
    CHECK_FALSE(server.poll());
    CHECK(server.accept().by == tcp::closed_by::server_stopping);
}

TEST_ON_BEDS("5 what is not an endpoint", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(tcp::echo{});
    for (const char* const text : {"", "127.0.0.1", "127.1:80", "a b:80", "::1:80", "host:99999"}) {
        CAPTURE(text);
        check_error(
            tcp::error::bad_endpoint, [&] { server.bind(text); },
            [&](std::error_code& f) { CHECK_FALSE(server.bind(text, f)); });
        CHECK(refusal_of([&] { server.bind(text); }).says(text));
    }
    CHECK(refusal_of([&] { server.bind(65536); }).code == tcp::error::bad_endpoint);
    CHECK(refusal_of([&] { server.bind(-1); }).code == tcp::error::bad_endpoint);
    CHECK(echoes(on.bed, server, on.bed.listen(server)));
}

TEST_ON_BEDS("6 restart over a thousand TIME_WAIT: binds at once", Bed, SYSTEM_BEDS) {
    in_child([](findings& found) {
        struct closes_first {
            void on_open(tcp::connection& peer) { peer.close(); }
        };
        // The system keeps a limited number of them, which others may have used up.
        const bool alone = enter_empty_network();
        constexpr int batches = 10, batch = 100;
        endpoint where;
        {
            Bed bed;
            auto server = bed.make(closes_first{});
            where = bed.listen(server);
            std::vector<typename Bed::client> clients;
            for (int i = 0; i != batches; ++i) {
                clients.clear();
                for (int k = 0; k != batch; ++k) clients.push_back(bed.connect(where));
                const bool ended = bed.until(server, [&] {
                    return std::all_of(clients.begin(), clients.end(),
                                       [](const auto& client) { return client.ended(); });
                });
                for (auto& client : clients) client.close();
                const bool closed =
                    bed.until(server, [&] { return server.statistics().open == 0; });
                if (!ended || !closed) return found.check(false, "the server closes first");
            }
            const auto by = static_cast<std::size_t>(tcp::closed_by::handler_closed);
            found.check(server.statistics().closed_by[by] == batches * batch, "and all of them");
            // And one that the end of the server finds still open.
            auto left = bed.connect(where);
            found.check(bed.until(server, [&] { return left.ended(); }), "one that stays");
        }
        // A client may take a port of an earlier one again, and with it its TIME_WAIT.
        if (alone) found.check(time_waits(where.port()) > batches * batch / 2, "TIME_WAIT");

        Bed bed;
        auto again = bed.make(tcp::echo{});
        found.check(again.bind(where) == where, "it binds");
        again.listen();
        found.check(echoes(bed, again, where), "it echoes");
    });
}

TEST_ON_BEDS("7 IPv4, IPv6, a bare port and names, each of which echoes", Bed, SYSTEM_BEDS) {
    const bool ipv6 = has_ipv6();
    std::vector<std::string> all{"127.0.0.1:0", "0.0.0.0:0", "localhost:0", ":0"};
    if (ipv6) all.emplace_back("[::1]:0");
    for (const std::string& where : all) {
        CAPTURE(where);
        stage<Bed> on;
        address_family seen{};
        on.does.on_open = [&](tcp::connection& peer) {
            seen = peer.remote_endpoint().family();
            CHECK(peer.local_endpoint().family() == seen);
        };
        on.does.on_data = [](tcp::connection& peer, tcp::bytes data) { peer.send(data); };
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
        auto server = on.bed.make(conformance::scripted{on.does});
        const endpoint bound = server.bind(where);
        server.listen();
        REQUIRE(bound.port() != 0);
        std::vector<const char*> addresses;
        if (bound.family() != address_family::ipv6) addresses.push_back("127.0.0.1:0");
        if (ipv6 && (bound.family() == address_family::ipv6 || where == ":0"))
            addresses.push_back("[::1]:0");
        for (const char* const address : addresses) {
            CAPTURE(address);
            const endpoint to = endpoint::parse(address).with_port(bound.port());
            CHECK(echoes(on.bed, server, to));
            CHECK(seen == to.family());
        }
    }
}

TEST_ON_BEDS("7 a bare port with ipv6_only: IPv6 alone", Bed, SYSTEM_BEDS) {
    if (!has_ipv6()) {
        MESSAGE("no IPv6 here");
        return;
    }
    Bed bed;
    auto server = bed.make(tcp::echo{}, {.ipv6_only = true});
    const endpoint where = server.bind(any_port);
    server.listen();
    CHECK(echoes(bed, server, endpoint::parse("[::1]:0").with_port(where.port())));
    auto client = bed.connect(endpoint::parse("127.0.0.1:0").with_port(where.port()));
    CHECK(bed.until(server, [&] { return client.refused(); }));
}

TEST_ON_BEDS("7 several endpoints of one server", Bed, CONFORMANCE_BEDS) {
    stage<Bed> on;
    auto server = on.bed.make(tcp::echo{});
    std::vector<endpoint> all;
    for (const char* const where : {"127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0"})
        all.push_back(server.bind(where));
    server.listen();
    for (const endpoint& where : all) CHECK(echoes(on.bed, server, where));
    CHECK(server.statistics().accepted == all.size());

    // All at the same time.
    std::vector<typename Bed::client> clients;
    for (int i = 0; i != 10; ++i)
        for (const endpoint& where : all) clients.push_back(on.bed.connect(where));
    for (auto& client : clients) client.send("hello");
    CHECK(on.bed.until(server, [&] {
        return std::all_of(clients.begin(), clients.end(),
                           [](const auto& client) { return client.received() == "hello"; });
    }));
}

TEST_ON_BEDS("7 unix-domain paths, abstract names and TCP in one server", Bed, SYSTEM_BEDS) {
    const temporary_folder here;
    const std::string name = "unix:@tcp-binding-" + std::to_string(::getpid());
    stage<Bed> on;
    {
        auto server = on.bed.make(tcp::echo{});
        std::vector<endpoint> all;
        for (const std::string& where : {"unix:" + here.file(), name, std::string{"127.0.0.1:0"}}) {
            all.push_back(server.bind(where));
            if (where != "127.0.0.1:0") CHECK(all.back().to_string() == where);
        }
        server.listen();
        CHECK(exists(here.file()));
        for (const endpoint& where : all) {
            CAPTURE(where.to_string());
            CHECK(echoes(on.bed, server, where));
        }
        // More than fits at once, in both ways.
        auto client = on.bed.connect(all.front());
        const std::string sent = conformance::pattern(2'000'000);
        client.send(sent);
        client.shutdown_send();
        CHECK(on.bed.until(server, [&] { return client.ended(); }));
        CHECK(conformance::difference(client.received(), sent) == "");
    }
    CHECK_FALSE(exists(here.file()));
}

TEST_ON_BEDS("7 where there is no IPv6, a bare port is all of IPv4", Bed, SYSTEM_BEDS) {
    in_child([](findings& found) {
        if (!enter_empty_network(false) || has_ipv6())
            return found.not_permitted("a network without IPv6");
        Bed bed;
        auto server = bed.make(tcp::echo{});
        const endpoint bare = server.bind(any_port);
        const endpoint named = server.bind("localhost:0");
        std::error_code failure;
        server.bind("[::1]:0", failure);
        found.check(failure == std::errc::address_not_available ||
                        failure == std::errc::address_family_not_supported,
                    "[::1] is refused");
        server.listen();
        found.check(bare.is_wildcard() && bare.port() != 0, "a wildcard with its port");
        const endpoint loopback = endpoint::parse("127.0.0.1:0");
        found.check(echoes(bed, server, loopback.with_port(bare.port())), "the bare port echoes");
        found.check(echoes(bed, server, loopback.with_port(named.port())), "localhost echoes");
    });
}

TEST_ON_BEDS("7 where sockets of IPv6 cannot be made, a bare port is all of IPv4", Bed,
             SYSTEM_BEDS) {
    in_child([](findings& found) {
        if (!tests::refuse_call(SYS_socket, 0, AF_INET6, EAFNOSUPPORT))
            return found.not_permitted("a filter of system calls");
        Bed bed;
        auto server = bed.make(tcp::echo{});
        const std::vector<int> before = open_descriptors();
        const endpoint bare = server.bind(0);
        found.check(open_descriptors().size() == before.size() + 1, "one descriptor");
        found.check(bare.is_wildcard() && bare.port() != 0, "a wildcard with its port");
        const refusal said = refusal_of([&] { server.bind("[::1]:0"); });
        found.check(said.code == std::errc::address_family_not_supported, "[::1] is refused");
        found.check(said.says("this system has no IPv6"), "the cause");
        server.listen();
        found.check(echoes(bed, server, endpoint::parse("127.0.0.1:0").with_port(bare.port())),
                    "the bare port echoes");
    });
}

TEST_ON_BEDS("9 a port taken by another program is never shared silently", Bed, SYSTEM_BEDS) {
    const std::vector<std::vector<int>> ways{
        {}, {SO_REUSEADDR}, {SO_REUSEPORT}, {SO_REUSEADDR, SO_REUSEPORT}};
    for (const std::vector<int>& options : ways) {
        CAPTURE(options.size());
        Bed bed;
        for (const char* const ours : {"127.0.0.1:0", "0.0.0.0:0", ":0"}) {
            CAPTURE(ours);
            auto server = bed.make(tcp::echo{});
            const endpoint where = server.bind(ours);
            server.listen();
            // Neither that endpoint nor one that covers it or is covered by it.
            for (const char* const theirs : {"127.0.0.1:0", "0.0.0.0:0"}) {
                CAPTURE(theirs);
                const foreign_socket other{endpoint::parse(theirs).with_port(where.port()),
                                           options};
                CHECK(other.failure == std::errc::address_in_use);
            }
            CHECK(echoes(bed, server, endpoint::parse("127.0.0.1:0").with_port(where.port())));
        }
        for (const char* const theirs : {"127.0.0.1:0", "0.0.0.0:0"}) {
            CAPTURE(theirs);
            const foreign_socket other{endpoint::parse(theirs), options};
            REQUIRE(!other.failure);
            for (const char* const ours : {"127.0.0.1:0", "0.0.0.0:0", ":0"}) {
                CAPTURE(ours);
                auto server = bed.make(tcp::echo{});
                const endpoint where = endpoint::parse(ours).with_port(other.where.port());
                CHECK(refusal_of([&] { server.bind(where); }).code == std::errc::address_in_use);
            }
        }
    }
}

TEST_ON_BEDS("9 two servers never share a port", Bed, SYSTEM_BEDS) {
    Bed bed;
    auto first = bed.make(tcp::echo{});
    auto second = bed.make(tcp::echo{});
    const endpoint where = first.bind("127.0.0.1:0");
    // Linux may let both bind while none listens, but only one of them listens.
    std::error_code failure;
    second.bind(where, failure);
    first.listen();
    if (!failure) second.listen(failure);
    CHECK(failure == std::errc::address_in_use);
    CHECK(echoes(bed, first, where));
}

TEST_ON_BEDS("67 all descriptors are CLOEXEC", Bed, SYSTEM_BEDS) {
    if (conformance::with_direct_descriptors()) return;  // there are none
    const temporary_folder here;
    const std::vector<int> before = open_descriptors();
    const auto check_new_ones = [&](std::size_t at_least) {
        std::size_t count = 0;
        for (const int fd : open_descriptors()) {
            if (std::find(before.begin(), before.end(), fd) != before.end()) continue;
            CAPTURE(fd);
            CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            ++count;
        }
        CHECK(count >= at_least);
    };
    Bed bed;
    {
        stage<Bed> on;
        auto server = on.bed.make(conformance::scripted{on.does});
        check_new_ones(1);
        std::vector<endpoint> all;
        for (const std::string& where :
             {std::string{"127.0.0.1:0"}, std::string{":0"}, "unix:" + here.file(),
              "unix:@tcp-binding-" + std::to_string(::getpid())})
            all.push_back(server.bind(where));
        const std::size_t bound = open_descriptors().size() - before.size();
        check_new_ones(1 + all.size());
        server.listen();
        check_new_ones(1 + all.size());
        for (const endpoint& where : all) on.bed.connect(where);
        CHECK(on.bed.until(server, [&] { return on.does.opens == all.size(); }));
        check_new_ones(bound + 2 * all.size());  // the clients', and those accepted
        on.does.on_end = [](tcp::connection& peer) { peer.close(); };
    }
    CHECK(open_descriptors() == before);
}
