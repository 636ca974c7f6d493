/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pympi in C++17: kernels, tasks, rights and messages as objects that give back what they own. Header only, over pympi.h; what is
 * not here (audit rules, watches, traces, guards) is there, and get() gives what its functions take.
 *
 * Errors. Each operation has two forms: try_x() gives a result<T> or a std::error_code, x() throws pympi::error, and
 * pympi::access_denied where access control refused. Without exceptions (-fno-exceptions) the try_ forms are all there is.
 *
 * Ownership. All objects are move-only. A right drops one reference when it ends; release() leaves it in the task's space, without
 * the handler that a receive right has by its object. A message drops the rights that it brought and nobody took. A right or message may not outlive the task object it came from, nor a task
 * object its kernel where that is borrowed.
 *
 * Sending and receiving bytes allocates nothing here.
 *
 * Callables. A decider, handler or drainer is a std::function, or a function of pympi.h with its context. What one throws is a
 * failure: everything asked is denied, the message is destroyed, the records stay. One is replaced or ended by the thread that it runs
 * in, or while no other thread calls into the kernel.
 */
#ifndef PYMPI_HPP
#define PYMPI_HPP

#include "pympi.h"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define PYMPI_THROWS 1
#else
#define PYMPI_THROWS 0
#endif

namespace pympi {

/* ---- codes and errors ---------------------------------------------------------------------------------------------------- */

/* The name of a Mach code, such as "KERN_INVALID_NAME". */
inline const char *code_name(int code) noexcept
{
    const char *name = pm_code_name(code);
    return name ? name : "unknown code";
}

inline const std::error_category &category() noexcept
{
    static const struct : std::error_category {
        const char *name() const noexcept override { return "pympi"; }
        std::string message(int code) const override { return code_name(code); }
    } instance;
    return instance;
}

/* A Mach code as an error_code; it compares with the constants of pympi.h: `code == MACH_RCV_TIMED_OUT`. */
inline std::error_code error_code(int code) noexcept { return {code, category()}; }

} // namespace pympi

template <> struct std::is_error_code_enum<pm_code> : std::true_type {};
inline std::error_code make_error_code(pm_code code) noexcept { return pympi::error_code(static_cast<int>(code)); }

namespace pympi {

#if PYMPI_THROWS
/* What the kernel answered with a code. */
class error : public std::runtime_error {
public:
    error(int code, const char *what) : std::runtime_error(std::string(what) + ": " + code_name(code)), code_(code) {}
    int code() const noexcept { return code_; }
    const char *name() const noexcept { return code_name(code_); }

private:
    int code_;
};

/* Access control refused. What is refused: `denial`, with its operation, class and permissions as in pympi.h. */
class access_denied : public error {
public:
    access_denied(int code, const char *what, const pm_denial &refused) : error(code, what), denial(refused) {}
    pm_denial denial;
};
#endif

namespace detail {

#if PYMPI_THROWS
[[noreturn]] inline void fail(int code, const char *what, pm_task *task = nullptr)
{
    pm_denial denial;
    if (task && pm_task_take_denial(task, &denial)) throw access_denied(code, what, denial);
    throw error(code, what);
}

inline void must(std::error_code code, const char *what, pm_task *task = nullptr)
{
    if (code) fail(code.value(), what, task);
}
#endif

} // namespace detail

/* A value, or the code of what was in its way. */
template <class T> class [[nodiscard]] result {
public:
    result(T value) : value_(std::move(value)) {}
    static result failed(int code)
    {
        result none{T{}};
        none.code_ = code;
        return none;
    }
    explicit operator bool() const noexcept { return code_ == 0; }
    int code() const noexcept { return code_; }
    std::error_code error() const noexcept { return error_code(code_); }
    T &operator*() & noexcept { return value_; }
    T &&operator*() && noexcept { return std::move(value_); }
    T *operator->() noexcept { return &value_; }
#if PYMPI_THROWS
    T must(const char *what, pm_task *task = nullptr) &&
    {
        if (code_) detail::fail(code_, what, task);
        return std::move(value_);
    }
#endif

private:
    T value_;
    int code_ = 0;
};

namespace detail {

/* Of what pympi.h gives as a value or a code negated. */
template <class T> result<T> value_or_code(int64_t value)
{
    return value < 0 ? result<T>::failed(static_cast<int>(-value)) : result<T>(static_cast<T>(value));
}

/*
 * A callable that the core knows by its address. The references are the owner's and one for each call that is on its way, so that a
 * callable may end itself.
 */
template <class Signature> struct upcall {
    explicit upcall(std::function<Signature> function) : call(std::move(function)) {}
    std::function<Signature> call;
    std::atomic<unsigned> users{1};
    void *owner = nullptr;
    void drop() noexcept
    {
        if (users.fetch_sub(1) == 1) delete this;
    }
};

template <class Signature> struct calling {
    explicit calling(void *context) : target(static_cast<upcall<Signature> *>(context)) { target->users.fetch_add(1); }
    ~calling() { target->drop(); }
    calling(const calling &) = delete;
    calling &operator=(const calling &) = delete;
    upcall<Signature> *target;
};

/* Runs what may throw, on behalf of C. */
template <class Call> int guarded(Call call) noexcept
{
#if PYMPI_THROWS
    try {
        return call() ? 0 : 1;
    } catch (...) {
        return 1;
    }
#else
    return call() ? 0 : 1;
#endif
}

} // namespace detail

/* ---- bytes, time --------------------------------------------------------------------------------------------------------- */

/* Bytes of somebody else: of a string, a container with data() and size(), or a pointer and a size. */
struct bytes {
    const void *data = nullptr;
    size_t size = 0;

    bytes() = default;
    bytes(const void *first, size_t count) noexcept : data(first), size(count) {}
    bytes(std::string_view text) noexcept : data(text.data()), size(text.size()) {}
    bytes(const char *text) noexcept : bytes(std::string_view(text)) {}
    template <class C, class = decltype(std::declval<const C &>().data()), class = decltype(std::declval<const C &>().size())>
    bytes(const C &of) noexcept : data(of.data()), size(of.size() * sizeof(*of.data()))
    {
        static_assert(std::is_trivially_copyable<std::remove_reference_t<decltype(*of.data())>>::value,
                      "a message carries bytes; these are more than bytes");
    }
    std::string_view view() const noexcept { return {static_cast<const char *>(data), size}; }
};

/* The bytes of a plain object, such as a struct of numbers. */
template <class T> bytes bytes_of(const T &object) noexcept
{
    static_assert(std::is_trivially_copyable<T>::value, "a message carries bytes; this is more than bytes");
    return {&object, sizeof object};
}

/* How long to wait: not at all unless said, nor for a time that is over: what is left until some moment may be less than nothing. */
class wait {
public:
    wait() = default;
    template <class Rep, class Period> wait(std::chrono::duration<Rep, Period> time) noexcept : wait(nanoseconds(time)) {}
    static wait forever() noexcept { return wait(int64_t{-1}); }
    const pm_wait *get() const noexcept { return waits_ ? &wait_ : nullptr; }

private:
    explicit wait(int64_t ns) noexcept : wait_{ns, nullptr, nullptr}, waits_(true) {}
    /* What is longer than 292 years has no number. */
    template <class Rep, class Period> static int64_t nanoseconds(std::chrono::duration<Rep, Period> time) noexcept
    {
        double about = std::chrono::duration<double, std::nano>(time).count();
        if (!(about > 0)) return 0;
        return about < 9.2e18 ? std::chrono::duration_cast<std::chrono::nanoseconds>(time).count() : INT64_MAX;
    }
    pm_wait wait_{0, nullptr, nullptr};
    bool waits_ = false;
};

class task;
class send_right;
class send_once_right;
class receive_right;
class kernel;

/* ---- labels -------------------------------------------------------------------------------------------------------------- */

/* A label that is known to a kernel, by its number. */
class label {
public:
    label() = default;
    label(pm_kernel *kernel, uint32_t sid) noexcept : kernel_(kernel), sid_(sid) {}    /* takes a reference */
    label(label &&other) noexcept : kernel_(other.kernel_), sid_(std::exchange(other.sid_, 0)) {}
    label &operator=(label &&other) noexcept
    {
        std::swap(kernel_, other.kernel_);
        std::swap(sid_, other.sid_);
        return *this;
    }
    ~label()
    {
        if (sid_) pm_sid_release(kernel_, sid_);
    }
    uint32_t sid() const noexcept { return sid_; }
    std::string text() const
    {
        char text[PM_LABEL_MAX];
        int64_t length = pm_sid_text(kernel_, sid_, text, sizeof text);
        return {text, length > 0 ? static_cast<size_t>(length) : 0};
    }

private:
    pm_kernel *kernel_ = nullptr;
    uint32_t sid_ = 0;
};

/* ---- rights -------------------------------------------------------------------------------------------------------------- */

namespace detail {

/* One reference of a name in a task's space. */
class right {
public:
    right(right &&other) noexcept
        : task_(other.task_), name_(std::exchange(other.name_, MACH_PORT_NULL)), kind_(other.kind_)
    {
    }
    right &operator=(right &&other) noexcept
    {
        std::swap(task_, other.task_);
        std::swap(name_, other.name_);
        return *this;
    }
    ~right() { close(); }

    uint32_t name() const noexcept { return name_; }
    pm_task *owner() const noexcept { return task_; }
    explicit operator bool() const noexcept { return name_ != MACH_PORT_NULL && name_ != MACH_PORT_DEAD; }
    bool dead() const noexcept { return name_ == MACH_PORT_DEAD || pm_port_is_dead(task_, name_) == 1; }
    /* Leaves the reference where it is, and gives its name. */
    uint32_t release() noexcept { return std::exchange(name_, MACH_PORT_NULL); }
    /* Drops the reference; of a name that has died meanwhile, the dead one. */
    void close() noexcept { drop(); }

protected:
    /* False: it could not be dropped, as that of a guarded port. */
    bool drop() noexcept
    {
        if (!*this) return true;
        uint32_t name = release();
        int code = pm_port_mod_refs(task_, task_, name, kind_, -1);
        if (code == KERN_INVALID_RIGHT) code = pm_port_mod_refs(task_, task_, name, MACH_PORT_RIGHT_DEAD_NAME, -1);
        return code == 0;
    }
    right(pm_task *task, uint32_t name, uint32_t kind) noexcept : task_(task), name_(name), kind_(kind) {}
    pm_task *task_;
    uint32_t name_;
    uint32_t kind_;
};

} // namespace detail

/* ---- messages ------------------------------------------------------------------------------------------------------------ */

/* A message that was received, and all that it brought. */
class message {
public:
    message() = default;
    /* Takes what pm_receive_message() filled in. */
    message(pm_task *task, const pm_received &received) noexcept : task_(task), received_(received) {}
    message(message &&other) noexcept : task_(other.task_), received_(other.received_) { other.forget(); }
    message &operator=(message &&other) noexcept
    {
        if (this != &other) {
            close();
            task_ = other.task_;
            received_ = other.received_;
            other.forget();
        }
        return *this;
    }
    ~message() { close(); }

    explicit operator bool() const noexcept { return task_ != nullptr; }
    const pm_received &get() const noexcept { return received_; }
    int32_t id() const noexcept { return received_.msgh_id; }
    pympi::bytes body() const noexcept { return {received_.body, received_.size}; }
    std::string_view view() const noexcept { return body().view(); }
    uint32_t sender() const noexcept { return received_.sender_task; }
    uint32_t sender_sid() const noexcept { return received_.sender_sid; }
    uint32_t rights_count() const noexcept { return received_.rights_count; }
    uint32_t denied() const noexcept { return received_.denied; }
    /* The body as an object of this type; false where it has another size. */
    template <class T> bool read(T &object) const noexcept
    {
        static_assert(std::is_trivially_copyable<T>::value, "a message carries bytes; this is more than bytes");
        if (received_.size != sizeof object) return false;
        std::char_traits<char>::copy(reinterpret_cast<char *>(&object), static_cast<const char *>(received_.body), sizeof object);
        return true;
    }

    /* The right it brought, which is the caller's from now on; null where there is none of that kind, or it was taken. */
    inline send_right take_send(uint32_t index) noexcept;
    inline send_once_right take_send_once(uint32_t index) noexcept;
    inline receive_right take_receive(uint32_t index) noexcept;

    bool has_reply() const noexcept { return received_.reply != MACH_PORT_NULL && received_.reply != MACH_PORT_DEAD; }
    /* Answers, which uses the reply right up. */
    std::error_code try_reply(pympi::bytes body, int32_t id) noexcept
    {
        pm_send_spec spec{};
        spec.dest = received_.reply;
        spec.dest_disposition = received_.reply_disposition;
        spec.body = body.data;
        spec.size = body.size;
        spec.msgh_id = id;
        int code = has_reply() ? pm_send_message(task_, &spec, nullptr) : int{MACH_SEND_INVALID_DEST};
        if (!code) received_.reply = MACH_PORT_NULL, received_.reply_disposition = 0;
        return error_code(code);
    }
#if PYMPI_THROWS
    void reply(pympi::bytes body, int32_t id) { detail::must(try_reply(body, id), "reply", task_); }
#endif
    /* Drops the rights that nobody took, and the rest. */
    void close() noexcept
    {
        if (!task_) return;
        pm_message_refuse(task_, &received_);
        pm_message_free(received_.message);
        forget();
    }

private:
    void forget() noexcept
    {
        task_ = nullptr;
        received_ = {};
    }
    uint32_t take(uint32_t index, uint32_t disposition) noexcept
    {
        if (index >= received_.rights_count || received_.rights[index].disposition != disposition) return MACH_PORT_NULL;
        /* The list is the message's, and the message is ours. */
        return std::exchange(const_cast<pm_received_right &>(received_.rights[index]).name, uint32_t{MACH_PORT_NULL});
    }
    pm_task *task_ = nullptr;
    pm_received received_{};
};

/* ---- rights to send ------------------------------------------------------------------------------------------------------ */

class send_right : public detail::right {
public:
    send_right() noexcept : right(nullptr, MACH_PORT_NULL, MACH_PORT_RIGHT_SEND) {}
    /* Takes a reference that the task has under this name. */
    send_right(pm_task *task, uint32_t name) noexcept : right(task, name, MACH_PORT_RIGHT_SEND) {}

    std::error_code try_send(bytes body, int32_t id = 0, const wait &time = {}) noexcept
    {
        return error_code(pm_send(task_, name_, body.data, body.size, id, time.get()));
    }
    /* The long form. `spec.dest` is filled in. */
    std::error_code try_send(pm_send_spec spec, const wait &time = {}) noexcept
    {
        spec.dest = name_;
        return error_code(pm_send_message(task_, &spec, time.get()));
    }
    /* Sends, and receives the answer on a receive right of the same task. */
    inline result<message> try_call(bytes body, int32_t id, receive_right &answers, const wait &time = {}) noexcept;
    /* Another right to the same port, in the space of `to`. */
    inline result<send_right> try_copy(const task &to) const noexcept;
#if PYMPI_THROWS
    void send(bytes body, int32_t id = 0, const wait &time = {})
    {
        int code = pm_send(task_, name_, body.data, body.size, id, time.get());
        if (code) detail::fail(code, "send", task_);
    }
    void send(const pm_send_spec &spec, const wait &time = {}) { detail::must(try_send(spec, time), "send", task_); }
    inline message call(bytes body, int32_t id, receive_right &answers, const wait &time = {});
    inline send_right copy(const task &to) const;
#endif
};

/* Sending uses it up; one that ends unused notifies who waits. */
class send_once_right : public detail::right {
public:
    send_once_right() noexcept : right(nullptr, MACH_PORT_NULL, MACH_PORT_RIGHT_SEND_ONCE) {}
    send_once_right(pm_task *task, uint32_t name) noexcept : right(task, name, MACH_PORT_RIGHT_SEND_ONCE) {}

    std::error_code try_send(bytes body, int32_t id = 0) noexcept
    {
        int code = pm_send(task_, name_, body.data, body.size, id, nullptr);
        if (!code) release();
        return error_code(code);
    }
#if PYMPI_THROWS
    void send(bytes body, int32_t id = 0) { detail::must(try_send(body, id), "send", task_); }
#endif
};

/* ---- rights to receive --------------------------------------------------------------------------------------------------- */

/* What a handler is called with; the message is its own, to keep or to let go. */
using handler = std::function<void(message &)>;

class receive_right : public detail::right {
public:
    receive_right() noexcept : right(nullptr, MACH_PORT_NULL, MACH_PORT_RIGHT_RECEIVE) {}
    receive_right(pm_task *task, uint32_t name) noexcept : right(task, name, MACH_PORT_RIGHT_RECEIVE) {}
    receive_right(receive_right &&other) noexcept
        : right(std::move(other)), handler_(std::exchange(other.handler_, nullptr))
    {
    }
    receive_right &operator=(receive_right &&other) noexcept
    {
        right::operator=(std::move(other));
        std::swap(handler_, other.handler_);
        return *this;
    }
    ~receive_right() { close(); }
    /* The port goes with its receive right, and the handler after it. */
    void close() noexcept
    {
        uint32_t name = name_;
        end_handler(drop() ? MACH_PORT_NULL : name);
    }
    /* The port stays where it is, without the handler of this object. */
    uint32_t release() noexcept
    {
        end_handler(name_);
        return right::release();
    }

    /* Copies the bytes of the next message, at most `capacity`, and gives their number. */
    result<size_t> try_receive(void *buffer, size_t capacity, const wait &time = {}) noexcept
    {
        return detail::value_or_code<size_t>(pm_receive(task_, name_, buffer, capacity, time.get()));
    }
    /* Takes the next message. Where the receiver was refused some of its rights, it comes without them: message::denied(). */
    result<message> try_receive(const wait &time = {}) noexcept
    {
        pm_received received;
        int code = pm_receive_message(task_, name_, 0, &received, time.get());
        if (code && code != (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) return result<message>::failed(code);
        return message(task_, received);
    }
    inline result<send_right> try_make_send(const task &to) const noexcept;
    inline result<send_once_right> try_make_send_once(const task &to) const noexcept;

    /* A handler instead of the queue: it runs in the sender's call. A null function ends that. */
    std::error_code try_handle(handler function, uint32_t kind = 0)
    {
        auto *made = function ? new detail::upcall<void(message &)>(std::move(function)) : nullptr;
        if (made) made->owner = task_;
        int code = pm_port_set_handler(task_, task_, name_, made ? handled : nullptr, made, kind);
        auto *old = code ? made : std::exchange(handler_, made);
        if (old) old->drop();
        return error_code(code);
    }
    std::error_code try_handle(pm_handler function, void *context, uint32_t kind = 0) noexcept
    {
        int code = pm_port_set_handler(task_, task_, name_, function, context, kind);
        if (auto *old = code ? nullptr : std::exchange(handler_, nullptr)) old->drop();
        return error_code(code);
    }
#if PYMPI_THROWS
    size_t receive(void *buffer, size_t capacity, const wait &time = {})
    {
        int64_t size = pm_receive(task_, name_, buffer, capacity, time.get());
        if (size < 0) detail::fail(static_cast<int>(-size), "receive", task_);
        return static_cast<size_t>(size);
    }
    message receive(const wait &time = {}) { return try_receive(time).must("receive", task_); }
    inline send_right make_send(const task &to) const;
    inline send_once_right make_send_once(const task &to) const;
    void handle(handler function, uint32_t kind = 0) { detail::must(try_handle(std::move(function), kind), "handle", task_); }
    void handle(pm_handler function, void *context, uint32_t kind = 0)
    {
        detail::must(try_handle(function, context, kind), "handle", task_);
    }
#endif

private:
    static int handled(void *context, pm_received *received) noexcept
    {
        detail::calling<void(message &)> now(context);
        message arrived(static_cast<pm_task *>(now.target->owner), *received);
        received->message = nullptr;    /* all of it is the object's now */
        received->reply = MACH_PORT_NULL;
        received->reply_disposition = received->rights_count = 0;
        return detail::guarded([&] { return now.target->call(arrived), true; });
    }
    /* Takes it out of the port, if that stays. One that cannot be taken out may still be called, and is never freed. */
    void end_handler(uint32_t stays) noexcept
    {
        auto *ended = std::exchange(handler_, nullptr);
        if (!ended) return;
        int code = stays ? pm_port_set_handler(task_, task_, stays, nullptr, nullptr, 0) : 0;
        if (!code || code == KERN_INVALID_NAME || code == KERN_INVALID_RIGHT || code == KERN_INVALID_TASK) ended->drop();
    }
    detail::upcall<void(message &)> *handler_ = nullptr;
};

inline send_right message::take_send(uint32_t index) noexcept { return {task_, take(index, MACH_MSG_TYPE_PORT_SEND)}; }
inline send_once_right message::take_send_once(uint32_t index) noexcept
{
    return {task_, take(index, MACH_MSG_TYPE_PORT_SEND_ONCE)};
}
inline receive_right message::take_receive(uint32_t index) noexcept
{
    return {task_, take(index, MACH_MSG_TYPE_PORT_RECEIVE)};
}

/* ---- tasks --------------------------------------------------------------------------------------------------------------- */

/* A task. It lives until it is terminated, whoever has an object of it. */
class task {
public:
    task() = default;
    /* Takes a handle, as pm_task_create() gives it. */
    static task adopt(pm_task *handle) noexcept { return {handle, true}; }
    /* Only looks at the task of somebody else, such as one of Python: Task.address. */
    static task borrow(pm_task *handle) noexcept { return {handle, false}; }
    static task borrow(std::uintptr_t address) noexcept { return borrow(reinterpret_cast<pm_task *>(address)); }
    task(task &&other) noexcept : task_(std::exchange(other.task_, nullptr)), owned_(other.owned_) {}
    task &operator=(task &&other) noexcept
    {
        std::swap(task_, other.task_);
        std::swap(owned_, other.owned_);
        return *this;
    }
    ~task()
    {
        if (task_ && owned_) pm_task_release(task_);
    }

    pm_task *get() const noexcept { return task_; }
    explicit operator bool() const noexcept { return task_ != nullptr; }
    uint32_t id() const noexcept { return pm_task_id(task_); }
    uint32_t sid() const noexcept { return pm_task_sid(task_); }
    std::string_view name() const noexcept { return pm_task_name(task_); }
    bool alive() const noexcept { return pm_task_alive(task_) == 1; }

    result<receive_right> try_allocate_port(const pm_port_options &options = {}) const noexcept
    {
        int64_t name = pm_port_construct(task_, task_, &options);
        if (name < 0) return result<receive_right>::failed(static_cast<int>(-name));
        return receive_right(task_, static_cast<uint32_t>(name));
    }
    /* Destroys all it has. */
    std::error_code try_terminate() const noexcept { return error_code(pm_task_terminate(task_, task_)); }
    /* What access control refused in its last call of this thread that failed: true, and its particulars. */
    bool take_denial(pm_denial &denial) const noexcept { return pm_task_take_denial(task_, &denial) == 1; }
#if PYMPI_THROWS
    receive_right allocate_port(const pm_port_options &options = {}) const
    {
        return try_allocate_port(options).must("allocate_port", task_);
    }
    void terminate() const { detail::must(try_terminate(), "terminate", task_); }
#endif

private:
    task(pm_task *handle, bool owned) noexcept : task_(handle), owned_(owned) {}
    pm_task *task_ = nullptr;
    bool owned_ = true;
};

namespace detail {

template <class R> result<R> transfer(pm_task *from, uint32_t name, uint32_t disposition, const task &to) noexcept
{
    int64_t made = pm_port_transfer(from, name, disposition, to.get());
    if (made < 0) return result<R>::failed(static_cast<int>(-made));
    return R(to.get(), static_cast<uint32_t>(made));
}

} // namespace detail

inline result<send_right> send_right::try_copy(const task &to) const noexcept
{
    return detail::transfer<send_right>(task_, name_, MACH_MSG_TYPE_COPY_SEND, to);
}
inline result<send_right> receive_right::try_make_send(const task &to) const noexcept
{
    return detail::transfer<send_right>(task_, name_, MACH_MSG_TYPE_MAKE_SEND, to);
}
inline result<send_once_right> receive_right::try_make_send_once(const task &to) const noexcept
{
    return detail::transfer<send_once_right>(task_, name_, MACH_MSG_TYPE_MAKE_SEND_ONCE, to);
}
inline result<message> send_right::try_call(bytes body, int32_t id, receive_right &answers, const wait &time) noexcept
{
    pm_send_spec spec{};
    pm_received received;
    spec.dest = name_;
    spec.reply = answers.name();
    spec.reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE;
    spec.body = body.data;
    spec.size = body.size;
    spec.msgh_id = id;
    int code = pm_call(task_, &spec, answers.name(), &received, time.get());
    if (code && code != (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) return result<message>::failed(code);
    return message(task_, received);
}
#if PYMPI_THROWS
inline send_right send_right::copy(const task &to) const { return try_copy(to).must("copy", task_); }
inline send_right receive_right::make_send(const task &to) const { return try_make_send(to).must("make_send", task_); }
inline send_once_right receive_right::make_send_once(const task &to) const
{
    return try_make_send_once(to).must("make_send_once", task_);
}
inline message send_right::call(bytes body, int32_t id, receive_right &answers, const wait &time)
{
    return try_call(body, id, answers, time).must("call", task_);
}
#endif

/* ---- kernels ------------------------------------------------------------------------------------------------------------- */

/* Questions of the core; the answers are written into them. They come preset to refusals. */
struct questions {
    pm_query *first;
    size_t count;
    pm_query *begin() const noexcept { return first; }
    pm_query *end() const noexcept { return first + count; }
};

/* Answers; true, or false where it could not: then everything asked is denied. */
using decider = std::function<bool(questions asked, uint32_t epoch)>;
/* Drains, when the ring is full or records are synchronous; false where it could not. */
using drainer = std::function<bool()>;

class kernel {
public:
    kernel() = default;     /* none: try_create() and borrow() make one */
    static result<kernel> try_create(const pm_config &config = {})
    {
        pm_kernel *made = nullptr;
        int code = pm_kernel_create_as(PM_ABI_VERSION, &config, &made);
        return code ? result<kernel>::failed(code) : result<kernel>(kernel(made, true));
    }
    /* Only uses the kernel of somebody else, who keeps it open meanwhile, such as one of Python: Kernel.pointer. */
    static result<kernel> try_borrow(pm_kernel *known)
    {
        int code = known ? pm_abi_check() : int{KERN_INVALID_ARGUMENT};
        return code ? result<kernel>::failed(code) : result<kernel>(kernel(known, false));
    }
#if PYMPI_THROWS
    explicit kernel(const pm_config &config) : kernel(create(config)) {}
    static kernel create(const pm_config &config = {})
    {
        return try_create(config).must(
            pm_abi_check() ? "pympi.h and the library are of different versions; compile again" : "kernel");
    }
    static kernel borrow(pm_kernel *known)
    {
        return try_borrow(known).must(
            pm_abi_check() ? "pympi.h and the library are of different versions; compile again" : "borrow");
    }
    /* One of Python, by what Kernel.address says. */
    static kernel borrow(std::uintptr_t address) { return borrow(reinterpret_cast<pm_kernel *>(address)); }
#endif
    kernel(kernel &&other) noexcept
        : kernel_(std::exchange(other.kernel_, nullptr)), owned_(other.owned_),
          decider_(std::exchange(other.decider_, nullptr)), drainer_(std::exchange(other.drainer_, nullptr))
    {
    }
    kernel &operator=(kernel &&other) noexcept
    {
        std::swap(kernel_, other.kernel_);
        std::swap(owned_, other.owned_);
        std::swap(decider_, other.decider_);
        std::swap(drainer_, other.drainer_);
        return *this;
    }
    /* Ends a kernel of its own, and all tasks; takes its callables out of one that is borrowed. */
    ~kernel()
    {
        if (kernel_ && owned_) pm_kernel_destroy(kernel_);
        if (kernel_ && !owned_ && decider_) pm_kernel_set_decider(kernel_, nullptr, nullptr);
        if (kernel_ && !owned_ && drainer_) pm_audit_set_drainer(kernel_, nullptr, nullptr);
        if (decider_) decider_->drop();
        if (drainer_) drainer_->drop();
    }

    pm_kernel *get() const noexcept { return kernel_; }
    explicit operator bool() const noexcept { return kernel_ != nullptr; }

    result<label> try_label(std::string_view text) const noexcept
    {
        int64_t sid = pm_sid_intern(kernel_, nullptr, text.data(), text.size());
        if (sid < 0) return result<label>::failed(static_cast<int>(-sid));
        return label(kernel_, static_cast<uint32_t>(sid));
    }
    /* A task with this label; with a parent, who is asked, an empty one stands for what the policy says, else the parent's. */
    result<task> try_create_task(const char *name, std::string_view label_text = "-", const task *parent = nullptr) const
    {
        auto known = label_text.empty() ? result<label>(label()) : try_label(label_text);
        if (!known) return result<task>::failed(known.code());
        pm_task *made = nullptr;
        pm_task *above = parent ? parent->get() : nullptr;
        int code = pm_task_create(kernel_, above, name, known->sid(), nullptr, nullptr, &made);
        return code ? result<task>::failed(code) : result<task>(task::adopt(made));
    }
    result<task> try_create_task(const std::string &name, std::string_view label_text = "-", const task *parent = nullptr) const
    {
        return try_create_task(name.c_str(), label_text, parent);
    }
    /* 1 allowed, 0 denied. */
    result<bool> try_check(uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t permissions) const noexcept
    {
        return detail::value_or_code<bool>(pm_check(kernel_, ssid, tsid, tclass, permissions));
    }
    /* What is off, a line each; empty where nothing is. */
    std::string verify() const
    {
        std::string report(1 << 14, '\0');
        int faults = pm_kernel_verify(kernel_, &report[0], report.size());
        return faults ? std::string(report.c_str()) : std::string();
    }
    uint64_t time() const noexcept { return pm_kernel_time(kernel_); }
    std::error_code try_set_time(uint64_t ns) const noexcept { return error_code(pm_kernel_set_time(kernel_, ns)); }
    std::error_code try_set_policy(uint32_t flags) const noexcept { return error_code(pm_kernel_set_policy(kernel_, flags)); }

    /* Who answers what no remembered decision does; a null function: nobody. Whether one is asked at all: try_set_policy(). */
    std::error_code try_set_decider(decider function)
    {
        return set(decider_, std::move(function), [&](auto *made) {
            return pm_kernel_set_decider(kernel_, made ? decided : nullptr, made);
        });
    }
    std::error_code try_set_decider(pm_decider function, void *context) noexcept
    {
        return replaced(decider_, pm_kernel_set_decider(kernel_, function, context));
    }
    std::error_code try_set_drainer(drainer function)
    {
        return set(drainer_, std::move(function), [&](auto *made) {
            return pm_audit_set_drainer(kernel_, made ? drained : nullptr, made);
        });
    }
    std::error_code try_set_drainer(pm_drainer function, void *context) noexcept
    {
        return replaced(drainer_, pm_audit_set_drainer(kernel_, function, context));
    }
    /* Moves records out of the ring, and gives how many. */
    result<size_t> try_drain(pm_audit_record *records, size_t capacity) const noexcept
    {
        return detail::value_or_code<size_t>(pm_audit_drain(kernel_, records, capacity));
    }
#if PYMPI_THROWS
    pympi::label label_of(std::string_view text) const { return try_label(text).must("label_of"); }
    task create_task(const char *name, std::string_view label_text = "-", const task *parent = nullptr) const
    {
        return try_create_task(name, label_text, parent).must("create_task", parent ? parent->get() : nullptr);
    }
    task create_task(const std::string &name, std::string_view label_text = "-", const task *parent = nullptr) const
    {
        return create_task(name.c_str(), label_text, parent);
    }
    bool check(uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t permissions) const
    {
        return try_check(ssid, tsid, tclass, permissions).must("check");
    }
    void set_time(uint64_t ns) const { detail::must(try_set_time(ns), "set_time"); }
    void set_policy(uint32_t flags) const { detail::must(try_set_policy(flags), "set_policy"); }
    void set_decider(decider function) { detail::must(try_set_decider(std::move(function)), "set_decider"); }
    void set_decider(pm_decider function, void *context) { detail::must(try_set_decider(function, context), "set_decider"); }
    void set_drainer(drainer function) { detail::must(try_set_drainer(std::move(function)), "set_drainer"); }
    void set_drainer(pm_drainer function, void *context) { detail::must(try_set_drainer(function, context), "set_drainer"); }
    size_t drain(pm_audit_record *records, size_t capacity) const { return try_drain(records, capacity).must("drain"); }
#endif

private:
    using decider_call = detail::upcall<bool(questions, uint32_t)>;
    using drainer_call = detail::upcall<bool()>;

    kernel(pm_kernel *known, bool owned) noexcept : kernel_(known), owned_(owned) {}

    static int decided(void *context, pm_query *queries, size_t count, uint32_t epoch) noexcept
    {
        detail::calling<bool(questions, uint32_t)> now(context);
        return detail::guarded([&] { return now.target->call(questions{queries, count}, epoch); });
    }
    static int drained(void *context) noexcept
    {
        detail::calling<bool()> now(context);
        return detail::guarded([&] { return now.target->call(); });
    }
    template <class Call> static std::error_code replaced(Call *&place, int code, Call *made = nullptr) noexcept
    {
        Call *old = code ? made : std::exchange(place, made);
        if (old) old->drop();
        return error_code(code);
    }
    template <class Call, class Function, class Tell> static std::error_code set(Call *&place, Function function, Tell tell)
    {
        Call *made = function ? new Call(std::move(function)) : nullptr;
        return replaced(place, tell(made), made);
    }

    pm_kernel *kernel_ = nullptr;
    bool owned_ = true;
    decider_call *decider_ = nullptr;
    drainer_call *drainer_ = nullptr;
};

} // namespace pympi

#endif
