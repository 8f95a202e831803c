// Round trips of ours and of the floor in the same run, with Google Benchmark.
//
// For each load both servers are started as child processes on one core; the load runs on another.
// Rounds are short and interleaved, the order turned round each time, because so a noisy machine
// can be trusted most; and both are started anew several times, because where the system puts a
// process's buffers decides more about large messages than any code: one program compared with
// itself came out between 0.6 and 1.8. Throughput is compared by the best rounds, processor time by
// the least: noise only adds. The time of an iteration is that of a message with ours. What is
// reported beside it: README.md.
#include <benchmark/benchmark.h>

#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>

#include "load.hpp"

namespace {

struct settings {
    int rounds = 24;
    int round_ms = 150;
    int starts = 6;
    std::string ours = "echo_server --host 127.0.0.1 --port 0 --engine epoll";
    std::string floor = "floor_epoll 0";
};

/// The words of a command; the program is looked for beside this one unless its path is given.
std::vector<std::string> command_of(std::string_view text) {
    std::vector<std::string> words;
    while (!text.empty()) {
        const std::size_t space = std::min(text.find(' '), text.size());
        if (space > 0) words.emplace_back(text.substr(0, space));
        text.remove_prefix(std::min(space + 1, text.size()));
    }
    if (words.empty()) throw std::runtime_error("no command of a server is given");
    if (words[0].find('/') == std::string::npos) words[0].insert(0, bench::own_folder());
    return words;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}
double least(const std::vector<double>& values) {
    return *std::min_element(values.begin(), values.end());
}
double most(const std::vector<double>& values) {
    return *std::max_element(values.begin(), values.end());
}

/// One server under load, and what was measured of it, round after round.
class contender {
public:
    contender(const std::string& command, bench::shape shape, int core)
        : command_(command_of(command)), shape_(shape), core_(core) {}

    /// A new process, connected to and warm.
    void start(std::chrono::milliseconds warm_up) {
        running_.reset();
        running_.emplace(command_, core_, shape_);
        bench::latencies forgotten;
        running_->load.run(warm_up, forgotten);
    }

    /// Returns seconds for each message.
    double round(std::chrono::milliseconds length) {
        const std::int64_t before = running_->server.cpu_nanoseconds();
        const bench::round_result done = running_->load.run(length, latencies_);
        const auto cpu = static_cast<double>(running_->server.cpu_nanoseconds() - before);
        const auto messages = static_cast<double>(done.messages);
        cpu_.push_back(cpu / messages);
        throughput_.push_back(messages * 1e9 / static_cast<double>(done.nanoseconds));
        return static_cast<double>(done.nanoseconds) / 1e9 / messages;
    }

    const std::vector<double>& throughput() const noexcept { return throughput_; }
    const std::vector<double>& cpu() const noexcept { return cpu_; }
    double quantile(double share) const noexcept { return latencies_.quantile(share); }

private:
    struct pair {
        pair(const std::vector<std::string>& command, int core, bench::shape shape)
            : server(command, core), load(server.port(), shape) {}
        bench::server_process server;
        bench::load load;
    };

    std::vector<std::string> command_;
    bench::shape shape_;
    int core_;
    std::optional<pair> running_;
    bench::latencies latencies_;
    std::vector<double> throughput_;  // messages in a second
    std::vector<double> cpu_;         // nanoseconds for each message
};

struct comparison {
    std::string name;
    bool has_target = false;
    double throughput_ratio = 0;
    double best_ratio = 0;
    double cpu_ratio = 0;
    bool failed() const noexcept { return cpu_ratio == 0; }
};

constexpr double throughput_target = 0.97;
constexpr double cpu_target = 1.05;

void compare(benchmark::State& state, const settings& given, bench::shape shape, std::string name,
             std::vector<comparison>& results) try {
    const bench::placement cores = bench::place();
    const std::chrono::milliseconds length(given.round_ms);
    contender ours(given.ours, shape, cores.server);
    contender floor(given.floor, shape, cores.server);
    const int rounds_of_a_start = std::max(1, given.rounds / given.starts);
    bool ours_first = true;
    for (int round = 0; auto _ : state) {
        if (round++ % rounds_of_a_start == 0) {
            ours.start(length);
            floor.start(length);
        }
        if (!ours_first) floor.round(length);
        state.SetIterationTime(ours.round(length));
        if (ours_first) floor.round(length);
        ours_first = !ours_first;
    }
    const comparison result{
        .name = std::move(name),
        .has_target = shape.connections >= 64,
        .throughput_ratio = median(ours.throughput()) / median(floor.throughput()),
        .best_ratio = most(ours.throughput()) / most(floor.throughput()),
        .cpu_ratio = least(ours.cpu()) / least(floor.cpu())};
    state.counters["ours_msg/s"] = median(ours.throughput());
    state.counters["floor_msg/s"] = median(floor.throughput());
    state.counters["msg/s_ratio"] = result.throughput_ratio;
    state.counters["best_ratio"] = result.best_ratio;
    state.counters["ours_cpu_ns"] = least(ours.cpu());
    state.counters["floor_cpu_ns"] = least(floor.cpu());
    state.counters["cpu_ratio"] = result.cpu_ratio;
    state.counters["p50_us"] = ours.quantile(0.50);
    state.counters["p99_us"] = ours.quantile(0.99);
    state.counters["floor_p50_us"] = floor.quantile(0.50);
    state.counters["floor_p99_us"] = floor.quantile(0.99);
    results.push_back(result);
} catch (const std::exception& error) {
    state.SkipWithError(error.what());
    results.push_back({.name = std::move(name)});
}

void print_summary(const std::vector<comparison>& results) {
    std::printf(
        "\nAgainst the floor. Targets at 64 and 1000 connections: throughput (of the best rounds) "
        ">= "
        "%.2f, CPU (of the least) <= %.2f\n%-36s %11s %11s %11s\n",
        throughput_target, cpu_target, "load", "median", "best round", "CPU");
    for (const comparison& one : results) {
        const bool reached = one.best_ratio >= throughput_target && one.cpu_ratio <= cpu_target;
        std::printf("%-36s %11.3f %11.3f %11.3f  %s\n", one.name.c_str(), one.throughput_ratio,
                    one.best_ratio, one.cpu_ratio,
                    one.failed()      ? "did not run"
                    : !one.has_target ? ""
                    : reached         ? "reached"
                                      : "NOT reached");
    }
}

std::string size_text(std::size_t bytes) {
    if (bytes >= 1024 * 1024) return std::to_string(bytes / 1024 / 1024) + "MiB";
    if (bytes >= 1024) return std::to_string(bytes / 1024) + "KiB";
    return std::to_string(bytes) + "B";
}

/// Takes `--NAME=VALUE` if the argument is that.
bool take(std::string_view argument, std::string_view name, std::string& into) {
    if (!argument.starts_with(name)) return false;
    into = argument.substr(name.size());
    return true;
}
bool take(std::string_view argument, std::string_view name, int& into) {
    std::string text;
    if (!take(argument, name, text)) return false;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc{} && end == text.data() + text.size() && into > 0;
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);  // takes its own flags out
    settings given;
    for (int i = 1; i < argc; ++i) {
        if (take(argv[i], "--rounds=", given.rounds) ||
            take(argv[i], "--round-ms=", given.round_ms) ||
            take(argv[i], "--starts=", given.starts) || take(argv[i], "--ours=", given.ours) ||
            take(argv[i], "--floor=", given.floor))
            continue;
        std::fprintf(
            stderr,
            "round_trips: %s is not understood; write --rounds=N, --round-ms=N, --starts=N, "
            "--ours=COMMAND, --floor=COMMAND or a flag of Google Benchmark\n",
            argv[i]);
        return 2;
    }
    bench::raise_descriptor_limit();
    bench::pin(bench::place().load);
    std::vector<comparison> results;
    for (const std::size_t connections : {1U, 64U, 1000U})
        for (const std::size_t message : {64U, 4096U, 65'536U, 1'048'576U})
            for (const std::size_t in_flight : {1U, 16U}) {
                std::string name = "echo/" + std::to_string(connections) + "x" +
                                   size_text(message) + "/in_flight:" + std::to_string(in_flight);
                const bench::shape shape{connections, message, in_flight};
                benchmark::RegisterBenchmark(
                    name.c_str(),
                    [&given, shape, name, &results](benchmark::State& state) {
                        compare(state, given, shape, name, results);
                    })
                    ->Iterations(given.rounds)
                    ->UseManualTime()
                    ->Unit(benchmark::kMicrosecond);
            }
    if (benchmark::RunSpecifiedBenchmarks() == 0) return 2;
    benchmark::Shutdown();
    if (!results.empty()) print_summary(results);
    return std::any_of(results.begin(), results.end(), [](auto& one) { return one.failed(); }) * 2;
}
