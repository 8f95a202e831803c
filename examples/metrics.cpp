// An echo server whose counters Prometheus can read: GET /metrics on a second port.
// `metrics [where [metrics-where]]`, 12345 and 12346 if left out. SIGINT and SIGTERM end it.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <tcp/prometheus.hpp>
#include <tcp/server.hpp>
#include <tcp/stop_on.hpp>
#include <tcp/task.hpp>
#include <thread>

using namespace std::chrono_literals;

std::string head(std::string_view status, std::string_view type, std::size_t size) {
    return "HTTP/1.1 " + std::string{status} + "\r\nContent-Type: " + std::string{type} +
           "\r\nContent-Length: " + std::to_string(size) + "\r\nConnection: close\r\n\r\n";
}

// A request for /metrics, with whatever query, is answered; one by HEAD with the head alone.
std::string response(std::string_view request, const tcp::statistics& now) {
    const bool head_only = request.starts_with("HEAD ");
    const std::string_view target = request.substr(std::min(request.find('/'), request.size()));
    const bool known = (head_only || request.starts_with("GET /")) &&
                       target.substr(0, target.find_first_of("? \r")) == "/metrics";
    const std::string body = known ? tcp::prometheus_text(now) : "See /metrics.\n";
    return head(known ? "200 OK" : "404 Not Found",
                known ? tcp::prometheus_content_type : "text/plain", body.size()) +
           (head_only ? "" : body);
}

int main(int argc, char** argv) try {
    tcp::server<tcp::echo> echo;
    const tcp::endpoint bound = echo.bind(argc > 1 ? argv[1] : "12345");
    echo.listen();

    // Each connection has 5 seconds for one request of at most 8 KiB.
    const tcp::options strict{.max_connections = 100, .lifetime = 5s};
    const auto export_metrics = [&echo](tcp::connection& peer) -> tcp::task<> {
        const auto request = co_await peer.receive_until("\r\n\r\n", 8192);
        if (!request) co_return;
        co_await peer.send(response(request.text(), echo.statistics()));
    };
    tcp::server metrics{export_metrics, strict};
    const tcp::endpoint shown = metrics.bind(argc > 2 ? argv[2] : "12346");
    metrics.listen();

    const tcp::stop_on guard{echo, {SIGINT, SIGTERM}, 5s};
    std::printf("listening on %s, metrics on %s\n", bound.to_string().c_str(),
                shown.to_string().c_str());
    std::fflush(stdout);

    // Ended by its destructor, also where run() throws.
    const std::jthread exporter{[&metrics](const std::stop_token& end) {
        const std::stop_callback stop{end, [&metrics] { metrics.stop(); }};
        metrics.run();
    }};
    echo.run();  // until it has drained; the metrics can be read meanwhile
} catch (const std::system_error& failure) {
    std::fprintf(stderr, "metrics: %s\n", failure.what());
    return 1;
}
