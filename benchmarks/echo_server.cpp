// The echo server with every option as a flag, for load and for tests with real clients.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>

#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/engine/native.hpp>
#include <tcp/server.hpp>
#include <tcp/stop_on.hpp>
#include <tcp/task.hpp>

namespace {

struct settings {
    std::string_view host, engine = "native", descriptors = "own", handler = "hooks";
    long long port = 12345, drain_ms = 5000;
    long long high_mark = static_cast<long long>(tcp::options{}.high_mark);
    long long low_mark = static_cast<long long>(tcp::options{}.low_mark);
    long long threads = 1, spin_us = 0, max_connections = 0, max_connections_per_address = 0;
    long long coalescing_us = tcp::options{}.coalescing.nanoseconds() / 1000;
    long long idle_timeout_ms = 0, send_timeout_ms = 0;
};

/// One flag and where its value goes: a text, one of several words, or a number within bounds.
struct flag {
    std::string_view name, value, help;
    std::string_view settings::*text = nullptr;
    long long settings::*number = nullptr;
    long long least = 0, most = 0;
};

constexpr long long day_ms = 24LL * 60 * 60 * 1000;
constexpr long long terabyte = 1LL << 40;

constexpr flag flags[] = {
    {.name = "--host",
     .value = "ADDRESS",
     .help = "address, name, unix:/path or unix:@name; left out: every local address",
     .text = &settings::host},
    {.name = "--port",
     .value = "N",
     .help = "port, 0 for any free one (12345)",
     .number = &settings::port,
     .most = 65535},
    {.name = "--threads",
     .value = "N",
     .help = "loops (1)",
     .number = &settings::threads,
     .least = 1,
     .most = 1024},
    {.name = "--engine",
     .value = "native|epoll|io_uring",
     .help = "input and output (native)",
     .text = &settings::engine},
    {.name = "--descriptors",
     .value = "own|direct",
     .help = "direct: io_uring's, which count against no limit (own)",
     .text = &settings::descriptors},
    {.name = "--handler",
     .value = "hooks|coroutine",
     .help = "the style of the handler (hooks)",
     .text = &settings::handler},
    {.name = "--spin-us",
     .value = "N",
     .help = "microseconds to look for work before sleeping (0)",
     .number = &settings::spin_us,
     .most = 1'000'000},
    {.name = "--coalescing-us",
     .value = "N",
     .help = "microseconds for messages to come together, io_uring (200)",
     .number = &settings::coalescing_us,
     .most = 1'000'000},
    {.name = "--max-connections",
     .value = "N",
     .help = "connections at a time, 0 for no limit (0)",
     .number = &settings::max_connections,
     .most = 1'000'000'000},
    {.name = "--max-connections-per-address",
     .value = "N",
     .help = "the same for each address of a peer (0)",
     .number = &settings::max_connections_per_address,
     .most = 1'000'000'000},
    {.name = "--idle-timeout-ms",
     .value = "N",
     .help = "ends a connection on which nothing moves, 0 for never (0)",
     .number = &settings::idle_timeout_ms,
     .most = day_ms},
    {.name = "--send-timeout-ms",
     .value = "N",
     .help = "ends a connection that takes nothing of what waits, 0 for never (0)",
     .number = &settings::send_timeout_ms,
     .most = day_ms},
    {.name = "--high-mark",
     .value = "BYTES",
     .help = "stop reading when more than this waits to be sent (65536)",
     .number = &settings::high_mark,
     .most = terabyte},
    {.name = "--low-mark",
     .value = "BYTES",
     .help = "go on when no more than this waits (16384)",
     .number = &settings::low_mark,
     .most = terabyte},
    {.name = "--drain-ms",
     .value = "N",
     .help = "how long SIGTERM or SIGINT lets connections finish (5000)",
     .number = &settings::drain_ms,
     .most = day_ms},
};

std::string joined(std::initializer_list<std::string_view> parts) {
    std::string text;
    for (const std::string_view part : parts) text += part;
    return text;
}

/// Whether `word` is one of `words`, which are divided by bars.
bool is_one_of(std::string_view words, std::string_view word) {
    return !word.empty() && word.find('|') == std::string_view::npos &&
           joined({"|", words, "|"}).find(joined({"|", word, "|"})) != std::string::npos;
}

/// Takes the value, or returns the sentence that says why not.
std::string set(const flag& one, std::string_view value, settings& into) {
    if (one.text != nullptr) {
        const bool any = one.value.find('|') == std::string_view::npos;
        if (value.empty() || (!any && !is_one_of(one.value, value)))
            return joined({"write ", one.name, " ", one.value, ", not \"", value, "\""});
        into.*one.text = value;
        return {};
    }
    long long number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size() || number < one.least ||
        number > one.most)
        return joined({"write ", one.name, " ", one.value, " with a number from ",
                       std::to_string(one.least), " to ", std::to_string(one.most), ", not \"",
                       value, "\""});
    into.*one.number = number;
    return {};
}

/// Reads the command line, or returns the sentence that says what is wrong with it.
std::string parse(int argc, char** argv, settings& into) {
    for (int i = 1; i < argc; i += 2) {
        const std::string_view name = argv[i];
        const flag* found = std::begin(flags);
        while (found != std::end(flags) && found->name != name) ++found;
        if (found == std::end(flags))
            return joined({"there is no flag \"", name, "\"; --help shows those that there are"});
        if (i + 1 == argc)
            return joined({"write ", name, " ", found->value, ": the value is missing"});
        if (std::string wrong = set(*found, argv[i + 1], into); !wrong.empty()) return wrong;
    }
    if (into.low_mark > into.high_mark)
        return "write a --low-mark that is not above the --high-mark";
    return {};
}

void print_help() {
    std::puts("echo_server: sends back what it receives.");
    for (const flag& one : flags)
        std::printf("  %-52s %s\n", joined({one.name, " ", one.value}).c_str(), one.help.data());
}

void print_json(const tcp::statistics& s) {
    const auto number = [](const char* name, unsigned long long value) {
        std::printf("\"%s\": %llu, ", name, value);
    };
    std::printf("{");
    number("accepted", s.accepted);
    number("refused", s.refused);
    number("open", s.open);
    number("closed", s.closed);
    number("bytes_received", s.bytes_received);
    number("bytes_sent", s.bytes_sent);
    number("accept_errors", s.accept_errors);
    number("pauses", s.pauses);
    number("timeouts", s.timeouts);
    std::printf("\"closed_by\": {");
    for (std::size_t i = 0; i < tcp::closed_by_count; ++i) {
        std::string name{to_text(static_cast<tcp::closed_by>(i))};
        for (char& c : name) c = c == ' ' ? '_' : c;
        std::printf("%s\"%s\": %llu", i == 0 ? "" : ", ", name.c_str(),
                    static_cast<unsigned long long>(s.closed_by[i]));
    }
    std::puts("}}");
}

/// The text of an endpoint. A colon in the host means IPv6 unless the host is more than an address.
std::string where(const settings& wanted) {
    const std::string port = std::to_string(wanted.port);
    if (wanted.host.starts_with("unix:")) return std::string{wanted.host};
    if (wanted.host.find(':') != std::string_view::npos && !wanted.host.starts_with('['))
        return joined({"[", wanted.host, "]:", port});
    return joined({wanted.host, ":", port});
}

/// The echo as a coroutine.
struct conversation {
    tcp::task<> operator()(tcp::connection& peer) const {
        while (auto data = co_await peer.receive()) co_await peer.send(data);
    }
};

template <class Handler, class Engine>
int serve(const settings& wanted) {
    const auto timeout = [](long long ms) {
        return ms == 0 ? tcp::duration::max() : tcp::duration::milliseconds(ms);
    };
    const auto most = [](long long count) {
        return count == 0 ? SIZE_MAX : static_cast<std::size_t>(count);
    };
    tcp::server<Handler, Engine> server{
        Handler{},
        tcp::options{.high_mark = static_cast<std::size_t>(wanted.high_mark),
                     .low_mark = static_cast<std::size_t>(wanted.low_mark),
                     .threads = static_cast<std::size_t>(wanted.threads),
                     .max_connections = most(wanted.max_connections),
                     .max_connections_per_address = most(wanted.max_connections_per_address),
                     .idle_timeout = timeout(wanted.idle_timeout_ms),
                     .send_timeout = timeout(wanted.send_timeout_ms),
                     .spin = tcp::duration::nanoseconds(wanted.spin_us * 1000),
                     .coalescing = tcp::duration::nanoseconds(wanted.coalescing_us * 1000),
                     .direct_descriptors = wanted.descriptors == "direct"}};
    const tcp::stop_on told{
        server, {SIGTERM, SIGINT}, tcp::duration::milliseconds(wanted.drain_ms)};
    const tcp::endpoint bound = server.bind(where(wanted));
    server.listen();
    std::printf("listening on %s engine %s\n", bound.to_string().c_str(),
                std::string{server.engine()}.c_str());
    std::fflush(stdout);
    server.run();
    print_json(server.statistics());
    return 0;
}

template <class Engine>
int serve(const settings& wanted) {
    return wanted.handler == "coroutine" ? serve<conversation, Engine>(wanted)
                                         : serve<tcp::echo, Engine>(wanted);
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc == 2 && std::string_view{argv[1]} == "--help") {
        print_help();
        return 0;
    }
    settings wanted;
    if (const std::string wrong = parse(argc, argv, wanted); !wrong.empty()) {
        std::fprintf(stderr, "echo_server: %s\n", wrong.c_str());
        return 2;
    }
    if (wanted.engine == "epoll") return serve<tcp::epoll_engine>(wanted);
    if (wanted.engine == "io_uring") return serve<tcp::io_uring_engine>(wanted);
    return serve<tcp::native_engine>(wanted);
} catch (const std::exception& error) {
    std::fprintf(stderr, "echo_server: %s\n", error.what());
    return 1;
}
