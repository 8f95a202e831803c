// Connections that are sent the same: a chat room, the subscribers of a topic.
//
//     tcp::group room;                       // lives as long as anybody sends to it
//
//     struct guest {
//         tcp::group* room;
//         tcp::group::member in;
//         void on_open(tcp::connection& peer) { in.join(*room, peer); }
//         void on_data(tcp::connection&, tcp::bytes said) { room->send(said); }
//     };                                     // leaves with its connection
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/connection.hpp>
#include <tcp/connection_handle.hpp>
#include <tcp/detail/atomic.hpp>
#include <tcp/detail/counted_pointer.hpp>
#include <tcp/detail/intrusive_list.hpp>
#include <tcp/detail/mutex.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/shared_bytes.hpp>

namespace tcp::inline v0_1 {

namespace detail {

struct in_group {};

/// The members that live on one loop. Only that loop's thread touches them.
struct group_part {
    explicit group_part(mailbox& m, group_part* n) noexcept
        : mail{counted_pointer<mailbox>::of(m)}, next{n} {}
    group_part(const group_part&) = delete;
    group_part& operator=(const group_part&) = delete;

    void hold() noexcept { holders.add(); }
    void let_go() noexcept {
        if (holders.remove()) delete this;
    }

    intrusive_list<in_group> members;
    const counted_pointer<mailbox> mail;
    group_part* const next;
    atomic<std::size_t> size{0};
    holder_count holders;  // the group, each member, each message under way

private:
    ~group_part() = default;
};

}  // namespace detail

/// A set of connections, of one server or of several. send() and size() may be called from every
/// thread; there is no lock that all of them share: what is sent goes once to each loop, which
/// gives it to its own members.
///
/// A member that does not read keeps what it is sent in its queue, as with connection::send(): at
/// options::send_queue_limit it is ended, alone. What is sent waits, bytes stored once, until each
/// loop takes it: who sends faster than the loops go uses memory. The group remembers each loop
/// that a member was on, with some KB, as long as it lives.
class group {
public:
    group() = default;
    group(const group&) = delete;
    group& operator=(const group&) = delete;

    /// Members may be left: what is under way still reaches them. No thread may be in send().
    ~group() {
        for (detail::group_part* one = first_.load_acquire(); one != nullptr;)
            std::exchange(one, one->next)->let_go();
    }

    /// Sends to everybody who is a member when it arrives at their loop. The bytes stand in memory
    /// once, however many members there are. What one thread sends arrives everywhere in that
    /// order. Throws std::bad_alloc: some loops may have got it then.
    void send(const shared_bytes& data) {
        if (data.empty()) return;
        for (detail::group_part* part = first_.load_acquire(); part != nullptr; part = part->next) {
            if (part->size.load_relaxed() == 0) continue;
            auto* const one = new message{*part, data};
            if (!part->mail->post(*one, [] { return true; })) delete one;
        }
    }
    void send(bytes data) { send(shared_bytes{data}); }
    void send(std::string_view text) { send(shared_bytes{text}); }
    void send(const char* text) { send(std::string_view{text}); }

    /// How many members there are.
    std::size_t size() const noexcept {
        std::size_t sum = 0;
        for (const detail::group_part* one = first_.load_acquire(); one != nullptr; one = one->next)
            sum += one->size.load_relaxed();
        return sum;
    }

    /// One connection's place in a group. Usually a member of its handler, with which it leaves;
    /// a handler that is in several groups has several. For the thread of the connection.
    class member : private detail::tagged_node<detail::in_group> {
    public:
        member() noexcept = default;

        /// A copy is in no group: each connection has a copy of the prototype's.
        member(const member&) noexcept : tagged_node{} {}
        member& operator=(const member&) noexcept {  // NOLINT(bugprone-unhandled-self-assignment)
            return *this;
        }
        ~member() { leave(); }

        /// From now on this connection gets what the group is sent, and no longer what the one it
        /// was in before is sent. The group may go before the member. In on_close it only leaves.
        /// Throws std::bad_alloc, and changes nothing then.
        void join(group& to, connection& peer) {
            const connection_handle its = peer.handle();
            if (its == connection_handle{}) return leave();  // on_close: it gets nothing any more
            detail::group_part& part = to.part_of(*its.mail_);
            leave();
            part_ = detail::counted_pointer<detail::group_part>::of(part);
            part_->size.fetch_add(1);
            part_->members.push_back(*this);
            peer_ = &peer;
            generation_ = peer.generation_.load_relaxed();
        }

        /// Gets nothing from now on. Nothing happens to one that is in no group.
        void leave() noexcept {
            if (!part_) return;
            part_->members.remove(*this);
            part_->size.fetch_subtract(1);
            part_ = {};
        }

        /// Whether it is in a group: after join(), until leave().
        bool joined() const noexcept { return static_cast<bool>(part_); }

    private:
        friend class group;
        detail::counted_pointer<detail::group_part> part_;
        connection* peer_ = nullptr;
        std::uint32_t generation_ = 0;  // of the connection: a member may outlive it

        void send(const shared_bytes& data) noexcept {
            if (peer_->generation_.load_relaxed() == generation_) peer_->send_or_end(data);
        }
    };

private:
    struct message : detail::message {
        message(detail::group_part& p, shared_bytes d) noexcept
            : detail::message{[](detail::message& m, detail::loop_context&) noexcept {
                  auto& self = static_cast<message&>(m);
                  // A send asks things of the connection and calls no hook, so nobody leaves here.
                  for (auto* one = self.part->members.front(); one != nullptr;
                       one = static_cast<detail::tagged_node<detail::in_group>*>(one->next))
                      static_cast<member*>(one)->send(self.data);
                  delete &self;
              }},
              part{detail::counted_pointer<detail::group_part>::of(p)},
              data{std::move(d)} {}

        const detail::counted_pointer<detail::group_part> part;
        const shared_bytes data;
    };

    /// The part of this loop, made where there is none yet.
    detail::group_part& part_of(detail::mailbox& mail) {
        const detail::mutex::guard lock{joining_};
        detail::group_part* one = first_.load_relaxed();
        while (one != nullptr && one->mail.get() != &mail) one = one->next;
        if (one == nullptr) {
            one = new detail::group_part{mail, first_.load_relaxed()};
            first_.store_release(one);
        }
        return *one;
    }

    detail::mutex joining_;
    detail::atomic<detail::group_part*> first_{nullptr};
};

}  // namespace tcp::inline v0_1
