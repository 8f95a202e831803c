// A client in a simulated world: what a test holds to talk to its server.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/simulated/network.hpp>

namespace tcp::inline v0_1::simulated {

/// One client connection, made by simulation::connect(). It is a name: copies are the same client,
/// and a client that no name is left of goes on. It is valid as long as its world. What it is told
/// to do happens at the present virtual time and shows at the other side a latency later; it
/// receives by itself, at once, unless it was paused.
class client {
public:
    client(network& world, link& connection) noexcept : world_{&world}, link_{&connection} {}

    // What a client does.

    /// Sends behind what was sent before; before it is connected, too. Any size: a client's system
    /// takes everything and sends as the server's window opens. False when nothing can be sent any
    /// more.
    bool send(bytes data) { return world_->client_send(*link_, data); }
    bool send(std::string_view text) { return send(as_bytes(text)); }
    bool send(const char* text) { return send(std::string_view{text}); }

    /// Finishes sending: FIN behind what was sent. It still receives. shutdown(2), SHUT_WR.
    void shutdown_send() { world_->client_finish(*link_); }

    /// Closes as close(2) does: FIN behind what was sent; what the server sends from now on is
    /// answered with a reset. With input that was not received (after pause_receive()), or before
    /// it is connected, it is reset().
    void close() { world_->client_close(*link_); }

    /// Sends RST, behind what has left. What waits for the server's window is lost. SO_LINGER of 0,
    /// socket(7).
    void reset() { world_->client_reset(*link_); }

    /// Vanishes from the network without a word, like a machine that lost power: nothing arrives
    /// any more, either way, not even an answer.
    void vanish() { link_->client.vanished = true; }

    /// Reads no more: what arrives fills the window, and then the server's buffer.
    void pause_receive() { link_->client.paused = true; }

    /// Reads again, and at once what has arrived meanwhile.
    void resume_receive() {
        link_->client.paused = false;
        receive();
    }

    /// Reads at most so many bytes of what has arrived, while paused: a slow reader. How many it
    /// read.
    std::size_t receive(std::size_t most = std::numeric_limits<std::size_t>::max()) {
        return link_->client.closed ? 0 : world_->client_take(*link_, most);
    }

    // What a client has seen.

    /// Everything received since the beginning, or since the last take().
    const std::string& received() const noexcept { return link_->client.received; }

    /// The same, and forgets it.
    std::string take() { return std::exchange(link_->client.received, {}); }

    /// How many bytes were received since the beginning, take() or not.
    std::size_t received_size() const noexcept { return link_->client.received_size; }

    /// How many bytes were given to send(), and how many of them have arrived at the server's
    /// system.
    std::size_t sent_size() const noexcept { return static_cast<std::size_t>(link_->up.written()); }
    std::size_t acknowledged_size() const noexcept {
        return static_cast<std::size_t>(link_->up.arrived());
    }

    /// Whether the server's system has answered; it stays true to the end.
    bool connected() const noexcept { return link_->client.is == client_side::phase::connected; }

    /// Whether nobody listened there, or the backlog was full.
    bool refused() const noexcept { return link_->client.is == client_side::phase::refused; }

    /// Whether the server has finished sending: its FIN arrived. RFC 9293 3.6.
    bool ended() const noexcept { return link_->client.ended; }

    /// Whether the server, or somebody between, reset the connection.
    bool was_reset() const noexcept { return link_->client.was_reset; }

    /// The client's address, as the server sees it, and what the server's end is called.
    const endpoint& local_endpoint() const noexcept { return link_->client_address; }
    const endpoint& remote_endpoint() const noexcept { return link_->server_address; }

    /// The number of this connection in simulation::trace().
    std::size_t number() const noexcept { return link_->number; }

    /// Calls `function(client&, client_event)` at each event from now on, at its virtual time, in
    /// place of what was called before. The function may do everything but wait: it is called from
    /// within the server's run().
    void on_event(std::function<void(client&, client_event)> function) {
        link_->client.on_event = std::make_shared<std::function<void(client_event)>>(
            [self = *this, call = std::move(function)](client_event what) mutable {
                if (call) call(self, what);
            });
    }

    friend bool operator==(const client& a, const client& b) noexcept { return a.link_ == b.link_; }

private:
    network* world_;
    link* link_;
};

}  // namespace tcp::inline v0_1::simulated
