// The coroutine of one connection: what it waits for, and how it goes on.
//
// Nothing in a coroutine resumes another one. Who goes on is written down, and a loop in the hook
// that woke the first resumes one after the other: however many awaits complete at once, and in
// whatever depth of tasks, they use no stack, optimised or not. Only where a coroutine ends in the
// middle, its frames are destroyed from the outside in, and a frame for each task is on the stack.
//
//   going ──► waits_for_data ──(on_data, on_end, on_close)──► going
//     │ ────► waits_for_these ─(the same, with all of it)───► going   (both: their timer, too)
//     │ ────► waits_for_room ──(on_writable, on_close)──────► going
//     │ ────► sleeps ──────────(its timer, on_close)────────► going
//     │ ────► waits_for_answer (its promise, on_close)──────► going
//     │ ────► spins ───────────(on_close)───────────────────► going
//     └─────► over: the frame is destroyed, close() or the exception leaves the hook
#pragma once

#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/error.hpp>
#include <tcp/loop/block_pool.hpp>
#include <tcp/received.hpp>

namespace tcp::inline v0_1::detail {

class conversation;

// Where the frames of coroutines come from that are made on this thread now.
inline constinit thread_local block_pool* frame_pool = nullptr;

/// What the promises of all tasks have in common. The frame lies in a block of the loop; behind it
/// stands whose block it is, since it may be destroyed elsewhere than it was made.
struct promise_base {
    conversation* talk = nullptr;             // from when it is started or awaited
    std::coroutine_handle<> awaited_by = {};  // none: the first one
    std::exception_ptr failure;               // what left it

    static void* operator new(std::size_t size) {
        block_pool* const pool = frame_pool;
        const std::size_t whole = with_owner(size);
        void* const frame =
            pool != nullptr ? pool->allocate(whole) : ::operator new(block_pool::block_size(whole));
        std::memcpy(static_cast<char*>(frame) + owner_at(size), &pool, pointer_size);
        return frame;
    }
    static void operator delete(void* frame, std::size_t size) noexcept {
        block_pool* pool = nullptr;
        std::memcpy(&pool, static_cast<char*>(frame) + owner_at(size), pointer_size);
        if (pool != nullptr) return pool->free(frame, block_pool::block_size(with_owner(size)));
        ::operator delete(frame);
    }

private:
    static constexpr std::size_t pointer_size = sizeof(void*);
    static constexpr std::size_t owner_at(std::size_t size) noexcept {
        return (size + pointer_size - 1) & ~(pointer_size - 1);
    }
    static constexpr std::size_t with_owner(std::size_t size) noexcept {
        return owner_at(size) + pointer_size;
    }
};

/// So many bytes, or bytes up to a delimiter. It lies in the frame that waits for them.
class wanted_bytes {
public:
    explicit wanted_bytes(std::size_t exactly) noexcept : size_{exactly} {}
    wanted_bytes(std::string_view delimiter, std::size_t limit) noexcept
        : delimiter_{delimiter}, size_{limit}, until_{true} {}

    /// Whether these bytes, all that have come so far, decide it. Each is looked at once: what was
    /// shown is shown again, with more behind it.
    bool decided_by(bytes unread, std::size_t receive_limit) noexcept {
        if (!until_) {
            is_ = size_ > receive_limit    ? outcome::too_long
                  : unread.size() >= size_ ? outcome::found
                                           : outcome::open;
            return is_ != outcome::open;
        }
        const std::size_t limit = size_ < receive_limit ? size_ : receive_limit;
        const std::string_view text = as_text(unread).substr(0, limit);
        if (const auto at = text.find(delimiter_, searched_); at != std::string_view::npos) {
            size_ = at + delimiter_.size();
            is_ = outcome::found;
        } else if (unread.size() >= limit) {
            is_ = outcome::too_long;
        } else if (text.size() >= delimiter_.size()) {
            searched_ = text.size() - delimiter_.size() + 1;
        }
        return is_ != outcome::open;
    }

    bool found() const noexcept { return is_ == outcome::found; }
    bool too_long() const noexcept { return is_ == outcome::too_long; }
    std::size_t size() const noexcept { return size_; }  // when found

private:
    enum class outcome : unsigned char { open, found, too_long };

    std::string_view delimiter_;
    std::size_t size_;  // wanted, or the limit; then what was found
    std::size_t searched_ = 0;
    bool until_ = false;
    outcome is_ = outcome::open;
};

/// One thread, that of the loop; used by hooks, and from inside them by what the coroutine awaits.
class conversation {
public:
    conversation() = default;
    conversation(const conversation&) = delete;
    conversation& operator=(const conversation&) = delete;
    ~conversation() { destroy(); }

    // ---- hooks ----

    /// Starts what the callable returns: a task.
    template <class Callable>
    void on_open(connection& peer, Callable& callable) {
        const frames_of_loop frames{peer};
        peer_ = &peer;
        const auto first = callable(peer).release();
        if (!first) return peer.close();
        first.promise().talk = this;
        first_ = first;
        next_ = first;
        run();
    }

    /// Says how many bytes the coroutine took. What it leaves while it waits for something else is
    /// shown again when it next receives.
    [[gnu::always_inline]] std::size_t on_data(connection& peer, bytes data) {
        unread_ = data;
        if (state_ == state::waits_for_data) [[likely]] {
            const frames_of_loop frames{peer};
            run();
            if (unread_.empty()) [[likely]]
                return data.size();
        }
        return on_more_data(data.size());
    }

    [[gnu::noinline]] void on_end(connection& peer) {
        end_ = end::due;
        unread_ = peer.kept_.view();
        if (state_ == state::waits_for_data || state_ == state::waits_for_these) {
            const frames_of_loop frames{peer};
            run();
        }
        unread_ = {};
    }

    [[gnu::noinline]] void on_writable(connection& peer) {
        if (state_ != state::waits_for_room) return;
        const frames_of_loop frames{peer};
        if ((peer.flags_ & connection::send_failed) != 0) *sent_ = send_result{error::not_open};
        run();
    }

    /// A timer of its own has passed.
    [[gnu::noinline]] void on_time(connection& peer) {
        if (state_ == state::sleeps) go_on(peer);
    }

    /// A receive has waited for long enough. What came of it is for the next one.
    [[gnu::noinline]] void on_late_receive(connection& peer, bool& late) {
        const bool waits = state_ == state::waits_for_data || state_ == state::waits_for_these;
        if (!waits || end_ != end::none) return;
        late = true;
        peer.flags_ |= connection::show_kept;
        go_on(peer);
    }

    /// The promise that it waits for is kept.
    void on_answer(connection& peer) { go_on(peer); }

    /// Lets the coroutine see the end, whatever it waits for, and ends it where it waits again.
    [[gnu::noinline]] void on_close(connection& peer, const close_reason& why) {
        end_ = end::due;
        closed_ = true;
        refusals_ = 0;
        if (why.error)
            how_ = received::number_of(why.error);
        else if (why.by != closed_by::peer_finished)
            how_ = ECONNABORTED;
        if (state_ == state::waits_for_room) *sent_ = send_result{error::not_open};
        const frames_of_loop frames{peer};
        if (first_) run();
        destroy();
    }

    // ---- what the coroutine awaits ----

    /// Throws std::system_error (std::errc::invalid_argument) for the connection of another one.
    void check_own(const connection& peer) const {
        if (&peer != peer_) [[unlikely]]
            misused("a coroutine awaits what is of its own connection only");
    }
    [[noreturn, gnu::cold, gnu::noinline]] static void misused(const char* what) {
        throw std::system_error{std::make_error_code(std::errc::invalid_argument), what};
    }

    bool has_data() const noexcept { return !unread_.empty() || end_is_due(); }
    bool has(wanted_bytes& these) noexcept {
        if (!these.decided_by(unread_, peer_->loop_->receive_limit)) return end_is_due();
        return these.found() || may_refuse();
    }
    bool has_room() const noexcept { return !peer_->above_high_mark(); }

    /// Whether a receive or a send that fails at once may do so. A loop that ignores it would never
    /// end otherwise.
    bool may_refuse() noexcept { return ++refusals_ < most_refusals; }

    void wait_for_data(std::coroutine_handle<> who) noexcept {
        wait(who, state::waits_for_data);
        if (end_ != end::none || peer_->receive_paused()) [[unlikely]]
            ask_for_data();
    }
    void wait_for(wanted_bytes& these, std::coroutine_handle<> who) noexcept {
        if (these.too_long()) return wait_for_close(who);
        these_ = &these;
        wait(who, state::waits_for_these);
        ask_for_data();
    }
    void wait_for_room(send_result& result, std::coroutine_handle<> who) noexcept {
        sent_ = &result;
        wait(who, state::waits_for_room);
        peer_->flags_ |= connection::awaits_room;
    }
    void wait_for_time(std::coroutine_handle<> who) noexcept { wait(who, state::sleeps); }
    void wait_for_answer(const void* whose, std::coroutine_handle<> who) noexcept {
        answer_of_ = whose;
        wait(who, state::waits_for_answer);
    }
    bool awaits(const void* answer) const noexcept {
        return state_ == state::waits_for_answer && answer_of_ == answer;
    }
    bool is_over() const noexcept { return closed_; }
    void wait_for_close(std::coroutine_handle<> who) noexcept {
        wait(who, state::spins);
        peer_->close();
    }

    received take_data() noexcept {
        if (unread_.empty()) [[unlikely]]
            return take_end();
        if (end_ != end::none) [[unlikely]]
            end_ = end::due;
        refusals_ = 0;
        return received{std::exchange(unread_, bytes{})};
    }
    received take(const wanted_bytes& these) noexcept {
        if (these.too_long()) return received{error::receive_limit};
        if (!these.found()) return take_end();
        if (end_ == end::given && these.size() != 0) end_ = end::due;
        if (these.size() != 0) refusals_ = 0;
        const bytes all = unread_;
        unread_ = all.subspan(these.size());
        return received{all.first(these.size())};
    }

    /// This one goes on when the running one has come to its await.
    void go_on_with(std::coroutine_handle<> who) noexcept { next_ = who; }

    /// A task has come to its end.
    void ended(promise_base& task) noexcept {
        if (task.awaited_by) {
            next_ = task.awaited_by;
        } else {
            over_ = &task;
            state_ = state::over;
        }
    }

private:
    enum class state : unsigned char {
        going,
        waits_for_data,
        waits_for_these,
        waits_for_room,
        sleeps,
        waits_for_answer,
        spins,  // it fails again and again and does not mind
        over
    };

    // Nothing is received any more: the coroutine is to be told, or was.
    enum class end : unsigned char { none, due, given };

    // While a coroutine runs, frames come from its loop. It may run another server meanwhile.
    class frames_of_loop {
    public:
        explicit frames_of_loop(connection& peer) noexcept { frame_pool = &peer.loop_->pool; }
        frames_of_loop(const frames_of_loop&) = delete;
        frames_of_loop& operator=(const frames_of_loop&) = delete;
        ~frames_of_loop() { frame_pool = before_; }

    private:
        block_pool* const before_ = frame_pool;
    };

    bool end_is_due() const noexcept { return end_ == end::due; }

    void wait(std::coroutine_handle<> who, state what) noexcept {
        next_ = who;
        refusals_ = 0;
        state_ = what;
    }

    // What came after the end was given is nothing: it ends with the connection.
    [[gnu::noinline]] void ask_for_data() noexcept {
        if (end_ != end::none)
            peer_->close();
        else
            peer_->resume_receive();
    }

    // Other ways than that all was taken at once. When it waits for something else than data,
    // nothing more is shown until it receives again.
    [[gnu::noinline]] std::size_t on_more_data(std::size_t shown) {
        if (state_ == state::waits_for_these &&
            these_->decided_by(unread_, peer_->loop_->receive_limit)) {
            const frames_of_loop frames{*peer_};
            run();
        }
        if (state_ != state::waits_for_these && !unread_.empty()) peer_->pause_receive();
        return shown - std::exchange(unread_, bytes{}).size();
    }

    received take_end() noexcept {
        end_ = end::given;
        if (!unread_.empty()) return received{error::incomplete};
        return received{how_};
    }

    [[gnu::noinline]] void go_on(connection& peer) {
        const frames_of_loop frames{peer};
        run();
    }

    [[gnu::always_inline]] void run() {
        state_ = state::going;
        do next_.resume();
        while (state_ == state::going);
        if (state_ == state::over) [[unlikely]]
            finish();
    }

    [[gnu::noinline]] void finish() {
        const std::exception_ptr failure = std::move(over_->failure);
        destroy();
        if (failure) std::rethrow_exception(failure);
        peer_->close();
    }

    void destroy() noexcept {
        state_ = state::over;
        if (first_) std::exchange(first_, {}).destroy();
    }

    static constexpr unsigned short most_refusals = 1000;  // without waiting

    connection* peer_ = nullptr;
    bytes unread_;  // what the running hook was shown and the coroutine has not taken
    std::coroutine_handle<> first_;
    std::coroutine_handle<> next_;  // who goes on
    union {
        wanted_bytes* these_ = nullptr;  // waits_for_these
        send_result* sent_;              // waits_for_room
        const void* answer_of_;          // waits_for_answer
        promise_base* over_;             // over
    };
    int how_ = received::finished;  // the end, as a receive gives it
    state state_ = state::going;
    end end_ = end::none;
    bool closed_ = false;  // on_close was called
    unsigned short refusals_ = 0;
};

}  // namespace tcp::inline v0_1::detail
