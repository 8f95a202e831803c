// What counts as a handler, for handlers of every shape. The sentences are pinned in compile/.
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <doctest/doctest.h>

#include <tcp/handler.hpp>

using tcp::bytes;
using tcp::close_reason;
using tcp::connection;
using tcp::handler;

namespace {

// ---- each hook alone is enough ----

struct opens {
    void on_open(connection&) {}
};
struct takes {
    void on_data(connection&, bytes) {}
};
struct counts {
    std::size_t on_data(connection&, bytes data) { return data.size(); }
};
struct ends {
    void on_end(connection&) {}
};
struct drains {
    void on_writable(connection&) {}
};
struct closes {
    void on_close(connection&, const close_reason&) {}
};

/// Which of the concepts hold, as one text: "open data(void) close".
template <class H>
std::string hooks_of() {
    std::string all;
    const auto add = [&all](bool has, const char* name) {
        if (has) all += (all.empty() ? "" : " ") + std::string{name};
    };
    add(tcp::has_on_open<H>, "open");
    add(tcp::has_void_on_data<H>, "data(void)");
    add(tcp::has_counting_on_data<H>, "data(size)");
    add(tcp::has_on_data<H> != (tcp::has_void_on_data<H> || tcp::has_counting_on_data<H>), "?");
    add(tcp::has_on_end<H>, "end");
    add(tcp::has_on_writable<H>, "writable");
    add(tcp::has_on_close<H>, "close");
    if (!handler<H>) all += (all.empty() ? "" : " ") + std::string{"(no handler)"};
    return all;
}

}  // namespace

TEST_CASE("handler: each hook alone is enough") {
    CHECK(hooks_of<opens>() == "open");
    CHECK(hooks_of<takes>() == "data(void)");
    CHECK(hooks_of<counts>() == "data(size)");
    CHECK(hooks_of<ends>() == "end");
    CHECK(hooks_of<drains>() == "writable");
    CHECK(hooks_of<closes>() == "close");

    struct all : opens, counts, ends, drains, closes {};
    CHECK(hooks_of<all>() == "open data(size) end writable close");
    static_assert(tcp::detail::check_handler<all>());
}

TEST_CASE("handler: what is none") {
    struct empty {};
    struct state_only {
        int on_opened = 0;
        void receive(connection&, bytes) {}
    };
    union one_of {
        int i;
        void on_data(connection&, bytes) {}
    };
    enum class number { one };
    const auto lambda = [](connection&, bytes) {};
    const auto generic = [](auto&, auto) {};
    for (const std::string& hooks :
         {hooks_of<empty>(), hooks_of<state_only>(), hooks_of<int>(), hooks_of<int*>(),
          hooks_of<number>(), hooks_of<void (*)(connection&, bytes)>(),
          hooks_of<std::function<void(connection&, bytes)>>(), hooks_of<decltype(lambda)>(),
          hooks_of<std::remove_const_t<decltype(generic)>>()})
        CHECK(hooks == "(no handler)");
    static_assert(!handler<one_of>);
    static_assert(!handler<takes*>);
}

// ---- the forms in which a hook can be written ----

namespace {

struct qualified {
    static void on_open(connection&) {}
    void on_data(connection&, bytes) const noexcept {}
    void on_end(connection&) & {}
    void on_writable(connection&) volatile {}
    void on_close(connection&, const close_reason&) noexcept {}
};
struct loosely_typed {
    void on_open(const connection&) {}
    void on_data(connection&, const bytes&) {}
    void on_end(auto& peer) { static_cast<void>(peer); }
    template <class Peer>
    void on_writable(Peer&&) {}
    void on_close(const connection&, close_reason) {}
};
struct with_defaults {
    void on_open(connection&, int = 0) {}
    std::size_t on_data(connection&, bytes = {}, bool = true) { return 0; }
    void on_close(auto&&...) {}
};
struct overloaded {
    void on_open() {}
    void on_open(connection&) {}
    void on_data(std::string_view) {}
    void on_data(connection&, bytes) {}
    void on_data(connection&, const std::string&) {}
    void on_close(connection&) {}
    void on_close(connection&, const close_reason&) {}
};
struct function_members {
    std::function<void(connection&)> on_open;
    void (*on_end)(connection&) = nullptr;
};
struct polymorphic {
    polymorphic() = default;
    polymorphic(const polymorphic&) = default;
    polymorphic& operator=(const polymorphic&) = default;
    virtual ~polymorphic() = default;
    virtual void on_data(connection&, bytes) {}
    virtual void on_close(connection&, const close_reason&) {}
};
struct overrides : polymorphic {
    void on_data(connection&, bytes) override {}
};
struct abstract {
    virtual void on_data(connection&, bytes) = 0;

protected:
    ~abstract() = default;
};
struct concrete final : abstract {
    void on_data(connection&, bytes) override {}
};
template <class T>
struct curious {
    void on_data(connection& peer, bytes data) { static_cast<T*>(this)->on_line(peer, data); }
};
struct curiouser : curious<curiouser> {
    void on_line(connection&, bytes) {}
};
class chooses : overloaded {
public:
    using overloaded::on_data;
    void on_end(connection&) {}
};
struct cannot_be_inherited final {
    void on_open(connection&) {}
    std::size_t on_data(connection&, bytes) { return 0; }
};
struct const_state {
    const int id = 0;
    void on_data(connection&, bytes) {}
    const_state& operator=(const const_state&) = delete;
};

}  // namespace

TEST_CASE("handler: whatever can be called as a hook is one") {
    CHECK(hooks_of<qualified>() == "open data(void) end writable close");
    CHECK(hooks_of<loosely_typed>() == "open data(void) end writable close");
    CHECK(hooks_of<with_defaults>() == "open data(size) close");
    CHECK(hooks_of<overloaded>() == "open data(void) close");
    CHECK(hooks_of<function_members>() == "open end");
    CHECK(hooks_of<polymorphic>() == "data(void) close");
    CHECK(hooks_of<cannot_be_inherited>() == "open data(size)");
    CHECK(hooks_of<const_state>() == "data(void)");
}

TEST_CASE("handler: inherited hooks are hooks") {
    struct inherits : takes {
        void on_close(connection&, const close_reason&) {}
    };
    struct twice_removed : inherits {};
    struct virtually : virtual takes, virtual opens {};
    CHECK(hooks_of<inherits>() == "data(void) close");
    CHECK(hooks_of<twice_removed>() == "data(void) close");
    CHECK(hooks_of<virtually>() == "open data(void)");
    CHECK(hooks_of<overrides>() == "data(void) close");
    CHECK(hooks_of<concrete>() == "data(void)");
    CHECK(hooks_of<curiouser>() == "data(void)");
}

TEST_CASE("handler: a hook of the derived class hides those of the base") {
    struct hides : takes {
        std::size_t on_data(connection&, bytes) { return 0; }
    };
    struct hides_wrongly : takes {
        void on_data(connection&) {}
    };
    CHECK(hooks_of<hides>() == "data(size)");
    CHECK(hooks_of<hides_wrongly>() == "(no handler)");
}

// ---- declared, but not as it will be called ----

namespace {

struct returns {
    bool on_open(connection&) { return true; }
    void on_data(connection&, bytes) {}
};
struct returns_from_end : takes {
    bool on_end(connection&) { return true; }
};
struct returns_from_writable : takes {
    int on_writable(connection&) { return 0; }
};
struct returns_from_close : takes {
    bool on_close(connection&, const close_reason&) { return true; }
};
struct returns_int {
    int on_data(connection&, bytes) { return 0; }
};
struct returns_bool {
    bool on_data(connection&, bytes) { return true; }
};
struct returns_signed {
    std::ptrdiff_t on_data(connection&, bytes) { return 0; }
};
struct returns_reference {
    std::size_t& on_data(connection&, bytes);
};
struct returns_auto {
    auto on_data(connection&, bytes data) { return data.size(); }
};
struct for_rvalues {
    void on_data(connection&, bytes) && {}
};
struct takes_writable_bytes {
    void on_data(connection&, std::span<std::byte>) {}
};
struct takes_text {
    void on_data(connection&, std::string_view) {}
};
struct takes_a_copy {
    void on_open(connection) = delete;
    void on_data(connection&, bytes) {}
};
struct takes_a_pointer {
    void on_data(connection*, bytes) {}
};
struct takes_an_rvalue {
    void on_end(connection&&) {}
};
struct swaps {
    void on_data(bytes, connection&) {}
};
struct takes_nothing {
    void on_writable() {}
    void on_data(connection&, bytes) {}
};
struct takes_no_reason {
    void on_close(connection&) {}
};
struct changes_the_reason {
    void on_close(connection&, close_reason&) {}
};
struct deletes {
    void on_end(connection&) = delete;
    void on_data(connection&, bytes) {}
};
struct not_a_function {
    int on_data = 0;
};
struct a_type {
    struct on_open {};
    void on_data(connection&, bytes) {}
};
class private_hook {
    void on_open(connection&) {}

public:
    void on_data(connection&, bytes) {}
};
class protected_hook {
protected:
    void on_data(connection&, bytes) {}
};
class private_base : takes {};
struct ambiguous : takes, counts {};
template <class H>
concept declared_wrongly = !handler<H> && tcp::detail::declares_a_hook<H>;

}  // namespace

TEST_CASE("handler: a hook that is declared in another way is no hook, and no handler has it") {
    static_assert(declared_wrongly<returns>);
    static_assert(declared_wrongly<returns_from_end>);
    static_assert(declared_wrongly<returns_from_writable>);
    static_assert(declared_wrongly<returns_from_close>);
    static_assert(declared_wrongly<returns_int>);
    static_assert(declared_wrongly<returns_bool>);
    static_assert(declared_wrongly<returns_signed>);
    static_assert(declared_wrongly<returns_reference>);
    static_assert(declared_wrongly<for_rvalues>);
    static_assert(declared_wrongly<takes_writable_bytes>);
    static_assert(declared_wrongly<takes_text>);
    static_assert(declared_wrongly<takes_a_copy>);
    static_assert(declared_wrongly<takes_a_pointer>);
    static_assert(declared_wrongly<takes_an_rvalue>);
    static_assert(declared_wrongly<swaps>);
    static_assert(declared_wrongly<takes_nothing>);
    static_assert(declared_wrongly<takes_no_reason>);
    static_assert(declared_wrongly<changes_the_reason>);
    static_assert(declared_wrongly<deletes>);
    static_assert(declared_wrongly<not_a_function>);
    static_assert(declared_wrongly<a_type>);
    static_assert(declared_wrongly<private_hook>);
    static_assert(declared_wrongly<protected_hook>);
    static_assert(declared_wrongly<private_base>);
    static_assert(declared_wrongly<ambiguous>);
    CHECK(hooks_of<returns>() == "data(void) (no handler)");
    CHECK(hooks_of<private_hook>() == "data(void) (no handler)");

    CHECK(hooks_of<returns_auto>() == "data(size)");
    CHECK(hooks_of<chooses>() == "data(void) end (no handler)");  // its on_open is private
}

TEST_CASE("handler: the same of a class that cannot be inherited from") {
    struct final_takes_no_reason final {
        void on_data(connection&, bytes) {}
        void on_close(connection&) {}
    };
    struct final_returns_int final {
        void on_open(connection&) {}
        int on_data(connection&, bytes) { return 0; }
    };
    struct final_takes_text final {
        void on_data(connection&, std::string_view) {}
    };
    CHECK(hooks_of<final_takes_no_reason>() == "data(void) (no handler)");
    CHECK(hooks_of<final_returns_int>() == "open (no handler)");
    CHECK(hooks_of<final_takes_text>() == "(no handler)");
    CHECK(tcp::detail::declares_a_hook<final_takes_text>);
}

// ---- other libraries' names ----

namespace {

template <class H>
concept misnames = tcp::detail::misnames_on_open<H> || tcp::detail::misnames_on_data<H> ||
    tcp::detail::misnames_on_end<H> || tcp::detail::misnames_on_writable<H> ||
    tcp::detail::misnames_on_close<H>;

// A handler with one other hook and this name is none; one with every hook may have this name too.
#define MISNAMED(concept_name, name, other_hook)                       \
    struct name##_alone {                                              \
        void name(connection&) {}                                      \
    };                                                                 \
    struct name##_instead : other_hook {                               \
        void name(connection&) {}                                      \
    };                                                                 \
    struct name##_beside : takes, opens, ends, drains, closes {        \
        void name(connection&) {}                                      \
    };                                                                 \
    static_assert(tcp::detail::concept_name<name##_alone>);            \
    static_assert(tcp::detail::concept_name<name##_instead>);          \
    static_assert(!handler<name##_alone> && !handler<name##_instead>); \
    static_assert(handler<name##_beside> && !misnames<name##_beside>)

MISNAMED(misnames_on_open, on_connect, takes);
MISNAMED(misnames_on_open, on_connected, takes);
MISNAMED(misnames_on_open, on_connection, takes);
MISNAMED(misnames_on_open, on_accept, takes);
MISNAMED(misnames_on_open, on_opened, takes);
MISNAMED(misnames_on_open, onOpen, takes);
MISNAMED(misnames_on_data, on_message, opens);
MISNAMED(misnames_on_data, on_read, opens);
MISNAMED(misnames_on_data, on_receive, opens);
MISNAMED(misnames_on_data, on_recv, opens);
MISNAMED(misnames_on_data, on_received, opens);
MISNAMED(misnames_on_data, onData, opens);
MISNAMED(misnames_on_data, onMessage, opens);
MISNAMED(misnames_on_end, on_eof, takes);
MISNAMED(misnames_on_end, on_half_close, takes);
MISNAMED(misnames_on_end, on_finish, takes);
MISNAMED(misnames_on_writable, on_write, takes);
MISNAMED(misnames_on_writable, on_drain, takes);
MISNAMED(misnames_on_writable, on_ready, takes);
MISNAMED(misnames_on_close, on_closed, takes);
MISNAMED(misnames_on_close, on_disconnect, takes);
MISNAMED(misnames_on_close, on_disconnected, takes);
MISNAMED(misnames_on_close, on_error, takes);
MISNAMED(misnames_on_close, onClose, takes);
#undef MISNAMED

struct other_names {
    void on_data(connection&, bytes) {}
    void on_opening(connection&) {}
    void on_line(connection&, std::string_view) {}
    void on_closest(connection&) {}
};
static_assert(handler<other_names>);

class private_helper {
    void on_error(int) {}

public:
    void on_data(connection&, bytes) { on_error(1); }
};
static_assert(handler<private_helper>);

}  // namespace

// ---- what each connection does with its handler ----

namespace {

class immortal {
public:
    void on_data(connection&, bytes) {}

private:
    ~immortal() = default;
};
struct throws_at_the_end {
    void on_data(connection&, bytes) {}
    ~throws_at_the_end() noexcept(false) {}
};
struct neither_copied_nor_moved {
    neither_copied_nor_moved(const neither_copied_nor_moved&) = delete;
    void on_data(connection&, bytes) {}
};
struct not_made_without_arguments {
    explicit not_made_without_arguments(int) {}
    void on_data(connection&, bytes) {}
};

static_assert(!handler<immortal>);
static_assert(!handler<throws_at_the_end>);
static_assert(handler<neither_copied_nor_moved>);  // a factory can make it
static_assert(handler<not_made_without_arguments>);

static_assert(tcp::detail::check_handler<neither_copied_nor_moved>());
static_assert(tcp::detail::check_handler<not_made_without_arguments>());
static_assert(tcp::detail::check_handler<qualified>());
static_assert(tcp::detail::check_handler<loosely_typed>());
static_assert(tcp::detail::check_handler<with_defaults>());
static_assert(tcp::detail::check_handler<overloaded>());
static_assert(tcp::detail::check_handler<function_members>());
static_assert(tcp::detail::check_handler<overrides>());
static_assert(tcp::detail::check_handler<concrete>());
static_assert(tcp::detail::check_handler<curiouser>());
static_assert(tcp::detail::check_handler<cannot_be_inherited>());

}  // namespace
