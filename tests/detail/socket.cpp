// Opening listening sockets: behaviours 1 to 4, 6, 7, 9 and 67 below the server, and the files of
// unix-domain ones.
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <chrono>
#include <cstddef>
#include <fstream>
#include <ostream>  // doctest prints error codes
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/detail/accept_error.hpp>
#include <tcp/detail/socket.hpp>
#include <tcp/explain.hpp>

#include "child_process.hpp"
#include "empty_network.hpp"
#include "temporary_folder.hpp"

using tcp::address_family;
using tcp::endpoint;
using tcp::options;
using namespace tcp::detail;
using tests::enter_empty_network;
using tests::findings;
using tests::in_child;
using tests::open_descriptors;
using tests::refuse_call;

namespace {

static_assert(!std::is_copy_constructible_v<descriptor>);
static_assert(std::is_nothrow_move_constructible_v<descriptor>);
static_assert(std::is_nothrow_move_assignable_v<descriptor>);
static_assert(!std::is_copy_constructible_v<listener>);
static_assert(std::is_nothrow_move_constructible_v<listener>);
static_assert(std::is_nothrow_move_assignable_v<listener>);

bool exists(const std::string& path) {
    struct stat file {};
    return lstat(path.c_str(), &file) == 0;
}

struct bound_socket {
    descriptor socket;
    endpoint bound;
    std::error_code failure = tcp::error::stopped;
};

bound_socket bind_to(const endpoint& where, const options& how = {}) {
    bound_socket result;
    result.bound = endpoint{1};
    result.socket = bind_socket(where, how, result.failure, result.bound);
    return result;
}

bound_socket bind_to(std::string_view where, const options& how = {}) {
    return bind_to(endpoint::parse(where), how);
}

bound_socket listen_on(std::string_view where, const options& how = {}) {
    bound_socket result = bind_to(where, how);
    if (result.socket) listen_socket(result.socket.get(), 16, result.failure);
    return result;
}

// A client, which blocks; none and errno where it was refused.
descriptor connect_to(const endpoint& where) {
    const int domain = where.data()->sa_family;
    descriptor client{socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (connect(client.get(), where.data(), where.size()) != 0) client.reset();
    return client;
}
descriptor connect_to(std::string_view address, int port) {
    return connect_to(endpoint::parse(address).with_port(port));
}

struct accepted_socket {
    descriptor socket;
    endpoint peer;
};

accepted_socket accept_from(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    accepted_socket result{descriptor{accept4(fd, generic, &size, SOCK_CLOEXEC)}, {}};
    if (result.socket) result.peer = endpoint::from_sockaddr(generic, size);
    return result;
}

int option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &size) == 0);
    return value;
}

}  // namespace

TEST_CASE("descriptor: owns, hands over, closes") {
    const std::vector<int> before = open_descriptors();
    {
        descriptor none;
        CHECK(!none);
        CHECK(none.get() == -1);
        CHECK(none.release() == -1);

        descriptor a{dup(0)};
        CHECK(a);
        const int number = a.get();
        descriptor b{std::move(a)};
        CHECK(!a);  // NOLINT(bugprone-use-after-move): it is empty, and says so
        CHECK(b.get() == number);
        descriptor c{dup(0)};
        c = std::move(b);
        CHECK(c.get() == number);
        descriptor& same = c;
        c = std::move(same);
        CHECK(c.get() == number);
        c.reset(dup(0));
        const int released = c.release();
        CHECK(!c);
        CHECK(fcntl(released, F_GETFD) >= 0);
        close(released);

        errno = EADDRINUSE;
        descriptor{dup(0)}.reset();
        CHECK(errno == EADDRINUSE);
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("1: a port in use is refused, says so, and leaks nothing") {
    for (const char* where : {"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "0"}) {
        CAPTURE(where);
        const bound_socket first = listen_on(where);
        if (first.failure == std::errc::address_not_available) continue;  // no IPv6 here
        REQUIRE(!first.failure);
        const std::vector<int> before = open_descriptors();
        const bound_socket second = bind_to(first.bound);
        CHECK(!second.socket);
        CHECK(!second.bound);
        CHECK(second.failure == std::errc::address_in_use);
        CHECK(second.failure.category() == std::system_category());
        CHECK(open_descriptors() == before);
        const std::string text = tcp::explain_bind(first.bound, second.failure);
        CHECK(text.find(first.bound.to_string()) != text.npos);
    }
}

TEST_CASE("1: a wildcard does not take what is in use on one address, nor the other way round") {
    const bound_socket loopback = listen_on("127.0.0.1:0");
    REQUIRE(!loopback.failure);
    const int port = loopback.bound.port();
    CHECK(bind_to(endpoint{port}).failure == std::errc::address_in_use);
    CHECK(bind_to(endpoint::parse("0.0.0.0:0").with_port(port)).failure ==
          std::errc::address_in_use);

    const bound_socket all = listen_on("0");
    REQUIRE(!all.failure);
    CHECK(bind_to(endpoint::parse("127.0.0.1:0").with_port(all.bound.port())).failure ==
          std::errc::address_in_use);
}

TEST_CASE("2: an address that no interface has") {
    const std::vector<int> before = open_descriptors();
    for (const char* where : {"192.0.2.1:0", "[2001:db8::1]:0"}) {
        CAPTURE(where);
        const bound_socket result = bind_to(where);
        CHECK(!result.socket);
        CHECK(!result.bound);
        CHECK((result.failure == std::errc::address_not_available ||
               result.failure == std::errc::address_family_not_supported));
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("3: a port that needs privilege") {
    in_child([](findings& found) {
        // In a network of its own port 1 is nobody's, and the limit is what Linux starts with.
        enter_empty_network();
        if (unprivileged_port_start() <= 1)
            return found.not_permitted("a port that needs privilege");
        if (geteuid() == 0 && seteuid(65534) != 0)
            return found.not_permitted("giving up privileges");
        const bound_socket denied = bind_to("127.0.0.1:1");
        if (denied.socket)  // this user holds CAP_NET_BIND_SERVICE
            return found.not_permitted("giving up privileges");
        found.check(denied.failure == std::errc::permission_denied, "permission_denied");
        const std::string text = tcp::explain_bind(endpoint::parse("127.0.0.1:1"), denied.failure);
        found.check(text.find("CAP_NET_BIND_SERVICE") != text.npos, "the cure");
    });
}

TEST_CASE("4: port 0 gives the true port") {
    for (const char* where : {"0", "127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"}) {
        CAPTURE(where);
        const bound_socket result = bind_to(where);
        if (result.failure == std::errc::address_not_available) continue;  // no IPv6 here
        REQUIRE(result.socket);
        CHECK(!result.failure);
        CHECK(result.bound.port() != 0);
        CHECK(result.bound.port() == local_endpoint_of(result.socket.get()).port());
        CHECK(result.bound.with_port(0) == endpoint::parse(where));
    }
}

TEST_CASE("6: a port whose last connections are in TIME_WAIT is bound at once") {
    bound_socket server = listen_on("127.0.0.1:0");
    REQUIRE(!server.failure);
    std::vector<descriptor> clients;
    for (int i = 0; i < 20; ++i) {
        clients.push_back(connect_to(server.bound));
        accepted_socket accepted = accept_from(server.socket.get());
        REQUIRE(accepted.socket);
        accepted.socket.reset();  // who closes first keeps TIME_WAIT
    }
    clients.clear();
    server.socket.reset();
    bound_socket again = bind_to(server.bound);
    CHECK(!again.failure);
    listen_socket(again.socket.get(), 16, again.failure);
    CHECK(!again.failure);
    CHECK(connect_to(server.bound));
}

TEST_CASE("7: a bare port serves IPv4 and IPv6") {
    const bound_socket server = listen_on("0");
    REQUIRE(!server.failure);
    if (server.bound.family() != address_family::any) {
        MESSAGE("this system has no IPv6");
        CHECK(server.bound.address() == "0.0.0.0");
        return;
    }
    CHECK(server.bound.to_string() == "*:" + std::to_string(server.bound.port()));
    CHECK(local_endpoint_of(server.socket.get()).address() == "::");
    CHECK(option(server.socket.get(), IPPROTO_IPV6, IPV6_V6ONLY) == 0);

    for (const char* address : {"127.0.0.1:0", "[::1]:0"}) {
        CAPTURE(address);
        const descriptor client = connect_to(address, server.bound.port());
        if (!client && errno == EADDRNOTAVAIL) continue;  // IPv6 is there, but not on lo
        REQUIRE(client);
        const accepted_socket accepted = accept_from(server.socket.get());
        REQUIRE(accepted.socket);
        // Both are shown as what they are, IPv4 not as an IPv6 address.
        CHECK(accepted.peer == local_endpoint_of(client.get()));
        CHECK(accepted.peer.with_port(0) == endpoint::parse(address));
        CHECK(remote_endpoint_of(accepted.socket.get()) == accepted.peer);
        CHECK(local_endpoint_of(accepted.socket.get()) == remote_endpoint_of(client.get()));
    }
}

TEST_CASE("7: IPv6 only") {
    const bound_socket server = listen_on("0", {.ipv6_only = true});
    if (server.failure == std::errc::address_family_not_supported) return;
    REQUIRE(!server.failure);
    CHECK(server.bound.family() == address_family::ipv6);
    CHECK(server.bound.address() == "::");
    CHECK(option(server.socket.get(), IPPROTO_IPV6, IPV6_V6ONLY) == 1);

    // The same port is free for IPv4 (unless a stranger has just that one), and for nobody on IPv6.
    bool free = false;
    for (int attempt = 0; attempt < 10 && !free; ++attempt) {
        const bound_socket another = listen_on("0", {.ipv6_only = true});
        const endpoint v4 = endpoint::parse("0.0.0.0:0").with_port(another.bound.port());
        free = !another.failure && !listen_on(v4.to_string()).failure;
    }
    CHECK(free);
    if (const endpoint v4 = endpoint::parse("127.0.0.1:0").with_port(server.bound.port());
        !bind_to(v4).failure)
        CHECK((!connect_to(v4) && errno == ECONNREFUSED));
    CHECK(bind_to(server.bound, {.ipv6_only = true}).failure == std::errc::address_in_use);

    CHECK(option(bind_to("[::]:0").socket.get(), IPPROTO_IPV6, IPV6_V6ONLY) == 0);
    CHECK(option(bind_to("[::]:0", {.ipv6_only = true}).socket.get(), IPPROTO_IPV6, IPV6_V6ONLY) ==
          1);
}

TEST_CASE("7: where sockets of IPv6 cannot be made, a bare port is all of IPv4") {
    in_child([](findings& found) {
        if (!refuse_call(SYS_socket, 0, AF_INET6, EAFNOSUPPORT) ||
            socket(AF_INET6, SOCK_STREAM, 0) != -1 || errno != EAFNOSUPPORT)
            return found.not_permitted("a filter of system calls");
        const bound_socket server = listen_on("0");
        if (server.failure) return found.check(false, "it is bound, and listens");
        found.check(server.bound.address() == "0.0.0.0" && server.bound.port() != 0,
                    "all of IPv4, with its port");
        found.check(!!connect_to("127.0.0.1:0", server.bound.port()), "a client is let in");
        found.check(bind_to(server.bound).failure == std::errc::address_in_use, "in use");
        found.check(bind_to(endpoint{server.bound.port()}).failure == std::errc::address_in_use,
                    "in use as a bare port");

        // Who asked for IPv6 is not given IPv4.
        for (const bound_socket& refused :
             {bind_to("0", {.ipv6_only = true}), bind_to("[::]:0"), bind_to("[::1]:0")})
            found.check(
                !refused.socket && refused.failure == std::errc::address_family_not_supported,
                "IPv6 alone is refused");
    });
}

TEST_CASE("7: where [::] cannot be bound, a bare port is all of IPv4") {
    in_child([](findings& found) {
        if (!refuse_call(SYS_bind, 2, sizeof(sockaddr_in6), EADDRNOTAVAIL) ||
            bind_to("[::]:0").failure != std::errc::address_not_available)
            return found.not_permitted("a filter of system calls");
        const std::vector<int> before = open_descriptors();
        const bound_socket server = listen_on("0");
        if (server.failure) return found.check(false, "it is bound, and listens");
        found.check(server.bound.address() == "0.0.0.0", "all of IPv4");
        found.check(!!connect_to("127.0.0.1:0", server.bound.port()), "a client is let in");
        found.check(open_descriptors().size() == before.size() + 1, "one descriptor");
    });
}

TEST_CASE("7: a network without IPv6 addresses") {
    in_child([](findings& found) {
        if (!enter_empty_network(false)) return found.not_permitted("a network namespace");
        if (bind_to("[::1]:0").failure != std::errc::address_not_available)
            return found.not_permitted("a network without IPv6");
        const bound_socket server = listen_on("0");
        if (server.failure) return found.check(false, "it is bound, and listens");
        found.check(server.bound.is_wildcard() && server.bound.port() != 0,
                    "a wildcard with its port");
        if (!connect_to("127.0.0.1:0", server.bound.port()))
            return found.check(false, "a client is let in");
        const accepted_socket accepted = accept_from(server.socket.get());
        found.check(accepted.peer.family() == address_family::ipv4, "a client of IPv4");
    });
}

TEST_CASE("7: a link-local address wants its interface") {
    in_child([](findings& found) {
        if (!enter_empty_network()) return found.not_permitted("a network namespace");
        const bound_socket without = bind_to("[fe80::1]:0");
        if (without.failure == std::errc::address_family_not_supported)
            return found.not_permitted("IPv6");
        found.check(without.failure == std::errc::invalid_argument, "invalid_argument");
        const std::string text = tcp::explain_bind(endpoint::parse("[fe80::1]:0"), without.failure);
        found.check(text.find("%eth0") != text.npos, "the cure");
        // Nobody has this address; but the interface was looked at.
        found.check(bind_to("[fe80::1%lo]:0").failure == std::errc::address_not_available,
                    "address_not_available");
        found.check(bind_to("[fe80::1%4294967295]:0").failure == std::errc::no_such_device,
                    "no_such_device");
    });
}

TEST_CASE("9: two binds of one port never share it") {
    for (const char* where : {"0", "127.0.0.1:0", "0.0.0.0:0", "[::1]:0"}) {
        CAPTURE(where);
        bound_socket first = bind_to(where);
        if (first.failure == std::errc::address_not_available) continue;  // no IPv6 here
        REQUIRE(!first.failure);
        bound_socket second = bind_to(first.bound);
        // Linux may let both bind, but only one listen.
        if (second.socket) {
            CHECK(option(second.socket.get(), SOL_SOCKET, SO_REUSEPORT) == 0);
            listen_socket(second.socket.get(), 16, second.failure);
            CHECK(!second.failure);
            listen_socket(first.socket.get(), 16, first.failure);
            CHECK(first.failure == std::errc::address_in_use);
            const std::string text = tcp::explain_listen(first.bound, first.failure);
            CHECK(text.find("another program") != text.npos);
        } else {
            CHECK(second.failure == std::errc::address_in_use);
        }
    }
}

TEST_CASE("9: a program that would share its port does not get ours, nor we its") {
    for (const bool ours_first : {true, false}) {
        const descriptor sharing{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        const int on = 1;
        for (const int name : {SO_REUSEPORT, SO_REUSEADDR})
            REQUIRE(setsockopt(sharing.get(), SOL_SOCKET, name, &on, sizeof on) == 0);
        if (ours_first) {
            const bound_socket ours = listen_on("127.0.0.1:0");
            REQUIRE(!ours.failure);
            CHECK((bind(sharing.get(), ours.bound.data(), ours.bound.size()) != 0 ||
                   listen(sharing.get(), 1) != 0));
            CHECK(errno == EADDRINUSE);
        } else {
            const endpoint where = endpoint::parse("127.0.0.1:0");
            REQUIRE(bind(sharing.get(), where.data(), where.size()) == 0);
            REQUIRE(listen(sharing.get(), 1) == 0);
            CHECK(listen_on(local_endpoint_of(sharing.get()).to_string()).failure ==
                  std::errc::address_in_use);
        }
    }
}

TEST_CASE("67: sockets are CLOEXEC and non-blocking") {
    const tests::temporary_folder here;
    const std::string local = "unix:" + here.file();
    for (const std::string& where : {std::string{"0"}, std::string{"127.0.0.1:0"}, local}) {
        const bound_socket result = bind_to(where);
        REQUIRE(result.socket);
        CHECK((fcntl(result.socket.get(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK((fcntl(result.socket.get(), F_GETFL) & O_NONBLOCK) != 0);
    }
    unlink(here.file().c_str());
}

TEST_CASE("accepted sockets inherit the options of the listener") {
    for (const bool no_delay : {true, false}) {
        const options how{
            .no_delay = no_delay, .kernel_send_buffer = 20'000, .kernel_receive_buffer = 30'000};
        const bound_socket server = listen_on("0", how);
        REQUIRE(!server.failure);
        const descriptor client = connect_to("127.0.0.1:0", server.bound.port());
        const accepted_socket accepted = accept_from(server.socket.get());
        REQUIRE(accepted.socket);
        const int fd = accepted.socket.get();
        CHECK((option(fd, IPPROTO_TCP, TCP_NODELAY) != 0) == no_delay);
        CHECK(option(fd, SOL_SOCKET, SO_SNDBUF) == 2 * how.kernel_send_buffer);  // see socket(7)
        CHECK(option(fd, SOL_SOCKET, SO_RCVBUF) == 2 * how.kernel_receive_buffer);
        CHECK(option(fd, SOL_SOCKET, SO_REUSEPORT) == 0);
        CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
    }
}

TEST_CASE("options::keep_alive is in seconds, and accepted sockets have it") {
    using namespace std::chrono_literals;
    const std::pair<tcp::duration, int> all[] = {
        {1ns, 1},     {1s, 1},       {1s + 1ns, 2}, {60s, 60},
        {9h, 32'400}, {24h, 32'767}, {0s, 0},       {tcp::duration::max(), 0}};
    for (const auto& [given, seconds] : all) {
        const bound_socket server = listen_on("0", {.keep_alive = given});
        REQUIRE(!server.failure);
        const descriptor client = connect_to("127.0.0.1:0", server.bound.port());
        const accepted_socket accepted = accept_from(server.socket.get());
        REQUIRE(accepted.socket);
        CHECK(option(accepted.socket.get(), SOL_SOCKET, SO_KEEPALIVE) == (seconds != 0 ? 1 : 0));
        if (seconds == 0) continue;
        CHECK(option(accepted.socket.get(), IPPROTO_TCP, TCP_KEEPIDLE) == seconds);
    }
}

TEST_CASE("what cannot be bound") {
    const std::vector<int> before = open_descriptors();
    CHECK(bind_to(endpoint{}).failure == tcp::error::bad_endpoint);
    sockaddr_un unnamed{};
    unnamed.sun_family = AF_UNIX;
    const auto* const generic = reinterpret_cast<const sockaddr*>(&unnamed);
    CHECK(bind_to(endpoint::from_sockaddr(generic, sizeof(sa_family_t))).failure ==
          tcp::error::bad_endpoint);
    CHECK(bind_to("unix:/nosuch/folder/x").failure == std::errc::no_such_file_or_directory);
    CHECK(open_descriptors() == before);

    std::error_code failure;
    listen_socket(-1, 1, failure);
    CHECK(failure == std::errc::bad_file_descriptor);
}

TEST_CASE("without descriptors") {
    rlimit old{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
    const rlimit none{0, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    const bound_socket result = bind_to("0");
    setrlimit(RLIMIT_NOFILE, &old);
    CHECK(!result.socket);
    CHECK(result.failure == std::errc::too_many_files_open);
}

TEST_CASE("endpoints of what is no connection") {
    CHECK(!local_endpoint_of(-1));
    CHECK(!remote_endpoint_of(-1));
    CHECK(!local_endpoint_of(0x7fff'ffff));
    const bound_socket server = listen_on("127.0.0.1:0");
    CHECK(!remote_endpoint_of(server.socket.get()));

    int pipes[2] = {-1, -1};
    REQUIRE(pipe(pipes) == 0);
    CHECK(!local_endpoint_of(pipes[0]));
    close(pipes[0]);
    close(pipes[1]);
}

TEST_CASE("12: the errors of accept that concern one connection, and those that do not") {
    for (const int passing : {EINTR, ECONNABORTED, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN,
                              ENETUNREACH, EHOSTDOWN, EHOSTUNREACH, ENONET, EPERM})
        CHECK(passing_accept_error(passing));
    for (const int lasting : {0, EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN, EBADF, EINVAL, ENOTSOCK})
        CHECK(!passing_accept_error(lasting));
}

TEST_CASE("7: abstract names") {
    const std::string name = "unix:@tcp-socket-test-" + std::to_string(getpid());
    bound_socket first = bind_to(name);
    REQUIRE(!first.failure);
    CHECK(first.bound.to_string() == name);
    CHECK(bind_to(name).failure == std::errc::address_in_use);
    listen_socket(first.socket.get(), 1, first.failure);
    CHECK(!first.failure);
    const descriptor client = connect_to(first.bound);
    CHECK(client);
    CHECK(bind_to(name).failure == std::errc::address_in_use);
    const accepted_socket accepted = accept_from(first.socket.get());
    CHECK(accepted.peer.to_string() == "unix:");  // clients have no name
    CHECK(local_endpoint_of(accepted.socket.get()) == first.bound);
    first.socket.reset();
    CHECK(!bind_to(name).failure);
}

TEST_CASE("7: a unix-domain path, of every length") {
    const tests::temporary_folder here;
    for (const std::size_t length : {here.path().size() + 2, std::size_t{106}, std::size_t{107}}) {
        const std::string path =
            here.path() + "/" + std::string(length - here.path().size() - 1, 'a');
        const endpoint where = endpoint::parse("unix:" + path);
        std::error_code failure;
        listener server{where, {}, failure};
        REQUIRE(!failure);
        CHECK(server.bound() == where);
        CHECK(exists(path));
        listen_socket(server.get(), 1, failure);
        CHECK(connect_to(where));
        server.close();
        CHECK(!exists(path));
    }

    // Linux takes 108, though parse() does not.
    sockaddr_un full{};
    full.sun_family = AF_UNIX;
    const std::string path = here.path() + "/" + std::string(107 - here.path().size(), 'a');
    path.copy(full.sun_path, sizeof full.sun_path);
    const auto* const generic = reinterpret_cast<const sockaddr*>(&full);
    const endpoint where = endpoint::from_sockaddr(generic, sizeof full);
    for (int i = 0; i < 2; ++i) {
        std::error_code failure;
        listener server{where, {}, failure};
        CHECK(!failure);
        CHECK(server.bound() == where);
        CHECK(bind_to(where).failure == std::errc::address_in_use);
    }
    CHECK(!exists(path));
}

TEST_CASE("unix-domain: the file of a dead program is replaced") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    bind_to(where);  // closed at once, and nobody removes the file
    REQUIRE(exists(here.file()));
    CHECK(!has_owner(where));
    const std::vector<int> before = open_descriptors();
    {
        bound_socket again = bind_to(where);
        CHECK(!again.failure);
        CHECK(again.bound == where);
        CHECK(open_descriptors().size() == before.size() + 1);
        listen_socket(again.socket.get(), 1, again.failure);
        CHECK(connect_to(where));
    }
    CHECK(!connect_to(where));
    unlink(here.file().c_str());
}

TEST_CASE(
    "unix-domain: the file of a program that lives is not taken, nor is the program disturbed") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    bound_socket first = bind_to(where);
    REQUIRE(!first.failure);
    const std::vector<int> before = open_descriptors();
    CHECK(bind_to(where).failure == std::errc::address_in_use);  // it does not listen yet

    listen_socket(first.socket.get(), 0, first.failure);
    CHECK(bind_to(where).failure == std::errc::address_in_use);
    CHECK(!accept_from(first.socket.get()).socket);  // asking was no connection
    CHECK(errno == EAGAIN);

    const descriptor waiting = connect_to(where);
    CHECK(waiting);
    CHECK(bind_to(where).failure == std::errc::address_in_use);  // its queue is full
    CHECK(open_descriptors().size() == before.size() + 1);
    unlink(here.file().c_str());

    // Other kinds of sockets have files, too.
    for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
        const descriptor other{socket(AF_UNIX, type | SOCK_CLOEXEC, 0)};
        REQUIRE(bind(other.get(), where.data(), where.size()) == 0);
        CHECK(bind_to(where).failure == std::errc::address_in_use);
        unlink(here.file().c_str());
    }
}

TEST_CASE("unix-domain: what is not a socket is never removed") {
    const tests::temporary_folder here;
    const std::string path = here.file();
    const endpoint where = endpoint::parse("unix:" + path);
    const auto stays = [&] {
        const std::vector<int> before = open_descriptors();
        CHECK(bind_to(where).failure == std::errc::address_in_use);
        CHECK(exists(path));
        CHECK(open_descriptors() == before);
    };

    std::ofstream{path} << "precious";
    stays();
    std::string content;
    std::ifstream{path} >> content;
    CHECK(content == "precious");
    unlink(path.c_str());

    REQUIRE(mkdir(path.c_str(), 0700) == 0);
    stays();
    rmdir(path.c_str());

    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    stays();
    unlink(path.c_str());

    // A link to a dead socket is a link, and one to nothing, too.
    bind_to("unix:" + here.file("dead"));
    REQUIRE(symlink(here.file("dead").c_str(), path.c_str()) == 0);
    stays();
    CHECK(exists(here.file("dead")));
    unlink(here.file("dead").c_str());
    stays();
    unlink(path.c_str());
}

TEST_CASE("unix-domain: no permission") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    bind_to(where);
    in_child([&](findings& found) {
        if (chmod(here.path().c_str(), 0555) != 0)
            return found.check(false, "the folder becomes read-only");
        if (geteuid() == 0 && seteuid(65534) != 0) return found.not_permitted("another user");
        // The dead file cannot be removed, nor a new one made beside it.
        found.check(bind_to(where).failure == std::errc::address_in_use, "address_in_use");
        const endpoint beside = endpoint::parse("unix:" + here.file("y"));
        const std::error_code denied = bind_to(beside).failure;
        found.check(denied == std::errc::permission_denied, "permission_denied");
        found.check(tcp::explain_bind(beside, denied).find("may not") != std::string::npos,
                    "the cause");
    });
    chmod(here.path().c_str(), 0700);
    CHECK(exists(here.file()));
    unlink(here.file().c_str());
}

TEST_CASE("unix-domain: of many that start at once over a dead file, one gets it") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    constexpr int children = 8;
    for (int round = 0; round < 20; ++round) {
        bind_to(where);  // leaves a dead file
        int gate[2] = {-1, -1};
        int results[2] = {-1, -1};
        int end[2] = {-1, -1};
        REQUIRE((pipe(gate) == 0 && pipe(results) == 0 && pipe(end) == 0));
        pid_t all[children] = {};
        for (pid_t& child : all) {
            child = fork();
            if (child != 0) continue;
            char byte = 0;
            close(gate[1]);
            close(end[1]);
            // All start when the gate is closed behind them; none ends before all have tried.
            (void)!read(gate[0], &byte, 1);
            const bound_socket mine = listen_on(where.to_string());
            byte = !mine.failure ? 'y' : mine.failure == std::errc::address_in_use ? 'n' : '?';
            (void)!write(results[1], &byte, 1);
            (void)!read(end[0], &byte, 1);
            _exit(0);
        }
        close(gate[1]);
        int winners = 0;
        for (int i = 0; i < children; ++i) {
            char byte = '?';
            CHECK(read(results[0], &byte, 1) == 1);
            CHECK(byte != '?');
            if (byte == 'y') ++winners;
        }
        CHECK(winners == 1);
        CHECK(connect_to(where));  // the one that won is the one that is found
        close(end[1]);
        for (const pid_t child : all) waitpid(child, nullptr, 0);
        for (const int fd : {gate[0], results[0], results[1], end[0]}) close(fd);
    }
    unlink(here.file().c_str());
}

namespace {

/// A dead socket file in a folder whose lock somebody else has.
struct locked_folder {
    tests::temporary_folder here;
    endpoint where = endpoint::parse("unix:" + here.file());
    descriptor other{open(here.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};

    locked_folder() {
        bind_to(where);
        REQUIRE(flock(other.get(), LOCK_EX) == 0);
    }
    ~locked_folder() { unlink(here.file().c_str()); }
};

}  // namespace

TEST_CASE("unix-domain: who does not get the lock of the folder leaves a dead file to who has it") {
    locked_folder folder;
    CHECK(bind_to(folder.where).failure == std::errc::address_in_use);
    CHECK(exists(folder.here.file()));
    REQUIRE(flock(folder.other.get(), LOCK_SH) == 0);
    CHECK(bind_to(folder.where).failure == std::errc::address_in_use);
    CHECK(exists(folder.here.file()));
    folder.other.reset();
    CHECK(!bind_to(folder.where).failure);
}

TEST_CASE("unix-domain: a neighbour that replaces its own file in the folder is waited for") {
    locked_folder folder;
    std::thread neighbour{[&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        folder.other.reset();
    }};
    CHECK(!bind_to(folder.where).failure);
    neighbour.join();
}

TEST_CASE("listener: removes the file it made") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    std::error_code failure = tcp::error::stopped;
    {
        listener first{where, {}, failure};
        CHECK(!failure);
        CHECK(first);
        CHECK(first.bound() == where);
        listener second{std::move(first)};
        CHECK(!first);  // NOLINT(bugprone-use-after-move): it is empty, and says so
        CHECK(!first.bound());
        first.close();
        CHECK(exists(here.file()));
        listener third;
        third = std::move(second);
        listener& same = third;
        third = std::move(same);
        CHECK(third.bound() == where);
        CHECK(exists(here.file()));
    }
    CHECK(!exists(here.file()));

    listener refused{endpoint::parse("unix:/nosuch/x"), {}, failure};
    CHECK(failure == std::errc::no_such_file_or_directory);
    CHECK(!refused);
    CHECK(refused.get() == -1);

    // The one that takes its place frees the name first.
    listener a{where, {}, failure};
    a = listener{endpoint::parse("unix:" + here.file("y")), {}, failure};
    CHECK(!exists(here.file()));
    CHECK(exists(here.file("y")));
    a.close();
    a.close();
    CHECK(!exists(here.file("y")));
}

TEST_CASE("listener: leaves a file that another made since") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    std::error_code failure;
    listener old{where, {}, failure};
    unlink(here.file().c_str());
    listener young{where, {}, failure};
    REQUIRE(!failure);
    old.close();
    CHECK(exists(here.file()));
    unlink(here.file().c_str());
    std::ofstream{here.file()} << "precious";
    young.close();
    CHECK(exists(here.file()));
    unlink(here.file().c_str());
}

TEST_CASE("listener: a child that ends does not remove its parent's file") {
    const tests::temporary_folder here;
    std::error_code failure;
    listener server{endpoint::parse("unix:" + here.file()), {}, failure};
    REQUIRE(!failure);
    in_child([&](findings&) { server.close(); });
    CHECK(exists(here.file()));
    server.close();
    CHECK(!exists(here.file()));
}

TEST_CASE("listener: handed over, with its file") {
    const tests::temporary_folder here;
    const endpoint where = endpoint::parse("unix:" + here.file());
    std::error_code failure;
    listener old{where, {}, failure};
    listen_socket(old.get(), 1, failure);
    const int fd = old.release();
    CHECK(!old);
    CHECK(old.release() == -1);
    old.close();
    CHECK(connect_to(where));
    listener adopted{descriptor{fd}};
    CHECK(adopted.get() == fd);
    CHECK(adopted.bound() == where);
    adopted.close();
    CHECK(exists(here.file()));
    unlink(here.file().c_str());
}

TEST_CASE("listener: of TCP") {
    const std::vector<int> before = open_descriptors();
    {
        std::error_code failure;
        listener server{0, {}, failure};
        CHECK(!failure);
        CHECK(server.bound().port() != 0);
        listener adopted{descriptor{dup(server.get())}, server.bound()};
        CHECK(adopted.bound() == server.bound());
    }
    CHECK(open_descriptors() == before);
}
