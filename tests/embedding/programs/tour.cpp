/* SPDX-License-Identifier: BSD-2-Clause */
/* All that pympi.hpp has, each with what may go wrong. */
#include <pympi.hpp>

#include <array>
#include <memory>
#include <new>
#include <vector>

#include "check.hpp"

static size_t allocations;

[[gnu::noinline]] void *operator new(size_t size)
{
    allocations++;
    if (void *memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void *memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void *memory, size_t) noexcept { std::free(memory); }

using namespace std::chrono_literals;

static pm_usage usage_of(const pympi::task &task)
{
    pm_usage usage;
    CHECK(pm_task_usage(task.get(), &usage) == 0);
    return usage;
}

/* A kernel with two tasks, and a right from one to the other. */
struct world {
    pympi::kernel kernel = pympi::kernel::create();
    pympi::task server = kernel.create_task("server");
    pympi::task client = kernel.create_task("client");
    pympi::receive_right inbox = server.allocate_port();
    pympi::send_right outbox = inbox.make_send(client);
    ~world() { CHECK(kernel.verify().empty()); }
};

static void bytes_there_and_back()
{
    world w;
    struct point { double x, y; } sent{1, 2}, got{};
    w.outbox.send("hello", 7);
    auto message = w.inbox.receive();
    CHECK(message.view() == "hello" && message.id() == 7 && message.sender() == w.client.id());
    w.outbox.send(pympi::bytes_of(sent));
    CHECK(w.inbox.receive().read(got) && got.y == 2);
    w.outbox.send(std::vector<uint16_t>{1, 2, 3});
    std::array<char, 4> small{};
    CHECK(w.inbox.try_receive(small.data(), small.size()).error() == MACH_RCV_TOO_LARGE);
    CHECK(!w.inbox.receive().read(got));
    CHECK(w.inbox.try_receive(small.data(), small.size(), 1ms).error() == MACH_RCV_TIMED_OUT);
}

static void bytes_cost_no_allocation()
{
    world w;
    char body[256] = "x";
    size_t before = allocations;
    for (int i = 0; i < 100; i++) {
        w.outbox.send({body, 64}, i);
        CHECK(w.inbox.receive(body, sizeof body) == 64);
        CHECK(!w.outbox.try_send({body, 200}));
        CHECK(w.inbox.try_receive()->body().size == 200);
    }
    CHECK(allocations == before);
}

static void errors_have_names()
{
    world w;
    try {
        w.inbox.receive();
        CHECK(!"there is no message");
    } catch (const pympi::error &error) {
        CHECK(error.code() == MACH_RCV_TIMED_OUT && std::string_view(error.name()) == "MACH_RCV_TIMED_OUT");
        CHECK(std::string_view(error.what()) == "receive: MACH_RCV_TIMED_OUT");
    }
    std::error_code code = pympi::send_right(w.client.get(), 0xabcd00).try_send("to nobody");
    CHECK(code == MACH_SEND_INVALID_DEST && code.message() == "MACH_SEND_INVALID_DEST");
    CHECK(code.category() == pympi::category() && code != MACH_SEND_TIMED_OUT);
    CHECK(std::string_view(pympi::code_name(MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) == "MACH_RCV_BODY_ERROR");
    CHECK(std::string_view(pympi::code_name(-5)) == "unknown code");
    pm_config impossible{};
    impossible.clock = 99;
    CHECK(pympi::kernel::try_create(impossible).error() == KERN_INVALID_ARGUMENT);
    CHECK(pympi::kernel::try_borrow(nullptr).error() == KERN_INVALID_ARGUMENT);
}

static void rights_give_back_their_references()
{
    world w;
    uint32_t names = usage_of(w.client).names;
    {
        pympi::send_right copy = w.outbox.copy(w.client), moved = std::move(copy);
        CHECK(!copy && moved && moved.name() == w.outbox.name());
        CHECK(pm_port_get_refs(w.client.get(), w.client.get(), moved.name(), MACH_PORT_RIGHT_SEND) == 2);
    }
    CHECK(pm_port_get_refs(w.client.get(), w.client.get(), w.outbox.name(), MACH_PORT_RIGHT_SEND) == 1);
    CHECK(usage_of(w.client).names == names);
    { pympi::receive_right gone = std::move(w.inbox); }
    CHECK(w.outbox.dead() && w.outbox.try_send("late") == MACH_SEND_INVALID_DEST);
    w.outbox.close();
    CHECK(usage_of(w.client).names == names - 1);
}

static void rights_travel()
{
    world w;
    auto private_port = w.client.allocate_port();
    pm_right carried[] = {{private_port.name(), MACH_MSG_TYPE_MAKE_SEND}, {private_port.name(), MACH_MSG_TYPE_MAKE_SEND_ONCE}};
    pm_send_spec spec{};
    spec.rights = carried;
    spec.rights_count = 2;
    for (int taken = 0; taken < 2; taken++) {
        w.outbox.send(spec);
        auto message = w.inbox.receive();
        CHECK(message.rights_count() == 2);
        if (!taken) continue;   /* what nobody took is dropped with the message */
        auto once = message.take_send_once(1);
        auto right = message.take_send(0);
        CHECK(once && right && !message.take_send(0) && !message.take_send(1) && !message.take_receive(7));
        message.close();
        right.send("by right");
        once.send("once");
        CHECK(!once);
    }
    CHECK(private_port.receive().get().msgh_id == MACH_NOTIFY_SEND_ONCE);   /* of the first round */
    CHECK(private_port.receive().view() == "by right" && private_port.receive().view() == "once");
    CHECK(usage_of(w.server).names == 1);
}

static void calls_are_answered()
{
    world w;
    auto answers = w.client.allocate_port();
    w.inbox.handle([](pympi::message &request) {
        CHECK(request.has_reply());
        request.reply(std::string("re: ") + std::string(request.view()), request.id() + 100);
        CHECK(request.try_reply("twice", 0) == MACH_SEND_INVALID_DEST);
    });
    auto answer = w.outbox.call("question", 1, answers);
    CHECK(answer.view() == "re: question" && answer.id() == 101);
    w.inbox.handle(nullptr);
    CHECK(w.outbox.try_call("to nobody", 1, answers).error() == MACH_RCV_TIMED_OUT);
    CHECK(w.inbox.receive().view() == "to nobody");
    CHECK(answers.receive().get().msgh_id == MACH_NOTIFY_SEND_ONCE);
}

static void handlers_may_fail_keep_and_end_themselves()
{
    world w;
    pm_stats stats;
    std::vector<pympi::message> kept;
    w.inbox.handle([&](pympi::message &message) {
        if (message.id() == 1) throw std::runtime_error("a handler's own trouble");
        if (message.id() == 2) kept.push_back(std::move(message));
        if (message.id() == 3) w.inbox.handle(nullptr);
    });
    for (int id = 1; id <= 3; id++) w.outbox.send("x", id);
    CHECK(pm_kernel_stats(w.kernel.get(), &stats) == 0 && stats.handler_failures == 1);
    CHECK(kept.size() == 1 && kept[0].view() == "x");
    w.outbox.send("queued", 4);
    CHECK(w.inbox.receive().view() == "queued");
    kept.clear();
    pympi::task gone = w.kernel.create_task(std::string("gone") + " soon");
    CHECK(w.kernel.try_create_task(std::string("another")));
    pympi::receive_right port = gone.allocate_port();
    gone.terminate();
    CHECK(port.try_handle([](pympi::message &) {}) == KERN_INVALID_TASK);
}

static bool allow(pympi::questions asked, uint32_t)
{
    for (pm_query &query : asked) query.allowed = query.kind == PM_QUERY_ACCESS ? ~0u : 0, query.code = 0;
    return true;
}

/* Released, or held by a guard, the port outlives the object: what it was given does not run any more. */
static void a_handler_ends_with_its_object()
{
    world w;
    auto count = std::make_shared<int>(0);
    pympi::send_right to_released, to_guarded;
    {
        auto released = w.server.allocate_port(), guarded = w.server.allocate_port();
        to_released = released.make_send(w.client), to_guarded = guarded.make_send(w.client);
        released.handle([count](pympi::message &) { ++*count; });
        guarded.handle([count](pympi::message &) { ++*count; });
        released.release();
        CHECK(pm_port_guard(w.server.get(), w.server.get(), guarded.name(), 7, 0) == 0);
    }
    CHECK(count.use_count() == 1);
    to_released.send("nobody runs"), to_guarded.send("nobody runs");
    CHECK(*count == 0);
}

static void objects_that_hold_nothing()
{
    world w;
    pympi::send_right right, other = std::move(w.outbox);
    pympi::message none, message;
    CHECK(right.try_send("x") == KERN_INVALID_TASK && w.outbox.try_send("x") == MACH_SEND_INVALID_DEST);
    CHECK(!right.dead() && !w.outbox.dead() && right.release() == 0);
    right.close(), none.close();
    CHECK(!none && none.try_reply("x", 1) == MACH_SEND_INVALID_DEST && !none.take_send(0));
    pympi::receive_right port, taken = std::move(w.inbox);
    CHECK(port.try_receive().code() == KERN_INVALID_TASK && w.inbox.try_receive().code() == MACH_RCV_INVALID_NAME);
    CHECK(!port.try_make_send(w.client) && port.try_handle([](pympi::message &) {}) == KERN_INVALID_TASK);
    auto &same = taken;
    taken = std::move(same);
    other.send("kept");
    message = taken.receive();
    auto &itself = message;
    message = std::move(itself);
    CHECK(message.view() == "kept");
}

static void waits_end()
{
    world w;
    const auto over = 1ms - 2ms;
    CHECK(w.inbox.try_receive(over).code() == MACH_RCV_TIMED_OUT);
    CHECK(w.inbox.try_receive(std::chrono::duration<double>(0.001)).code() == MACH_RCV_TIMED_OUT);
    CHECK(pympi::wait(over).get()->timeout_ns == 0 && pympi::wait::forever().get()->timeout_ns < 0);
    CHECK(pympi::wait(std::chrono::hours::max()).get()->timeout_ns == INT64_MAX && !pympi::wait().get());
}

static void deciders_decide()
{
    world w;
    int asked = 0;
    w.kernel.set_decider([&](pympi::questions questions, uint32_t epoch) {
        asked++;
        return allow(questions, epoch);
    });
    w.kernel.set_policy(PM_POLICY_LOADED);
    w.outbox.send("allowed");
    CHECK(asked > 0 && w.inbox.receive().view() == "allowed");
    CHECK(w.kernel.check(w.client.sid(), w.server.sid(), PM_CLASS_MACH_PORT, PM_MACH_PORT__send));

    w.kernel.set_decider([](pympi::questions, uint32_t) { return true; });     /* leaves the presets: refused */
    try {
        w.outbox.send("refused");
        CHECK(!"refused");
    } catch (const pympi::access_denied &denied) {
        CHECK(denied.code() == MACH_SEND_INVALID_DEST && denied.denial.operation == PM_OP_SEND);
        CHECK(denied.denial.denied & PM_MACH_PORT__send);
    }
    w.kernel.set_decider([](pympi::questions, uint32_t) -> bool { throw 4711; });
    CHECK(w.outbox.try_send("refused") == MACH_SEND_INVALID_DEST);
    w.kernel.set_decider([&](pympi::questions questions, uint32_t epoch) {   /* ends itself while it runs */
        w.kernel.set_decider(nullptr);
        return allow(questions, epoch);
    });
    CHECK(w.outbox.try_send("refused") == MACH_SEND_INVALID_DEST);      /* the epoch moved, and nobody is asked any more */
    w.kernel.set_policy(0);
    w.outbox.send("no policy");
    CHECK(w.inbox.receive().view() == "no policy");
}

static void drainers_drain()
{
    pm_config config{};
    config.audit_records = 16;
    auto kernel = pympi::kernel::create(config);
    auto task = kernel.create_task("t");
    auto port = task.allocate_port();
    auto right = port.make_send(task);
    size_t drained = 0;
    CHECK(pm_audit_select(kernel.get(), 0, ~0u, ~0u) == 0 && pm_audit_options(kernel.get(), 0, 0, PM_AUDIT_BLOCK, 0) == 0);
    kernel.set_drainer([&] {
        std::array<pm_audit_record, 8> records;
        while (size_t count = kernel.drain(records.data(), records.size())) drained += count;
        return true;
    });
    for (int i = 0; i < 100; i++) {
        right.send("x");
        port.receive();
    }
    CHECK(drained > 150);
    kernel.set_drainer([]() -> bool { throw 1; });
    std::error_code code;
    for (int i = 0; i < 100 && !code; i++) code = right.try_send("x") ? code : port.try_receive().error();
    CHECK(kernel.verify().empty());
}

static void functions_of_c_do_as_well()
{
    world w;
    int handled = 0;
    w.inbox.handle([](void *context, pm_received *) { return ++*static_cast<int *>(context), 0; }, &handled);
    w.outbox.send("x");
    CHECK(handled == 1);
    w.kernel.set_decider(
        [](void *, pm_query *queries, size_t count, uint32_t epoch) { return allow({queries, count}, epoch) ? 0 : 1; }, nullptr);
    w.kernel.set_policy(PM_POLICY_LOADED);
    w.outbox.send("x");
    CHECK(handled == 2);
    w.kernel.set_drainer([](void *) { return 0; }, nullptr);
}

static void a_borrowed_kernel_is_left_as_it_was()
{
    world w;
    {
        auto guest = pympi::kernel::borrow(w.kernel.get());
        guest.set_decider(allow);
        guest.set_drainer([] { return true; });
        auto task = guest.create_task("guest");
        CHECK(guest.label_of("some/label").text() == "some/label");
    }
    w.outbox.send("still there");
    CHECK(w.inbox.receive().view() == "still there");
    w.kernel.set_policy(PM_POLICY_LOADED);
    CHECK(w.outbox.try_send("nobody decides") == MACH_SEND_INVALID_DEST);
    w.kernel.set_policy(0);
}

static void a_simulated_clock()
{
    pm_config config{};
    config.clock = PM_CLOCK_SIMULATED;
    auto kernel = pympi::kernel::create(config);
    kernel.set_time(5'000'000'000);
    CHECK(kernel.time() == 5'000'000'000);
    CHECK(kernel.try_set_time(1) == KERN_INVALID_ARGUMENT);
}

int main()
{
    void (*const tests[])() = {
        bytes_there_and_back, bytes_cost_no_allocation, errors_have_names, rights_give_back_their_references, rights_travel,
        calls_are_answered, handlers_may_fail_keep_and_end_themselves, a_handler_ends_with_its_object, objects_that_hold_nothing,
        waits_end, deciders_decide, drainers_drain, functions_of_c_do_as_well, a_borrowed_kernel_is_left_as_it_was, a_simulated_clock,
    };
    for (auto test : tests) test();
    std::puts("all is well");
}
