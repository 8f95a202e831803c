// Echo with libev, as one writes it: one watcher for each connection, reading and writing by hand.
#include <ev.h>

#include <cstdlib>

#include "raw_sockets.hpp"

namespace {

struct connection {
    connection(struct ev_loop* loop, int peer) : echo(peer) {
        ev_io_init(&watcher, on_ready, peer, EV_READ);
        watcher.data = this;
        ev_io_start(loop, &watcher);
    }

    static void on_ready(struct ev_loop* loop, ev_io* watcher, int) {
        auto* const self = static_cast<connection*>(watcher->data);
        const raw::state next = self->echo.go_on();
        const int events = next == raw::state::sends ? EV_WRITE : EV_READ;
        if (next != raw::state::ended && (watcher->events & (EV_READ | EV_WRITE)) == events) return;
        ev_io_stop(loop, watcher);
        if (next == raw::state::ended) {
            delete self;
            return;
        }
        ev_io_modify(watcher, events);
        ev_io_start(loop, watcher);
    }

    raw::echo echo;
    ev_io watcher;
};

void on_connections(struct ev_loop* loop, ev_io* listener, int) {
    for (int peer; (peer = raw::accept_next(listener->fd)) >= 0;) new connection(loop, peer);
}

}  // namespace

int main(int, char** argv) {
    struct ev_loop* const loop = ev_default_loop(EVBACKEND_EPOLL);
    const int listener = raw::listen_on(std::atoi(argv[1]), "libev");
    if (loop == nullptr || listener < 0) return 1;
    ev_io accepting;
    ev_io_init(&accepting, on_connections, listener, EV_READ);
    ev_io_start(loop, &accepting);
    ev_run(loop, 0);
}
