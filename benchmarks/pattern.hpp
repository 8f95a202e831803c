// What a connection sends: one pseudo-random pattern over and over, begun at a place of its own, so
// that one memcmp finds a byte that is lost, doubled, out of order or another connection's:
//
//     pattern:  [ period: 65521 random bytes | the same again, so that any piece is contiguous ]
//     connection i sends as byte number p: pattern[(i * 7919 + p) % period]
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bench {

class pattern {
public:
    static constexpr std::size_t longest = 262'144;  // what can be had in one piece

    pattern() {
        std::mt19937 random(20240501);
        for (std::size_t i = 0; i < bytes_.size(); ++i)
            bytes_[i] = i < period ? static_cast<char>(random()) : bytes_[i - period];
    }

    const char* at(std::size_t connection, std::uint64_t position) const noexcept {
        return bytes_.data() + (connection * 7919 + position) % period;
    }

private:
    static constexpr std::size_t period = 65'521;
    std::vector<char> bytes_ = std::vector<char>(period + longest);
};

}  // namespace bench
