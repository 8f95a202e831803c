// A folder for the files of one test, gone with the end of its scope.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include <doctest/doctest.h>

namespace tests {

/// A new folder that only this user can use. Its name is short: a unix-domain path has at most 107
/// bytes. Each test leaves it empty. Throws std::system_error.
class temporary_folder {
public:
    temporary_folder() {
        static int made = 0;
        const std::string start = std::filesystem::temp_directory_path() / "tcp-";
        for (;;) {
            path_ = start + std::to_string(::getpid()) + '-' + std::to_string(++made);
            if (::mkdir(path_.c_str(), 0700) == 0) return;
            if (errno != EEXIST) throw std::system_error{errno, std::system_category(), path_};
        }
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code failure;
        const auto removed = std::filesystem::remove_all(path_, failure);
        CHECK(removed == 1);  // otherwise something was left in it
    }

    const std::string& path() const noexcept { return path_; }

    /// The path of a file in it.
    std::string file(std::string_view name = "x") const { return path_ + '/' + std::string{name}; }

private:
    std::string path_;
};

}  // namespace tests
