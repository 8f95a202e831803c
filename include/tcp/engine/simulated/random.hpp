// Chance that is the same in every run: a small generator, fixed by its seed on every machine and
// compiler, which <random>'s distributions are not.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tcp::inline v0_1::simulated {

/// xoshiro256** by David Blackman and Sebastiano Vigna, its state filled by splitmix64 from one
/// number (https://prng.di.unimi.it). Not for secrets.
class random {
public:
    explicit constexpr random(std::uint64_t seed) noexcept {
        for (std::uint64_t& word : state_) {
            seed += 0x9e3779b97f4a7c15U;
            std::uint64_t mixed = seed;
            mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
            mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
            word = mixed ^ (mixed >> 31);
        }
    }

    /// The next 64 bits.
    constexpr std::uint64_t next() noexcept {
        const std::uint64_t result = rotated(state_[1] * 5, 7) * 9;
        const std::uint64_t shifted = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= shifted;
        state_[3] = rotated(state_[3], 45);
        return result;
    }

    /// A number from 0 to bound - 1; 0 for a bound of 0. The bias is bound / 2^64: none for what
    /// this is for.
    constexpr std::uint64_t below(std::uint64_t bound) noexcept {
        return bound == 0 ? 0 : next() % bound;
    }

    /// A number from least to most, both included; least when it is the larger one.
    constexpr std::uint64_t between(std::uint64_t least, std::uint64_t most) noexcept {
        if (least >= most) return least;
        const std::uint64_t span = most - least;
        return span == UINT64_MAX ? next() : least + below(span + 1);
    }

    /// The same, small numbers as likely as large ones: first the order of magnitude is drawn.
    constexpr std::uint64_t magnitude(std::uint64_t least, std::uint64_t most) noexcept {
        std::uint64_t bits = 0;
        while (bits < 63 && (most >> (bits + 1)) != 0) ++bits;
        const std::uint64_t top = std::uint64_t{2} << below(bits + 1);  // 2 << 63 is 0: no top
        return between(least, top == 0 || top > most ? most : top < least ? least : top);
    }

    /// Whether something happens that happens so many times in a thousand.
    constexpr bool chance(unsigned per_mille) noexcept {
        return per_mille != 0 && below(1000) < per_mille;
    }

private:
    static constexpr std::uint64_t rotated(std::uint64_t word, int by) noexcept {
        return (word << by) | (word >> (64 - by));
    }

    std::uint64_t state_[4]{};
};

}  // namespace tcp::inline v0_1::simulated
