/* SPDX-License-Identifier: BSD-2-Clause */
/* Kernels from making to destroying, in whatever order their parts are let go; counters that begin anew; forks. */
#include "pympi.c"

#include "scene.h"

#include <sys/wait.h>

static struct pm_kernel *kernel;
static struct pm_task *first, *second;

static void begin_world(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    first = new_task(kernel, "first", sid_named(kernel, "te/a"));
    second = new_task(kernel, "second", sid_named(kernel, "te/b"));
}

static void release_tasks(void) {
    pm_task_release(first);
    pm_task_release(second);
}

static void test_sizes_out_of_range_are_refused(void) {
    const struct pm_config bad[] = {{.avc_entries = TABLE_MAX + 1}, {.audit_records = UINT32_MAX}, {.trace_paths = UINT32_MAX},
                                    {.clock = 3}};
    struct pm_kernel *none = NULL;
    for (size_t i = 0; i < array_count(bad); i++) assert(pm_kernel_create(&bad[i], &none) == KERN_INVALID_ARGUMENT && !none);
}

static void test_handles_outlive_the_kernel(void) {
    struct pm_received received;
    begin_world();
    uint32_t port = new_port(first);
    const struct pm_send_spec spec = {.dest = port, .dest_disposition = MACH_MSG_TYPE_MAKE_SEND, .body = "late", .size = 4};
    assert(pm_send_message(first, &spec, NULL) == 0 && pm_receive_message(first, port, 0, &received, NULL) == 0);
    pm_kernel_destroy(kernel);
    assert(!pm_task_alive(first) && !strcmp(pm_task_name(second), "second"));
    assert(pm_send(first, port, "", 0, 0, NULL) == KERN_INVALID_TASK);
    assert(pm_port_allocate(first, first, MACH_PORT_RIGHT_RECEIVE, 0) == -KERN_INVALID_TASK);
    release_tasks();
    assert(!memcmp(received.body, "late", 4));
    pm_message_free(received.message);
}

/* The second task is gone but for a port it pays for, which the first holds: it ends in the middle of the list. */
static void test_the_end_of_one_task_may_free_the_next(void) {
    begin_world();
    given(second, new_port(second), MACH_MSG_TYPE_MOVE_RECEIVE, first);
    assert(pm_task_terminate(second, second) == 0);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static void test_labels_left_behind_keep_nothing(void) {
    begin_world();
    assert(pm_sid_intern(kernel, first, "te/paid", 7) > 0);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static void test_numbers_of_labels_used_again_move_the_epoch(void) {
    begin_world();
    uint32_t epoch = pm_kernel_epoch(kernel);
    for (uint32_t i = 0; i < 2 * GENERATIONS && pm_kernel_epoch(kernel) == epoch; i++) {
        int64_t sid = pm_sid_intern(kernel, NULL, "te/x", 4);
        assert(sid > 0 && pm_sid_release(kernel, (uint32_t)sid) == 0);
        kernel->mac.audit.drained = ++kernel->mac.audit.sequence; /* as if it had been read */
    }
    assert(pm_kernel_epoch(kernel) != epoch);
    release_tasks();
    pm_kernel_destroy(kernel);
}

/* ---- counters of policies that begin anew ---- */

static uint32_t allowed = UINT32_MAX;
static int decide_all(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) queries[i].allowed = allowed;
    return 0;
}

/* Whatever was remembered in the epoch of this number 2^32 changes ago must not be found again. */
static void test_an_epoch_that_comes_again_remembers_nothing(void) {
    begin_world();
    uint32_t port = new_port(first), right = given(first, port, MACH_MSG_TYPE_MAKE_SEND, second);
    allowed = UINT32_MAX;
    assert(pm_kernel_set_decider(kernel, decide_all, NULL) == 0 && pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    uint32_t epoch = kernel->mac.epoch, stamp = kernel->mac.stamp;
    for (int i = 0; i < 2; i++) assert(pm_send(second, right, "", 0, 0, NULL) == 0);
    assert(space_entry(&second->space, right)->hint.stamp == stamp);
    kernel->mac.epoch = kernel->mac.stamp = UINT32_MAX;
    allowed = 0;
    while (kernel->mac.epoch != epoch) assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    kernel->mac.stamp = stamp;
    assert(pm_send(second, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static void test_time_goes_forward_and_only_where_it_is_simulated(void) {
    const struct pm_config config = {.clock = PM_CLOCK_SIMULATED};
    struct pm_kernel *simulated;
    assert(pm_kernel_create(&config, &simulated) == 0);
    assert(pm_kernel_set_time(simulated, 10) == 0 && pm_kernel_time(simulated) == 10);
    assert(pm_kernel_set_time(simulated, 9) == KERN_INVALID_ARGUMENT && pm_kernel_time(simulated) == 10);
    pm_kernel_destroy(simulated);
    begin_world();
    assert(pm_kernel_set_time(kernel, 10) == KERN_INVALID_ARGUMENT);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static void test_nobody_waits_under_a_simulated_clock(void) {
    const struct pm_config config = {.clock = PM_CLOCK_SIMULATED};
    const struct pm_wait forever = {.timeout_ns = -1};
    struct pm_kernel *simulated;
    assert(pm_kernel_create(&config, &simulated) == 0);
    struct pm_task *task = new_task(simulated, "task", sid_named(simulated, "te/a"));
    assert(pm_receive(task, new_port(task), NULL, 0, &forever) == -MACH_RCV_TIMED_OUT);
    pm_task_release(task);
    pm_kernel_destroy(simulated);
}

/* ---- after a fork the child may let go, and nothing else ---- */

static int child_story(void) {
    struct pm_stats stats;
    if (pm_send(first, 1, "", 0, 0, NULL) != PM_FORKED || pm_receive(first, 1, NULL, 0, NULL) != -(int64_t)PM_FORKED) return 1;
    if (pm_port_allocate(first, first, MACH_PORT_RIGHT_RECEIVE, 0) != -(int64_t)PM_FORKED) return 2;
    if (pm_kernel_stats(kernel, &stats) != PM_FORKED || pm_kernel_set_policy(kernel, 0) != PM_FORKED) return 3;
    if (pm_check(kernel, 1, 1, 1, 1) != -(int64_t)PM_FORKED || pm_task_alive(first)) return 4;
    release_tasks();
    pm_kernel_destroy(kernel);
    return 0;
}

/* Number 0 is the kernel's: a task that had it would be taken for the kernel by who receives from it. */
static void test_numbers_of_tasks_end(void) {
    struct pm_task *last = NULL, *none = NULL;
    begin_world();
    kernel->next_task_id = UINT32_MAX - 1;
    assert(pm_task_create(kernel, first, "last", 0, NULL, NULL, &last) == 0 && pm_task_id(last) == UINT32_MAX);
    assert(pm_task_create(kernel, first, "none", 0, NULL, NULL, &none) == KERN_NO_SPACE && !none);
    assert(pm_task_terminate(last, last) == 0);
    pm_task_release(last);
    assert(pm_task_create(kernel, NULL, "none", pm_task_sid(first), NULL, NULL, &none) == KERN_NO_SPACE && !none);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static void test_a_forked_child_is_told_so(void) {
    int status;
    begin_world();
    kernel_lock(kernel); /* a thread that is not there in the child */
    pid_t child = fork();
    if (child == 0) _exit(child_story());
    kernel_unlock(kernel);
    assert(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    release_tasks();
    pm_kernel_destroy(kernel);
}

int main(void) {
    test_sizes_out_of_range_are_refused();
    test_handles_outlive_the_kernel();
    test_the_end_of_one_task_may_free_the_next();
    test_labels_left_behind_keep_nothing();
    test_numbers_of_labels_used_again_move_the_epoch();
    test_an_epoch_that_comes_again_remembers_nothing();
    test_time_goes_forward_and_only_where_it_is_simulated();
    test_nobody_waits_under_a_simulated_clock();
    test_numbers_of_tasks_end();
    test_a_forked_child_is_told_so();
    return 0;
}
