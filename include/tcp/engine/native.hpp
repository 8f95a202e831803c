// The best that this system lets a program have, found out when a server is made:
//
//     tcp::server<my_handler, tcp::native_engine> server;
//
// It is not the default (engine/default.hpp): a program with two engines in it is twice as large
// and compiles for longer.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <tcp/bytes.hpp>
#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/engine/concept.hpp>
#include <tcp/engine/epoll/epoll_engine.hpp>
#include <tcp/engine/io_uring/io_uring_engine.hpp>
#include <tcp/engine/io_uring/self_test.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1 {

/// Models tcp::engine: io_uring where a self-test finds that it does what is needed, epoll
/// elsewhere. server::engine() says which, and why.
class native_engine {
    template <class F>
    auto with(F call) const {
        return io_uring_ != nullptr ? call(*io_uring_) : call(*epoll_);
    }

public:
    static constexpr const char* name = "native";
    static constexpr bool puts_off = true;

    /// Throws std::system_error when there are no descriptors, std::bad_alloc when there is no
    /// memory.
    explicit native_engine(const options& settings) {
        std::error_code why = detail::io_uring::self_test::result();
        if (!why) {
            try {
                std::error_code not_direct;
                if (settings.direct_descriptors)
                    not_direct = detail::io_uring::self_test::result_of_direct();
                io_uring_ = std::make_unique<io_uring_engine>(settings, not_direct);
                chosen_ = io_uring_->chosen();
            } catch (const std::system_error& e) {  // too much locked memory by now, or descriptors
                why = e.code();
            }
        }
        if (!why) return;
        epoll_ = std::make_unique<epoll_engine>(settings);
        chosen_ = std::string{epoll_engine::name} + ", since io_uring gave: " + why.message();
    }

    /// "io_uring"; or "epoll, since io_uring gave: " and the system's words. Where direct
    /// descriptors were asked for and are not to be had, that and why.
    std::string_view chosen() const noexcept { return chosen_; }

    // ---- as engine/concept.hpp says ----

    endpoint bind(const endpoint& where, std::error_code& failure) {
        return with([&](auto& e) { return e.bind(where, failure); });
    }
    endpoint adopt(int socket, std::error_code& failure) {
        return with([&](auto& e) { return e.adopt(socket, failure); });
    }
    int share(listener_id id, std::error_code& failure) {
        return with([&](auto& e) { return e.share(id, failure); });
    }
    void keep_file(listener_id id) {
        with([&](auto& e) { e.keep_file(id); });
    }
    endpoint bound(listener_id id) const {
        return with([&](auto& e) { return e.bound(id); });
    }
    void unbind(listener_id first) {
        with([&](auto& e) { e.unbind(first); });
    }
    void listen(listener_id id, int backlog, std::error_code& failure) {
        with([&](auto& e) { e.listen(id, backlog, failure); });
    }
    int arm_accept(listener_id id, accept_mode mode) {
        return with([&](auto& e) { return e.arm_accept(id, mode); });
    }
    void pause_accept(listener_id id) {
        with([&](auto& e) { e.pause_accept(id); });
    }
    template <engine_sink Sink>
    void accept_now(listener_id id, Sink& sink) {
        with([&](auto& e) { e.accept_now(id, sink); });
    }
    void close_listeners() {
        with([](auto& e) { e.close_listeners(); });
    }

    int open(connection_id id, int socket) {
        return with([&](auto& e) { return e.open(id, socket); });
    }
    void refuse(int socket) {
        with([&](auto& e) { e.refuse(socket); });
    }
    void pause_receive(connection_id id) {
        with([&](auto& e) { e.pause_receive(id); });
    }
    void resume_receive(connection_id id) {
        with([&](auto& e) { e.resume_receive(id); });
    }
    send_outcome send(connection_id id, std::span<const bytes> pieces) {
        return with([&](auto& e) { return e.send(id, pieces); });
    }
    void shutdown_send(connection_id id) {
        with([&](auto& e) { e.shutdown_send(id); });
    }
    bool close(connection_id id, close_mode mode) {
        return with([&](auto& e) { return e.close(id, mode); });
    }
    int descriptor(connection_id id) const {
        return with([&](auto& e) { return e.descriptor(id); });
    }
    endpoint local_endpoint(connection_id id) const {
        return with([&](auto& e) { return e.local_endpoint(id); });
    }
    endpoint remote_endpoint(connection_id id) const {
        return with([&](auto& e) { return e.remote_endpoint(id); });
    }
    duration since_taken(connection_id id) const {
        return with([&](auto& e) { return e.since_taken(id); });
    }

    duration now() const {
        return with([](auto& e) { return e.now(); });
    }
    void wake() noexcept {
        with([](auto& e) { e.wake(); });
    }
    void submit() noexcept {
        with([](auto& e) { e.submit(); });
    }
    template <engine_sink Sink>
    void wait(duration timeout, Sink& sink) {
        with([&](auto& e) { e.wait(timeout, sink); });
    }

private:
    std::unique_ptr<io_uring_engine> io_uring_;
    std::unique_ptr<epoll_engine> epoll_;  // where there is no io_uring
    std::string chosen_;
};

static_assert(engine<native_engine>);

}  // namespace tcp::inline v0_1
