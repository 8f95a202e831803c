// The network between simulated clients and servers: it carries bytes, FIN and RST in virtual time,
// and loses, delays and cuts as its faults say.
//
// What it models of Linux's TCP:
//   * Segments arrive in order; a receiver that does not read closes its window, which fills the
//     sender's buffer.
//   * What arrived before an RST can still be read; then the reset shows. What was still on its way
//     is lost.
//   * Closing with unread input, and data for a socket that is closed, are answered with RST (RFC
//     1122 4.2.2.13).
//   * A client may reset while it waits to be accepted: it stays in the queue.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcp/bytes.hpp>
#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/simulated/addresses.hpp>
#include <tcp/engine/simulated/faults.hpp>
#include <tcp/engine/simulated/link.hpp>
#include <tcp/engine/simulated/listener.hpp>
#include <tcp/engine/simulated/misuse.hpp>
#include <tcp/engine/simulated/random.hpp>
#include <tcp/engine/simulated/schedule.hpp>

namespace tcp::inline v0_1::simulated {

class network {
public:
    network(std::uint64_t seed, const faults& first) : dice{seed}, weather{first}, seed_{seed} {}
    network(const network&) = delete;
    network& operator=(const network&) = delete;

    // Time. Nothing happens but in happen_until().

    std::uint64_t seed() const noexcept { return seed_; }
    std::int64_t now() const noexcept { return now_; }
    std::int64_t next_time() const noexcept {
        return planned_.empty() ? std::numeric_limits<std::int64_t>::max() : planned_.next_time();
    }

    /// Lets virtual time pass up to `time`, and everything happen that is due by then.
    void happen_until(std::int64_t time) {
        std::uint64_t at_once = 0;
        while (!planned_.empty() && planned_.next_time() <= time) {
            const occurrence one = planned_.take();
            if (one.at > now_) at_once = 0;
            if (++at_once > most_at_once)
                return violated(
                    "a million things happened at the same virtual time; a script or an "
                    "on_event() starts itself again without letting time pass");
            pass_to(one.at);
            record(one);
            happen(one);
        }
        pass_to(time);
    }

    void after(duration delay, std::function<void()> script) {
        std::size_t place = scripts_.size();
        if (free_scripts_.empty()) {
            scripts_.push_back(std::move(script));
        } else {
            place = free_scripts_.back();
            free_scripts_.pop_back();
            scripts_[place] = std::move(script);
        }
        plan(happening::script, nullptr, delay.nanoseconds() > 0 ? delay : duration{}, place);
    }

    /// An operation of an engine ends somewhat later.
    void plan_completion(happening what, link& on) {
        const std::int64_t most = weather.completion_max.nanoseconds();
        plan(what, &on, time_between(1, most < 1 ? 1 : most));
    }

    /// Somebody broke a rule.
    void violated(std::string_view what, bool may_throw = true) {
        misuses.add(seed_, now_, what, may_throw);
    }

    // The client's side.

    link& connect(const endpoint& to, const endpoint& from) {
        if (!to) throw std::invalid_argument("tcp::simulation: connect() to an empty endpoint");
        link& made = links_.emplace_back();
        made.number = links_.size();
        made.server_address = to;
        const listener* const there = listeners.find(to);  // as far as is known now
        const bool only_ipv6 = there != nullptr && !there->covers(address_family::ipv4);
        const auto family = to.family() != address_family::any ? to.family()
                            : only_ipv6                        ? address_family::ipv6
                                                               : address_family::ipv4;
        made.client_address = names_.client_for(family, from);
        arrive(made.up, happening::request, made);
        return made;
    }

    bool client_send(link& from, bytes data) {
        if (from.client.closed || from.up.finished || from.up.cut) return false;
        from.up.write(data);
        depart_up(from);
        return true;
    }

    void client_finish(link& from) {
        from.up.finished = true;
        depart_up(from);
    }

    void client_close(link& from) {
        if (from.client.closed) return;
        if (from.down.unread() != 0 || from.client.is == client_side::phase::connecting)
            return client_reset(from);
        from.client.closed = true;
        client_finish(from);
    }

    /// What the client gave to its system and has departed still arrives before the reset.
    void client_reset(link& from) {
        if (from.client.closed) return;
        from.client.closed = true;
        from.up.drop_waiting();
        from.up.cut = true;
        arrive(from.up, happening::reset_up, from);
    }

    /// Reads at most so many bytes of what waits, whether the client is paused or not.
    std::size_t client_take(link& at, std::size_t most) {
        const std::size_t count = std::min(at.down.unread(), most);
        if (count == 0) return 0;
        at.client.received += as_text(at.down.front(count));
        at.client.received_size += count;
        at.down.take(count);
        announce_window(at.down, happening::window_down, at);
        notify(at, client_event::received);
        return count;
    }

    // The server's side.

    std::size_t server_room(const link& at, int option) const noexcept {
        return at.down.room(option > 0 ? static_cast<std::size_t>(option) : weather.send_capacity);
    }

    /// Takes the first so many bytes of the pieces.
    void server_send(link& from, std::span<const bytes> pieces, std::size_t count) {
        for (const bytes piece : pieces) {
            const std::size_t here = std::min(piece.size(), count);
            from.down.write(piece.first(here));
            count -= here;
            if (count == 0) break;
        }
        ++progress;
        depart_down(from);
    }

    void server_finish(link& from) {
        from.down.finished = true;
        depart_down(from);
    }

    void server_take(link& at, std::size_t count) {
        at.up.take(count);
        ++progress;
        announce_window(at.up, happening::window_up, at);
    }

    void server_close(link& from, close_mode how) {
        leave_server(from);
        if (from.server.reset_arrived) return;
        if (how == close_mode::reset || from.up.unread() != 0)
            answer_with_reset(from);
        else
            server_finish(from);
    }

    /// What `server_window` and others do changes at once.
    void set_weather(const faults& changed) {
        weather = changed;
        for (link& one : links_) {
            depart_up(one);
            depart_down(one);
            if (one.server.owner != nullptr) one.server.owner->changed(one);
        }
    }

    std::uint64_t fingerprint() const noexcept { return fingerprint_; }

    random dice;
    faults weather;
    misuse_log misuses;
    listener_table listeners;
    std::size_t open_sockets = 0;
    std::uint64_t progress = 0;  // counts what changes the world: to see that nothing does
    std::uint64_t spin_limit = 10'000;
    bool outside_wakes = false;
    std::function<void(std::string_view)> trace;

private:
    static constexpr std::uint64_t most_at_once = 1'000'000;

    void pass_to(std::int64_t time) noexcept {
        if (time <= now_) return;
        now_ = time;
        ++progress;
    }

    duration time_between(std::int64_t least, std::int64_t most) noexcept {
        return duration::nanoseconds(static_cast<std::int64_t>(
            dice.between(static_cast<std::uint64_t>(least), static_cast<std::uint64_t>(most))));
    }

    void plan(happening what, link* where, duration delay, std::uint64_t detail = 0) {
        planned_.plan({.at = (duration::nanoseconds(now_) + delay).nanoseconds(),
                       .where = where,
                       .detail = detail,
                       .what = what});
    }

    // Something sets out and arrives behind all that set out before it.
    void arrive(pipe& through, happening what, link& on, std::size_t detail = 0) {
        const duration latency =
            time_between(weather.latency_min.nanoseconds(), weather.latency_max.nanoseconds());
        const std::int64_t at = (duration::nanoseconds(now_) + latency).nanoseconds();
        through.last_arrival = std::max(through.last_arrival, at);
        planned_.plan({.at = through.last_arrival,
                       .where = &on,
                       .detail = detail,
                       .journey = through.journey,
                       .what = what});
    }

    void depart_up(link& from) {
        if (from.client.is != client_side::phase::connected) return;
        const std::size_t window = from.server.window > 0
                                       ? static_cast<std::size_t>(from.server.window)
                                       : weather.server_window;
        depart(from.up, window, happening::data_up, happening::end_up, from);
    }
    void depart_down(link& from) {
        depart(from.down, weather.client_window, happening::data_down, happening::end_down, from);
    }
    void depart(pipe& through, std::size_t window, happening data, happening end, link& on) {
        if (through.cut) return;
        while (through.waiting() != 0 && through.window(window) != 0) {
            const std::size_t segment = static_cast<std::size_t>(
                dice.between(std::max<std::size_t>(weather.segment_min, 1), weather.segment_max));
            const std::size_t count =
                std::min({segment, through.waiting(), through.window(window)});
            through.depart(count);
            arrive(through, data, on, count);
        }
        if (through.finished && !through.end_departed && through.waiting() == 0) {
            through.end_departed = true;
            arrive(through, end, on);
        }
    }
    void announce_window(pipe& through, happening what, link& on) {
        if (through.waiting() == 0 || through.window_announced) return;
        through.window_announced = true;
        plan(what, &on, weather.latency_min);
    }

    void happen(const occurrence& one) {
        if (one.what == happening::script) return run_script(static_cast<std::size_t>(one.detail));
        link& on = *one.where;
        switch (one.what) {
            case happening::send_due:
            case happening::writable_due:
            case happening::close_due:
                if (on.server.owner != nullptr) on.server.owner->due(on, one.what);
                return;
            default: break;
        }
        if (on.client.vanished) return;
        const auto size = static_cast<std::size_t>(one.detail);
        switch (one.what) {
            case happening::request: return request_arrived(on);
            case happening::answer: return answer_arrived(on);
            case happening::refusal: return refusal_arrived(on);
            case happening::data_up:
                if (one.journey == on.up.journey) data_arrived_up(on, size);
                return;
            case happening::data_down:
                if (one.journey == on.down.journey) data_arrived_down(on, size);
                return;
            case happening::end_up:
                if (one.journey == on.up.journey) end_arrived_up(on);
                return;
            case happening::end_down:
                if (one.journey == on.down.journey) end_arrived_down(on);
                return;
            case happening::reset_up: return reset_arrived_up(on);
            case happening::reset_down: return reset_arrived_down(on);
            case happening::window_up: on.up.window_announced = false; return depart_up(on);
            case happening::window_down: on.down.window_announced = false; return depart_down(on);
            default: return;
        }
    }

    void run_script(std::size_t place) {
        const std::function<void()> script = std::exchange(scripts_[place], nullptr);
        free_scripts_.push_back(place);
        ++progress;
        script();
    }

    void request_arrived(link& on) {
        listener* const there = listeners.find(on.server_address);
        if (there == nullptr || there->queue.size() >= there->backlog)
            return arrive(on.down, happening::refusal, on);
        on.server_address =
            address_book::server_for(on.server_address, there->where, on.client_address);
        on.server.is = server_side::phase::queued;
        there->queue.push_back(&on);
        arrive(on.down, happening::answer, on);
    }

    void answer_arrived(link& on) {
        if (on.client.closed) return;
        on.client.is = client_side::phase::connected;
        notify(on, client_event::connected);
        depart_up(on);
    }

    void refusal_arrived(link& on) {
        on.client.is = client_side::phase::refused;
        on.up.cut = true;
        notify(on, client_event::refused);
    }

    void data_arrived_up(link& on, std::size_t count) {
        on.up.arrive(count);
        if (on.server.is == server_side::phase::gone) return answer_with_reset(on);
        if (dice.chance(weather.reset_per_mille)) {
            arrive(on.down, happening::reset_down, on);
            return reset_arrived_up(on);
        }
        tell_server(on);
    }

    void data_arrived_down(link& on, std::size_t count) {
        on.down.arrive(count);
        if (on.client.closed) return arrive(on.up, happening::reset_up, on);
        if (!on.client.paused) client_take(on, on.down.unread());
        tell_server(on);
    }

    void end_arrived_up(link& on) {
        on.up.end_arrived = true;
        tell_server(on);
    }

    void end_arrived_down(link& on) {
        on.down.end_arrived = true;
        if (on.client.closed) return;
        on.client.ended = true;
        notify(on, client_event::ended);
    }

    void reset_arrived_up(link& on) {
        if (on.server.reset_arrived || on.server.is == server_side::phase::gone) return;
        on.server.reset_arrived = true;
        on.server.error = on.up.end_arrived ? EPIPE : ECONNRESET;  // as tcp_reset() of Linux has it
        on.up.drop_unarrived();
        on.up.cut = true;
        on.down.drop_unarrived();
        on.down.cut = true;
        tell_server(on);
    }

    void reset_arrived_down(link& on) {
        on.up.drop_unarrived();
        on.up.cut = true;
        on.down.cut = true;
        if (on.client.closed || on.client.was_reset) return;
        on.client.was_reset = true;
        notify(on, client_event::reset);
    }

    // The server's system sends RST: what it had for the client and what is on the way is lost.
    void answer_with_reset(link& from) {
        if (from.down.cut) return;
        from.down.drop_unarrived();
        from.down.cut = true;
        arrive(from.down, happening::reset_down, from);
    }

    void leave_server(link& from) noexcept {
        from.server.is = server_side::phase::gone;
        from.server.owner = nullptr;
        ++progress;
    }

    static void tell_server(link& on) {
        if (on.server.owner != nullptr) on.server.owner->changed(on);
    }

    static void notify(link& on, client_event what) {
        // A copy of the pointer: the function may set another in its place.
        if (const auto call = on.client.on_event; call != nullptr && *call) (*call)(what);
    }

    void record(const occurrence& one) {
        const std::size_t number = one.where != nullptr ? one.where->number : 0;
        for (const std::uint64_t word : {static_cast<std::uint64_t>(one.at), one.detail,
                                         std::uint64_t{number} * 256 + std::uint64_t(one.what)})
            fingerprint_ = (fingerprint_ ^ word) * 0x9e3779b97f4a7c15U ^ (fingerprint_ >> 29);
        if (!trace) return;
        std::string line = std::to_string(one.at / 1000) + " us";
        if (number != 0) line += ", connection " + std::to_string(number);
        line += ": ";
        line += to_text(one.what);
        if (one.what == happening::data_up || one.what == happening::data_down)
            line += ", " + std::to_string(one.detail) + " bytes";
        trace(line);
    }

    std::uint64_t seed_;
    std::int64_t now_ = 0;
    std::uint64_t fingerprint_ = 0;
    schedule planned_;
    address_book names_;
    std::deque<link> links_;
    std::vector<std::function<void()>> scripts_;
    std::vector<std::size_t> free_scripts_;
};

}  // namespace tcp::inline v0_1::simulated
