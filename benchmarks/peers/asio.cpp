// Echo with Asio's callbacks. One thread, so no locks and no strands; executors by their type, so
// that nothing goes through any_io_executor; a connection owns itself through its callbacks.
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace {

using executor = asio::io_context::executor_type;
using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
using acceptor_type = asio::basic_socket_acceptor<asio::ip::tcp, executor>;

class connection {
public:
    explicit connection(socket_type&& socket) : socket_(std::move(socket)) {}

    static void receive(std::unique_ptr<connection> self) {
        connection& peer = *self;
        peer.socket_.async_read_some(
            asio::buffer(peer.received_),
            [self = std::move(self)](asio::error_code error, std::size_t count) mutable {
                if (!error) send(std::move(self), count);
            });
    }

private:
    static void send(std::unique_ptr<connection> self, std::size_t count) {
        connection& peer = *self;
        asio::async_write(peer.socket_, asio::buffer(peer.received_, count),
                          [self = std::move(self)](asio::error_code error, std::size_t) mutable {
                              if (!error) receive(std::move(self));
                          });
    }

    socket_type socket_;
    std::array<char, 65'536> received_;  // a page is had only once it is touched
};

void accept(acceptor_type& acceptor) {
    acceptor.async_accept([&acceptor](asio::error_code error, socket_type socket) {
        if (!error) {
            asio::error_code ignored;
            socket.set_option(asio::ip::tcp::no_delay(true), ignored);
            connection::receive(std::make_unique<connection>(std::move(socket)));
        }
        accept(acceptor);
    });
}

}  // namespace

int main(int, char** argv) {
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    const auto port = static_cast<asio::ip::port_type>(std::atoi(argv[1]));
    acceptor_type acceptor(context, {asio::ip::address_v4::loopback(), port});
    std::printf("listening on 127.0.0.1:%d engine asio\n", acceptor.local_endpoint().port());
    std::fflush(stdout);
    accept(acceptor);
    context.run();
}
