// Sentences for errors, put together without std::string, whose operations would be compiled into
// every program: small to compile, small in the program.
#pragma once

#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

namespace tcp::inline v0_1::detail {

/// Text of at most 511 bytes, which is more than a sentence about an endpoint needs. What does not
/// fit is cut off.
class sentence {
public:
    sentence() noexcept { text_[0] = '\0'; }
    sentence(std::initializer_list<std::string_view> parts) noexcept : sentence{} {
        for (const std::string_view part : parts) add(part);
    }

    [[gnu::cold, gnu::noinline]] void add(std::string_view part) noexcept {
        const std::size_t room = sizeof text_ - 1 - size_;
        const std::size_t count = part.size() < room ? part.size() : room;
        std::memcpy(text_ + size_, part.data(), count);
        size_ += count;
        text_[size_] = '\0';
    }

    bool empty() const noexcept { return size_ == 0; }
    const char* c_str() const noexcept { return text_; }
    std::string str() const { return {text_, size_}; }
    operator std::string_view() const noexcept {  // NOLINT(google-explicit-constructor): a part
        return {text_, size_};
    }

private:
    std::size_t size_ = 0;
    char text_[512];  // not set to zeros: that and copying them would be compiled everywhere
};

/// A number as a part of a sentence.
class decimal {
public:
    template <class Integer>
    explicit constexpr decimal(Integer value) noexcept
        : decimal{value < Integer{}, static_cast<unsigned long long>(value)} {}
    decimal(const decimal&) = delete;
    decimal& operator=(const decimal&) = delete;

    operator std::string_view() const noexcept {  // NOLINT(google-explicit-constructor): a part
        return {first_, static_cast<std::size_t>(text_ + sizeof text_ - first_)};
    }

private:
    // Of a negative number the bits, as unsigned ones.
    [[gnu::cold]] constexpr decimal(bool negative, unsigned long long bits) noexcept {
        unsigned long long rest = negative ? 0 - bits : bits;
        do {
            *--first_ = static_cast<char>('0' + rest % 10);
            rest /= 10;
        } while (rest != 0);
        if (negative) *--first_ = '-';
    }

    char text_[20] = {};
    char* first_ = text_ + sizeof text_;
};

/// A std::system_error whose what() is a sentence and, behind it, what the code means.
class failure final : public std::system_error {
public:
    [[gnu::cold]] failure(std::error_code why, std::string_view text)
        : std::system_error{why}, text_{text, ": ", std::system_error::what()} {}
    const char* what() const noexcept override { return text_.c_str(); }

private:
    sentence text_;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void fail(std::error_code why,
                                                        std::string_view text) {
    throw failure{why, text};
}

}  // namespace tcp::inline v0_1::detail
