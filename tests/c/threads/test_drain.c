/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that drains the audit trail while others write to it: it sleeps until there is something, loses nothing, and ends when
 * it is told to, or with the kernel. Who should wake and does not is found by the alarm.
 */
#include "pympi.c"

#include "../scene.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define SECONDS 60
#define SENDERS 3
#define SENDS 1500
#define CAPACITY 512

static struct pm_kernel *kernel;
static struct pm_task *server;
static uint32_t sid;
static atomic_bool over;
static uint64_t next_sequence, drained;

static void begin(uint32_t records) {
    const struct pm_config config = {.audit_records = records};
    alarm(SECONDS);
    over = false;
    next_sequence = drained = 0;
    assert(pm_kernel_create(&config, &kernel) == 0);
    sid = sid_named(kernel, "te/server");
    server = new_task(kernel, "server", sid);
    assert(pm_audit_select(kernel, 0, 0, 0) == 0);
    assert(pm_audit_select(kernel, PM_CLASS_MACH_PORT, PM_MACH_PORT__send, 0) == 0);
}

static void end(void) {
    pm_task_release(server);
    pm_kernel_destroy(kernel);
    alarm(0);
}

static void look_at(const struct pm_audit_record *records, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        assert(records[i].operation == PM_OP_SEND && records[i].sequence == next_sequence);
        next_sequence++;
    }
    drained += (uint64_t)count;
}

static int64_t drain_once(void) {
    static struct pm_audit_record records[CAPACITY];
    int64_t count = pm_audit_drain(kernel, records, CAPACITY);
    assert(count >= 0);
    look_at(records, count);
    return count;
}

static void *drain_job(void *wanted) {
    const struct pm_wait for_ever = {.timeout_ns = -1};
    while (!over) {
        assert(pm_audit_wait(kernel, *(uint32_t *)wanted, &for_ever) >= 0);
        while (drain_once() > 0) continue;
    }
    return NULL;
}

/* Each has a port of its own, and empties it. Where the ring is full it tries again. */
static void *send_job(void *pointer) {
    struct pm_task *task = pointer;
    uint32_t port = new_port(task);
    uint32_t right = given(task, port, MACH_MSG_TYPE_MAKE_SEND, task);
    for (int i = 0; i < SENDS; i++) {
        int code;
        while ((code = pm_send(task, right, "", 0, 0, NULL)) == PM_AUDIT_FULL) sched_yield();
        assert(code == 0 && pm_receive(task, port, NULL, 0, NULL) == 0);
    }
    return NULL;
}

static void test_a_drainer_gets_it_all(uint32_t records, uint32_t wanted) {
    pthread_t drainer, senders[SENDERS];
    struct pm_task *tasks[SENDERS];
    begin(records);
    assert(pm_audit_options(kernel, 0, 0, PM_AUDIT_FAIL, 0) == 0);
    assert(pthread_create(&drainer, NULL, drain_job, &wanted) == 0);
    for (int i = 0; i < SENDERS; i++) {
        tasks[i] = new_task(kernel, "sender", sid);
        assert(pthread_create(&senders[i], NULL, send_job, tasks[i]) == 0);
    }
    for (int i = 0; i < SENDERS; i++) assert(pthread_join(senders[i], NULL) == 0);
    over = true;
    assert(pm_audit_wake(kernel) == 0 && pthread_join(drainer, NULL) == 0);
    drain_once();
    assert(drained == SENDERS * SENDS && stats_of(kernel).audit_lost == 0);
    expect_sound(kernel);
    for (int i = 0; i < SENDERS; i++) pm_task_release(tasks[i]);
    end();
}

struct waiting { pthread_t thread; int64_t result; atomic_bool ended; struct pm_wait wait; };

static void *wait_job(void *pointer) {
    struct waiting *waiting = pointer;
    waiting->result = pm_audit_wait(kernel, 1, &waiting->wait);
    waiting->ended = true;
    return NULL;
}

static int64_t result_of(struct waiting *waiting) {
    assert(pthread_join(waiting->thread, NULL) == 0);
    return waiting->result;
}

static void test_all_who_wait_are_woken(void) {
    struct waiting waiting[4];
    begin(64);
    for (int i = 0; i < 4; i++) {
        waiting[i] = (struct waiting){.wait = {.timeout_ns = -1}};
        assert(pthread_create(&waiting[i].thread, NULL, wait_job, &waiting[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        while (!waiting[i].ended) {
            assert(pm_audit_wake(kernel) == 0);
            usleep(100);
        }
        assert(result_of(&waiting[i]) == 0);
    }
    end();
}

static void test_a_wait_runs_out(void) {
    const struct pm_wait brief = {.timeout_ns = 2000000};
    begin(64);
    assert(pm_audit_wait(kernel, 1, &brief) == 0);
    end();
}

static int always(void *context) { return context != NULL; }
static void no_action(int signal_number) { (void)signal_number; }

static void test_a_signal_ends_a_wait_that_wants_it(void) {
    const struct sigaction action = {.sa_handler = no_action};
    struct waiting waiting = {.wait = {.timeout_ns = -1, .interrupted = always, .context = &waiting}};
    begin(64);
    assert(sigaction(SIGUSR1, &action, NULL) == 0);
    assert(pthread_create(&waiting.thread, NULL, wait_job, &waiting) == 0);
    while (!waiting.ended) {
        pthread_kill(waiting.thread, SIGUSR1);
        usleep(1000);
    }
    assert(result_of(&waiting) == -MACH_RCV_INTERRUPTED);
    end();
}

static bool somebody_waits(void) {
    kernel_lock(kernel);
    bool waits = !list_empty(&kernel->mac.audit.waiters);
    kernel_unlock(kernel);
    return waits;
}

/* It keeps the kernel's memory; what is in the ring is nobody's any more. */
static void test_a_kernel_that_goes_wakes_who_waits(void) {
    struct waiting waiting = {.wait = {.timeout_ns = -1}};
    begin(64);
    assert(pthread_create(&waiting.thread, NULL, wait_job, &waiting) == 0);
    while (!somebody_waits()) usleep(100);
    pm_kernel_destroy(kernel);
    assert(result_of(&waiting) == -KERN_TERMINATED);
    pm_task_release(server);
    alarm(0);
}

int main(void) {
    test_a_drainer_gets_it_all(1024, 256);
    test_a_drainer_gets_it_all(16, 1000);
    test_a_drainer_gets_it_all(4096, 1);
    test_all_who_wait_are_woken();
    test_a_wait_runs_out();
    test_a_signal_ends_a_wait_that_wants_it();
    test_a_kernel_that_goes_wakes_who_waits();
    return 0;
}
