// Where the handler of each accepted connection comes from: copies of a prototype, or a factory.
#pragma once

#include <new>
#include <type_traits>
#include <utility>

namespace tcp::inline v0_1::detail {

/// Owns a prototype or a factory. Making a handler is one indirect call for each accepted
/// connection.
template <class Handler>
class handler_source {
public:
    /// From a prototype, which is copied, or from a callable that returns a Handler.
    template <class Source>
    requires(!std::is_same_v<std::remove_cvref_t<Source>, handler_source>) explicit handler_source(
        Source&& source)
        : state_{::new std::decay_t<Source>(std::forward<Source>(source))} {
        using state = std::decay_t<Source>;
        make_ = [](void* from, void* where) {
            if constexpr (std::is_same_v<state, Handler>)
                ::new (where) Handler(static_cast<const Handler&>(*static_cast<state*>(from)));
            else
                ::new (where) Handler((*static_cast<state*>(from))());
        };
        destroy_ = [](void* from) { ::delete static_cast<state*>(from); };
    }

    handler_source(const handler_source&) = delete;
    handler_source& operator=(const handler_source&) = delete;
    ~handler_source() { destroy_(state_); }

    /// Makes a handler in this memory. Throws what its constructor or the factory throws.
    void make(void* where) const { make_(state_, where); }

private:
    void* state_;
    void (*make_)(void*, void*);
    void (*destroy_)(void*);
};

}  // namespace tcp::inline v0_1::detail
