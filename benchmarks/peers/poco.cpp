// Echo with Poco's SocketReactor, its way to serve many connections in one thread.
#include <Poco/NObserver.h>
#include <Poco/Net/NetException.h>
#include <Poco/Net/ServerSocket.h>
#include <Poco/Net/SocketAcceptor.h>
#include <Poco/Net/SocketNotification.h>
#include <Poco/Net/SocketReactor.h>
#include <Poco/Net/StreamSocket.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

namespace net = Poco::Net;

alignas(4096) char received[512 * 1024];

class connection {
public:
    connection(const net::StreamSocket& socket, net::SocketReactor& reactor)
        : socket_(socket), reactor_(reactor) {
        socket_.setNoDelay(true);
        socket_.setBlocking(false);
        reactor_.addEventHandler(socket_, on_readable_);
    }
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;
    ~connection() {
        reactor_.removeEventHandler(socket_, on_readable_);
        reactor_.removeEventHandler(socket_, on_writable_);
    }

private:
    using readable = Poco::AutoPtr<net::ReadableNotification>;
    using writable = Poco::AutoPtr<net::WritableNotification>;

    void receive(const readable&) try {
        const int count = socket_.receiveBytes(received, sizeof received);
        if (count < 0) return;
        if (count == 0) {
            delete this;
            return;
        }
        const int sent = std::max(0, socket_.sendBytes(received, count));
        if (sent == count) return;
        unsent_.assign(received + sent, received + count);
        reactor_.removeEventHandler(socket_, on_readable_);
        reactor_.addEventHandler(socket_, on_writable_);
    } catch (const Poco::Exception&) {
        delete this;
    }

    void send(const writable&) try {
        const int sent = socket_.sendBytes(unsent_.data(), static_cast<int>(unsent_.size()));
        unsent_.erase(0, static_cast<std::size_t>(std::max(0, sent)));
        if (!unsent_.empty()) return;
        reactor_.removeEventHandler(socket_, on_writable_);
        reactor_.addEventHandler(socket_, on_readable_);
    } catch (const Poco::Exception&) {
        delete this;
    }

    net::StreamSocket socket_;
    net::SocketReactor& reactor_;
    std::string unsent_;
    Poco::NObserver<connection, net::ReadableNotification> on_readable_{*this,
                                                                        &connection::receive};
    Poco::NObserver<connection, net::WritableNotification> on_writable_{*this, &connection::send};
};

}  // namespace

int main(int, char** argv) {
    const auto port = static_cast<Poco::UInt16>(std::atoi(argv[1]));
    net::ServerSocket listener(net::SocketAddress("127.0.0.1", port), 4096);
    net::SocketReactor reactor;
    const net::SocketAcceptor<connection> acceptor(listener, reactor);
    std::printf("listening on 127.0.0.1:%d engine poco\n", int{listener.address().port()});
    std::fflush(stdout);
    reactor.run();
}
