// A server program as a child process: started on a core of its own, measured, ended by its pid.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace bench {

[[noreturn]] inline void fail(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
}

/// The cores this process may use.
inline std::vector<int> allowed_cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) fail("sched_getaffinity");
    std::vector<int> cores;
    for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) cores.push_back(core);
    return cores;
}

/// Where the load and the server run: on two cores if there are two, so that neither takes the
/// other's time.
struct placement {
    int load = 0;
    int server = 0;
};
inline placement place() {
    // Looked for once: who is tied to one core is allowed that one alone.
    static const placement found = [] {
        const std::vector<int> cores = allowed_cores();
        return placement{cores.front(), cores.back()};
    }();
    return found;
}

/// Ties the calling process to one core.
inline void pin(int core) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

/// Ties this process, the load, to its core, and says where everything runs.
inline void take_place() noexcept {
    pin(place().load);
    std::fprintf(stderr, "the load runs on core %d, the servers on core %d\n", place().load,
                 place().server);
}

/// Allows this process, and those it starts, as many descriptors as the system lets it have.
inline void raise_descriptor_limit() noexcept {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// The folder of the running program, with a slash at its end. The servers stand beside it.
inline std::string own_folder() {
    std::string path(4096, '\0');
    const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
    if (length < 0) fail("readlink /proc/self/exe");
    path.resize(static_cast<std::size_t>(length));
    return path.substr(0, path.rfind('/') + 1);
}

/// Bytes, as /proc/PID/smaps_rollup counts them: exact, where those of /proc/PID/status lag behind.
struct memory_use {
    std::int64_t resident = 0;
    std::int64_t proportional = 0;
    std::int64_t anonymous = 0;
};

/// A running server. It has printed its line `listening on ADDRESS:PORT engine NAME`.
class server_process {
public:
    server_process(const std::vector<std::string>& command, int core) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
        std::vector<char*> arguments;
        arguments.reserve(command.size() + 1);
        for (const std::string& word : command)
            arguments.push_back(const_cast<char*>(word.c_str()));
        arguments.push_back(nullptr);
        const pid_t parent = ::getpid();
        pid_ = ::fork();
        if (pid_ < 0) fail("fork");
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (::getppid() != parent) ::_exit(127);
            pin(core);
            ::dup2(ends[1], STDOUT_FILENO);
            ::execv(arguments[0], arguments.data());
            ::_exit(127);
        }
        ::close(ends[1]);
        output_ = ends[0];
        try {
            await_listening(command.front());
        } catch (...) {
            end();
            throw;
        }
    }

    server_process(const server_process&) = delete;
    server_process& operator=(const server_process&) = delete;
    ~server_process() { end(); }

    pid_t pid() const noexcept { return pid_; }
    std::uint16_t port() const noexcept { return port_; }
    const std::string& engine() const noexcept { return engine_; }

    /// The processor time of all its threads so far, in user space and kernel.
    std::int64_t cpu_nanoseconds() const {
        clockid_t clock{};
        timespec time{};
        if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &time) != 0)
            throw std::runtime_error("the server has ended before it was told to");
        return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
    }

    memory_use memory() const {
        std::ifstream lines("/proc/" + std::to_string(pid_) + "/smaps_rollup");
        memory_use use;
        std::string word;
        while (lines >> word) {
            std::int64_t* field = word == "Rss:"         ? &use.resident
                                  : word == "Pss:"       ? &use.proportional
                                  : word == "Anonymous:" ? &use.anonymous
                                                         : nullptr;
            if (field != nullptr && lines >> *field) *field *= 1024;
        }
        return use;
    }

    /// SIGTERM, and SIGKILL if that has not ended it within five seconds. Idempotent.
    void end() noexcept {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGTERM);
        for (int i = 0; i < 500; ++i) {
            if (::waitpid(pid_, nullptr, WNOHANG) != 0) {
                pid_ = 0;
                break;
            }
            ::usleep(10'000);
        }
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
            pid_ = 0;
        }
        ::close(output_);
    }

private:
    void await_listening(const std::string& program) {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        std::string line;
        while (line.empty() || line.back() != '\n') {
            pollfd readable{output_, POLLIN, 0};
            char next{};
            if (std::chrono::steady_clock::now() > give_up || ::poll(&readable, 1, 1000) < 0)
                throw std::runtime_error(program + " did not say within 10 s where it listens");
            if (readable.revents == 0) continue;
            if (::read(output_, &next, 1) != 1)
                throw std::runtime_error(program +
                                         " does not start; build it and look at what it says");
            line += next;
        }
        const std::size_t engine = line.rfind(" engine ");
        const std::size_t colon = line.rfind(':', engine);
        if (!line.starts_with("listening on ") || engine == std::string::npos ||
            colon == std::string::npos ||
            std::from_chars(line.data() + colon + 1, line.data() + engine, port_).ec != std::errc{})
            throw std::runtime_error(program + " says \"" + line + "\", not where it listens");
        engine_ = line.substr(engine + 8, line.size() - engine - 9);
    }

    pid_t pid_ = 0;
    int output_ = -1;
    std::uint16_t port_ = 0;
    std::string engine_;
};

}  // namespace bench
