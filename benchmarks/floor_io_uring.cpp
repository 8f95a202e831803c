// The floor by io_uring: echo as one writes it by hand around the ring, as fast as we can make it
// and still right. `floor_io_uring PORT` (0: any) serves 127.0.0.1 until SIGTERM. Needs Linux 6.6.
// One multishot accept; a multishot receive for each connection, into 128 buffers of 16 KiB; sends
// straight from those, one at a time for each connection; one io_uring_enter for each batch.
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

enum operation : unsigned { accepting, receiving, sending };
constexpr unsigned buffers = 128, buffer_size = 16 * 1024, none = ~0U;

// What is newer than the headers of some distributions: io_uring_setup(2), io_uring_register(2).
constexpr unsigned single_issuer = 1U << 12, defer_taskrun = 1U << 13, no_sqarray = 1U << 16;
constexpr unsigned accept_multishot = 1U << 0, receive_multishot = 1U << 1, register_ring = 22;
struct lent_buffer {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t id, tail;  // the first one's tail is that of the ring
};
struct registration {
    std::uint64_t address;
    std::uint32_t entries;
    std::uint16_t group, padding;
    std::uint64_t reserved[3];
};

struct waiting {  // a received buffer that is to be sent
    unsigned next, offset, size;
};
struct connection {
    unsigned first = none, last = none;  // of what is unsent
    bool receives = true, ended = false;
};

alignas(4096) static char received[buffers][buffer_size];
alignas(4096) static lent_buffer lent[buffers];
static waiting unsent[buffers];
static std::vector<connection> connections;  // by descriptor
static std::deque<unsigned> starved;         // those whose receive found no buffer
static unsigned *sq_head, *sq_tail, *cq_head, *cq_tail, sq_entries, unsubmitted, free_buffers;
static io_uring_sqe* sqes;
static io_uring_cqe* cqes;
static int ring, listener;

static void enter(unsigned wait) {
    const long done = ::syscall(SYS_io_uring_enter, ring, unsubmitted, wait,
                                wait * IORING_ENTER_GETEVENTS, nullptr, 0);
    if (done > 0) unsubmitted -= static_cast<unsigned>(done);
}

static io_uring_sqe& submit(operation what, unsigned fd, unsigned char opcode, unsigned flags) {
    while (*sq_tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) == sq_entries) enter(0);
    io_uring_sqe& sqe = sqes[*sq_tail & (sq_entries - 1)];
    sqe = {};
    sqe.opcode = opcode;
    sqe.fd = static_cast<int>(fd);
    sqe.ioprio = static_cast<unsigned short>(flags);
    sqe.user_data = std::uint64_t{fd} << 32 | what;
    __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
    ++unsubmitted;
    return sqe;
}

static void accept_all() {
    submit(accepting, unsigned(listener), IORING_OP_ACCEPT, accept_multishot);
}

static void receive(unsigned fd) {
    submit(receiving, fd, IORING_OP_RECV, receive_multishot).flags = IOSQE_BUFFER_SELECT;
    connections[fd].receives = true;
}

static void send_first(unsigned fd) {
    const unsigned buffer = connections[fd].first;
    io_uring_sqe& sqe = submit(sending, fd, IORING_OP_SEND, 0);
    sqe.addr = reinterpret_cast<std::uintptr_t>(received[buffer] + unsent[buffer].offset);
    sqe.len = unsent[buffer].size - unsent[buffer].offset;
    sqe.msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

static void lend(unsigned buffer) {  // to the kernel
    lent_buffer& slot = lent[lent[0].tail % buffers];
    slot.address = reinterpret_cast<std::uintptr_t>(received[buffer]);
    slot.length = buffer_size;
    slot.id = static_cast<unsigned short>(buffer);
    __atomic_store_n(&lent[0].tail, static_cast<unsigned short>(lent[0].tail + 1),
                     __ATOMIC_RELEASE);
    ++free_buffers;
}

static void on_received(unsigned fd, int result, unsigned flags) {
    connection& peer = connections[fd];
    if (result > 0) {
        const unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
        --free_buffers;
        unsent[buffer] = {none, 0, static_cast<unsigned>(result)};
        if (peer.first != none) unsent[peer.last].next = buffer;
        peer.last = buffer;
        if (peer.first == none) {
            peer.first = buffer;
            send_first(fd);
        }
    }
    if ((flags & IORING_CQE_F_MORE) != 0) return;
    peer.receives = false;
    peer.ended = peer.ended || (result <= 0 && result != -ENOBUFS);
    if (result > 0) receive(fd);
    if (result == -ENOBUFS) starved.push_back(fd);
}

static void on_sent(unsigned fd, int result) {
    connection& peer = connections[fd];
    waiting& done = unsent[peer.first];
    if (result >= 0 && (done.offset += unsigned(result)) < done.size) return send_first(fd);
    if (result < 0) {
        peer.ended = true;
        ::shutdown(int(fd), SHUT_RDWR);  // ends the receive
    }
    do {  // after an error all that is unsent is given up
        lend(peer.first);
        peer.first = unsent[peer.first].next;
    } while (result < 0 && peer.first != none);
    if (peer.first != none) send_first(fd);
}

static void on_completion(const io_uring_cqe& cqe) {
    const auto fd = static_cast<unsigned>(cqe.user_data >> 32);
    const auto what = static_cast<operation>(cqe.user_data & 3);
    if (what == accepting) {
        const int on = 1;
        if ((cqe.flags & IORING_CQE_F_MORE) == 0) accept_all();
        if (cqe.res < 0) return;
        const auto peer = static_cast<unsigned>(cqe.res);
        if (connections.size() <= peer) connections.resize(std::size_t{peer} * 2);
        connections[peer] = {};
        ::setsockopt(cqe.res, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return receive(peer);
    }
    if (what == receiving)
        on_received(fd, cqe.res, cqe.flags);
    else
        on_sent(fd, cqe.res);
    const connection& peer = connections[fd];
    if (peer.ended && !peer.receives && peer.first == none) ::close(int(fd));
}

static bool set_up() {
    io_uring_params params{};
    params.flags = single_issuer | defer_taskrun | no_sqarray | IORING_SETUP_CQSIZE;
    params.cq_entries = 4096;
    ring = int(::syscall(SYS_io_uring_setup, 1024, &params));
    if (ring < 0) return false;
    const auto map = [](std::size_t size, off_t what) {
        return static_cast<char*>(
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, what));
    };
    const auto at = [](char* place) { return reinterpret_cast<unsigned*>(place); };
    char* const rings = map(params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), 0);
    sqes = reinterpret_cast<io_uring_sqe*>(
        map(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    sq_head = at(rings + params.sq_off.head), sq_tail = at(rings + params.sq_off.tail);
    cq_head = at(rings + params.cq_off.head), cq_tail = at(rings + params.cq_off.tail);
    cqes = reinterpret_cast<io_uring_cqe*>(rings + params.cq_off.cqes);
    sq_entries = params.sq_entries;
    for (unsigned buffer = 0; buffer < buffers; ++buffer) lend(buffer);
    const registration buffer_ring{reinterpret_cast<std::uintptr_t>(lent), buffers, 0, 0, {}};
    return ::syscall(SYS_io_uring_register, ring, register_ring, &buffer_ring, 1) == 0;
}

int main(int, char** argv) {
    std::signal(SIGTERM, [](int) { ::_exit(0); });
    listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in local{AF_INET, htons(in_port_t(std::stoi(argv[1]))), {htonl(INADDR_LOOPBACK)}, {}};
    auto* const address = reinterpret_cast<sockaddr*>(&local);
    socklen_t size = sizeof local;
    if (::bind(listener, address, size) != 0 || ::listen(listener, 4096) != 0) return 1;
    ::getsockname(listener, address, &size);
    if (!set_up()) return 1;
    ::dprintf(STDOUT_FILENO, "listening on 127.0.0.1:%d engine floor\n", ntohs(local.sin_port));
    for (accept_all();;) {
        enter(1);
        unsigned head = *cq_head;
        for (const unsigned tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE); head != tail; ++head)
            on_completion(cqes[head & 4095]);
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
        for (unsigned room = free_buffers; room > 0 && !starved.empty(); --room) {
            const connection& peer = connections[starved.front()];
            if (!peer.ended && !peer.receives) receive(starved.front());
            starved.pop_front();
        }
    }
}
