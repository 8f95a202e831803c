// What is going to happen in a simulated world, in the order of its virtual time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tcp::inline v0_1::simulated {

struct link;

/// What can happen. "up" is the way to the server, "down" the way to the client.
enum class happening : unsigned char {
    script,   // a function given to after()
    request,  // the client's SYN reaches the server's system
    answer,   // ... which has queued the connection
    refusal,  // ... or refused it
    data_up,  // a segment arrives
    data_down,
    end_up,  // a FIN arrives
    end_down,
    reset_up,  // an RST arrives
    reset_down,
    window_up,  // the sender learns that the receiver has read
    window_down,
    send_due,      // an operation of an engine ends: a send in flight
    writable_due,  // ... a blocked send
    close_due,     // ... a close
};

constexpr const char* to_text(happening what) noexcept {
    switch (what) {
        case happening::script: return "script";
        case happening::request: return "connection request at the server";
        case happening::answer: return "connected";
        case happening::refusal: return "refused";
        case happening::data_up: return "data at the server";
        case happening::data_down: return "data at the client";
        case happening::end_up: return "FIN at the server";
        case happening::end_down: return "FIN at the client";
        case happening::reset_up: return "RST at the server";
        case happening::reset_down: return "RST at the client";
        case happening::window_up: return "window open for the client";
        case happening::window_down: return "window open for the server";
        case happening::send_due: return "send in flight ends";
        case happening::writable_due: return "blocked send may go on";
        case happening::close_due: return "close ends";
    }
    return "unknown";
}

/// One thing that is going to happen.
struct occurrence {
    std::int64_t at = 0;      // nanoseconds of virtual time
    std::uint64_t order = 0;  // among those of the same time: first planned, first come
    link* where = nullptr;    // the connection
    std::uint64_t detail = 0;
    std::uint32_t journey = 0;
    happening what{};
};

class schedule {
public:
    bool empty() const noexcept { return heap_.empty(); }
    std::int64_t next_time() const noexcept { return heap_.front().at; }

    void plan(occurrence one) {
        one.order = planned_++;
        heap_.push_back(one);
        std::push_heap(heap_.begin(), heap_.end(), later);
    }

    occurrence take() {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        const occurrence first = heap_.back();
        heap_.pop_back();
        return first;
    }

private:
    static bool later(const occurrence& a, const occurrence& b) noexcept {
        return a.at != b.at ? a.at > b.at : a.order > b.order;
    }

    std::vector<occurrence> heap_;
    std::uint64_t planned_ = 0;
};

}  // namespace tcp::inline v0_1::simulated
