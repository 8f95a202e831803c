#include <memory>

#include <tcp/server.hpp>

struct counted {
    explicit counted(int& count) : count_{&count} {}
    void on_data(tcp::connection&, tcp::bytes) { ++*count_; }

private:
    int* count_;
};
struct unique {
    std::unique_ptr<int> state = std::make_unique<int>(0);
    void on_data(tcp::connection&, tcp::bytes) { ++*state; }
};

// Default-made, from a prototype, from a factory.
void serve() {
    int count = 0;
    tcp::server<> echoes;
    tcp::server<counted> from_prototype{counted{count}};
    tcp::server from_deduced_prototype{counted{count}};
    tcp::server<unique> from_factory{[] { return unique{}; }};
    tcp::server<counted> with_options{counted{count}, tcp::options{.no_delay = false}};
}
