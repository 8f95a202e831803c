// An echo server whose counters Prometheus can read: GET /metrics on a second port.
// `metrics [port [metrics-port]]`, 12345 and 12346 if left out. SIGINT and SIGTERM end it.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>
#include <tcp/prometheus.hpp>
#include <tcp/server.hpp>
#include <tcp/stop_on.hpp>
#include <tcp/task.hpp>
#include <thread>

using namespace std::chrono_literals;

std::string response(std::string_view status, std::string_view type, std::string_view body) {
    return "HTTP/1.1 " + std::string{status} + "\r\nContent-Type: " + std::string{type} +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" +
           std::string{body};
}

int main(int argc, char** argv) try {
    tcp::server<tcp::echo> echo;
    const tcp::endpoint bound = echo.bind(argc > 1 ? std::atoi(argv[1]) : 12345);
    echo.listen();

    // Each connection has 5 seconds for one request of at most 8 KiB.
    const tcp::options strict{.max_connections = 100, .lifetime = 5s};
    const auto export_metrics = [&echo](tcp::connection& peer) -> tcp::task<> {
        const auto request = co_await peer.receive_until("\r\n\r\n", 8192);
        if (!request) co_return;
        if (request.text().starts_with("GET /metrics "))
            co_await peer.send(response("200 OK", tcp::prometheus_content_type,
                                        tcp::prometheus_text(echo.statistics())));
        else
            co_await peer.send(response("404 Not Found", "text/plain", "See /metrics.\n"));
    };
    tcp::server metrics{export_metrics, strict};
    const tcp::endpoint shown = metrics.bind(argc > 2 ? std::atoi(argv[2]) : 12346);
    metrics.listen();

    const tcp::stop_on guard{echo, {SIGINT, SIGTERM}, 5s};
    std::printf("listening on %s, metrics on %s\n", bound.to_string().c_str(),
                shown.to_string().c_str());
    std::fflush(stdout);

    std::thread exporter{[&metrics] { metrics.run(); }};
    echo.run();  // until it has drained; the metrics can be read meanwhile
    metrics.stop();
    exporter.join();
} catch (const std::system_error& failure) {
    std::fprintf(stderr, "metrics: %s\n", failure.what());
    return 1;
}
