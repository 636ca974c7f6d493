/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The C side of the benchmarks: one thread sends 64 bytes and receives them again, in a kernel
 * made to measure. It is linked with the core, which is a translation unit of its own as it is for
 * every embedder, so each operation is a real call. Times are of this thread's CPU clock: what
 * other programs take from the machine between two looks at it does not count.
 */
#include "pympi.h"
#include "base/lock.h"

/* The release build's flags hide what is not marked. */
#pragma GCC visibility push(default)
#include "bench.h"
#pragma GCC visibility pop

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_SIZE 64
#define BODY "as long as a message of the budget: sixty-four bytes, all told."
#define STEPS 65536            /* length of the random pattern; a power of two */
#define DRAIN_EVERY 4096       /* pairs: half of the ring's records */
#define RING_RECORDS 16384

struct step {
    struct pm_task *task;
    uint32_t send_name, receive_name;
};

struct bench {
    struct bench_options options;
    struct pm_kernel *kernel;
    struct pm_task *receiver, **senders;
    uint32_t *send_names, *receive_names; /* send_names[task * ports + port] */
    struct step *steps;
    struct pm_audit_record *records;
    uint32_t cursor;
    uint64_t watch;
    uint32_t *receivers;
    int64_t drained;
    char failure[128];
};

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ---- setting up ---- */

/* Returns whether a call failed, and notes the first that did; code is a Mach code, negated or not. */
static int failed(struct bench *bench, const char *call, int64_t code)
{
    if (code == 0)
        return 0;
    if (bench->failure[0] == 0)
        snprintf(bench->failure, sizeof bench->failure, "%s: code %#llx", call,
                 (unsigned long long)(code < 0 ? -code : code));
    return 1;
}

static int allow(void *context, struct pm_query *queries, size_t count, uint32_t epoch)
{
    (void)context;
    (void)epoch;
    for (size_t i = 0; i < count; i++) {
        queries[i].allowed = UINT32_MAX;
        queries[i].auditdeny = UINT32_MAX;
    }
    return 0;
}

static uint32_t label(struct bench *bench, const char *kind, uint32_t number)
{
    char text[32];
    int length = snprintf(text, sizeof text, "stub/%s_%u", kind, number);
    int64_t sid = pm_sid_intern(bench->kernel, NULL, text, (size_t)length);
    return failed(bench, "pm_sid_intern", sid < 0 ? sid : 0) ? 0 : (uint32_t)sid;
}

static struct pm_task *make_task(struct bench *bench, const char *name, uint32_t sid)
{
    struct pm_task *task = NULL;
    failed(bench, "pm_task_create",
           pm_task_create(bench->kernel, NULL, name, sid, NULL, NULL, &task));
    return task;
}

static void make_kernel(struct bench *bench)
{
    struct pm_config config = { .audit_records = RING_RECORDS,
                                .no_fast_path = bench->options.no_fast_path,
                                .seed = 1 };

    if (failed(bench, "pm_kernel_create", pm_kernel_create(&config, &bench->kernel)))
        return;
    if (!bench->options.policy)
        return;
    failed(bench, "pm_kernel_set_decider", pm_kernel_set_decider(bench->kernel, allow, NULL));
    failed(bench, "pm_kernel_set_policy", pm_kernel_set_policy(bench->kernel, PM_POLICY_LOADED));
}

static void make_tasks(struct bench *bench)
{
    const struct bench_options *options = &bench->options;

    bench->receiver = make_task(bench, "receiver", label(bench, "receiver", 0));
    bench->senders = calloc(options->tasks, sizeof *bench->senders);
    for (uint32_t i = 0; i < options->tasks; i++)
        bench->senders[i] =
            make_task(bench, "sender", label(bench, "sender", i % options->task_labels));
}

static void make_port(struct bench *bench, uint32_t port)
{
    const struct bench_options *options = &bench->options;
    struct pm_port_options port_options = { .sid = label(bench, "port", port % options->port_labels),
                                            .trace_number = -1 };
    int64_t name = pm_port_construct(bench->receiver, bench->receiver, &port_options);

    if (failed(bench, "pm_port_construct", name < 0 ? name : 0))
        return;
    bench->receive_names[port] = (uint32_t)name;
    for (uint32_t task = 0; task < options->tasks; task++) {
        int64_t send = pm_port_transfer(bench->receiver, (uint32_t)name, MACH_MSG_TYPE_MAKE_SEND,
                                        bench->senders[task]);
        failed(bench, "pm_port_transfer", send < 0 ? send : 0);
        bench->send_names[task * options->ports + port] = (uint32_t)send;
    }
}

/* The same pseudo-random walk over tasks and ports for all kernels of one shape. */
static void make_steps(struct bench *bench)
{
    const struct bench_options *options = &bench->options;
    uint64_t state = 0x9e3779b97f4a7c15;

    bench->steps = calloc(STEPS, sizeof *bench->steps);
    for (uint32_t i = 0; i < STEPS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t task = (uint32_t)(state >> 33) % options->tasks;
        uint32_t port = (uint32_t)(state >> 43) % options->ports;
        bench->steps[i] = (struct step){ bench->senders[task],
                                         bench->send_names[task * options->ports + port],
                                         bench->receive_names[port] };
    }
}

static void make_rule(struct bench *bench)
{
    static const char others[] = "stub/other*";
    struct pm_audit_rule rule = { .labels = others, .labels_size = sizeof others };
    int64_t number;

    if (bench->options.select == SELECT_NOTHING)
        return;
    if (bench->options.select == SELECT_TASK)
        rule = (struct pm_audit_rule){ .tasks = others, .tasks_size = sizeof others };
    number = pm_audit_rule_add(bench->kernel, &rule);
    if (failed(bench, "pm_audit_rule_add", number < 0 ? number : 0))
        return;
    failed(bench, "pm_audit_rule_select",
           pm_audit_rule_select(bench->kernel, (uint64_t)number, 0, UINT32_MAX, UINT32_MAX));
}

static void make_sample(struct bench *bench)
{
    struct pm_audit_sampling sampling = { .budget = bench->options.sample, .period_ns = 1000000000, .strata = 4096 };

    if (bench->options.sample)
        failed(bench, "pm_audit_sample", pm_audit_sample(bench->kernel, &sampling));
}

static void make_observers(struct bench *bench)
{
    uint32_t selected = bench->options.audit == AUDIT_OFF ? 0 : UINT32_MAX;

    failed(bench, "pm_audit_select", pm_audit_select(bench->kernel, 0, selected, selected));
    failed(bench, "pm_audit_options", pm_audit_options(bench->kernel, 0, 0, PM_AUDIT_DROP, 0));
    make_rule(bench);
    make_sample(bench);
    if (bench->options.trace)
        failed(bench, "pm_trace_start", pm_trace_start(bench->kernel));
    bench->records = calloc(RING_RECORDS, sizeof *bench->records);
}

/* Wants everything, and then leaves out every task that there is. */
static void make_watch(struct bench *bench)
{
    int64_t watch;

    bench->receivers = calloc(RING_RECORDS, sizeof *bench->receivers);
    if (bench->options.watch == WATCH_NONE)
        return;
    watch = pm_watch_open(bench->kernel, RING_RECORDS);
    if (failed(bench, "pm_watch_open", watch < 0 ? watch : 0))
        return;
    bench->watch = (uint64_t)watch;
    failed(bench, "pm_watch_select",
           pm_watch_select(bench->kernel, bench->watch, 0, UINT32_MAX, UINT32_MAX));
    for (uint32_t task = 1; bench->options.watch == WATCH_LEFT_OUT && task <= bench->options.tasks + 1; task++)
        failed(bench, "pm_watch_leave_out",
               pm_watch_leave_out(bench->kernel, bench->watch, PM_WATCH_TASKS, &task, 1));
}

uint32_t bench_options_size(void)
{
    return sizeof(struct bench_options);
}

static uint32_t run_many_ports(struct bench *bench, uint32_t pairs);

/* Goes the whole walk once, so that the first answers are had before anything is timed. */
static void warm_up(struct bench *bench)
{
    if (bench->options.ports > 1)
        failed(bench, "run_many_ports", run_many_ports(bench, STEPS));
}

/* Always returns a bench; bench_failure() says whether it can be used. */
struct bench *bench_create(const struct bench_options *options)
{
    struct bench *bench = calloc(1, sizeof *bench);

    bench->options = *options;
    bench->receive_names = calloc(options->ports, sizeof *bench->receive_names);
    bench->send_names = calloc((size_t)options->ports * options->tasks, sizeof *bench->send_names);
    make_kernel(bench);
    if (bench->failure[0] == 0)
        make_tasks(bench);
    for (uint32_t port = 0; bench->failure[0] == 0 && port < options->ports; port++)
        make_port(bench, port);
    if (bench->failure[0] == 0) {
        make_steps(bench);
        make_observers(bench);
        make_watch(bench);
        warm_up(bench);
    }
    return bench;
}

/* NULL where all is well. */
const char *bench_failure(const struct bench *bench)
{
    return bench->failure[0] ? bench->failure : NULL;
}

/* ---- running ---- */

/* Each returns how many of the pairs went wrong. */
static uint32_t run_one_port(struct bench *bench, uint32_t pairs)
{
    const struct step step = bench->steps[0];
    _Alignas(64) char out[BODY_SIZE] = BODY, in[BODY_SIZE] = "";
    uint32_t wrong = 0;

    for (uint32_t i = 0; i < pairs; i++) {
        wrong += pm_send(step.task, step.send_name, out, sizeof out, 1, NULL) != 0;
        wrong += pm_receive(bench->receiver, step.receive_name, in, sizeof in, NULL) != BODY_SIZE;
    }
    return wrong + (pairs && memcmp(in, out, sizeof in) != 0);
}

static uint32_t receive_whole(struct bench *bench, uint32_t name, char *body)
{
    struct pm_received received;

    if (pm_receive_message(bench->receiver, name, 0, &received, NULL) != 0)
        return 1;
    memcpy(body, received.body, BODY_SIZE);
    pm_message_free(received.message);
    return received.size != BODY_SIZE;
}

static uint32_t run_whole(struct bench *bench, uint32_t pairs)
{
    const struct step step = bench->steps[0];
    _Alignas(64) char out[BODY_SIZE] = BODY, in[BODY_SIZE] = "";
    uint32_t wrong = 0;

    for (uint32_t i = 0; i < pairs; i++) {
        wrong += pm_send(step.task, step.send_name, out, sizeof out, 1, NULL) != 0;
        wrong += receive_whole(bench, step.receive_name, in);
    }
    return wrong + (pairs && memcmp(in, out, sizeof in) != 0);
}

static uint32_t run_many_ports(struct bench *bench, uint32_t pairs)
{
    _Alignas(64) char out[BODY_SIZE] = BODY, in[BODY_SIZE] = "";
    uint32_t wrong = 0, cursor = bench->cursor;

    for (uint32_t i = 0; i < pairs; i++) {
        const struct step *step = &bench->steps[cursor++ & (STEPS - 1)];
        wrong += pm_send(step->task, step->send_name, out, sizeof out, 1, NULL) != 0;
        wrong += pm_receive(bench->receiver, step->receive_name, in, sizeof in, NULL) != BODY_SIZE;
    }
    bench->cursor = cursor;
    return wrong + (pairs && memcmp(in, out, sizeof in) != 0);
}

/* Empties the ring. A record less than one for each send and one for each receive is a failure. */
static uint32_t drain(struct bench *bench, uint32_t pairs)
{
    uint64_t lost;

    if (bench->watch) {
        int64_t seen = pm_watch_drain(bench->kernel, bench->watch, bench->records, bench->receivers,
                                      RING_RECORDS, &lost);
        bench->drained += seen;
        return seen < 2 * (int64_t)pairs;
    }
    int64_t records = pm_audit_drain(bench->kernel, bench->records, RING_RECORDS);

    bench->drained += records;
    return !bench->options.sample && records < 2 * (int64_t)pairs;
}

/* What the core did so far: records drained, checks settled by the AVC, and misses. */
void bench_counts(const struct bench *bench, int64_t counts[3])
{
    struct pm_stats stats;

    pm_kernel_stats(bench->kernel, &stats);
    counts[0] = bench->drained;
    counts[1] = (int64_t)stats.checks_avc;
    counts[2] = (int64_t)stats.misses;
}

/* CPU time of `pairs` sends, each received at once, in ns; -1 with a failure if any went wrong. */
int64_t bench_run(struct bench *bench, uint32_t pairs)
{
    const struct bench_options *options = &bench->options;
    uint32_t (*run)(struct bench *, uint32_t) = options->whole       ? run_whole
                                                : options->ports > 1 ? run_many_ports
                                                                     : run_one_port;
    int drains = options->audit == AUDIT_DRAINED || options->audit == AUDIT_DRAIN_NOT_TIMED ||
                 options->watch == WATCH_READ;
    uint32_t batch = drains ? DRAIN_EVERY : pairs, wrong = 0;
    int64_t elapsed = 0;

    for (uint32_t done = 0; done < pairs; done += batch) {
        uint32_t now = pairs - done < batch ? pairs - done : batch;
        int64_t start = cpu_ns(), end;
        wrong += run(bench, now);
        end = cpu_ns();
        wrong += drains && drain(bench, now);
        elapsed += (options->audit == AUDIT_DRAINED || options->watch == WATCH_READ ? cpu_ns() : end) - start;
    }
    if (wrong == 0)
        return elapsed;
    snprintf(bench->failure, sizeof bench->failure, "%u of %u pairs went wrong", wrong, pairs);
    return -1;
}

/* ---- the floor: two calls, two copies, two lock pairs ---- */

struct lane {
    struct lock lock;
    _Alignas(64) char slot[BODY_SIZE];
};
typedef int64_t (*lane_call)(struct lane *lane, char *body, size_t size);

static int64_t put_fixed(struct lane *lane, char *body, size_t size)
{
    lock_take(&lane->lock);
    memcpy(lane->slot, body, BODY_SIZE);
    lock_drop(&lane->lock);
    return (int64_t)size;
}

static int64_t get_fixed(struct lane *lane, char *body, size_t size)
{
    lock_take(&lane->lock);
    memcpy(body, lane->slot, BODY_SIZE);
    lock_drop(&lane->lock);
    return (int64_t)size;
}

static int64_t put_sized(struct lane *lane, char *body, size_t size)
{
    lock_take(&lane->lock);
    memcpy(lane->slot, body, size);
    lock_drop(&lane->lock);
    return (int64_t)size;
}

static int64_t get_sized(struct lane *lane, char *body, size_t size)
{
    lock_take(&lane->lock);
    memcpy(body, lane->slot, size);
    lock_drop(&lane->lock);
    return (int64_t)size;
}

/* Volatile, so that the compiler does not know whom it calls, and calls. */
static lane_call const volatile lane_calls[][2] = { { put_fixed, get_fixed },
                                                    { put_sized, get_sized } };

/* CPU time of `pairs` rounds, in ns. sized: the copies learn their size at run time. */
int64_t floor_run(uint32_t pairs, int sized)
{
    const lane_call put = lane_calls[sized != 0][0], get = lane_calls[sized != 0][1];
    struct lane lane;
    _Alignas(64) char out[BODY_SIZE] = BODY, in[BODY_SIZE] = "";
    uint32_t wrong = 0;
    int64_t start;

    lock_init(&lane.lock);
    start = cpu_ns();
    for (uint32_t i = 0; i < pairs; i++) {
        wrong += put(&lane, out, BODY_SIZE) != BODY_SIZE;
        wrong += get(&lane, in, BODY_SIZE) != BODY_SIZE;
    }
    start = cpu_ns() - start;
    lock_destroy(&lane.lock);
    return wrong || memcmp(in, out, sizeof in) != 0 ? -1 : start;
}
