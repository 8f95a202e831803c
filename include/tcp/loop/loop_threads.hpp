// The loops besides the first, each on a thread of its own. They listen on the same sockets as the
// first; who accepts a connection hands it to the loop with the fewest, where it stays.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <cstddef>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include <tcp/detail/platform.hpp>
#include <tcp/detail/sentence.hpp>
#include <tcp/duration.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>
#include <tcp/loop/event_loops.hpp>
#include <tcp/loop/handler_source.hpp>
#include <tcp/loop/loop_counters.hpp>
#include <tcp/loop/loop_team.hpp>
#include <tcp/loop/mailbox.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

template <class Handler, class Engine>
class loop_threads final : public other_loops {
    using loop = event_loop<Handler, Engine>;

public:
    /// None for one thread.
    static other_loops* make(const options& settings, const handler_source<Handler>& handlers,
                             loop_team& team, loop& first) {
        const std::size_t count = settings.threads != 0 ? settings.threads : processors();
        return count > 1 ? new loop_threads{count - 1, settings, handlers, team, first} : nullptr;
    }

    /// For engines that are one thread's.
    static other_loops* refuse(const options& settings, const handler_source<Handler>&, loop_team&,
                               loop&) {
        if (settings.threads != 1)
            fail(error::bad_options,
                 "options::threads is not 1, and a simulation runs on one thread; leave it out");
        return nullptr;
    }

    ~loop_threads() override {
        while (workers_ != nullptr) delete std::exchange(workers_, workers_->next);
    }

    void run(std::error_code& failure) override {
        start(failure);
        if (failure) stop_all();
        std::exception_ptr why = run_to_the_end(first_);
        join();
        each([&](worker& one) {
            if (why == nullptr) why = one.failure;
        });
        if (why != nullptr) std::rethrow_exception(why);
    }
    void shut() noexcept override {
        each([](worker& one) { one.own.shut(); });
    }

    void stop() noexcept override {
        each([](worker& one) { one.own.stop(); });
    }
    void drain(duration at_most) noexcept override {
        each([=](worker& one) { one.own.drain(at_most); });
    }
    void hold_accepting(bool held) noexcept override {
        each([=](worker& one) { one.own.hold_accepting(held); });
    }
    bool runs_here() const noexcept override {
        bool one_does = false;
        each([&](const worker& one) { one_does = one_does || one.own.runs_here(); });
        return one_does;
    }
    std::size_t size() const noexcept override { return count_; }
    const loop_counters& counters(std::size_t index) const noexcept override {
        const worker* one = workers_;
        while (index-- != 0) one = one->next;
        return one->own.counters();
    }

private:
    struct worker {
        worker(const options& settings, const handler_source<Handler>& handlers, loop_team& team,
               loop_threads& a, worker* n)
            : own{settings, handlers, team}, all{a}, next{n} {
            join_team(own, team);
            own.hand_over = &hand_over;
        }

        static void* main(void* self) {
            worker& one = *static_cast<worker*>(self);
            one.own.begin_run();
            one.failure = one.all.run_to_the_end(one.own);
            one.own.end_run();
            return nullptr;
        }

        loop own;
        loop_threads& all;
        std::exception_ptr failure;  // of this loop; read when its thread has ended
        worker* next;
        pthread_t thread{};
        bool started = false;
    };

    /// A connection on its way to another loop.
    struct arrival : message {
        arrival(int s, const endpoint& p) noexcept
            : message{[](message& m, loop_context& where) noexcept {
                  auto& self = static_cast<arrival&>(m);
                  static_cast<loop&>(where).arrived(self.socket, self.peer);
                  delete &self;
              }},
              socket{s},
              peer{p} {}
        int socket;
        endpoint peer;
    };

    explicit loop_threads(loop& first, std::size_t count) noexcept : first_{first}, count_{count} {}

    // Its destructor runs if a loop cannot be made.
    loop_threads(std::size_t count, const options& settings,
                 const handler_source<Handler>& handlers, loop_team& team, loop& first)
        : loop_threads{first, count} {
        join_team(first, team);
        for (; count != 0; --count)
            workers_ = new worker{settings, handlers, team, *this, workers_};
    }

    template <class F>
    void each(F f) const {
        for (worker* one = workers_; one != nullptr; one = one->next) f(*one);
    }

    void start(std::error_code& failure) {
        each([&](worker& one) {
            for (listener_id id = 0; id != first_.listeners() && !failure; ++id)
                adopt(one.own.engine(), id, failure);
            one.own.set_listeners(failure ? 0 : first_.listeners());
        });
        each([&](worker& one) {
            if (failure) return;
            const int error = ::pthread_create(&one.thread, nullptr, &worker::main, &one);
            one.started = error == 0;
            if (error != 0) failure.assign(error, std::system_category());
        });
        if (!failure) first_.hand_over = &hand_over;  // somebody takes it
    }
    void join() noexcept {
        each([](worker& one) {
            if (std::exchange(one.started, false)) ::pthread_join(one.thread, nullptr);
        });
        first_.hand_over = nullptr;
        shut();  // those that got no thread, too
    }
    void stop_all() noexcept {
        first_.stop();
        stop();
    }

    /// A loop that cannot go on, since its engine cannot, ends all of them.
    std::exception_ptr run_to_the_end(loop& one) noexcept {
        try {
            one.run();
            return nullptr;
        } catch (...) {
            stop_all();
            return std::current_exception();
        }
    }

    void adopt(Engine& engine, listener_id id, std::error_code& failure) {
        const int copy = first_.engine().share(id, failure);
        if (failure) return;
        engine.adopt(copy, failure);
        if (failure) ::close(copy);
    }

    static void join_team(loop& one, loop_team& team) {
        one.mail = new mailbox{one};
        one.as_member.loop = &one;
        team.join(one.as_member);
    }

    static bool hand_over(loop& from, int socket, const endpoint& peer) {
        team_member* const other = from.team().lighter_than(from.as_member);
        auto* const one = other != nullptr ? new (std::nothrow) arrival{socket, peer} : nullptr;
        if (one == nullptr) return false;
        other->connections.fetch_add(1);
        if (other->loop->mail->post(*one, [] { return true; })) return true;
        other->connections.fetch_subtract(1);
        delete one;
        return false;
    }

    static std::size_t processors() noexcept {
        cpu_set_t mine;
        CPU_ZERO(&mine);
        if (::sched_getaffinity(0, sizeof mine, &mine) == 0)
            return static_cast<std::size_t>(CPU_COUNT(&mine));
        const long all = ::sysconf(_SC_NPROCESSORS_ONLN);  // there are more than a cpu_set_t holds
        return all > 0 ? static_cast<std::size_t>(all) : 1;
    }

    loop& first_;
    const std::size_t count_;
    worker* workers_ = nullptr;
};

}  // namespace tcp::inline v0_1::detail
