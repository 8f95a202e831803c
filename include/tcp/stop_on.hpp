// Signals that end a server: the first lets connections finish, the second does not.
#pragma once

#include <signal.h>

#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <mutex>
#include <system_error>
#include <vector>

#include <tcp/detail/atomic.hpp>
#include <tcp/detail/clock.hpp>
#include <tcp/detail/platform.hpp>  // a compiler that lacks C++20 is told so first
#include <tcp/detail/sentence.hpp>
#include <tcp/duration.hpp>

namespace tcp::inline v0_1 {

/// As long as it lives, the first of these signals drains the server, and one more stops it at
/// once:
///
///     tcp::server<echo> server;
///     tcp::stop_on guard{server, {SIGINT, SIGTERM}, 10s};
///     ...
///     server.run();  // returns after a signal, when all is done or 10 s have passed
///
/// It is made after the server and destroyed before it, on any thread; the signals may come on any
/// thread, before run() as well as in it. Several may live at a time, of one server or of more:
/// each is told the signals that it names. The handler calls server.drain() and server.stop(),
/// which set a flag and write(2), keeps errno and allocates nothing (signal-safety(7)). It is
/// installed with SA_RESTART, so that other system calls of the program go on (signal(7)).
///
/// Without an object of this class the library changes no signal's disposition.
class stop_on {
public:
    /// Listens to these signals. `at_most` is how long connections may take to finish after the
    /// first one: 0 is not at all, and duration::max() however long they take. Five seconds are
    /// less than what docker and most other supervisors wait before they kill. Throws
    /// std::system_error with the system's code when one cannot be caught, as SIGKILL
    /// (sigaction(2)); then nothing has changed. Not for SIGSEGV and its like: what caused them
    /// would go on.
    template <class Server>
    explicit stop_on(Server& server, std::initializer_list<int> signals = {SIGINT, SIGTERM},
                     duration at_most = duration::milliseconds(5'000))
        : stop_on{&server, end<Server>, signals, at_most} {
        for (const int each : signals)
            replace(each);  // if it throws, the destructor takes all back
    }
    stop_on(const stop_on&) = delete;
    stop_on& operator=(const stop_on&) = delete;

    /// Puts back what the signals did before. Where a younger object of this class, which lives on,
    /// has replaced the same disposition, that one will. A signal that another thread is handling
    /// meanwhile is waited for: afterwards the server is told nothing.
    ~stop_on() {
        const std::lock_guard<std::mutex> alone{changing};
        while (!replaced_.empty()) {
            put_back(replaced_.back());
            replaced_.pop_back();
        }
        leave();
    }

private:
    struct replaced {
        int number;
        struct sigaction before;
    };

    stop_on(void* server, void (*how)(void*, const duration*), std::initializer_list<int> signals,
            duration at_most)
        : server_{server}, end_{how}, at_most_{at_most} {
        ::sigemptyset(&signals_);
        for (const int each : signals) ::sigaddset(&signals_, each);
        const std::lock_guard<std::mutex> alone{changing};
        older_.store_relaxed(youngest.load_relaxed());
        youngest.store_release(this);
    }

    // Drains, or stops where no time is given.
    template <class Server>
    static void end(void* server, const duration* at_most) noexcept {
        static_assert(noexcept(static_cast<Server*>(server)->drain(*at_most))&& noexcept(
                          static_cast<Server*>(server)->stop()),
                      "tcp::stop_on: what is ended in a signal handler must not throw.");
        if (at_most != nullptr)
            static_cast<Server*>(server)->drain(*at_most);
        else
            static_cast<Server*>(server)->stop();
    }

    static void handle(int number) noexcept {
        const int kept = errno;
        handling.fetch_add(1);
        for (stop_on* each = youngest.load_acquire(); each != nullptr;
             each = each->older_.load_acquire())
            if (::sigismember(&each->signals_, number) == 1)
                each->end_(each->server_, each->told_.exchange(true) ? nullptr : &each->at_most_);
        handling.fetch_subtract(1);
        errno = kept;
    }

    // A handler may stand on this object, or be about to; one that begins later cannot find it.
    // That both sides change one counter is what orders them.
    void leave() noexcept {
        detail::atomic<stop_on*>* link = &youngest;
        while (link->load_relaxed() != this) link = &link->load_relaxed()->older_;
        link->store_release(older_.load_relaxed());
        while (handling.fetch_add(0) != 0) detail::sleep_for(duration::nanoseconds(100'000));
    }

    void replace(int number) {
        const std::lock_guard<std::mutex> alone{changing};
        replaced_.reserve(replaced_.size() + 1);
        struct sigaction ours {};
        ours.sa_handler = handle;
        ours.sa_flags = SA_RESTART | SA_ONSTACK;
        ::sigemptyset(&ours.sa_mask);
        struct sigaction before {};
        if (::sigaction(number, &ours, &before) != 0)
            detail::fail({errno, std::system_category()},
                         detail::sentence{"tcp::stop_on: signal ", detail::decimal{number},
                                          " cannot be caught; SIGINT and SIGTERM can, SIGKILL and "
                                          "SIGSTOP never"});
        replaced_.push_back({number, before});
    }

    // Whoever replaced a disposition of ours puts back what was before us.
    void put_back(const replaced& mine) noexcept {
        stop_on* next = nullptr;  // the one that came after this one and names the signal
        for (stop_on* each = youngest.load_relaxed(); each != this;
             each = each->older_.load_relaxed())
            if (each->find(mine.number) != nullptr) next = each;
        if (next == nullptr)
            ::sigaction(mine.number, &mine.before, nullptr);
        else if (replaced& later = *next->find(mine.number); later.before.sa_handler == handle)
            later.before = mine.before;
    }

    // The first disposition of this signal that was replaced by this object.
    replaced* find(int number) noexcept {
        for (replaced& each : replaced_)
            if (each.number == number) return &each;
        return nullptr;
    }

    // What the handler sees. The list is changed by one thread at a time.
    static inline constinit detail::atomic<stop_on*> youngest{nullptr};
    static inline constinit detail::atomic<int> handling{0};
    static inline constinit std::mutex changing;

    void* server_;
    void (*end_)(void* server, const duration* at_most);
    duration at_most_;
    sigset_t signals_;
    detail::atomic<stop_on*> older_{nullptr};
    detail::atomic<bool> told_{false};
    std::vector<replaced> replaced_;
};

}  // namespace tcp::inline v0_1
