/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches in some threads, while others load policies and tables, make and end tasks, and at last destroy the kernel. What is
 * forbidden is forbidden at every moment, whoever decides; what was sent was received, or was destroyed with its port.
 */
#include "../scene.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#define SECONDS 120
#define ROUNDS 150
#define OPS 200
#define JOBS 3

static struct pm_kernel *kernel;
static uint32_t open_sid, closed_sid;
static atomic_bool over;

/* Who is labelled otherwise is not sent to. */
static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    const uint32_t rest = ~(uint32_t)PM_MACH_PORT__send;
    for (size_t i = 0; i < count; i++) queries[i].allowed = queries[i].ssid == queries[i].tsid ? UINT32_MAX : rest;
    return 0;
}

/* The same, as tables. */
static void load_tables(uint32_t epoch) {
    static const uint32_t none[] = {0, 0};
    static const struct pm_native_step step = {PM_NATIVE_SAME, 0, PM_NATIVE_TARGET, 0, 0};
    static const struct pm_native_test test = {PM_MACH_PORT__send, 0, 1};
    static const struct pm_native_class classes[] = {{0, 0, 0, 0}, {UINT32_MAX, 0, 0, 1}};
    static const uint8_t known[] = {0, 1};
    const struct pm_native_module module = {.classes = classes, .tests = &test, .tests_count = 1, .steps = &step, .steps_count = 1,
                                            .groups_first = none, .groups = none, .sets_first = none, .sets = none};
    const struct pm_native tables = {.modules = &module, .modules_count = 1, .known = known, .classes_count = 2, .epoch = epoch};
    const uint32_t seen[2][10] = {{1, 1, 0, 0, 7, 7, 7, 0, 0, 0}, {1, 2, 0, 0, 7, 7, 7, 0, 0, 0}};
    if (pm_kernel_set_native(kernel, &tables)) return;
    pm_sid_set_values(kernel, open_sid, epoch, seen[0], 10);
    pm_sid_set_values(kernel, closed_sid, epoch, seen[1], 10);
}

static void *policy_job(void *task) {
    while (!over && pm_task_alive(task)) {
        pm_kernel_set_policy(kernel, PM_POLICY_LOADED);
        load_tables(pm_kernel_epoch(kernel));
        pm_task_relabel(task, task, open_sid);
        usleep(100);
    }
    return NULL;
}

static void *task_job(void *mine) {
    while (!over && pm_task_alive(mine)) {
        struct pm_task *task = NULL;
        if (pm_task_create(kernel, mine, "passing", open_sid, NULL, NULL, &task)) continue;
        pm_port_allocate(task, task, MACH_PORT_RIGHT_RECEIVE, 0);
        pm_task_terminate(task, task);
        pm_task_release(task);
        assert(pm_task_sid(mine) == open_sid && pm_kernel_epoch(kernel) > 0);
    }
    return NULL;
}

/* A task with a port of its own, which it may send to, and one that it may not. */
struct scene { struct pm_task *task; uint32_t port, right, forbidden; uint64_t sent, received; };

static uint32_t port_labelled(struct pm_task *task, uint32_t sid) {
    const struct pm_port_options options = {.flags = MPO_QLIMIT, .qlimit = 64, .sid = sid, .trace_number = -1};
    int64_t name = pm_port_construct(task, task, &options);
    assert(name > 0);
    return (uint32_t)name;
}

static void scene_init(struct scene *scene) {
    *scene = (struct scene){.task = new_task(kernel, "sender", open_sid)};
    scene->port = port_labelled(scene->task, open_sid);
    scene->right = given(scene->task, scene->port, MACH_MSG_TYPE_MAKE_SEND, scene->task);
    scene->forbidden = port_labelled(scene->task, closed_sid);
    given(scene->task, scene->forbidden, MACH_MSG_TYPE_MAKE_SEND, scene->task);
}

/* One in eight asks for what is forbidden, one carries a right, one is of a task that may just be there. */
static struct pm_submission drawn(const struct scene *scene, uint32_t i) {
    struct pm_submission op = {.op = i % 2 ? PM_SUBMIT_RECEIVE : PM_SUBMIT_SEND, .task = pm_task_id(scene->task),
                               .name = i % 2 ? scene->port : scene->right, .offset = i, .length = i % 16};
    if (i % 8 == 2) op.name = scene->forbidden;
    if (i % 8 == 4) op.right = scene->right, op.disposition = MACH_MSG_TYPE_COPY_SEND;
    if (i % 8 == 6) op.task = JOBS + 2 + i, op.name = scene->port;
    if (i % 2) op.length = 16;
    return op;
}

static void count(struct scene *scene, const struct pm_submission *op, const struct pm_submission *done) {
    bool own = op->task == pm_task_id(scene->task);
    assert(op->name != scene->forbidden || done->result != 0);
    if (done->result || !own) return;
    if (op->op == PM_SUBMIT_SEND) scene->sent++;
    else scene->received++;
    if (done->op == PM_SUBMIT_RECEIVE && done->right) pm_port_deallocate(scene->task, scene->task, done->right);
}

static void submit_round(struct scene *scene) {
    static _Thread_local struct pm_submission asked[OPS], ops[OPS];
    char data[OPS + 16] = {0};
    for (uint32_t i = 0; i < OPS; i++) asked[i] = ops[i] = drawn(scene, i);
    assert(pm_submit(kernel, ops, OPS, data, sizeof data) >= 0);
    for (uint32_t i = 0; i < OPS; i++) count(scene, &asked[i], &ops[i]);
}

static void many_round(struct scene *scene) {
    static _Thread_local struct pm_result results[OPS];
    int32_t codes[OPS];
    char data[OPS * 16] = {0};
    const struct pm_bodies bodies = {.data = data, .size = sizeof data, .stride = 16, .count = OPS};
    const struct pm_room room = {.data = data, .size = sizeof data, .stride = 16, .count = OPS, .results = results};
    assert(pm_send_many(scene->task, scene->forbidden, &bodies, codes) == 0);
    scene->sent += (uint64_t)pm_send_many(scene->task, scene->right, &bodies, codes);
    for (int64_t i = pm_receive_many(scene->task, scene->port, &room); i-- > 0;) scene->received += results[i].code == 0;
}

static void *batch_job(void *pointer) {
    struct scene *scene = pointer;
    for (int round = 0; round < ROUNDS && pm_task_alive(scene->task); round++) {
        submit_round(scene);
        many_round(scene);
    }
    return NULL;
}

/* last_moment: the kernel is destroyed while all this goes on. */
static void live(bool last_moment) {
    struct scene scenes[JOBS];
    pthread_t threads[JOBS + 2];
    uint64_t sent = 0, received = 0;
    alarm(SECONDS);
    over = false;
    assert(pm_kernel_create(&(struct pm_config){.avc_entries = 1, .audit_records = 64}, &kernel) == 0);
    open_sid = sid_named(kernel, "a/open"), closed_sid = sid_named(kernel, "a/closed");
    for (int i = 0; i < JOBS; i++) scene_init(&scenes[i]);
    struct pm_task *other = new_task(kernel, "other", open_sid);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0 && pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    pthread_create(&threads[JOBS], NULL, policy_job, other);
    pthread_create(&threads[JOBS + 1], NULL, task_job, other);
    for (int i = 0; i < JOBS; i++) pthread_create(&threads[i], NULL, batch_job, &scenes[i]);
    if (last_moment) usleep(50000), pm_kernel_destroy(kernel);
    for (int i = 0; i < JOBS; i++) pthread_join(threads[i], NULL);
    over = true;
    for (int i = JOBS; i < JOBS + 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < JOBS; i++) sent += scenes[i].sent, received += scenes[i].received;
    assert(sent >= received && received > 0);
    assert(stats_of(kernel).native_decisions > 0 && stats_of(kernel).decider_calls > 0);
    if (!last_moment) assert(stats_of(kernel).messages_queued == sent - received);
    expect_sound(kernel);
    for (int i = 0; i < JOBS; i++) pm_task_release(scenes[i].task);
    if (!last_moment) pm_kernel_destroy(kernel);
    pm_task_release(other);
    alarm(0);
}

int main(void) {
    live(false);
    live(true);
    return 0;
}
