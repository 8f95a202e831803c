// The bytes of received events: lent to the sink while the event runs, to a send in flight until
// that has ended, and then overwritten, so that whoever reads them later reads nonsense in each run
// and not only in bad ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include <tcp/bytes.hpp>

namespace tcp::inline v0_1::simulated {

/// A number that changes when the bytes change: multiply and mix, eight at a time. For sums within
/// one process.
inline std::uint64_t checksum(std::span<const bytes> pieces) noexcept {
    std::uint64_t sum = 0;
    const auto mix = [&](std::uint64_t word) {
        sum = (sum ^ word) * 0x9e3779b97f4a7c15U;
        sum ^= sum >> 32;
    };
    for (const bytes piece : pieces) {
        const std::byte* at = piece.data();
        std::size_t left = piece.size();
        for (std::uint64_t word = 0; left >= sizeof word; at += sizeof word, left -= sizeof word) {
            std::memcpy(&word, at, sizeof word);
            mix(word);
        }
        std::uint64_t rest = left;
        if (left != 0) std::memcpy(&rest, at, left);
        mix(rest + left);
    }
    return sum;
}

/// One received event's bytes, and how many sends in flight hold them besides the event.
struct lent_block {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;
    std::size_t holders = 0;
};

class lent_bytes {
public:
    static constexpr std::byte nonsense{0xdd};

    /// A copy of these bytes, with one holder. A block has exactly their size: an address sanitizer
    /// sees who reads beyond it.
    lent_block& lend(bytes original) {
        auto data = std::unique_ptr<std::byte[]>(new std::byte[original.size()]);
        std::memcpy(data.get(), original.data(), original.size());
        const std::byte* const key = data.get();
        return blocks_.emplace(key, lent_block{std::move(data), original.size(), 1}).first->second;
    }

    void release(lent_block& block) {
        if (--block.holders != 0) return;
        std::fill_n(block.data.get(), block.size, nonsense);
        returned_.push_back(block.data.get());
        if (returned_.size() <= remembered) return;
        blocks_.erase(returned_.front());
        returned_.pop_front();
    }

    /// Whether a piece lies in bytes that were given back a short time ago.
    bool stale(bytes piece) {
        const lent_block* const block = find(piece);
        return block != nullptr && block->holders == 0;
    }

    /// Makes a send in flight a holder of the blocks that its pieces lie in.
    void hold(std::span<const bytes> pieces, std::vector<lent_block*>& held) {
        for (const bytes piece : pieces) {
            lent_block* const block = find(piece);
            if (block == nullptr) continue;
            ++block->holders;
            held.push_back(block);
        }
    }

    void release(std::vector<lent_block*>& held) {
        for (lent_block* const block : held) release(*block);
        held.clear();
    }

private:
    static constexpr std::size_t remembered = 8;

    lent_block* find(bytes piece) {
        auto next = blocks_.upper_bound(piece.data());
        if (next == blocks_.begin()) return nullptr;
        lent_block& block = std::prev(next)->second;
        return std::less{}(piece.data(), block.data.get() + block.size) ? &block : nullptr;
    }

    std::map<const std::byte*, lent_block, std::less<>> blocks_;  // by their first byte
    std::deque<const std::byte*> returned_;
};

}  // namespace tcp::inline v0_1::simulated
