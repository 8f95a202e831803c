// Echo with libuv: received into one buffer of the loop, sent at once as far as the socket takes
// it; the rest is copied and written, and until that is done nothing more is received.
#include <uv.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

alignas(4096) char received[512 * 1024];

struct connection {
    uv_tcp_t socket;
    uv_write_t writing;
    std::string unsent;
};

connection* of(void* handle) {
    return static_cast<connection*>(static_cast<uv_handle_t*>(handle)->data);
}

void close(connection* peer) {
    auto* const handle = reinterpret_cast<uv_handle_t*>(&peer->socket);
    if (uv_is_closing(handle) == 0)
        uv_close(handle, [](uv_handle_t* closed) { delete of(closed); });
}

void on_room(uv_handle_t*, std::size_t, uv_buf_t* buffer) {
    *buffer = uv_buf_init(received, sizeof received);
}

void on_received(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer);

void on_written(uv_write_t* writing, int status) {
    auto* const peer = static_cast<connection*>(writing->data);
    std::string().swap(peer->unsent);
    if (status < 0) return close(peer);
    uv_read_start(reinterpret_cast<uv_stream_t*>(&peer->socket), on_room, on_received);
}

void on_received(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer) {
    connection* const peer = of(stream);
    if (count < 0) return close(peer);
    if (count == 0) return;
    uv_buf_t bytes = uv_buf_init(buffer->base, static_cast<unsigned>(count));
    int sent = uv_try_write(stream, &bytes, 1);
    if (sent == count) return;
    if (sent < 0 && sent != UV_EAGAIN) return close(peer);
    if (sent < 0) sent = 0;
    peer->unsent.assign(buffer->base + sent, static_cast<std::size_t>(count - sent));
    bytes = uv_buf_init(peer->unsent.data(), static_cast<unsigned>(peer->unsent.size()));
    uv_read_stop(stream);
    if (uv_write(&peer->writing, stream, &bytes, 1, on_written) != 0) close(peer);
}

void on_connection(uv_stream_t* listener, int status) {
    if (status < 0) return;
    auto* const peer = new connection;
    uv_tcp_init(listener->loop, &peer->socket);
    peer->socket.data = peer->writing.data = peer;
    auto* const stream = reinterpret_cast<uv_stream_t*>(&peer->socket);
    if (uv_accept(listener, stream) != 0) return close(peer);
    uv_tcp_nodelay(&peer->socket, 1);
    uv_read_start(stream, on_room, on_received);
}

}  // namespace

int main(int, char** argv) {
    uv_loop_t* const loop = uv_default_loop();
    uv_tcp_t listener;
    uv_tcp_init(loop, &listener);
    sockaddr_in local{};
    uv_ip4_addr("127.0.0.1", std::atoi(argv[1]), &local);
    if (uv_tcp_bind(&listener, reinterpret_cast<sockaddr*>(&local), 0) != 0 ||
        uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, on_connection) != 0)
        return 1;
    int size = sizeof local;
    uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&local), &size);
    std::printf("listening on 127.0.0.1:%d engine libuv\n", ntohs(local.sin_port));
    std::fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
}
