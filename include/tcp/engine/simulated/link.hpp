// One simulated connection: the pipe each way, the client's side and the server's side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <tcp/bytes.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/simulated/pipe.hpp>
#include <tcp/engine/simulated/schedule.hpp>

namespace tcp::inline v0_1::simulated {

struct link;
struct lent_block;

/// What a client's on_event() is told.
enum class client_event : unsigned char {
    connected,
    refused,   // nobody listens there, or the backlog is full
    received,  // more has been received
    ended,     // the server has finished sending: its FIN arrived
    reset,     // the server, or somebody between, reset the connection
};

/// An engine as the network sees it.
class host {
public:
    host(const host&) = delete;
    host& operator=(const host&) = delete;

    virtual void changed(link& on) = 0;  // something about this connection may be worth an event
    virtual void due(link& on, happening operation) = 0;  // an operation of this engine ends now

protected:
    host() = default;
    ~host() = default;
};

/// The client's end of a connection.
struct client_side {
    enum class phase : unsigned char { connecting, connected, refused };
    phase is = phase::connecting;
    bool closed = false;  // it closed or reset: what still comes is answered with a reset
    bool paused = false;  // what arrives waits in the window
    bool ended = false;   // the server's FIN arrived
    bool was_reset = false;
    bool vanished = false;  // nothing arrives any more, either way
    std::string received;
    std::size_t received_size = 0;  // what was taken out of `received` included
    std::shared_ptr<std::function<void(client_event)>> on_event;
};

/// A send that is in flight: what was given to send(), and how it went.
struct flight {
    enum class phase : unsigned char { none, pending, needs_room, landed };
    phase is = phase::none;
    std::vector<bytes> pieces;
    std::vector<lent_block*> pins;  // what of it lies in received bytes
    std::size_t size = 0;
    std::uint64_t checksum = 0;
    std::size_t taken = 0;
    int error = 0;
};

/// The server's end of a connection: a socket of an engine.
struct server_side {
    enum class phase : unsigned char { none, queued, accepted, open, closing, gone };
    phase is = phase::none;
    host* owner = nullptr;
    int socket = -1;
    connection_id id;

    int window = 0;  // SO_RCVBUF; 0 is what the network has for all

    bool listed = false;         // among those that the next wait() looks at
    bool reset_arrived = false;  // by the peer
    int error = 0;               // pending; whoever reports it clears it (SO_ERROR, socket(7))

    bool paused = false;
    bool received_last = false;   // ended or failed was delivered
    std::uint64_t under_way = 0;  // what had arrived up to here is delivered although paused
    bool end_under_way = false;

    enum class blocking : unsigned char { none, needs_room, needs_time, over };
    blocking blocked = blocking::none;
    flight sending;

    close_mode closing{};
    bool close_over = false;
};

/// A connection, from the client's connect() to the end of the world.
struct link {
    std::size_t number = 0;  // first one 1
    endpoint client_address;
    endpoint server_address;  // what the client asked for; once it is queued, one machine's
    pipe up;                  // client to server
    pipe down;                // server to client
    client_side client;
    server_side server;
};

}  // namespace tcp::inline v0_1::simulated
