// What several loops, handles and timers carry, with Google Benchmark, in one process:
//
//   hashing/threads:N   messages a second where each has the server hash 10 KB; the load sends and
//                       receives many at once, so that it is not what is measured
//   posts               functions posted from another thread to a loop, called
//   timers              timers started and stopped on one loop
//   connects            connections opened and reset; opens are closes in the end, or it fails
#include <benchmark/benchmark.h>

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <tcp/connection_handle.hpp>
#include <tcp/detail/descriptor.hpp>
#include <tcp/server.hpp>
#include <tcp/timer.hpp>

namespace {

using tcp::detail::descriptor;

/// A server that other threads run, and clients of it that block.
template <class Handler>
class running {
public:
    running(Handler prototype, std::size_t threads)
        : server{std::move(prototype), tcp::options{.threads = threads}},
          where{server.bind("127.0.0.1:0")} {
        server.listen();
        thread_ = std::thread{[this] { server.run(); }};
    }
    running(const running&) = delete;
    running& operator=(const running&) = delete;
    ~running() {
        server.stop();
        thread_.join();
    }

    descriptor connect() const {
        descriptor fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (!fd || ::connect(fd.get(), where.data(), where.size()) != 0)
            throw std::runtime_error{"cannot connect to the server of this benchmark"};
        return fd;
    }

    tcp::server<Handler> server;
    const tcp::endpoint where;

private:
    std::thread thread_;
};

// ---- hashing ----

constexpr std::size_t message_size = 64, in_flight = 64, connections = 16;

struct hashing {
    std::size_t on_data(tcp::connection& peer, tcp::bytes data) {
        static const std::string work(10'000, 'x');
        std::array<std::uint64_t, in_flight> answers;
        const std::size_t count = std::min(data.size() / message_size, in_flight);
        for (std::size_t i = 0; i != count; ++i) {
            std::uint64_t hash = std::to_integer<std::uint64_t>(data[i * message_size]);
            for (const char c : work)  // FNV-1a
                hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
            answers[i] = hash;
        }
        peer.send(std::as_bytes(std::span{answers}).first(count * sizeof answers[0]));
        return count * message_size;
    }
};

void hash(benchmark::State& state) {
    const running<hashing> on{hashing{}, static_cast<std::size_t>(state.range(0))};
    std::vector<descriptor> clients;
    for (std::size_t i = 0; i != connections; ++i) clients.push_back(on.connect());
    const std::string messages(message_size * in_flight, 'm');
    std::array<std::uint64_t, in_flight> answers{};
    const auto ask = [&](const descriptor& fd) {
        if (::send(fd.get(), messages.data(), messages.size(), 0) < 0)
            throw std::runtime_error{"the server of this benchmark is gone"};
    };
    for (const descriptor& each : clients) ask(each);
    for (auto _ : state)
        for (const descriptor& each : clients) {
            ::recv(each.get(), answers.data(), sizeof answers, MSG_WAITALL);
            ask(each);  // the others are busy meanwhile
        }
    state.SetItemsProcessed(state.iterations() *
                            static_cast<std::int64_t>(connections * in_flight));
}
BENCHMARK(hash)->Name("hashing")->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

// ---- posts and timers ----

/// Says who connected.
struct known {
    std::mutex* lock;
    std::optional<tcp::connection_handle>* peer;
    void on_open(tcp::connection& c) {
        const std::lock_guard hold{*lock};
        *peer = c.handle();
    }
};

class one_connection {
public:
    tcp::connection_handle handle() {
        for (;;) {
            const std::lock_guard hold{lock_};
            if (peer_) return *peer_;
        }
    }

private:
    std::mutex lock_;
    std::optional<tcp::connection_handle> peer_;
    running<known> on_{known{&lock_, &peer_}, 1};
    descriptor client_{on_.connect()};
};

void posts(benchmark::State& state) {
    one_connection on;
    const tcp::connection_handle to = on.handle();
    std::atomic<std::int64_t> called{0};
    std::int64_t posted = 0;
    for (auto _ : state) {
        to.post([&](tcp::connection&) { called.fetch_add(1, std::memory_order_relaxed); });
        ++posted;
    }
    while (called != posted) std::this_thread::yield();
    state.SetItemsProcessed(posted);
}
BENCHMARK(posts)->UseRealTime();

void timers(benchmark::State& state) {
    constexpr std::size_t count = 100'000;
    one_connection on;
    const tcp::connection_handle to = on.handle();
    for (auto _ : state) {
        std::atomic<double> seconds{0};
        to.post([&](tcp::connection& peer) {
            std::vector<tcp::timer> waiting(count);
            const auto begin = std::chrono::steady_clock::now();
            for (std::size_t i = 0; i != count; ++i)
                waiting[i].start(peer, std::chrono::milliseconds{1 + i % 60'000},
                                 [](tcp::connection&) {});
            for (tcp::timer& each : waiting) each.stop();
            seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        });
        while (seconds == 0) std::this_thread::yield();
        state.SetIterationTime(seconds);
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count));
}
BENCHMARK(timers)->UseManualTime();

// ---- connects ----

void connects(benchmark::State& state) {
    running<tcp::echo> on{tcp::echo{}, 2};
    const linger reset{.l_onoff = 1, .l_linger = 0};  // leaves no port in TIME_WAIT
    for (auto _ : state) {
        const descriptor client = on.connect();
        ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    const auto made = static_cast<std::uint64_t>(state.iterations());
    for (int tries = 0; tries != 1'000 && on.server.statistics().closed != made; ++tries)
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
    const tcp::statistics counted = on.server.statistics();
    if (counted.accepted != made || counted.closed != made || counted.open != 0)
        state.SkipWithError("opens are not closes");
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(connects)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
