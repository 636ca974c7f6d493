/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Receive rights inside messages: long chains end without a stack, and what nobody can reach any more vanishes.
 */
#include "scene.h"

#include <pthread.h>
#include <stdlib.h>

#define LINKS 100000
#define STACK 131072

static struct pm_kernel *kernel;
static struct pm_task *task;

static void begin(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    task = new_task(kernel, "task", sid_named(kernel, "te/a"));
}

static void end(void) {
    expect_sound(kernel);
    pm_task_release(task);
    pm_kernel_destroy(kernel);
}

static uint32_t moved_count;
static void count_moved(void *context) {
    (void)context;
    moved_count++;
}

/* The receive right of `inner`, in a message on the queue of `outer`. */
static void put_into(uint32_t inner, uint32_t outer) {
    const struct pm_right rights[] = {{inner, MACH_MSG_TYPE_MOVE_RECEIVE}};
    const struct pm_memory memory = {"x", 1, count_moved, NULL};
    const struct pm_send_spec spec = {.dest = outer, .dest_disposition = MACH_MSG_TYPE_MAKE_SEND, .rights = rights,
                                      .rights_count = 1, .memory = &memory, .memory_count = 1};
    assert(pm_send_message(task, &spec, NULL) == 0);
}

static struct pm_stats stats_now(void) { return stats_of(kernel); }

/* Innermost first, so that no message goes to a port under way. */
static uint32_t build_chain(uint32_t links) {
    uint32_t inner = new_port(task);
    while (links--) {
        uint32_t outer = new_port(task);
        put_into(inner, outer);
        inner = outer;
    }
    return inner;
}

static void test_a_chain_ends_with_its_first_link(void) {
    uint32_t first = build_chain(LINKS);
    moved_count = 0;
    assert(stats_now().ports == LINKS + 1);
    assert(pm_port_destroy(task, task, first) == 0);
    assert(stats_now().ports == 0 && stats_now().messages_queued == 0 && moved_count == LINKS);
}

static void test_a_chain_ends_with_its_task(void) {
    build_chain(LINKS);
    moved_count = 0;
    assert(pm_task_terminate(task, task) == 0);
    assert(stats_now().ports == 0 && moved_count == LINKS);
}

/* Ports 1 to n-1 go each into the one before; then the first goes into the last, and nothing is left of all. */
static void test_a_circle_vanishes(uint32_t length) {
    uint32_t *ports = calloc(length, sizeof *ports);
    struct pm_stats before = stats_now();
    moved_count = 0;
    for (uint32_t i = 0; i < length; i++) ports[i] = new_port(task);
    int64_t last = pm_port_extract_right(task, task, ports[length - 1], MACH_MSG_TYPE_MAKE_SEND, NULL);
    assert(last > 0);
    for (uint32_t i = length - 1; i > 0; i--) put_into(ports[i], ports[i - 1]);
    const struct pm_right rights[] = {{ports[0], MACH_MSG_TYPE_MOVE_RECEIVE}};
    const struct pm_send_spec spec = {.dest = (uint32_t)last, .rights = rights, .rights_count = 1};
    assert(pm_send_message(task, &spec, NULL) == 0);
    assert(moved_count == length - 1);
    assert(pm_port_type(task, task, (uint32_t)last) == MACH_PORT_TYPE_DEAD_NAME);
    assert(stats_now().ports == before.ports && stats_now().circular == before.circular + 1);
    assert(pm_port_deallocate(task, task, (uint32_t)last) == 0);
    free(ports);
}

static void *with_little_stack(void *unused) {
    begin();
    test_a_chain_ends_with_its_first_link();
    for (uint32_t length = 1; length <= 4; length++) test_a_circle_vanishes(length);
    test_a_circle_vanishes(500);
    test_a_chain_ends_with_its_task();
    end();
    return unused;
}

int main(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    assert(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK) == 0);
    assert(pthread_create(&thread, &attributes, with_little_stack, NULL) == 0);
    assert(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
    return 0;
}
