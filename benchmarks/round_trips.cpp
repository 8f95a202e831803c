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

#include <cstdio>

#include "contender.hpp"

namespace {

struct settings {
    bench::pacing pacing;
    std::string ours = "echo_server --host 127.0.0.1 --port 0 --engine epoll";
    std::string floor = "floor_epoll 0";
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
    const std::chrono::milliseconds length = given.pacing.round();
    bench::contender<> ours(given.ours, shape, cores.server);
    bench::contender<> floor(given.floor, shape, cores.server);
    bench::series of_ours, of_floor;
    bool ours_first = true;
    for (int round = 0; auto _ : state) {
        if (round++ % given.pacing.rounds_of_a_start() == 0) {
            ours.start(length);
            floor.start(length);
        }
        if (!ours_first) floor.round(length, of_floor);
        state.SetIterationTime(ours.round(length, of_ours));
        if (ours_first) floor.round(length, of_floor);
        ours_first = !ours_first;
    }
    const comparison result{
        .name = std::move(name),
        .has_target = shape.connections >= 64,
        .throughput_ratio = bench::median(of_ours.throughput) / bench::median(of_floor.throughput),
        .best_ratio = bench::most(of_ours.throughput) / bench::most(of_floor.throughput),
        .cpu_ratio = bench::least(of_ours.cpu) / bench::least(of_floor.cpu)};
    state.counters["ours_msg/s"] = bench::median(of_ours.throughput);
    state.counters["floor_msg/s"] = bench::median(of_floor.throughput);
    state.counters["msg/s_ratio"] = result.throughput_ratio;
    state.counters["best_ratio"] = result.best_ratio;
    state.counters["ours_cpu_ns"] = bench::least(of_ours.cpu);
    state.counters["floor_cpu_ns"] = bench::least(of_floor.cpu);
    state.counters["cpu_ratio"] = result.cpu_ratio;
    state.counters["p50_us"] = of_ours.times.quantile(0.50);
    state.counters["p99_us"] = of_ours.times.quantile(0.99);
    state.counters["floor_p50_us"] = of_floor.times.quantile(0.50);
    state.counters["floor_p99_us"] = of_floor.times.quantile(0.99);
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

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);  // takes its own flags out
    settings given;
    for (int i = 1; i < argc; ++i) {
        if (given.pacing.take(argv[i]) || bench::take(argv[i], "--ours=", given.ours) ||
            bench::take(argv[i], "--floor=", given.floor))
            continue;
        std::fprintf(
            stderr,
            "round_trips: %s is not understood; write --rounds=N, --round-ms=N, --starts=N, "
            "--ours=COMMAND, --floor=COMMAND or a flag of Google Benchmark\n",
            argv[i]);
        return 2;
    }
    bench::raise_descriptor_limit();
    bench::take_place();
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
                    ->Iterations(given.pacing.rounds)
                    ->UseManualTime()
                    ->Unit(benchmark::kMicrosecond);
            }
    if (benchmark::RunSpecifiedBenchmarks() == 0) return 2;
    benchmark::Shutdown();
    if (!results.empty()) print_summary(results);
    return std::any_of(results.begin(), results.end(), [](auto& one) { return one.failed(); }) * 2;
}
