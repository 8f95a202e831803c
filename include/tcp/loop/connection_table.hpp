// The connections of one loop: slots that are used again, each time under another generation.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tcp/connection.hpp>
#include <tcp/detail/slot_array.hpp>
#include <tcp/engine/concept.hpp>

namespace tcp::inline v0_1::detail {

/// Where a connection and its handler live. It stays where it is, so a hook may keep a reference
/// until on_close.
template <class Handler>
class slot final : public connection {
public:
    slot() noexcept {}
    ~slot() {}

    union {
        Handler handler;  // made and destroyed by the loop
    };
};

template <class Handler>
class connection_table {
public:
    using slot_type = slot<Handler>;

    /// A free slot, in use from now on. Throws std::bad_alloc.
    slot_type& take(loop_context& loop) {
        if (free_.empty()) grow();
        slot_type& s = static_cast<slot_type&>(*free_.back());
        free_.remove(s);
        s.loop_ = &loop;
        s.flags_ = connection::in_use;
        return s;
    }

    /// Gives a slot back: its name is nobody's from now on. Its handler is destroyed already, and
    /// it is in no list.
    void release(slot_type& s) noexcept {
        s.generation_.store_relaxed(((s.generation_.load_own() - 1) | 1) + 2);
        s.flags_ = 0;
        s.errno_ = 0;
        s.reason_ = {};
        s.which_ = 0;
        free_.push_back(s);  // taken again first: its memory is warm
    }

    /// The connection of this name, unless it is gone.
    slot_type* find(connection_id id) noexcept {
        slot_type& s = slots_[id.slot];
        return s.generation_.load_own() == id.generation ? &s : nullptr;
    }

    /// The same, when its on_close was called and the engine has still to let go of it.
    slot_type* find_closing(connection_id id) noexcept {
        return find({id.slot, id.generation + 1});
    }

    /// Calls f(slot&) for each connection in use; f may release it.
    template <class F>
    void for_each(F f) {
        for (std::size_t i = 0; i != slots_.size(); ++i)
            if ((slots_[i].flags_ & connection::in_use) != 0) f(slots_[i]);
    }

private:
    void grow() {
        const std::size_t before = slots_.size();
        slots_.grow_to(before);
        for (std::size_t i = slots_.size(); i-- != before;) {
            slots_[i].slot_ = static_cast<std::uint32_t>(i);
            free_.push_back(slots_[i]);
        }
    }

    slot_array<slot_type> slots_;
    intrusive_list<touched> free_;
};

}  // namespace tcp::inline v0_1::detail
