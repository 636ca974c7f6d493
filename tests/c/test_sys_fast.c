/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fast paths do what the defining path does: two kernels, one of them with no_fast_path, live through the same random
 * calls, under a policy that denies, audits and reports at random. Codes, bodies, audit records, traces and counts agree.
 *
 *     test_sys_fast [SEED [STEPS]]
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pympi.h"

#define TASKS 4
#define PORTS 6
#define LABELS 8
#define BODY_MAX 400

struct world {
    struct pm_kernel *kernel;
    struct pm_task *tasks[TASKS];
    uint32_t sids[LABELS];
    uint32_t receive[PORTS], send[TASKS][PORTS]; /* 0: none */
};

static struct world worlds[2];
static uint64_t state, policy_seed, now_ns;
static int strict; /* percent of questions in which something is refused, recorded or reported */

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint32_t draw(uint32_t below)
{
    state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(mix(state) % below);
}

static uint32_t chance(uint64_t *hash)
{
    *hash = mix(*hash + 1);
    return *hash % 100 < (uint64_t)strict ? (uint32_t)(*hash >> 32) : 0;
}

/* The same question has the same answer until the policy changes. */
static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch)
{
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) {
        struct pm_query *query = &queries[i];
        uint64_t hash = mix(policy_seed ^ mix((uint64_t)query->ssid << 32 | query->tsid) ^ query->tclass);
        query->allowed = query->tclass == PM_CLASS_MACH_TASK ? UINT32_MAX : ~(chance(&hash) & chance(&hash));
        query->auditallow = chance(&hash);
        query->auditdeny = ~chance(&hash);
        query->report = chance(&hash) & chance(&hash);
        query->uncached = chance(&hash) & 1;
        query->code = 0;
    }
    return 0;
}

/* ---- both worlds, in step ---- */

#define EACH(world) for (struct world *world = worlds; world < worlds + 2; world++)

static void make_port(uint32_t port)
{
    uint32_t owner = port % 2, label = draw(LABELS), qlimit = 1 + draw(6);

    EACH(world) {
        struct pm_port_options options = { .flags = MPO_QLIMIT, .qlimit = qlimit, .sid = world->sids[label],
                                           .trace_number = -1 };
        int64_t name = pm_port_construct(world->tasks[owner], world->tasks[owner], &options);
        world->receive[port] = name > 0 ? (uint32_t)name : 0; /* the policy may refuse the label */
        for (uint32_t task = 0; task < TASKS; task++) {
            int64_t send = pm_port_transfer(world->tasks[owner], world->receive[port], MACH_MSG_TYPE_MAKE_SEND,
                                            world->tasks[task]);
            world->send[task][port] = send > 0 ? (uint32_t)send : 0;
        }
    }
    assert(!memcmp(worlds[0].send, worlds[1].send, sizeof worlds[0].send));
    assert(!memcmp(worlds[0].receive, worlds[1].receive, sizeof worlds[0].receive));
}

static void make_worlds(void)
{
    EACH(world) {
        struct pm_config config = { .clock = PM_CLOCK_SIMULATED, .no_fast_path = world == worlds, .seed = 1,
                                    .audit_records = 64, .trace_paths = 16 };
        assert(pm_kernel_create(&config, &world->kernel) == 0);
        for (uint32_t i = 0; i < LABELS; i++) {
            char text[16];
            int length = snprintf(text, sizeof text, "l/%u", i);
            world->sids[i] = (uint32_t)pm_sid_intern(world->kernel, NULL, text, (size_t)length);
        }
        for (uint32_t i = 0; i < TASKS; i++)
            assert(pm_task_create(world->kernel, NULL, "task", world->sids[i], NULL, NULL, &world->tasks[i]) == 0);
        assert(pm_kernel_set_decider(world->kernel, decide, NULL) == 0);
    }
    for (uint32_t port = 0; port < PORTS; port++)
        make_port(port);
}

static void step_send(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), size = draw(8) ? draw(160) : draw(BODY_MAX);
    uint32_t name = draw(50) ? worlds[0].send[task][port] : draw(1000);
    int32_t id = (int32_t)draw(5);
    char body[BODY_MAX];
    int codes[2];

    memset(body, (int)draw(256), size);
    for (int i = 0; i < 2; i++)
        codes[i] = pm_send(worlds[i].tasks[task], name, body, size, id, NULL);
    assert(codes[0] == codes[1]);
}

static void step_receive(void)
{
    uint32_t port = draw(PORTS), capacity = draw(6) ? BODY_MAX : draw(120);
    char bodies[2][BODY_MAX];
    int64_t sizes[2];

    for (int i = 0; i < 2; i++)
        sizes[i] = pm_receive(worlds[i].tasks[port % 2], worlds[i].receive[port], bodies[i], capacity, NULL);
    assert(sizes[0] == sizes[1]);
    assert(sizes[0] < 0 || !memcmp(bodies[0], bodies[1], (size_t)sizes[0]));
}

static void step_policy(void)
{
    uint32_t flags = draw(8) ? PM_POLICY_LOADED | (draw(4) ? 0 : PM_POLICY_PERMISSIVE) : 0;

    policy_seed = draw(UINT32_MAX);
    strict = draw(3) ? (int)draw(30) : 0;
    EACH(world)
        assert(pm_kernel_set_policy(world->kernel, flags) == 0);
}

static void step_audit(void)
{
    uint32_t granted = draw(3) ? draw(UINT32_MAX) | draw(UINT32_MAX) : draw(2) ? UINT32_MAX : 0, denied = draw(UINT32_MAX);
    int everything = draw(2) == 0, full = draw(2) ? PM_AUDIT_DROP : PM_AUDIT_FAIL;

    EACH(world) {
        assert(pm_audit_select(world->kernel, 0, granted, denied) == 0);
        assert(pm_audit_options(world->kernel, everything, 1, full) == 0);
    }
}

static void step_drain(void)
{
    static struct pm_audit_record records[2][64];
    size_t capacity = 1 + draw(64);
    int64_t count[2];

    for (int i = 0; i < 2; i++)
        count[i] = pm_audit_drain(worlds[i].kernel, records[i], capacity);
    assert(count[0] == count[1]);
    assert(!memcmp(records[0], records[1], (size_t)count[0] * sizeof records[0][0]));
}

static void step_trace(void)
{
    static struct pm_trace_record records[2][512];
    int64_t count[2];
    uint32_t what = draw(4);

    for (int i = 0; i < 2; i++) {
        struct pm_kernel *kernel = worlds[i].kernel;
        assert((what == 0 ? pm_trace_start(kernel) : what == 1 ? pm_trace_stop(kernel) : 0) == 0);
        assert(what != 2 || pm_trace_reset(kernel) == 0);
        count[i] = pm_trace_read(kernel, 0, records[i], 512);
    }
    assert(count[0] == count[1] && count[0] <= 512);
    assert(!memcmp(records[0], records[1], (size_t)count[0] * sizeof records[0][0]));
}

static void step_relabel(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), label = draw(LABELS), what = draw(2);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        struct pm_task *owner = world->tasks[port % 2];
        codes[i] = what ? pm_task_relabel(world->tasks[task], world->tasks[task], world->sids[label])
                        : pm_port_relabel(owner, owner, world->receive[port], world->sids[label]);
    }
    assert(codes[0] == codes[1]);
}

static void step_port(void)
{
    uint32_t port = draw(PORTS);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        codes[i] = pm_port_mod_refs(owner, owner, worlds[i].receive[port], MACH_PORT_RIGHT_RECEIVE, -1);
        for (uint32_t task = 0; task < TASKS; task++)
            pm_port_deallocate(worlds[i].tasks[task], worlds[i].tasks[task], worlds[i].send[task][port]);
    }
    assert(codes[0] == codes[1]);
    make_port(port);
}

static void step_quota(void)
{
    uint32_t task = draw(TASKS);
    struct pm_quota quota = { .queued_bytes = draw(3) ? 0 : 200 };

    EACH(world)
        assert(pm_task_set_quota(world->tasks[task], &quota) == 0);
}

static void step_clock(void)
{
    now_ns += draw(1000);
    EACH(world)
        assert(pm_kernel_set_time(world->kernel, now_ns) == 0);
}

/* What both paths count alike. How a decision was come by is their own affair. */
static void compare_stats(void)
{
    struct pm_stats stats[2];

    for (int i = 0; i < 2; i++) {
        struct pm_stats *s = &stats[i];
        assert(pm_kernel_stats(worlds[i].kernel, s) == 0);
        s->checks_hint = s->checks_avc = s->misses = s->decider_calls = s->avc_inserts = s->memory = 0;
        s->avc_evictions = s->avc_refused = 0;
    }
    assert(!memcmp(&stats[0], &stats[1], sizeof stats[0]));
}

static void compare(void)
{
    char report[4096];

    compare_stats();
    EACH(world) {
        int faults = pm_kernel_verify(world->kernel, report, sizeof report);
        if (faults)
            fprintf(stderr, "%s", report);
        assert(faults == 0);
    }
}

static const struct {
    uint32_t weight;
    void (*step)(void);
} steps[] = { { 600, step_send }, { 600, step_receive }, { 40, step_drain }, { 12, step_clock },  { 8, step_audit },
              { 6, step_policy }, { 6, step_trace },     { 20, step_relabel }, { 4, step_port },   { 3, step_quota },
              { 3, compare } };

static void step(void)
{
    uint32_t total = 0, at = 0;

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        total += steps[i].weight;
    total = draw(total);
    while (total >= steps[at].weight)
        total -= steps[at++].weight;
    steps[at].step();
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 60000;

    state = seed;
    make_worlds();
    for (uint32_t i = 0; i < count; i++)
        step();
    compare();
    EACH(world) {
        for (uint32_t i = 0; i < TASKS; i++)
            pm_task_release(world->tasks[i]);
        pm_kernel_destroy(world->kernel);
    }
    return 0;
}
