// Any number of servers under one load, as JSON; benchmarks/compare makes tables of it.
//
//     side_by_side --connections=64 --message=64 NAME=COMMAND...
//
// A server is a command with NAME for the output. All run as processes on one core, the load on
// another; rounds are short and interleaved, the order is turned round each time, and the servers
// are started anew --starts times: why, says round_trips.cpp. They are alive side by side as long
// as their connections are within the limit of descriptors, else one after the other. A server that
// fails is left out of what follows, and the reason takes the place of its figures. Google
// Benchmark is not the harness here: it times one function at a time, and these are interleaved.
//
// With --ping-ms each connection sends one message in each such time, in an open loop.
// With --flood each round has two halves, without the flood ("quiet") and with it. With --churn a
// message is a connection. With --idle-bytes=N it prints the memory for each of N idle connections.
#include <cstdio>
#include <memory>
#include <type_traits>

#include "churn.hpp"
#include "contender.hpp"

namespace {

struct settings {
    bench::shape shape;
    bench::pacing pacing;
    std::size_t idle_bytes = 0;
    bool churn = false;
    std::vector<std::pair<std::string, std::string>> servers;  // name and command
};

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text)
        if (c == '"' || c == '\\')
            result += std::string("\\") + c;
        else
            result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    return result + "\"";
}

void print(const char* name, const std::vector<double>& values) {
    std::printf("\"%s\": [", name);
    for (std::size_t i = 0; i < values.size(); ++i)
        std::printf("%s%.1f", i == 0 ? "" : ", ", values[i]);
    std::printf("], ");
}

void print(const char* name, const bench::series& one) {
    std::printf("\"%s\": {", name);
    print("per_second", one.throughput);
    print("cpu_ns", one.cpu);
    print("flood_mib_per_second", one.flood);
    std::printf(R"("p50_us": %.2f, "p99_us": %.2f, "p999_us": %.2f})", one.times.quantile(0.5),
                one.times.quantile(0.99), one.times.quantile(0.999));
}

template <class Load>
struct entrant {
    entrant(std::string called, const std::string& command, const bench::shape& shape)
        : name(std::move(called)), server(command, shape, bench::place().server) {}

    /// Does it, unless the server has failed before; remembers that it fails.
    template <class Deed>
    void attempt(Deed deed) {
        if (!error.empty()) return;
        try {
            deed();
        } catch (const std::exception& problem) {
            error = problem.what();
            server.end();
        }
    }

    void start(std::chrono::milliseconds warm_up) {
        attempt([&] {
            server.start(warm_up);
            engine = server.engine();
        });
    }

    void round(std::chrono::milliseconds length, bool flood) {
        attempt([&] {
            if constexpr (std::is_same_v<Load, bench::load>) {
                if (flood) server.round(length, quiet, false);
                server.round(length, measured, flood);
            } else {
                server.round(length, measured);
            }
        });
    }

    std::string name, engine, error;
    bench::contender<Load> server;
    bench::series measured, quiet;
};

/// Calls the function with each, in turned order every other time.
template <class Entrants, class Deed>
void for_each(Entrants& entrants, bool turned, Deed deed) {
    for (std::size_t i = 0; i < entrants.size(); ++i)
        deed(*entrants[turned ? entrants.size() - 1 - i : i]);
}

template <class Load>
void compare(const settings& given) {
    const std::chrono::milliseconds length = given.pacing.round();
    const auto warm_up = 2 * length;  // a just-in-time compiler needs some
    const bench::shape& shape = given.shape;
    std::vector<std::unique_ptr<entrant<Load>>> all;
    for (const auto& [name, command] : given.servers)
        all.push_back(std::make_unique<entrant<Load>>(name, command, shape));

    rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    const std::size_t for_each_server = shape.connections + shape.idle + 8;
    const bool together = all.size() * for_each_server < descriptors.rlim_cur;
    const int rounds = given.pacing.rounds;
    const int rounds_of_a_start = given.pacing.rounds_of_a_start();
    for (int round = 0; round < rounds; round += rounds_of_a_start) {
        const int end = std::min(rounds, round + rounds_of_a_start);
        const auto play = [&](entrant<Load>& one) { one.round(length, shape.flood); };
        if (together) {
            for (const auto& one : all) one->start(warm_up);
            for (int r = round; r < end; ++r) for_each(all, r % 2 == 1, play);
            continue;
        }
        for_each(all, round / rounds_of_a_start % 2 == 1, [&](entrant<Load>& one) {
            one.start(warm_up);
            for (int r = round; r < end; ++r) play(one);
            one.server.end();
        });
    }

    std::printf("{\"servers\": [");
    for (const auto& one : all) {
        std::printf("%s\n{\"name\": %s, ", one == all.front() ? "" : ",",
                    quoted(one->name).c_str());
        if (!one->error.empty()) {
            std::printf("\"error\": %s}", quoted(one->error).c_str());
            continue;
        }
        std::printf("\"engine\": %s, ", quoted(one->engine).c_str());
        if (shape.flood) {
            print("quiet", one->quiet);
            std::printf(", ");
        }
        print("measured", one->measured);
        std::printf("}");
    }
    std::printf("\n]}\n");
}

void measure_memory(const settings& given) {
    std::printf("{\"servers\": [");
    const char* comma = "";
    for (const auto& [name, command] : given.servers) {
        std::printf("%s\n{\"name\": %s, ", comma, quoted(name).c_str());
        comma = ",";
        try {
            const double bytes = bench::idle_bytes(bench::command_of(command), given.idle_bytes);
            std::printf("\"idle_bytes\": %.0f}", bytes);
        } catch (const std::exception& problem) {
            std::printf("\"error\": %s}", quoted(problem.what()).c_str());
        }
    }
    std::printf("\n]}\n");
}

bool take(const std::string& argument, settings& into) {
    bench::shape& shape = into.shape;
    if (bench::take(argument, "--connections=", shape.connections) ||
        bench::take(argument, "--message=", shape.message) ||
        bench::take(argument, "--in-flight=", shape.in_flight) ||
        bench::take(argument, "--idle=", shape.idle) || into.pacing.take(argument) ||
        bench::take(argument, "--idle-bytes=", into.idle_bytes))
        return true;
    std::size_t ping_ms = 0;
    if (bench::take(argument, "--ping-ms=", ping_ms)) {
        shape.ping_every = static_cast<std::int64_t>(ping_ms) * 1'000'000;
        return true;
    }
    if (argument == "--flood") return shape.flood = true;
    if (argument == "--churn") return into.churn = true;
    const std::size_t equals = argument.find('=');
    if (argument.starts_with("-") || equals == 0 || equals == std::string::npos) return false;
    into.servers.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
    return true;
}

}  // namespace

int main(int argc, char** argv) try {
    settings given;
    for (int i = 1; i < argc; ++i)
        if (!take(argv[i], given)) {
            std::fprintf(
                stderr,
                "side_by_side: %s is not understood; write NAME=COMMAND for each server, "
                "--connections=N, --message=BYTES, --in-flight=N, --idle=N, --ping-ms=N, "
                "--flood, --churn, --idle-bytes=N, --rounds=N, --round-ms=N or --starts=N\n",
                argv[i]);
            return 2;
        }
    bench::raise_descriptor_limit();
    bench::take_place();
    if (given.idle_bytes > 0)
        measure_memory(given);
    else if (given.churn)
        compare<bench::churn>(given);
    else
        compare<bench::load>(given);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "side_by_side: %s\n", error.what());
    return 2;
}
