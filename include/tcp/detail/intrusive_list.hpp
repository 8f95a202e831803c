// A list whose links are part of its items: putting an item in and taking it out never allocates.
#pragma once

namespace tcp::inline v0_1::detail {

struct list_node {
    list_node* previous = nullptr;
    list_node* next = nullptr;
};

/// One kind of membership. An item inherits one node for each list that it can be in at the same
/// time.
template <class Tag>
struct tagged_node : list_node {};

/// First in, first out.
template <class Tag>
class intrusive_list {
public:
    using node = tagged_node<Tag>;

    bool empty() const noexcept { return first_ == nullptr; }
    node* front() const noexcept { return static_cast<node*>(first_); }
    node* back() const noexcept { return static_cast<node*>(last_); }

    bool contains(const node& item) const noexcept {
        return item.previous != nullptr || first_ == &item;
    }

    void push_back(node& item) noexcept {
        item.previous = last_;
        item.next = nullptr;
        (last_ != nullptr ? last_->next : first_) = &item;
        last_ = &item;
    }

    /// Nothing happens to an item that is not in this list.
    void remove(node& item) noexcept {
        if (!contains(item)) return;
        (item.previous != nullptr ? item.previous->next : first_) = item.next;
        (item.next != nullptr ? item.next->previous : last_) = item.previous;
        item.previous = item.next = nullptr;
    }

private:
    list_node* first_ = nullptr;
    list_node* last_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
