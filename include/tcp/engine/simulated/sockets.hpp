// The sockets of one simulated engine: what the loop asks of a connection, and whether it may.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tcp/bytes.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/simulated/lent_bytes.hpp>
#include <tcp/engine/simulated/link.hpp>
#include <tcp/engine/simulated/network.hpp>

namespace tcp::inline v0_1::simulated {

/// The part of simulated_engine that needs no sink.
class sockets : public host {
public:
    // Connections, as engine/concept.hpp says.

    int open(connection_id id, int socket) {
        link* const on = accepted_one(socket, "open()");
        if (on == nullptr) return EBADF;
        if (!may_hold(id)) return EBADF;
        if (net_.dice.chance(net_.weather.open_failed_per_mille)) {
            close_socket(*on, close_mode::reset);
            return ENOMEM;
        }
        slots_[id.slot] = {on, id.generation, true};
        on->server.is = server_side::phase::open;
        on->server.id = id;
        ++net_.progress;
        changed(*on);
        return 0;
    }

    void refuse(int socket) {
        if (link* const on = accepted_one(socket, "refuse()")) close_socket(*on, close_mode::reset);
    }

    void pause_receive(connection_id id) {
        link* const on = open_one(id, "pause_receive()");
        if (on == nullptr || std::exchange(on->server.paused, true)) return;
        if (!net_.dice.chance(net_.weather.late_receive_per_mille)) return;
        on->server.under_way = on->up.arrived();
        on->server.end_under_way = on->up.end_arrived || on->server.reset_arrived;
    }

    void resume_receive(connection_id id) {
        link* const on = open_one(id, "resume_receive()");
        if (on == nullptr) return;
        on->server.paused = false;
        on->server.under_way = 0;
        on->server.end_under_way = false;
        list(*on);
    }

    send_outcome send(connection_id id, std::span<const bytes> pieces) {
        using state = send_outcome::state;
        link* const on = open_one(id, "send()");
        if (on == nullptr) return {state::failed, EBADF, 0};
        std::size_t size = 0;
        for (const bytes piece : pieces) {
            size += piece.size();
            if (lent_.stale(piece))
                misused(id,
                        "send() of bytes that were lent to a received event which has returned");
        }
        server_side& at = on->server;
        if (size == 0)
            return misused(id, "send() of no bytes"), send_outcome{state::failed, EINVAL, 0};
        if (at.sending.is != flight::phase::none)
            return misused(id, "send() while one is in flight"),
                   send_outcome{state::failed, EBUSY, 0};
        if (on->down.finished || at.reset_arrived)
            return {state::failed, at.error != 0 ? std::exchange(at.error, 0) : EPIPE, 0};

        if (net_.dice.chance(net_.weather.in_flight_per_mille)) {
            take_off(*on, pieces, size);
            return {state::in_flight, 0, 0};
        }
        const bool blocked = net_.dice.chance(net_.weather.blocked_send_per_mille);
        const std::size_t count = blocked ? 0 : share(*on, size);
        if (count != 0) net_.server_send(*on, pieces, count);
        // A short send that left room is over, and another one would be taken; or the system says
        // to wait.
        if (count == size || (count != 0 && room(*on) != 0 && net_.dice.chance(500)))
            return {state::done, 0, count};
        block(*on);
        return {state::blocked, 0, count};
    }

    void shutdown_send(connection_id id) {
        link* const on = open_one(id, "shutdown_send()");
        if (on == nullptr) return;
        if (on->server.sending.is != flight::phase::none)
            return misused(id, "shutdown_send() while a send is in flight");
        if (!on->server.reset_arrived) net_.server_finish(*on);
    }

    bool close(connection_id id, close_mode how) {
        link* const on = open_one(id, "close()");
        if (on == nullptr) return true;
        server_side& at = on->server;
        if (at.sending.is != flight::phase::none ||
            net_.dice.chance(net_.weather.late_close_per_mille)) {
            at.is = server_side::phase::closing;
            at.closing = how;
            net_.plan_completion(happening::close_due, *on);
            return false;
        }
        slots_[id.slot].holds = nullptr;
        close_socket(*on, how);
        return true;
    }

    endpoint local_endpoint(connection_id id) {
        const link* const on = open_one(id, "local_endpoint()");
        return on != nullptr ? on->server_address : endpoint{};
    }

    // Linux forgets the peer's with the reset: ENOTCONN (getpeername(2)).
    endpoint remote_endpoint(connection_id id) {
        const link* const on = open_one(id, "remote_endpoint()");
        return on != nullptr && !on->server.reset_arrived ? on->client_address : endpoint{};
    }

    int descriptor(connection_id) const noexcept { return -1; }

    // A window opens when the client reads, and what waits for it is on its way at once.
    duration since_taken(connection_id id) {
        const link* const on = open_one(id, "since_taken()");
        if (on == nullptr) return duration::max();
        return duration::nanoseconds(std::max<std::int64_t>(net_.now() - on->down.last_arrival, 0));
    }

protected:
    sockets(network& net, int send_buffer, int receive_buffer)
        : net_{net}, send_buffer_{send_buffer}, receive_buffer_{receive_buffer} {}

    // What close() began is finished here. What is still open was forgotten by the loop, and the
    // bytes of a send in flight may be gone before an engine of this world notices, but not before
    // the kernel would.
    ~sockets() {
        std::size_t open = 0, flying = 0;
        for (link* const on : numbers_) {
            if (on == nullptr) continue;
            const bool closing = on->server.is == server_side::phase::closing;
            if (!closing) ++open;
            if (closing && on->server.sending.is != flight::phase::none) ++flying;
            close_socket(*on, closing ? on->server.closing : close_mode::reset);
        }
        if (open != 0)
            net_.violated("an engine was destroyed with " + std::to_string(open) + " open sockets",
                          false);
        if (flying != 0)
            net_.violated("an engine was destroyed before the closed events of " +
                              std::to_string(flying) + " connections with a send in flight",
                          false);
    }

    // A descriptor number, the lowest free one last given back first: numbers are used again at
    // once.
    int give_number(link& to) {
        std::size_t place = numbers_.size();
        if (free_numbers_.empty()) {
            numbers_.push_back(&to);
        } else {
            place = free_numbers_.back();
            free_numbers_.pop_back();
            numbers_[place] = &to;
        }
        ++open_;
        ++net_.open_sockets;
        ++net_.progress;
        to.server.is = server_side::phase::accepted;
        to.server.owner = this;
        to.server.window = receive_buffer_;
        to.server.socket = static_cast<int>(place) + first_number;
        return to.server.socket;
    }

    bool deliverable(const link& on) const noexcept {
        const server_side& at = on.server;
        if (at.close_over) return true;
        return at.is == server_side::phase::open && (at.sending.is == flight::phase::landed ||
                                                     at.blocked == server_side::blocking::over ||
                                                     receivable(on) || reset_behind_end(on));
    }

    // A reset that came when all had been received.
    static bool reset_behind_end(const link& on) noexcept {
        const server_side& at = on.server;
        return at.is == server_side::phase::open && at.received_last && at.error != 0;
    }

    bool receivable(const link& on) const noexcept {
        const server_side& at = on.server;
        if (at.is != server_side::phase::open || at.received_last) return false;
        if (at.paused)
            return on.up.read() < at.under_way || (at.end_under_way && on.up.unread() == 0);
        return on.up.unread() != 0 || on.up.end_arrived || at.reset_arrived;
    }

    void list(link& on) {
        if (on.server.listed || !deliverable(on)) return;
        on.server.listed = true;
        ready_.push_back(&on);
    }

    // The end of what close() began: the slot is free again before the sink learns of it.
    connection_id forget(link& on) {
        on.server.close_over = false;
        slots_[on.server.id.slot].holds = nullptr;
        return on.server.id;
    }

    // A send has ended, or was given up by close(): the bytes must be those that were given to
    // send().
    void check_unchanged(connection_id id, const flight& sent) {
        if (sent.is != flight::phase::none && checksum(sent.pieces) != sent.checksum)
            misused(id, "the bytes of a send in flight were changed before it had ended");
    }

    void misused(connection_id id, const std::string& what) {
        net_.violated(what + ", connection " + std::to_string(id.slot) + " of generation " +
                      std::to_string(id.generation));
    }

    void changed(link& on) final {
        server_side& at = on.server;
        if (at.is != server_side::phase::open) return;
        const bool reset = at.reset_arrived;
        const bool in_air =
            at.sending.is == flight::phase::pending || at.sending.is == flight::phase::needs_room;
        if (reset && in_air)
            land(on, 0, at.error != 0 ? std::exchange(at.error, 0) : EPIPE);
        else if (at.sending.is == flight::phase::needs_room && room(on) != 0)
            land_some(on);

        const bool waits_for_room = at.blocked == server_side::blocking::needs_room;
        if ((reset && at.blocked != server_side::blocking::none) ||
            (waits_for_room && room(on) >= worth_while()))
            at.blocked = server_side::blocking::over;
        list(on);
    }

    void due(link& on, happening operation) final {
        server_side& at = on.server;
        if (operation == happening::close_due) {
            if (at.is == server_side::phase::closing) finish_close(on);
        } else if (at.is != server_side::phase::open) {
            return;
        } else if (operation == happening::writable_due) {
            if (at.blocked != server_side::blocking::none) at.blocked = server_side::blocking::over;
            list(on);
        } else if (at.sending.is == flight::phase::pending) {
            if (room(on) == 0)
                at.sending.is = flight::phase::needs_room;
            else
                land_some(on);
        }
    }

    network& net_;
    lent_bytes lent_;
    std::vector<link*> ready_;
    std::size_t open_ = 0;  // sockets that have a number

private:
    static constexpr int first_number = 3;
    static constexpr std::uint32_t most_slots = 1 << 24;

    struct slot {
        link* holds = nullptr;
        std::uint32_t generation = 0;
        bool was_used = false;
    };

    link* accepted_one(int socket, const char* call) {
        const auto place = static_cast<std::size_t>(socket - first_number);
        if (socket >= first_number && place < numbers_.size()) {
            link* const on = numbers_[place];
            if (on != nullptr && on->server.is == server_side::phase::accepted) return on;
        }
        net_.violated(std::string(call) + " of socket " + std::to_string(socket) +
                      ", which is not one that was accepted and neither opened nor refused");
        return nullptr;
    }

    link* open_one(connection_id id, const char* call) {
        link* const on = id.slot < slots_.size() && slots_[id.slot].generation == id.generation
                             ? slots_[id.slot].holds
                             : nullptr;
        if (on != nullptr && on->server.is == server_side::phase::open) return on;
        misused(id,
                std::string(call) + (on != nullptr ? " after close()" : " of what is not open"));
        return nullptr;
    }

    bool may_hold(connection_id id) {
        if (id.slot >= most_slots) return misused(id, "open() in a slot beyond 16 million"), false;
        if (id.slot >= slots_.size()) slots_.resize(std::size_t{id.slot} + 1);
        const slot& in = slots_[id.slot];
        if (in.holds != nullptr) return misused(id, "open() in a slot that is not free"), false;
        if (in.was_used && in.generation == id.generation)
            return misused(id, "open() with the generation that the slot had before"), false;
        return true;
    }

    void close_socket(link& on, close_mode how) {
        const auto place = static_cast<std::size_t>(on.server.socket - first_number);
        numbers_[place] = nullptr;
        free_numbers_.push_back(place);
        --open_;
        --net_.open_sockets;
        net_.server_close(on, how);
    }

    std::size_t room(const link& on) const noexcept { return net_.server_room(on, send_buffer_); }

    // Linux says that a socket is writable when a third of its buffer is free.
    std::size_t worth_while() const noexcept {
        const std::size_t capacity =
            send_buffer_ > 0 ? static_cast<std::size_t>(send_buffer_) : net_.weather.send_capacity;
        return std::max<std::size_t>(capacity / 3, 1);
    }

    // How many of so many bytes are taken now.
    std::size_t share(const link& on, std::size_t size) noexcept {
        const std::size_t most = std::min(room(on), size);
        if (most < 2 || !net_.dice.chance(net_.weather.short_send_per_mille)) return most;
        return static_cast<std::size_t>(net_.dice.between(1, most - 1));
    }

    void block(link& on) {
        const bool full = room(on) == 0;
        on.server.blocked =
            full ? server_side::blocking::needs_room : server_side::blocking::needs_time;
        if (!full || net_.dice.chance(net_.weather.spurious_writable_per_mille))
            net_.plan_completion(happening::writable_due, on);
    }

    void take_off(link& on, std::span<const bytes> pieces, std::size_t size) {
        flight& sending = on.server.sending;
        sending.is = flight::phase::pending;
        sending.pieces.assign(pieces.begin(), pieces.end());
        sending.size = size;
        sending.checksum = checksum(pieces);
        lent_.hold(pieces, sending.pins);
        net_.plan_completion(happening::send_due, on);
    }

    void land_some(link& on) {
        const std::size_t count = share(on, on.server.sending.size);
        net_.server_send(on, on.server.sending.pieces, count);
        land(on, count, 0);
    }

    void land(link& on, std::size_t taken, int error) {
        on.server.sending.is = flight::phase::landed;
        on.server.sending.taken = taken;
        on.server.sending.error = error;
        list(on);
    }

    void finish_close(link& on) {
        server_side& at = on.server;
        // A send that close() cancels may have been taken in part.
        const bool in_air =
            at.sending.is == flight::phase::pending || at.sending.is == flight::phase::needs_room;
        if (in_air && !at.reset_arrived && room(on) != 0 && net_.dice.chance(500))
            net_.server_send(on, at.sending.pieces, share(on, at.sending.size));
        close_socket(on, at.closing);
        at.close_over = true;
        list(on);
    }

    int send_buffer_;
    int receive_buffer_;
    std::vector<slot> slots_;
    std::vector<link*> numbers_;  // by descriptor number
    std::vector<std::size_t> free_numbers_;
};

}  // namespace tcp::inline v0_1::simulated
