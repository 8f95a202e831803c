// Sentences for errors, made and thrown out of the way: small to compile, small in the program.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

namespace tcp::inline v0::detail {

/// The parts, one behind the other.
[[gnu::cold, gnu::noinline]] inline std::string sentence(
    std::initializer_list<std::string_view> parts) {
    std::string all;
    for (const std::string_view part : parts) all.append(part.data(), part.size());
    return all;
}

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

/// Throws std::system_error with this sentence; what() has what the code means behind it.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail(std::error_code why,
                                                        const std::string& text) {
    throw std::system_error{why, text};
}

}  // namespace tcp::inline v0::detail
