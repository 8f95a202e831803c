// The name of a connection for other threads, and for later: it outlives the connection.
//
//     struct player {
//         void on_open(tcp::connection& peer) { lobby->joined(peer.handle()); }
//         ...
//     };
//     ... elsewhere:  player.send("your turn\n");
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/connection.hpp>
#include <tcp/detail/counted_pointer.hpp>
#include <tcp/error.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/shared_bytes.hpp>

namespace tcp::inline v0_1 {

/// Names one connection and no other, though its place in the server, and its descriptor, are used
/// again. Every function may be called from every thread, and is about what was true at
/// that moment. It may be kept as long as one likes, longer than the server; only behind two
/// thousand million further connections in that same place could it name one of them.
///
/// What one thread sends and posts arrives in that order. From a hook, too, it arrives later: at
/// the end of the batch of events.
class connection_handle {
public:
    /// Names nobody.
    connection_handle() noexcept = default;

    /// Sends a copy of these bytes. The result says error::not_open when the connection is over:
    /// nothing was sent. What is under way when the connection ends is counted in
    /// close_reason::unsent. What is under way, and the queue, are bounded as for
    /// connection::send(): beyond options::send_queue_limit the connection is ended, and the result
    /// says error::send_queue_limit. Throws std::bad_alloc.
    ///
    /// It does not say how much waits already: who sends much posts a function that looks at
    /// connection::writable(), and goes on in on_writable.
    send_result send(bytes data) const { return posted(copied_message::make(*this, data)); }
    send_result send(std::string_view text) const { return send(as_bytes(text)); }
    send_result send(const char* text) const { return send(std::string_view{text}); }

    /// The same without a copy.
    send_result send(const shared_bytes& data) const {
        return posted(new shared_message{*this, data});
    }

    /// Calls `call(tcp::connection&)` on the thread of the connection, as if it were a hook: what
    /// it throws ends the connection. It is moved there and is destroyed there, or here when the
    /// result says error::not_open. When on_close comes before its turn does, it is destroyed and
    /// not called. Throws std::bad_alloc.
    template <class F>
    send_result post(F call) const {
        static_assert(std::is_invocable_v<F&, connection&>,
                      "tcp::connection_handle::post: the function cannot be called as it will be; "
                      "write [...](tcp::connection& peer) { ... }.");
        return posted(new call_message<F>{*this, std::move(call)});
    }

    /// Whether the connection is there, and its on_close not called yet.
    bool open() const noexcept {
        return mail_ && mail_->holds([this] { return names_it(); });
    }

    /// Whether both name the same connection, or both nobody. Open or not.
    friend bool operator==(const connection_handle& a, const connection_handle& b) noexcept {
        return a.mail_ == b.mail_ &&
               (!a.mail_ || (a.peer_ == b.peer_ && a.generation_ == b.generation_));
    }

private:
    friend class connection;
    friend class group;
    template <class>
    friend class promise;

    struct connection_message : detail::message {
        connection_message(delivery how, const connection_handle& h, std::size_t count) noexcept
            : message{how, h.slot_, count}, to{h.peer_}, generation{h.generation_} {}

        /// Whether it is still this life of the slot.
        bool arrived() const noexcept { return to->generation_.load_relaxed() == generation; }

        // What cannot be sent any more stays counted as under way, for close_reason::unsent.
        template <class Data>
        void deliver_bytes(const Data& data) noexcept {
            if (!arrived() || !to->send_or_end(data)) return;
            if (!to->loop_->mail->arrived(slot, size)) to->end_at_send_queue_limit();
        }

        connection* const to;
        const std::uint32_t generation;
    };

    // The bytes stand behind it.
    struct copied_message : connection_message {
        static copied_message* make(const connection_handle& h, bytes data) {
            void* const memory = ::operator new(sizeof(copied_message) + data.size());
            auto* const one =
                ::new (memory) copied_message{[](message& m, detail::loop_context&) noexcept {
                                                  auto& self = static_cast<copied_message&>(m);
                                                  self.deliver_bytes(bytes{self.data(), self.size});
                                                  destroy(&self);
                                              },
                                              h, data.size()};
            if (!data.empty()) std::memcpy(one->data(), data.data(), data.size());
            return one;
        }
        static void destroy(copied_message* one) noexcept { ::operator delete(one); }
        using connection_message::connection_message;
        std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
    };

    struct shared_message : connection_message {
        shared_message(const connection_handle& h, const shared_bytes& d) noexcept
            : connection_message{[](message& m, detail::loop_context&) noexcept {
                                     auto& self = static_cast<shared_message&>(m);
                                     self.deliver_bytes(self.data);
                                     destroy(&self);
                                 },
                                 h, d.size()},
              data{d} {}
        static void destroy(shared_message* one) noexcept { delete one; }
        shared_bytes data;
    };

    template <class F>
    struct call_message : connection_message {
        call_message(const connection_handle& h, F&& f)
            : connection_message{[](message& m, detail::loop_context& loop) noexcept {
                                     auto& self = static_cast<call_message&>(m);
                                     if (self.arrived()) loop.call_hook(*self.to, &run, &self.call);
                                     destroy(&self);
                                 },
                                 h, 0},
              call{std::move(f)} {}
        static void run(void* f, connection& c) { (*static_cast<F*>(f))(c); }
        static void destroy(call_message* one) noexcept { delete one; }
        F call;
    };

    connection_handle(detail::mailbox& mail, connection& peer) noexcept
        : mail_{detail::counted_pointer<detail::mailbox>::of(mail)},
          peer_{&peer},
          slot_{peer.slot_},
          generation_{peer.generation_.load_relaxed()} {}

    // Under the lock of the mailbox, with the loop and so the slot there.
    bool names_it() const noexcept { return peer_->generation_.load_relaxed() == generation_; }

    template <class Message>
    send_result posted(Message* one) const noexcept {
        auto why = error::not_open;
        const auto may_go = [&] {
            if (!names_it()) return false;
            if (one->size == 0 || mail_->has_room(slot_, peer_->loop_->send_queue_limit))
                return true;
            why = error::send_queue_limit;
            return false;
        };
        if (mail_ && mail_->post(*one, may_go)) return {};
        Message::destroy(one);
        return send_result{why};
    }

    detail::counted_pointer<detail::mailbox> mail_;
    connection* peer_ = nullptr;
    std::uint32_t slot_ = 0;
    std::uint32_t generation_ = 0;
};

inline connection_handle connection::handle() {
    if ((flags_ & finished) != 0) return {};
    if (loop_->mail == nullptr) loop_->mail = new detail::mailbox{*loop_};
    loop_->mail->count_for(slot_);
    return {*loop_->mail, *this};
}

}  // namespace tcp::inline v0_1
