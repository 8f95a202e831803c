// A server's counters as Prometheus reads them.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <tcp/prometheus.hpp>

TEST_CASE("prometheus: every counter, with its help, its type and its reasons") {
    tcp::statistics counted;
    counted.accepted = 20;
    counted.refused = 6;
    counted.open = 5;
    counted.closed = 15;
    counted.bytes_received = 18'446'744'073'709'551'615U;
    counted.bytes_sent = 7;
    counted.accept_errors = 8;
    counted.pauses = 9;
    counted.timeouts = 10;
    counted.closed_by[static_cast<std::size_t>(tcp::closed_by::peer_finished)] = 11;
    counted.closed_by[static_cast<std::size_t>(tcp::closed_by::system_error)] = 4;
    for (std::uint64_t i = 0; i != tcp::refused_by_count; ++i) counted.refused_by[i] = i + 1;

    CHECK(tcp::prometheus_text(counted) ==
          R"(# HELP tcp_connections_accepted_total Connections that got a handler.
# TYPE tcp_connections_accepted_total counter
tcp_connections_accepted_total 20
# HELP tcp_connections_open Connections that are open now.
# TYPE tcp_connections_open gauge
tcp_connections_open 5
# HELP tcp_connections_refused_total Connections that were accepted and reset without a handler.
# TYPE tcp_connections_refused_total counter
tcp_connections_refused_total{reason="stopping"} 1
tcp_connections_refused_total{reason="handler failed"} 2
tcp_connections_refused_total{reason="connection limit"} 3
tcp_connections_refused_total{reason="address limit"} 4
tcp_connections_refused_total{reason="admission"} 5
# HELP tcp_connections_closed_total Connections that ended.
# TYPE tcp_connections_closed_total counter
tcp_connections_closed_total{reason="peer finished"} 11
tcp_connections_closed_total{reason="peer reset"} 0
tcp_connections_closed_total{reason="closed by the handler"} 0
tcp_connections_closed_total{reason="aborted by the handler"} 0
tcp_connections_closed_total{reason="handler threw"} 0
tcp_connections_closed_total{reason="deadline"} 0
tcp_connections_closed_total{reason="limit"} 0
tcp_connections_closed_total{reason="server stopping"} 0
tcp_connections_closed_total{reason="drain deadline"} 0
tcp_connections_closed_total{reason="system error"} 4
# HELP tcp_received_bytes_total Bytes received.
# TYPE tcp_received_bytes_total counter
tcp_received_bytes_total 18446744073709551615
# HELP tcp_sent_bytes_total Bytes that the system took to send.
# TYPE tcp_sent_bytes_total counter
tcp_sent_bytes_total 7
# HELP tcp_accept_errors_total Failures to accept.
# TYPE tcp_accept_errors_total counter
tcp_accept_errors_total 8
# HELP tcp_pauses_total Times a connection stopped reading at its high mark.
# TYPE tcp_pauses_total counter
tcp_pauses_total 9
# HELP tcp_timeouts_total Deadlines that passed.
# TYPE tcp_timeouts_total counter
tcp_timeouts_total 10
)");
}

TEST_CASE("prometheus: no series is given twice, and a label needs no escaping") {
    std::set<std::string_view> series;
    const std::string text = tcp::prometheus_text({});
    std::string_view rest = text;
    while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(line.size() + 1);
        CHECK(line.find('\\') == std::string_view::npos);
        if (line.starts_with('#')) continue;
        CHECK(line.ends_with(" 0"));
        CHECK(series.insert(line).second);
        const auto quotes = line.find('{') == std::string_view::npos ? 0 : 2;
        std::ptrdiff_t found = 0;
        for (const char c : line) found += c == '"';
        CHECK(found == quotes);
    }
    CHECK(series.size() == 7 + tcp::closed_by_count + tcp::refused_by_count);
    CHECK(tcp::prometheus_content_type.find("version=0.0.4") != std::string_view::npos);
}
