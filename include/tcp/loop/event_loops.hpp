// All loops of one server. There is one, on the thread that calls run(), unless options::threads
// asks for more.
#pragma once

#include <system_error>
#include <utility>

#include <tcp/engine/concept.hpp>
#include <tcp/loop/event_loop.hpp>
#include <tcp/loop/handler_source.hpp>
#include <tcp/loop/loop_team.hpp>
#include <tcp/options.hpp>
#include <tcp/statistics.hpp>

namespace tcp::inline v0_1::detail {

/// The other loops, without their types, so that a program without options has none of them in it.
/// Each function does what the one of event_loops does, for these.
class other_loops {
public:
    virtual ~other_loops() = default;
    virtual void run(std::error_code& failure) = 0;
    virtual void shut() noexcept = 0;
    virtual void stop() noexcept = 0;
    virtual void drain(duration at_most) noexcept = 0;
    virtual void hold_accepting(bool held) noexcept = 0;
    virtual bool runs_here() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;
    virtual const loop_counters& counters(std::size_t index) const noexcept = 0;
};

/// One thread at a time; stop(), drain(), hold_accepting(), counters() and runs_here() are for any.
template <class Handler, class Engine>
class event_loops {
public:
    using loop = event_loop<Handler, Engine>;

    /// Makes the others that the options ask for; null for none.
    using maker = other_loops* (*)(const options&, const handler_source<Handler>&, loop_team&,
                                   loop&);

    template <class Source, class... EngineArguments>
    [[gnu::cold]] event_loops(maker others, options chosen, Source&& source,
                              EngineArguments&&... arguments)
        : settings_{std::move(chosen)},
          handlers_{std::forward<Source>(source)},
          team_{settings_},
          first_{settings_, handlers_, team_, std::forward<EngineArguments>(arguments)...},
          others_{others != nullptr ? others(settings_, handlers_, team_, first_) : nullptr} {}
    event_loops(const event_loops&) = delete;
    event_loops& operator=(const event_loops&) = delete;
    // The last hooks may ask for statistics of all.
    [[gnu::cold]] ~event_loops() {
        first_.shut();
        first_.abandon_all();
        if (others_ != nullptr) others_->shut();
        delete others_;
    }

    loop& first() noexcept { return first_; }
    const loop& first() const noexcept { return first_; }

    /// Runs all of them to the end, the others on the listeners of the first. Where the system
    /// gives no descriptors or threads for that, the end comes at once. Throws what keeps one of
    /// them from going on, when all have ended.
    [[gnu::cold]] void run(std::error_code& failure) {
        if (others_ != nullptr && first_.takes_connections()) return others_->run(failure);
        first_.run();
    }

    /// Around every call: the thread runs the first loop.
    void begin_run() noexcept { first_.begin_run(); }
    void end_run() noexcept { first_.end_run(); }

    // ---- any thread ----

    void stop() noexcept {
        first_.stop();
        if (others_ != nullptr) others_->stop();
    }
    void drain(duration at_most) noexcept {
        first_.drain(at_most);
        if (others_ != nullptr) others_->drain(at_most);
    }
    void hold_accepting(bool held) noexcept {
        first_.hold_accepting(held);
        if (others_ != nullptr) others_->hold_accepting(held);
    }
    bool stop_wanted() const noexcept { return first_.stop_wanted(); }

    /// Whether the thread that asks is running one of them.
    bool runs_here() const noexcept {
        return first_.runs_here() || (others_ != nullptr && others_->runs_here());
    }

    std::size_t size() const noexcept { return 1 + (others_ != nullptr ? others_->size() : 0); }
    const loop_counters& counters(std::size_t index) const noexcept {
        return index == 0 ? first_.counters() : others_->counters(index - 1);
    }

private:
    const options settings_;
    const handler_source<Handler> handlers_;
    loop_team team_;
    loop first_;
    other_loops* const others_;
};

}  // namespace tcp::inline v0_1::detail
