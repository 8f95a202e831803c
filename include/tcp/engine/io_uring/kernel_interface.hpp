// What io_uring(7) and the program say to each other: io_uring_setup(2), io_uring_enter(2),
// io_uring_register(2). Written down here, as far as it is used, because the headers of a
// distribution are older than the kernels that its programs meet.
#pragma once

#include <bit>
#include <cstdint>

namespace tcp::inline v0_1::detail::io_uring {

/// The numbers of the system calls, the same on every architecture but alpha and MIPS.
inline constexpr long setup_call = 425;
inline constexpr long enter_call = 426;
inline constexpr long register_call = 427;

/// What a submission asks for: io_uring_enter(2).
enum class operation : std::uint8_t {
    nothing = 0,
    poll_add = 6,
    send_message = 9,
    cancel = 14,
    send = 26,
    receive = 27,
    shutdown = 34,
    socket_command = 46,
    install_descriptor = 54,
};

/// A pointer as the kernel takes it.
inline std::uint64_t address_of(const void* at) noexcept {
    return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(at));
}

/// One request: struct io_uring_sqe.
struct submission {
    operation what;
    std::uint8_t flags;
    std::uint16_t priority;  // of a receive: multishot
    std::int32_t fd;
    std::uint64_t offset;
    std::uint64_t address;
    std::uint32_t length;
    std::uint32_t operation_flags;  // MSG_... of a send, POLL... of a poll
    std::uint64_t user_data;
    std::uint16_t buffer_group;
    std::uint16_t personality;
    std::uint32_t option_length;  // of a socket_command
    std::uint64_t option_value;   // of a socket_command
    std::uint64_t padding;
};
static_assert(sizeof(submission) == 64);

inline constexpr std::uint8_t registered_file = 1 << 0;  // submission::flags: fd counts in a
                                                         // table of the ring's
inline constexpr std::uint8_t take_provided_buffer = 1 << 5;
inline constexpr std::uint8_t no_completion_of_success = 1 << 6;
inline constexpr std::uint16_t receive_again_and_again = 1 << 1;  // submission::priority
inline constexpr std::uint32_t poll_again_and_again = 1 << 0;     // submission::length

/// submission::operation_flags of a poll: its halves stand the other way round on big-endian
/// processors.
constexpr std::uint32_t poll_mask(std::uint32_t events) noexcept {
    return std::endian::native == std::endian::big ? events << 16 | events >> 16 : events;
}

/// How one ended: struct io_uring_cqe.
struct completion {
    std::uint64_t user_data;
    std::int32_t result;  // what the system call would give, or minus an errno
    std::uint32_t flags;
};
static_assert(sizeof(completion) == 16);

inline constexpr std::uint32_t has_buffer = 1 << 0;  // completion::flags; its number is above
inline constexpr std::uint32_t more_to_come = 1 << 1;
inline constexpr std::uint32_t socket_has_more = 1 << 2;
inline constexpr unsigned buffer_shift = 16;

/// Where the parts of the shared memory lie, and what is asked for: struct io_uring_params.
struct parameters {
    std::uint32_t submissions;
    std::uint32_t completions;
    std::uint32_t flags;
    std::uint32_t thread[2];
    std::uint32_t features;
    std::uint32_t reserved[4];
    struct {
        std::uint32_t head, tail, mask, entries, flags, dropped, array, reserved;
        std::uint64_t address;
    } submission_offsets;
    struct {
        std::uint32_t head, tail, mask, entries, overflow, completions, flags, reserved;
        std::uint64_t address;
    } completion_offsets;
};
static_assert(sizeof(parameters) == 120);

inline constexpr std::uint32_t completions_given = 1 << 3;  // parameters::flags
inline constexpr std::uint32_t clamp_sizes = 1 << 4;
inline constexpr std::uint32_t starts_disabled = 1 << 6;
inline constexpr std::uint32_t submit_all = 1 << 7;
inline constexpr std::uint32_t single_issuer = 1 << 12;
inline constexpr std::uint32_t deferred_work = 1 << 13;
inline constexpr std::uint32_t no_submission_array = 1 << 16;

inline constexpr std::uint32_t one_mapping = 1 << 0;  // parameters::features
inline constexpr std::uint32_t nothing_dropped = 1 << 1;
inline constexpr std::uint32_t submissions_copied = 1 << 2;
inline constexpr std::uint32_t waits_take_arguments = 1 << 8;
inline constexpr std::uint32_t bundles = 1 << 14;                // Linux 6.10
inline constexpr std::uint32_t reads_have_attributes = 1 << 16;  // Linux 6.14

inline constexpr std::int64_t rings_at = 0;  // offsets for mmap(2)
inline constexpr std::int64_t submissions_at = 0x1000'0000;

inline constexpr std::uint32_t get_events = 1 << 0;  // of io_uring_enter
inline constexpr std::uint32_t extended_argument = 1 << 3;

/// struct io_uring_getevents_arg.
struct wait_argument {
    std::uint64_t signals;
    std::uint32_t signals_size;
    std::uint32_t least_microseconds;
    std::uint64_t timeout;  // points at a __kernel_timespec
};

struct kernel_time {
    std::int64_t seconds;
    std::int64_t nanoseconds;
};

inline constexpr unsigned update_files = 6;  // of io_uring_register
inline constexpr unsigned enable_rings = 12;
inline constexpr unsigned register_files = 13;
inline constexpr unsigned register_buffer_ring = 22;

/// struct io_uring_buf_reg.
struct buffer_ring_registration {
    std::uint64_t ring;
    std::uint32_t entries;
    std::uint16_t group;
    std::uint16_t flags;
    std::uint64_t reserved[3];
};

/// A table of files for the requests of a ring: struct io_uring_rsrc_register.
struct files_registration {
    std::uint32_t count;
    std::uint32_t flags;
    std::uint64_t reserved;
    std::uint64_t files;
    std::uint64_t tags;
};
inline constexpr std::uint32_t empty_table = 1 << 0;  // files_registration::flags

/// struct io_uring_files_update.
struct files_update {
    std::uint32_t at;
    std::uint32_t reserved;
    std::uint64_t descriptors;  // points at them; -1 takes one out
};

/// What lies in one field of a submission as two, in the order of the addresses.
constexpr std::uint64_t both(std::uint32_t first, std::uint32_t second) noexcept {
    return std::endian::native == std::endian::big ? std::uint64_t{first} << 32 | second
                                                   : std::uint64_t{second} << 32 | first;
}
inline constexpr std::uint32_t set_socket_option = 3;  // of a socket_command

/// A buffer for the kernel to fill: struct io_uring_buf. The ring's tail lies where `tail` of the
/// first one does.
struct provided_buffer {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t id;
    std::uint16_t tail;
};
static_assert(sizeof(provided_buffer) == 16);

}  // namespace tcp::inline v0_1::detail::io_uring
