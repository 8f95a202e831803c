// Echo with libevent by raw events, which cost less than its buffered ones.
#include <event2/event.h>
#include <event2/event_struct.h>

#include <cstdlib>

#include "raw_sockets.hpp"

namespace {

struct connection {
    connection(event_base* base, int peer) : echo(peer) { await(base, peer, EV_READ); }
    ~connection() { event_del(&ready); }
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;

    void await(event_base* base, int peer, short events) {
        event_assign(&ready, base, peer, static_cast<short>(events | EV_PERSIST), on_ready, this);
        event_add(&ready, nullptr);
    }

    static void on_ready(int peer, short events, void* of) {
        auto* const self = static_cast<connection*>(of);
        const raw::state next = self->echo.go_on();
        const short wanted = next == raw::state::sends ? EV_WRITE : EV_READ;
        if (next == raw::state::ended) {
            delete self;
        } else if ((events & wanted) == 0) {
            event_base* const base = event_get_base(&self->ready);
            event_del(&self->ready);
            self->await(base, peer, wanted);
        }
    }

    raw::echo echo;
    event ready;
};

void on_connections(int listener, short, void* base) {
    for (int peer; (peer = raw::accept_next(listener)) >= 0;)
        new connection(static_cast<event_base*>(base), peer);
}

}  // namespace

int main(int, char** argv) {
    event_base* const base = event_base_new();
    const int listener = raw::listen_on(std::atoi(argv[1]), "libevent");
    if (base == nullptr || listener < 0) return 1;
    event accepting;
    event_assign(&accepting, base, listener, EV_READ | EV_PERSIST, on_connections, base);
    event_add(&accepting, nullptr);
    event_base_dispatch(base);
}
