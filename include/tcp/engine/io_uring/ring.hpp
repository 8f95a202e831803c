// A pair of rings shared with the kernel: submissions go in, completions come out.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

#include <tcp/detail/descriptor.hpp>
#include <tcp/detail/fork_mark.hpp>
#include <tcp/detail/platform.hpp>
#include <tcp/duration.hpp>
#include <tcp/engine/io_uring/kernel_interface.hpp>

namespace tcp::inline v0_1::detail::io_uring {

/// Memory from mmap(2), given back at the end.
class mapping {
public:
    mapping() noexcept = default;
    mapping(mapping&& other) noexcept : at_{other.at_}, size_{other.size_} {
        other.at_ = nullptr;
        other.size_ = 0;
    }
    mapping& operator=(mapping&& other) noexcept {
        swap(at_, other.at_);
        swap(size_, other.size_);
        return *this;
    }
    ~mapping() {
        if (at_ != nullptr) ::munmap(at_, size_);
    }

    /// 0, or an errno.
    int map(std::size_t size, int flags, int fd, std::int64_t offset) noexcept {
        void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, offset);
        if (at == MAP_FAILED) return errno;
        at_ = at;
        size_ = size;
        return 0;
    }

    template <class T>
    T* at(std::size_t offset = 0) const noexcept {
        return reinterpret_cast<T*>(static_cast<std::byte*>(at_) + offset);
    }

private:
    template <class T>
    static void swap(T& a, T& b) noexcept {
        const T was = a;
        a = b;
        b = was;
    }

    void* at_ = nullptr;
    std::size_t size_ = 0;
};

/// One thread, the one that first calls enter(), submits and waits (IORING_SETUP_SINGLE_ISSUER).
/// Its work is done while it waits, and at no other time (IORING_SETUP_DEFER_TASKRUN).
class ring {
public:
    ring() = default;
    ring(ring&&) = default;
    ring& operator=(ring&&) = default;

    static constexpr std::uint32_t submissions = 256;
    static constexpr std::uint32_t completions = 1024;

    /// 0, or an errno: ENOSYS and EPERM where io_uring is switched off, EINVAL where the kernel is
    /// older than this needs, ENOMEM.
    [[gnu::cold]] int open() noexcept {
        parameters wanted{};
        wanted.completions = completions;
        wanted.flags = completions_given | clamp_sizes | starts_disabled | submit_all |
                       single_issuer | deferred_work | no_submission_array;
        long fd = ::syscall(setup_call, submissions, &wanted);
        if (fd < 0 && errno == EINVAL) {  // before Linux 6.6
            wanted.flags &= ~no_submission_array;
            fd = ::syscall(setup_call, submissions, &wanted);
        }
        if (fd < 0) return errno;
        fd_.reset(static_cast<int>(fd));
        constexpr std::uint32_t needed =
            one_mapping | nothing_dropped | submissions_copied | waits_take_arguments;
        if ((wanted.features & needed) != needed) return ENOSYS;
        lets_go_at_once_ = (wanted.features & reads_have_attributes) != 0;
        sleeps_until_enough_ = (wanted.features & bundles) != 0;
        return map(wanted);
    }

    int fd() const noexcept { return fd_.get(); }

    /// Whether what is taken out of a table of files is let go at once. Before Linux 6.13 a request
    /// that waits, of any file of the ring's, kept it. (What tells such a kernel came with 6.14.)
    bool lets_go_at_once() const noexcept { return lets_go_at_once_; }

    /// Whether a thread that waits for several completions is woken once. Before Linux 6.7 each one
    /// woke it. (What tells such a kernel came with 6.10.)
    bool sleeps_until_enough() const noexcept { return sleeps_until_enough_; }

    /// Calls f(submission&) for each that was asked for and has not been submitted.
    template <class F>
    void each_request(F f) {
        for (std::uint32_t i = load(submission_head_); i != tail_; ++i) f(requests_[i & mask_]);
        for (submission& one : waiting_) f(one);
    }

    /// Whether enter() should come before the next ask().
    bool full() const noexcept {
        return tail_ - load(submission_head_) >= room_.number() || !waiting_.empty();
    }
    bool has_requests() const noexcept {
        return tail_ != load(submission_head_) || !waiting_.empty();
    }

    /// Room for one request, until the next ask(). While the kernel takes none and the ring is full
    /// they wait in memory: throws std::bad_alloc where there is none either.
    submission& ask(operation what, int fd, std::uint64_t user_data) {
        submission& one = full() ? waiting_.emplace_back() : requests_[tail_++ & mask_];
        one = {};
        one.what = what;
        one.fd = fd;
        one.user_data = user_data;
        return one;
    }

    /// Submits what was asked for, waits at most so long for so many completions (not at all for
    /// 0), and does the work that is due. 0, or an errno: ETIME, EINTR; EEXIST on another thread
    /// than the first, and in the child of fork(2).
    int enter(duration timeout, std::uint32_t least = 1) noexcept {
        if (is_of_another_process()) [[unlikely]]
            return EEXIST;
        if (!enabled_) [[unlikely]] {
            if (const int error = enable(); error != 0) return error;
        }
        int error =
            wait(tail_ - load(submission_head_), waiting_.empty() ? timeout : duration{}, least);
        while (!waiting_.empty() && error == 0 && take_waiting())
            error = wait(tail_ - load(submission_head_), duration{});
        return error;
    }

    /// Waits as enter() does, and submits nothing: for when the kernel has no memory for requests.
    /// It does the work that is due, which gives back some.
    [[gnu::cold]] int wait_alone(duration timeout) noexcept { return wait(0, timeout); }

    /// Calls f(const completion&) for each that is there now.
    template <class F>
    void each_completion(F f) {
        if (!aside_.empty()) [[unlikely]]
            each_set_aside(f);
        const std::uint32_t* const where = completion_tail_;
        const std::uint32_t end = load(where);
        for (std::uint32_t head; static_cast<std::int32_t>(end - (head = *completion_head_)) > 0;) {
            const completion one = results_[head & results_mask_];
            store(completion_head_, head + 1);
            f(one);
            // A hook has forked: this is another ring, or still the parent's.
            if (completion_tail_ != where || is_of_another_process()) [[unlikely]]
                return;
        }
        if (!aside_.empty()) [[unlikely]]
            each_set_aside(f);
    }
    /// The same, and they stay.
    template <class F>
    void look_at_completions(F f) const {
        for (std::size_t i = aside_next_; i < aside_.size(); ++i) f(aside_[i]);
        const std::uint32_t end = load(completion_tail_);
        for (std::uint32_t i = *completion_head_; i != end; ++i) f(results_[i & results_mask_]);
    }
    /// Finds the result of one that is there, which is of op::nothing from then on. The last ones
    /// are looked at first.
    [[gnu::cold]] bool take_result(std::uint64_t user_data, int& result) noexcept {
        for (std::uint32_t i = load(completion_tail_); i != *completion_head_; --i) {
            completion& one = results_[(i - 1) & results_mask_];
            if (one.user_data != user_data) continue;
            one.user_data = 0;
            result = one.result;
            return true;
        }
        return false;
    }
    bool full_of_completions() const noexcept {
        return load(completion_tail_) - *completion_head_ > results_mask_;
    }
    /// Makes room for completions by keeping those that are there, in order, for the next
    /// each_completion(). Throws std::bad_alloc.
    [[gnu::cold, gnu::noinline]] void set_aside() {
        while (*completion_head_ != load(completion_tail_)) {
            aside_.push_back(results_[*completion_head_ & results_mask_]);
            store(completion_head_, *completion_head_ + 1);
        }
    }
    /// The memory of a ring is shared over fork(2): in the child it is full, and whatever the
    /// child wrote there would be done by the parent.
    bool is_of_another_process() const noexcept { return room_.is_of_another_process(); }
    /// Nothing is in it any more, whatever the other process does with it.
    void forget() noexcept {
        static std::uint32_t none = 0;
        submission_head_ = completion_head_ = &none;
        completion_tail_ = &none;
        tail_ = 0;
        waiting_.clear();
        aside_.clear();
        aside_next_ = 0;
    }

    bool has_completions(std::uint32_t least = 1) const noexcept {
        return load(completion_tail_) - *completion_head_ >= least || !aside_.empty();
    }

private:
    static std::uint32_t load(const std::uint32_t* word) noexcept {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static void store(std::uint32_t* word, std::uint32_t value) noexcept {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }

    /// Submits so many and waits for at least so many, with one system call.
    int wait(std::uint32_t count, duration timeout, std::uint32_t least = 1) noexcept {
        store(submission_tail_, tail_);
        const std::int64_t ns = timeout.nanoseconds();
        kernel_time time{ns / 1'000'000'000, ns % 1'000'000'000};
        wait_argument argument{};
        argument.timeout = address_of(&time);
        const bool limited = ns > 0 && timeout != duration::max();  // else there is nothing to copy
        const long n = ::syscall(enter_call, fd_.get(), count, ns > 0 ? least : 0U,
                                 get_events | (limited ? extended_argument : 0),
                                 limited ? &argument : nullptr, limited ? sizeof argument : 0);
        return n < 0 ? errno : 0;
    }

    /// Into the ring with those that wait, as many as there is room for. Whether there was any.
    [[gnu::cold, gnu::noinline]] bool take_waiting() noexcept {
        std::size_t taken = 0;
        while (taken != waiting_.size() && tail_ - load(submission_head_) < room_.number())
            requests_[tail_++ & mask_] = waiting_[taken++];
        waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
        return taken != 0;
    }

    template <class F>
    [[gnu::cold, gnu::noinline]] void each_set_aside(F f) {
        while (aside_next_ != aside_.size()) {
            const completion one = aside_[aside_next_++];
            f(one);
        }
        aside_.clear();
        aside_next_ = 0;
    }

    [[gnu::cold, gnu::noinline]] int enable() noexcept {
        enabled_ = ::syscall(register_call, fd_.get(), enable_rings, nullptr, 0) == 0;
        return enabled_ ? 0 : errno;
    }

    [[gnu::cold]] int map(const parameters& given) noexcept {
        const auto& in = given.submission_offsets;
        const auto& out = given.completion_offsets;
        const std::size_t in_size = in.array + given.submissions * sizeof(std::uint32_t);
        const std::size_t out_size = out.completions + given.completions * sizeof(completion);
        constexpr int flags = MAP_SHARED | MAP_POPULATE;
        if (const int error =
                rings_.map(in_size > out_size ? in_size : out_size, flags, fd_.get(), rings_at);
            error != 0)
            return error;
        if (const int error = space_.map(given.submissions * sizeof(submission), flags, fd_.get(),
                                         submissions_at);
            error != 0)
            return error;
        if (const int error = room_.open(given.submissions); error != 0) return error;
        requests_ = space_.at<submission>();
        mask_ = given.submissions - 1;
        submission_head_ = rings_.at<std::uint32_t>(in.head);
        submission_tail_ = rings_.at<std::uint32_t>(in.tail);
        results_ = rings_.at<completion>(out.completions);
        results_mask_ = given.completions - 1;
        completion_head_ = rings_.at<std::uint32_t>(out.head);
        completion_tail_ = rings_.at<const std::uint32_t>(out.tail);
        if ((given.flags & no_submission_array) == 0)
            for (std::uint32_t i = 0; i != given.submissions; ++i)
                rings_.at<std::uint32_t>(in.array)[i] = i;
        return 0;
    }

    descriptor fd_;
    std::vector<submission> waiting_;  // behind what is in the ring
    std::vector<completion> aside_;    // before what is in the ring
    std::size_t aside_next_ = 0;
    mapping rings_;
    mapping space_;
    fork_mark room_;
    submission* requests_ = nullptr;
    completion* results_ = nullptr;
    std::uint32_t* submission_head_ = nullptr;
    std::uint32_t* submission_tail_ = nullptr;
    std::uint32_t* completion_head_ = nullptr;
    const std::uint32_t* completion_tail_ = nullptr;
    std::uint32_t mask_ = 0;
    std::uint32_t results_mask_ = 0;
    std::uint32_t tail_ = 0;  // of the submissions that were asked for
    bool enabled_ = false;
    bool lets_go_at_once_ = false;
    bool sleeps_until_enough_ = false;
};

}  // namespace tcp::inline v0_1::detail::io_uring
