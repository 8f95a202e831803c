// How long messages took, as counts in buckets 3 % wide: recording is a few instructions.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bench {

class latencies {
public:
    void record(std::int64_t nanoseconds) noexcept {
        ++counts_[bucket(nanoseconds < 0 ? 0 : static_cast<std::uint64_t>(nanoseconds))];
        ++total_;
    }

    /// The time, in microseconds, that this share of the messages did not exceed: quantile(0.99).
    double quantile(double share) const noexcept {
        const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(total_));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen > rank || seen == total_) return static_cast<double>(upper_end(i)) / 1000.0;
        }
        return 0;
    }

private:
    // Values below 32 have a bucket each; above, each power of two is divided into 32.
    static constexpr std::size_t bucket(std::uint64_t value) noexcept {
        if (value < 32) return value;
        const auto shift = static_cast<unsigned>(std::bit_width(value)) - 6;
        return (std::size_t{shift} + 1) * 32 + ((value >> shift) & 31);
    }
    static constexpr std::uint64_t upper_end(std::size_t bucket) noexcept {
        if (bucket < 32) return bucket;
        return ((32 + bucket % 32 + 1) << (bucket / 32 - 1)) - 1;
    }

    std::array<std::uint64_t, std::size_t{60} * 32> counts_{};
    std::uint64_t total_ = 0;
};

}  // namespace bench
