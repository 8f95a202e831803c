// What one loop counts. The loop writes, any thread may read.
#pragma once

#include <cstddef>

#include <tcp/close_reason.hpp>
#include <tcp/detail/counter.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1::detail {

struct loop_counters {
    counter accepted;
    counter open;
    counter bytes_received;
    counter bytes_sent;
    counter accept_errors;
    counter pauses;
    counter timeouts;
    counter closed_by[closed_by_count];
    counter refused_by[refused_by_count];

    void count(tcp::refused_by why) noexcept { refused_by[static_cast<std::size_t>(why)].add(1); }

    /// Adds what this loop has counted.
    void add_to(statistics& sum) const noexcept {
        sum.accepted += accepted.read();
        sum.open += open.read();
        sum.bytes_received += bytes_received.read();
        sum.bytes_sent += bytes_sent.read();
        sum.accept_errors += accept_errors.read();
        sum.pauses += pauses.read();
        sum.timeouts += timeouts.read();
        for (std::size_t i = 0; i != closed_by_count; ++i) {
            sum.closed_by[i] += closed_by[i].read();
            sum.closed += closed_by[i].read();
        }
        for (std::size_t i = 0; i != refused_by_count; ++i) {
            sum.refused_by[i] += refused_by[i].read();
            sum.refused += refused_by[i].read();
        }
    }
};

}  // namespace tcp::inline v0_1::detail
