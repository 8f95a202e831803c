// Processes, for tests that change something about their own, and what a process has open.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <tcp/detail/descriptor.hpp>

namespace tests {

/// What a child process found: the first check that failed, or that it may not do what it needs.
class findings {
public:
    void check(bool holds, std::string_view what) {
        if (!holds && said_.empty()) said_ = what;
    }
    void not_permitted(std::string_view what) { said_ = std::string{skipped} + std::string{what}; }

    const std::string& said() const noexcept { return said_; }

    static constexpr std::string_view skipped = "not permitted here: ";

private:
    std::string said_;
};

/// Calls f(findings&) in a child of fork(2), so that what it changes of its process is gone
/// afterwards, and checks what it found.
template <class F>
void in_child(F f) {
    int ends[2] = {};
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const tcp::detail::descriptor from{ends[0]}, to{ends[1]};
    const pid_t child = ::fork();
    if (child == 0) {
        findings found;
        try {
            f(found);
        } catch (const std::exception& e) {
            found.check(false, e.what());
        } catch (...) {  // a REQUIRE: the tests that follow are not for this process
            found.check(false, "something was thrown");
        }
        const std::string& said = found.said();
        ::_exit(::write(to.get(), said.data(), said.size()) < 0 ? 1 : 0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    char text[1000] = {};
    ::fcntl(from.get(), F_SETFL, O_NONBLOCK);
    const ssize_t size = ::read(from.get(), text, sizeof text - 1);
    const std::string said{text, size > 0 ? static_cast<std::size_t>(size) : 0};
    CHECK(status == 0);  // otherwise it was killed, or a sanitizer ended it
    if (said.substr(0, findings::skipped.size()) == findings::skipped)
        MESSAGE(said);
    else
        CHECK(said == "");
}

/// From now on this system call answers with this errno where its argument has this value.
/// seccomp(2). False where that is not permitted.
inline bool refuse_call(long call, unsigned argument, int value, int error) {
    constexpr std::size_t low = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0;
    const std::size_t at = offsetof(seccomp_data, args) + sizeof(std::uint64_t) * argument + low;
    constexpr std::uint16_t load = BPF_LD | BPF_W | BPF_ABS;
    constexpr std::uint16_t equal = BPF_JMP | BPF_JEQ | BPF_K;
    constexpr std::uint16_t give = BPF_RET | BPF_K;
    sock_filter program[] = {
        {load, 0, 0, offsetof(seccomp_data, nr)},
        {equal, 0, 3, static_cast<std::uint32_t>(call)},
        {load, 0, 0, static_cast<std::uint32_t>(at)},
        {equal, 0, 1, static_cast<std::uint32_t>(value)},
        {give, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)},
        {give, 0, 0, SECCOMP_RET_ALLOW},
    };
    const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// The descriptors of this process.
inline std::vector<int> open_descriptors() {
    std::vector<int> all;
    DIR* const folder = ::opendir("/proc/self/fd");
    REQUIRE(folder != nullptr);
    while (const dirent* const one = ::readdir(folder))
        if (one->d_name[0] != '.' && std::stoi(one->d_name) != ::dirfd(folder))
            all.push_back(std::stoi(one->d_name));
    ::closedir(folder);
    return all;
}

}  // namespace tests
