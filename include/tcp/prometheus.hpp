// A server's counters as the text that Prometheus reads: the text-based exposition format, version
// 0.0.4. examples/metrics.cpp serves it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <tcp/close_reason.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1 {

namespace detail {

class prometheus_writer {
public:
    void counter(std::string_view name, std::string_view help, std::uint64_t value) {
        describe(name, help, "counter");
        sample(name, {}, value);
    }
    void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
        describe(name, help, "gauge");
        sample(name, {}, value);
    }

    /// One for each reason, those that are 0 included: a series that begins at its first event
    /// hides that event from rate().
    template <class Reason>
    void counters(std::string_view name, std::string_view help,
                  std::span<const std::uint64_t> by_reason) {
        describe(name, help, "counter");
        for (std::size_t i = 0; i != by_reason.size(); ++i)
            sample(name, to_text(static_cast<Reason>(i)), by_reason[i]);
    }

    std::string text;

private:
    void describe(std::string_view name, std::string_view help, std::string_view type) {
        for (const std::string_view part :
             {std::string_view{"# HELP "}, name, std::string_view{" "}, help,
              std::string_view{"\n# TYPE "}, name, std::string_view{" "}, type,
              std::string_view{"\n"}})
            text += part;
    }
    void sample(std::string_view name, std::string_view reason, std::uint64_t value) {
        text += name;
        if (!reason.empty()) {
            text += "{reason=\"";
            text += reason;
            text += "\"}";
        }
        text += ' ';
        text += std::to_string(value);
        text += '\n';
    }
};

}  // namespace detail

/// The Content-Type to serve it with.
inline constexpr std::string_view prometheus_content_type =
    "text/plain; version=0.0.4; charset=utf-8";

/// The counters of server::statistics(), each as a metric named tcp_..., with its help and type.
/// What is counted by reason has a label with the words of to_text(), and the sum over it is the
/// whole. Any thread. Throws std::bad_alloc.
inline std::string prometheus_text(const statistics& counted) {
    detail::prometheus_writer to;
    to.counter("tcp_connections_accepted_total", "Connections that got a handler.",
               counted.accepted);
    to.gauge("tcp_connections_open", "Connections that are open now.", counted.open);
    to.counters<refused_by>("tcp_connections_refused_total",
                            "Connections that were accepted and reset without a handler.",
                            counted.refused_by);
    to.counters<closed_by>("tcp_connections_closed_total", "Connections that ended.",
                           counted.closed_by);
    to.counter("tcp_received_bytes_total", "Bytes received.", counted.bytes_received);
    to.counter("tcp_sent_bytes_total", "Bytes that the system took to send.", counted.bytes_sent);
    to.counter("tcp_accept_errors_total", "Failures to accept.", counted.accept_errors);
    to.counter("tcp_pauses_total", "Times a connection stopped reading at its high mark.",
               counted.pauses);
    to.counter("tcp_timeouts_total", "Deadlines that passed.", counted.timeouts);
    return std::move(to.text);
}

}  // namespace tcp::inline v0_1
