// Options that cannot work are refused when the server is made, with the name of the one to change.
#pragma once

#include <string_view>
#include <system_error>

#include <tcp/detail/sentence.hpp>
#include <tcp/error.hpp>
#include <tcp/options.hpp>

namespace tcp::inline v0_1::detail {

/// The same options. Throws std::system_error (error::bad_options).
[[gnu::cold]] inline const options& checked(const options& o) {
    const auto refuse = [](std::string_view text) { fail(error::bad_options, text); };
    if (o.low_mark > o.high_mark)
        refuse(sentence{"options::low_mark ", decimal{o.low_mark}, " is above options::high_mark ",
                        decimal{o.high_mark}, "; lower the first or raise the second"});
    if (o.receive_buffer == 0)
        refuse(
            "options::receive_buffer is 0, so nothing could be received; give it at least 1 byte");
    if (o.max_connections == 0)
        refuse("options::max_connections is 0, so nobody could be served; give at least 1");
    if (o.max_connections_per_address.most() == 0)
        refuse(
            "options::max_connections_per_address is 0, so nobody could be served; give at least "
            "1");
    if (o.memory_limit == 0)
        refuse("options::memory_limit is 0, so nothing could wait to be sent; leave it out");
    if (o.close_timeout < duration{})
        refuse("options::close_timeout is negative; give 0 to wait for no peer");
    constexpr auto most = duration::milliseconds(12 * 24 * 3'600'000LL);  // clocks are of 32 bits
    if (o.close_timeout > most && o.close_timeout != duration::max())
        refuse("options::close_timeout is above 12 days; give duration::max() to wait for ever");
    const struct {
        const char* name;
        duration length;
    } deadlines[] = {{"idle_timeout", o.idle_timeout},
                     {"receive_timeout", o.receive_timeout},
                     {"send_timeout", o.send_timeout},
                     {"lifetime", o.lifetime}};
    for (const auto& one : deadlines)
        if (one.length <= duration{} || (one.length > most && one.length != duration::max()))
            refuse(sentence{"options::", one.name,
                            one.length > most ? " is above 12 days" : " is not above 0",
                            "; leave it out, or give duration::max(), for none"});
    if (o.spin < duration{} || o.keep_alive < duration{})
        refuse(sentence{"options::", o.spin < duration{} ? "spin" : "keep_alive",
                        " is negative; give 0 for not at all"});
    if (o.coalescing < duration{} || o.coalescing > duration::milliseconds(1000))
        refuse("options::coalescing is not between 0, for not at all, and a second");
    if (o.kernel_send_buffer < 0 || o.kernel_receive_buffer < 0)
        refuse(sentence{
            "options::", o.kernel_send_buffer < 0 ? "kernel_send_buffer" : "kernel_receive_buffer",
            " is negative; give 0 to let the kernel choose"});
    return o;
}

}  // namespace tcp::inline v0_1::detail
