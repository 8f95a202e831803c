// The classic first program: accepts one client, sends back what it says until it closes, and
// exits. `one_client [where]`, 12345 if left out.
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <tcp/server.hpp>

struct talkative_echo {
    void on_open(tcp::connection& peer) { say("connected by", peer.remote_endpoint().to_string()); }
    void on_data(tcp::connection& peer, tcp::bytes data) {
        say("received", tcp::as_text(data));
        say("sending back", tcp::as_text(data));
        peer.send(data);
    }
    void on_close(tcp::connection&, const tcp::close_reason& why) { say("closed:", to_text(why)); }

    static void say(const char* what, std::string_view text) {
        if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
        std::printf("%s %.*s\n", what, static_cast<int>(text.size()), text.data());
        std::fflush(stdout);
    }
};

int main(int argc, char** argv) try {
    tcp::server<talkative_echo> server;
    const tcp::endpoint bound = server.bind(argc > 1 ? argv[1] : "12345");
    server.listen(1);
    talkative_echo::say("listening on", bound.to_string());
    server.accept();
} catch (const std::system_error& failure) {
    std::fprintf(stderr, "one_client: %s\n", failure.what());
    return 1;
}
