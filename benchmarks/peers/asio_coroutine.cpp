// Echo with Asio's coroutines. One thread, so no locks and no strands; executors by their type, so
// that nothing goes through any_io_executor; errors as values.
// Asio 1.22 does not know that clang 14 has these.
#define ASIO_HAS_CO_AWAIT 1
#define ASIO_HAS_STD_COROUTINE 1
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace {

using executor = asio::io_context::executor_type;
using token_type = asio::experimental::as_tuple_t<asio::use_awaitable_t<executor>>;
using socket_type = token_type::as_default_on_t<asio::basic_stream_socket<asio::ip::tcp, executor>>;
using acceptor_type =
    token_type::as_default_on_t<asio::basic_socket_acceptor<asio::ip::tcp, executor>>;

asio::awaitable<void, executor> echo(socket_type socket) {
    asio::error_code ignored;
    socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    std::array<char, 65'536> received;  // a page is had only once it is touched
    for (;;) {
        const auto [error, count] = co_await socket.async_read_some(asio::buffer(received));
        if (error) co_return;
        const auto [unsent, sent] =
            co_await asio::async_write(socket, asio::buffer(received.data(), count), token_type());
        if (unsent) co_return;
    }
}

asio::awaitable<void, executor> accept(acceptor_type& acceptor) {
    for (;;) {
        auto [error, socket] = co_await acceptor.async_accept();
        if (!error)
            asio::co_spawn(acceptor.get_executor(), echo(std::move(socket)), asio::detached);
    }
}

}  // namespace

int main(int, char** argv) {
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    const auto port = static_cast<asio::ip::port_type>(std::atoi(argv[1]));
    acceptor_type acceptor(context, {asio::ip::address_v4::loopback(), port});
    std::printf("listening on 127.0.0.1:%d engine asio_coroutine\n",
                acceptor.local_endpoint().port());
    std::fflush(stdout);
    asio::co_spawn(context.get_executor(), accept(acceptor), asio::detached);
    context.run();
}
