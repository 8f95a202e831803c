// What waits to be sent to one peer: a ring of segments of which only the last is known.
//
//        ┌──────────────────────────────────────────┐
//        ▼                                          │
//   [ first ] ──► [ second ] ──► ... ──► [ last ] ──┘     tail_ points at the last
//    consume()                            append()
//
// A segment owns copied bytes (in its own block, the last one is filled up before another is
// taken), holds a string or shared bytes that were moved in, or points at bytes that an engine
// lends until its send has finished. An empty queue owns nothing.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/loop/block_pool.hpp>

namespace tcp::inline v0_1::detail {

class send_queue {
public:
    send_queue() = default;
    send_queue(const send_queue&) = delete;
    send_queue& operator=(const send_queue&) = delete;

    bool empty() const noexcept { return size_ == 0; }
    std::size_t size() const noexcept { return size_; }

    /// Copies. Throws std::bad_alloc and changes nothing when there is no memory.
    [[gnu::noinline]] void append(block_pool& pool, bytes data) {
        const std::size_t room = tail_ != nullptr ? tail_->room() : 0;
        const std::size_t here = room < data.size() ? room : data.size();
        segment* more = nullptr;
        if (here < data.size()) {
            more = make_segment(pool, at_least(sizeof(segment) + data.size() - here));
            more->fill(data.subspan(here));
        }
        if (here != 0) tail_->fill(data.first(here));
        if (more != nullptr) link(more);
        grow(pool, data.size());
    }

    /// Takes over what holds these bytes, a string or shared ones, and lets go of it when they were
    /// sent. Few bytes are copied, which costs less time and memory than a segment of their own.
    template <class Holder>
    [[gnu::noinline]] void append_held(block_pool& pool, bytes data, Holder&& holder) {
        constexpr bool alone = std::is_same_v<Holder, std::string>;
        if (data.size() < (alone ? worth_a_segment : worth_sharing)) return append(pool, data);
        segment* const one = make_segment(pool, sizeof(segment) + sizeof(held<Holder>));
        const auto* const owner = ::new (one->storage())
            held<Holder>{{[](void* self) { static_cast<held<Holder>*>(self)->~held(); }},
                         std::forward<Holder>(holder)};
        if constexpr (std::is_same_v<Holder, std::string>) data = as_bytes(owner->bytes);
        one->begin = data.data();
        one->end = data.data() + data.size();
        one->kind = segment_kind::held;
        link(one);
        grow(pool, data.size());
    }

    /// Points at bytes that stay where they are until own_lent() or consume().
    [[gnu::noinline]] void append_lent(block_pool& pool, bytes data) {
        segment* const one = make_segment(pool, sizeof(segment) + sizeof(owned_block));
        one->begin = data.data();
        one->end = data.data() + data.size();
        one->kind = segment_kind::lent;
        link(one);
        grow(pool, data.size());
    }

    /// Copies what is still lent: the lender wants its bytes back. Throws std::bad_alloc.
    [[gnu::cold]] void own_lent(block_pool& pool) {
        if (tail_ == nullptr) return;
        segment* one = tail_;
        do {
            one = one->next;
            if (one->kind != segment_kind::lent) continue;
            const std::size_t size = static_cast<std::size_t>(one->end - one->begin);
            std::byte* const copy = static_cast<std::byte*>(pool.allocate(size));
            std::memcpy(copy, one->begin, size);
            ::new (one->storage()) owned_block{copy, block_pool::block_size(size)};
            one->begin = copy;
            one->end = copy + size;
            one->kind = segment_kind::owned;
        } while (one != tail_);
    }

    /// The first pieces, in order, as many as fit. How many were written.
    std::size_t gather(std::span<bytes> pieces) const noexcept {
        if (tail_ == nullptr) return 0;
        std::size_t count = 0;
        const segment* one = tail_;
        do {
            one = one->next;
            if (count == pieces.size()) break;
            pieces[count++] = bytes{one->begin, one->end};
        } while (one != tail_);
        return count;
    }

    /// Copies what comes behind the first so many bytes, as much of it as fits. How much that was.
    std::size_t copy(std::size_t behind, std::span<std::byte> to) const noexcept {
        if (tail_ == nullptr) return 0;
        std::size_t count = 0;
        const segment* one = tail_;
        do {
            one = one->next;
            const std::size_t size = static_cast<std::size_t>(one->end - one->begin);
            const std::size_t skipped = behind < size ? behind : size;
            const std::size_t room = to.size() - count;
            const std::size_t here = size - skipped < room ? size - skipped : room;
            behind -= skipped;
            if (here != 0) std::memcpy(to.data() + count, one->begin + skipped, here);
            count += here;
        } while (one != tail_ && count != to.size());
        return count;
    }

    /// The first so many bytes are gone.
    [[gnu::noinline]] void consume(block_pool& pool, std::size_t count) noexcept {
        grow(pool, 0 - count);
        while (count != 0) {
            segment* const first = tail_->next;
            const std::size_t here = static_cast<std::size_t>(first->end - first->begin);
            if (count < here) {
                first->begin += count;
                return;
            }
            count -= here;
            unlink_first(pool);
        }
    }

    void clear(block_pool& pool) noexcept {
        while (tail_ != nullptr) unlink_first(pool);
        grow(pool, 0 - size_);
    }

private:
    enum class segment_kind : unsigned char { copied, held, lent, owned };

    // What holds bytes, without its type: a program that sends no strings compiles nothing of them.
    struct holding {
        void (*let_go)(void*);
    };
    template <class Holder>
    struct held : holding {
        Holder bytes;
    };

    struct owned_block {
        void* block;
        std::size_t size;
    };

    struct segment {
        segment* next;
        const std::byte* begin;
        const std::byte* end;
        std::size_t block;  // size of the block this segment stands at the start of
        segment_kind kind;

        std::byte* storage() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
        std::byte* block_end() noexcept { return reinterpret_cast<std::byte*>(this) + block; }
        std::size_t room() noexcept {
            return kind == segment_kind::copied ? static_cast<std::size_t>(block_end() - end) : 0;
        }
        void fill(bytes data) noexcept {
            std::memcpy(const_cast<std::byte*>(end), data.data(), data.size());
            end += data.size();
        }
    };

    static constexpr std::size_t worth_a_segment = 4 * 1024;
    static constexpr std::size_t worth_sharing = 512;
    static constexpr std::size_t least_copied = 4 * 1024;  // room for the sends that follow

    static constexpr std::size_t at_least(std::size_t size) noexcept {
        return size < least_copied ? least_copied : size;
    }
    static segment* make_segment(block_pool& pool, std::size_t least) {
        segment* const one = ::new (pool.allocate(least)) segment{};
        one->block = block_pool::block_size(least);
        one->begin = one->end = one->storage();
        return one;
    }
    [[gnu::noinline]] static void destroy(block_pool& pool, segment* one) noexcept {
        if (one->kind == segment_kind::held) {
            auto* const owner = std::launder(reinterpret_cast<holding*>(one->storage()));
            owner->let_go(owner);
        }
        if (one->kind == segment_kind::owned) {
            const auto* more = std::launder(reinterpret_cast<owned_block*>(one->storage()));
            pool.free(more->block, more->size);
        }
        pool.free(one, one->block);
    }
    void link(segment* one) noexcept {
        one->next = tail_ != nullptr ? std::exchange(tail_->next, one) : one;
        tail_ = one;
    }
    void unlink_first(block_pool& pool) noexcept {
        segment* const first = tail_->next;
        if (first == tail_)
            tail_ = nullptr;
        else
            tail_->next = first->next;
        destroy(pool, first);
    }

    void grow(block_pool& pool, std::size_t more) noexcept {
        size_ += more;
        pool.count_waiting(more);
    }

    segment* tail_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace tcp::inline v0_1::detail
