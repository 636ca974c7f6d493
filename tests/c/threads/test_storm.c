/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once: threads send, receive, sleep, move receive rights, destroy ports, end tasks, reload the policy, relabel and
 * drain. No result is expected but order: the kernel adds up in the end, no thread sleeps for ever, nothing leaks, and each
 * release function ran once. What it prints is seen where it fails: the seed.
 *
 *     test_storm [SEED]
 */
#include "base/base.h"
#include "../scene.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define TASKS 4
#define PORTS 6
#define DEEDS 12000 /* of each thread */
#define SECONDS 120

struct place { uint32_t receive[TASKS], send[TASKS]; }; /* names, or 0; atomic: stale ones do no harm */

static struct pm_kernel *kernel;
static struct pm_task *tasks[TASKS];
static struct place places[PORTS];
static uint32_t sids[4], passed, released;
static uint64_t seed;

static uint32_t load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static void store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static void store_name(uint32_t *word, int64_t name) { store(word, name > 0 ? (uint32_t)name : 0); }

struct dice { uint64_t state; };

static uint32_t roll(struct dice *dice, uint32_t below) {
    dice->state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(mix64(dice->state) % below);
}

/* Denies now and then, but the same question alike within an epoch. */
static int decide_by_hash(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = mix64(mix64(queries[i].ssid ^ (uint64_t)queries[i].tsid << 32) ^ epoch ^ queries[i].tclass);
        queries[i].allowed = hash % 4 ? UINT32_MAX : ~(1u << (hash >> 32) % 22);
        queries[i].uncached = hash >> 8 & 1;
        queries[i].code = 0;
    }
    return 0;
}

static void count_release(void *context) { __atomic_add_fetch((uint32_t *)context, 1, __ATOMIC_RELAXED); }

/* ---- what threads do ---- */

static const struct pm_wait brief = {.timeout_ns = 300000};
static const struct pm_wait *waits_or_not(struct dice *dice) { return roll(dice, 2) ? &brief : NULL; }

static void make_port(struct dice *dice) {
    struct place *place = &places[roll(dice, PORTS)];
    uint32_t owner = roll(dice, TASKS);
    const struct pm_port_options options = {.flags = MPO_QLIMIT, .qlimit = 1 + roll(dice, 3), .trace_number = -1};
    int64_t name = pm_port_construct(tasks[owner], tasks[owner], &options);
    store_name(&place->receive[owner], name);
    for (uint32_t i = 0; name > 0 && i < TASKS; i++)
        store_name(&place->send[i], pm_port_transfer(tasks[owner], (uint32_t)name, MACH_MSG_TYPE_MAKE_SEND, tasks[i]));
}

static void send_something(struct dice *dice) {
    uint32_t task = roll(dice, TASKS), size = roll(dice, 400);
    static const char body[400];
    pm_send(tasks[task], load(&places[roll(dice, PORTS)].send[task]), body, size, 1, waits_or_not(dice));
}

static void send_rights(struct dice *dice) {
    uint32_t task = roll(dice, TASKS);
    const struct place *place = &places[roll(dice, PORTS)];
    const struct pm_right rights[] = {
        {__atomic_load_n(&place->send[task], __ATOMIC_RELAXED), MACH_MSG_TYPE_COPY_SEND},
        {__atomic_load_n(&place->receive[task], __ATOMIC_RELAXED),
         roll(dice, 2) ? MACH_MSG_TYPE_MOVE_RECEIVE : MACH_MSG_TYPE_MAKE_SEND_ONCE}};
    const struct pm_memory memory = {"memory", 6, count_release, &released};
    const struct pm_send_spec spec = {.dest = load(&places[roll(dice, PORTS)].send[task]), .rights = rights,
                                      .rights_count = roll(dice, 3), .memory = &memory, .memory_count = 1};
    if (pm_send_message(tasks[task], &spec, waits_or_not(dice)) == 0) __atomic_add_fetch(&passed, 1, __ATOMIC_RELAXED);
}

static void receive_something(struct dice *dice) {
    uint32_t task = roll(dice, TASKS);
    char body[400];
    pm_receive(tasks[task], load(&places[roll(dice, PORTS)].receive[task]), body, roll(dice, sizeof body),
               waits_or_not(dice));
}

static void receive_message_whole(struct dice *dice) {
    uint32_t task = roll(dice, TASKS);
    struct pm_received received;
    int code = pm_receive_message(tasks[task], load(&places[roll(dice, PORTS)].receive[task]), 0, &received,
                                  waits_or_not(dice));
    if (code && code != (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) return;
    for (uint32_t i = 0; i < received.rights_count; i++)
        if (received.rights[i].disposition == MACH_MSG_TYPE_PORT_RECEIVE)
            store(&places[roll(dice, PORTS)].receive[task], received.rights[i].name);
    pm_message_free(received.message);
}

static void move_port(struct dice *dice) {
    uint32_t from = roll(dice, TASKS), to = roll(dice, TASKS);
    struct place *place = &places[roll(dice, PORTS)];
    store_name(&place->receive[to],
               pm_port_transfer(tasks[from], load(&place->receive[from]), MACH_MSG_TYPE_MOVE_RECEIVE, tasks[to]));
}

static void destroy_port(struct dice *dice) {
    uint32_t task = roll(dice, TASKS);
    pm_port_destroy(tasks[task], tasks[task], load(&places[roll(dice, PORTS)].receive[task]));
    make_port(dice);
}

static void drop_right(struct dice *dice) {
    uint32_t task = roll(dice, TASKS);
    pm_port_deallocate(tasks[task], tasks[task], load(&places[roll(dice, PORTS)].send[task]));
}

static void use_set(struct dice *dice) {
    uint32_t task = roll(dice, TASKS), member = load(&places[roll(dice, PORTS)].receive[task]);
    int64_t set = pm_port_allocate(tasks[task], tasks[task], MACH_PORT_RIGHT_PORT_SET, 0);
    char body[400];
    if (set <= 0) return;
    pm_port_insert_member(tasks[task], tasks[task], member, (uint32_t)set);
    pm_receive(tasks[task], (uint32_t)set, body, sizeof body, waits_or_not(dice));
    pm_port_destroy(tasks[task], tasks[task], (uint32_t)set);
}

static void ask_to_be_told(struct dice *dice) {
    static const uint32_t ids[] = {MACH_NOTIFY_NO_SENDERS, MACH_NOTIFY_PORT_DESTROYED, PM_NOTIFY_MESSAGE, MACH_NOTIFY_DEAD_NAME,
                                   MACH_NOTIFY_SEND_POSSIBLE};
    uint32_t task = roll(dice, TASKS), id = roll(dice, 5);
    struct place *place = &places[roll(dice, PORTS)];
    pm_port_request_notification(tasks[task], tasks[task], load(id < 3 ? &place->receive[task] : &place->send[task]), ids[id], 0,
                                 load(&places[roll(dice, PORTS)].receive[task]), MACH_MSG_TYPE_MAKE_SEND_ONCE);
}

/* A task comes, takes a right, sleeps on a port of its own, and is ended by whoever was faster. */
static void short_life(struct dice *dice) {
    struct pm_task *task;
    uint32_t parent = roll(dice, TASKS);
    char body[8];
    if (pm_task_create(kernel, tasks[parent], "short", 0, NULL, NULL, &task)) return;
    int64_t name = pm_port_allocate(task, task, MACH_PORT_RIGHT_RECEIVE, 0);
    if (name > 0) pm_port_transfer(task, (uint32_t)name, MACH_MSG_TYPE_MAKE_SEND, tasks[parent]);
    pm_port_transfer(tasks[parent], load(&places[0].receive[parent]), MACH_MSG_TYPE_MOVE_RECEIVE, task);
    if (name > 0) pm_receive(task, (uint32_t)name, body, sizeof body, waits_or_not(dice));
    if (pm_task_terminate(tasks[parent], task)) pm_task_terminate(task, task);
    pm_task_release(task);
    make_port(dice);
}

static void relabel(struct dice *dice) {
    uint32_t task = roll(dice, TASKS), sid = sids[roll(dice, array_count(sids))];
    if (roll(dice, 2)) pm_task_relabel(tasks[task], tasks[task], sid);
    else pm_port_relabel(tasks[task], tasks[task], load(&places[roll(dice, PORTS)].send[task]), sid);
}

static void reload(struct dice *dice) {
    static const uint32_t flags[] = {PM_POLICY_LOADED, PM_POLICY_LOADED, 0, PM_POLICY_LOADED | PM_POLICY_PERMISSIVE};
    pm_kernel_set_policy(kernel, flags[roll(dice, 4)]);
}

static void drain(struct dice *dice) {
    struct pm_audit_record records[16];
    pm_audit_select(kernel, 0, roll(dice, 2) ? UINT32_MAX : 0, UINT32_MAX);
    while (pm_audit_drain(kernel, records, array_count(records)) == (int64_t)array_count(records)) continue;
}

/* Rules, sampling and halts come and go while others are recorded; whoever was faster may have removed a rule. */
static void choose(struct dice *dice) {
    static uint64_t chosen;
    static const char labels[] = "te/*a*", names[] = "s*";
    const uint32_t some = roll(dice, TASKS + 1);
    const struct pm_audit_rule rule = {.labels = labels, .labels_size = roll(dice, 2) ? sizeof labels : 0, .tasks = names,
        .tasks_size = roll(dice, 2) ? sizeof names : 0, .numbers = &some, .numbers_count = 1};
    const struct pm_audit_sampling sampling = {.budget = roll(dice, 2) ? 1000 : 0, .period_ns = 1000000, .one_in = 3, .strata = 20};
    struct pm_audit_stratum rows[8];
    uint64_t number = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    pm_audit_rule_select(kernel, number, 0, roll(dice, 2) ? UINT32_MAX : 0, UINT32_MAX);
    pm_audit_sample(kernel, roll(dice, 2) ? &sampling : NULL);
    pm_audit_strata(kernel, rows, array_count(rows));
    pm_audit_wait(kernel, 1, waits_or_not(dice));
    if (roll(dice, 4)) return;
    pm_audit_halt(kernel, 1);
    pm_audit_wake(kernel);
    pm_audit_halt(kernel, 0);
    pm_audit_rule_remove(kernel, number);
    int64_t added = pm_audit_rule_add(kernel, &rule);
    if (added > 0) __atomic_store_n(&chosen, (uint64_t)added, __ATOMIC_RELAXED);
}

/* Watches come, are read and go; whoever was faster may have closed them. */
static void watch(struct dice *dice) {
    static uint64_t watching;
    struct pm_audit_record records[16];
    uint32_t receivers[16], some = roll(dice, TASKS + 1);
    uint64_t lost, number = __atomic_load_n(&watching, __ATOMIC_RELAXED);
    pm_watch_drain(kernel, number, records, receivers, array_count(records), &lost);
    pm_watch_select(kernel, number, 0, roll(dice, 2) ? UINT32_MAX : 0, UINT32_MAX);
    pm_watch_leave_out(kernel, number, roll(dice, PM_WATCH_KINDS), &some, 1);
    if (roll(dice, 4)) return;
    pm_watch_close(kernel, number);
    int64_t opened = pm_watch_open(kernel, 32);
    if (opened > 0) __atomic_store_n(&watching, (uint64_t)opened, __ATOMIC_RELAXED);
    if (opened > 0) pm_watch_errors(kernel, (uint64_t)opened, 1);
}

static void look(struct dice *dice) {
    struct pm_stats stats;
    struct pm_trace_record records[8];
    pm_kernel_stats(kernel, &stats);
    if (roll(dice, 2)) pm_trace_start(kernel);
    else pm_trace_stop(kernel);
    pm_trace_read(kernel, 0, records, array_count(records));
}

/* Walks through everything, some rows at a time, and gives up before the end now and then. */
static void walk(struct dice *dice) {
    struct pm_inspect inspect;
    struct pm_mark begun, ended;
    struct pm_task_row task_rows[3];
    struct pm_port_row port_rows[3];
    struct pm_right_row right_rows[3];
    char text[40];
    int code = KERN_NO_SPACE;
    assert(pm_inspect_begin(kernel, &inspect, &begun) == 0);
    while (code == KERN_NO_SPACE && roll(dice, 50)) {
        struct pm_rows rows = {task_rows, 3, 0, port_rows, 3, 0, right_rows, 3, 0, text, sizeof text, 0};
        code = pm_inspect_read(&inspect, &rows);
        for (uint64_t i = 0; i < rows.ports_used; i++) assert(port_rows[i].id && port_rows[i].id <= begun.objects_made);
    }
    assert(pm_inspect_end(&inspect, &ended) == 0 && ended.sequence >= begun.sequence);
}

static const struct deed { uint32_t weight; void (*act)(struct dice *dice); } deeds[] = {
    {30, send_something}, {30, receive_something}, {12, send_rights}, {15, receive_message_whole}, {5, move_port},
    {3, destroy_port},    {3, drop_right},         {4, use_set},      {4, ask_to_be_told},         {2, short_life},
    {3, relabel},         {1, reload},             {2, drain},        {1, look},                   {4, make_port},
    {1, walk},            {2, watch},           {2, choose},
};

static void act(struct dice *dice) {
    uint32_t total = 0, at = 0;
    for (size_t i = 0; i < array_count(deeds); i++) total += deeds[i].weight;
    for (total = roll(dice, total); total >= deeds[at].weight; at++) total -= deeds[at].weight;
    deeds[at].act(dice);
}

static void *rage(void *number) {
    struct dice dice = {.state = mix64(seed + (uintptr_t)number)};
    for (int i = 0; i < DEEDS; i++) act(&dice);
    return NULL;
}

/* ---- the story ---- */

static void too_long(int signal_number) {
    (void)signal_number;
    static const char text[] = "a thread sleeps for ever\n";
    if (write(2, text, sizeof text - 1) > 0) abort();
    abort();
}

static void build(void) {
    static const char *const labels[] = {"te/a", "te/b", "te/c", "te/d"};
    const struct pm_config config = {.audit_records = 64, .avc_entries = 16, .trace_paths = 8};
    assert(pm_kernel_create(&config, &kernel) == 0);
    for (size_t i = 0; i < array_count(sids); i++) sids[i] = sid_named(kernel, labels[i]);
    for (size_t i = 0; i < TASKS; i++) tasks[i] = new_task(kernel, "task", sids[i % array_count(sids)]);
    assert(pm_kernel_set_decider(kernel, decide_by_hash, NULL) == 0);
    struct dice dice = {seed};
    for (int i = 0; i < 2 * PORTS; i++) make_port(&dice);
}

static void tear_down(void) {
    for (size_t i = 0; i < TASKS; i++) assert(pm_task_terminate(tasks[i], tasks[i]) == 0);
    const struct pm_stats stats = stats_of(kernel);
    assert(stats.ports == 0 && stats.names == 0 && stats.messages_queued == 0 && stats.tasks == 0);
    assert(released == passed && passed > 0 && stats.sent > 100 && stats.received > 100);
    for (size_t i = 0; i < TASKS; i++) pm_task_release(tasks[i]);
    pm_kernel_destroy(kernel);
}

int main(int argc, char **argv) {
    pthread_t threads[4];
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    signal(SIGALRM, too_long);
    alarm(SECONDS);
    build();
    for (size_t i = 0; i < array_count(threads); i++) assert(pthread_create(&threads[i], NULL, rage, (void *)(i + 1)) == 0);
    for (size_t i = 0; i < array_count(threads); i++) assert(pthread_join(threads[i], NULL) == 0);
    expect_sound(kernel);
    tear_down();
    return 0;
}
