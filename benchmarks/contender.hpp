// A server that is compared with others: its command, its process under load, what was measured.
#pragma once

#include <optional>
#include <string_view>

#include "load.hpp"

namespace bench {

/// The words of a command; the program is looked for beside this one unless its path is given.
inline std::vector<std::string> command_of(std::string_view text) {
    std::vector<std::string> words;
    while (!text.empty()) {
        const std::size_t space = std::min(text.find(' '), text.size());
        if (space > 0) words.emplace_back(text.substr(0, space));
        text.remove_prefix(std::min(space + 1, text.size()));
    }
    if (words.empty()) throw std::runtime_error("no command of a server is given");
    if (words[0].find('/') == std::string::npos) words[0].insert(0, own_folder());
    return words;
}

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}
inline double least(const std::vector<double>& values) {
    return *std::min_element(values.begin(), values.end());
}
inline double most(const std::vector<double>& values) {
    return *std::max_element(values.begin(), values.end());
}

/// What rounds of one kind gave.
struct series {
    std::vector<double> throughput;  // messages in a second
    std::vector<double> cpu;         // nanoseconds of the server's process for each message
    std::vector<double> flood;       // MiB in a second of the connection that floods
    latencies times;
};

/// One server under load, which is a bench::load or has its constructor and its run.
template <class Load = load>
class contender {
public:
    contender(const std::string& command, shape wanted, int core)
        : command_(command_of(command)), shape_(wanted), core_(core) {}

    /// A new process, connected to and warm.
    void start(std::chrono::milliseconds warm_up) {
        running_.reset();
        running_.emplace(command_, core_, shape_);
        latencies forgotten;
        running_->load.run(warm_up, forgotten);
    }

    void end() noexcept { running_.reset(); }

    /// Returns seconds for each message. What follows `into` is for the load's run.
    template <class... Options>
    double round(std::chrono::milliseconds length, series& into, Options... options) {
        const std::int64_t before = running_->server.cpu_nanoseconds();
        const round_result done = running_->load.run(length, into.times, options...);
        const auto cpu = static_cast<double>(running_->server.cpu_nanoseconds() - before);
        const auto messages = static_cast<double>(done.messages);
        const double seconds = static_cast<double>(done.nanoseconds) / 1e9;
        into.cpu.push_back(cpu / messages);
        into.throughput.push_back(messages / seconds);
        into.flood.push_back(static_cast<double>(done.flood_bytes) / 1048576 / seconds);
        return seconds / messages;
    }

    /// What the server calls its engine.
    std::string engine() const { return running_ ? running_->server.engine() : std::string(); }

private:
    struct pair {
        pair(const std::vector<std::string>& command, int core, shape wanted)
            : server(command, core), load(server.port(), wanted) {}
        server_process server;
        Load load;
    };

    std::vector<std::string> command_;
    shape shape_;
    int core_;
    std::optional<pair> running_;
};

/// Anonymous memory that so many connections add to a new process of a server once each has echoed
/// 64 bytes and waits, in bytes for each of them.
inline double idle_bytes(const std::vector<std::string>& command, std::size_t idle) {
    server_process server(command, place().server);
    latencies forgotten;
    // A round of no length is one message on each connection. The first connection pays for what is
    // made once, such as the receive buffer's pages.
    load first(server.port(), {.connections = 1, .message = 64, .in_flight = 1});
    first.run({}, forgotten);
    const std::int64_t before = server.memory().anonymous;
    load others(server.port(), {.connections = idle, .message = 64, .in_flight = 1});
    others.run({}, forgotten);
    return static_cast<double>(server.memory().anonymous - before) / static_cast<double>(idle);
}

/// Takes `--NAME=VALUE` if the argument is that.
inline bool take(std::string_view argument, std::string_view name, std::string& into) {
    if (!argument.starts_with(name)) return false;
    into = argument.substr(name.size());
    return true;
}
/// The same for a number of at least `least`.
template <class Number>
bool take(std::string_view argument, std::string_view name, Number& into, Number least = 1) {
    std::string text;
    if (!take(argument, name, text)) return false;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc{} && end == text.data() + text.size() && into >= least;
}

/// How long, how often, and with how many new processes is measured.
struct pacing {
    int rounds = 24;
    int round_ms = 150;
    int starts = 6;

    bool take(std::string_view argument) {
        return bench::take(argument, "--rounds=", rounds) ||
               bench::take(argument, "--round-ms=", round_ms) ||
               bench::take(argument, "--starts=", starts);
    }
    std::chrono::milliseconds round() const { return std::chrono::milliseconds(round_ms); }
    int rounds_of_a_start() const { return std::max(1, rounds / starts); }
};

}  // namespace bench
