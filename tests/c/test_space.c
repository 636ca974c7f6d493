/* SPDX-License-Identifier: BSD-2-Clause */
/* Names: generations, chosen ones, quotas, user references at their bounds. */
#include "scene.h"

#include <stdlib.h>

#define CYCLES (1u << 20)
#define DEAD_RIGHT MACH_PORT_RIGHT_DEAD_NAME
#define SELF task, task

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

static void test_a_name_comes_back_after_all_generations(void) {
    uint32_t first = new_name(task, DEAD_RIGHT), name = first;
    for (uint32_t i = 0; i < CYCLES; i++) {
        assert(pm_port_deallocate(SELF, name) == 0);
        assert(pm_port_type(SELF, name) == -KERN_INVALID_NAME);
        uint32_t next = new_name(task, DEAD_RIGHT);
        assert(next >> 8 == first >> 8 && (next & 3) == 3 && next != name);
        assert((next == first) == (i % 64 == 63));
        name = next;
    }
    assert(pm_port_deallocate(SELF, name) == 0);
}

static void test_names_are_many_and_distinct(void) {
    enum { MANY = 5000 };
    uint32_t *names = calloc(MANY, sizeof *names);
    for (uint32_t i = 0; i < MANY; i++) names[i] = new_name(task, DEAD_RIGHT);
    for (uint32_t i = 0; i < MANY; i++) assert(pm_port_type(SELF, names[i]) == MACH_PORT_TYPE_DEAD_NAME);
    assert(pm_port_names(SELF, NULL, NULL, 0) == MANY);
    for (uint32_t i = 0; i < MANY; i++) assert(pm_port_deallocate(SELF, names[i]) == 0);
    assert(pm_port_names(SELF, NULL, NULL, 0) == 0);
    free(names);
}

static void test_a_chosen_name_is_had_once(void) {
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 0x4207) == 0x4207);
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 0x4207) == -KERN_NAME_EXISTS);
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 0x4203) == -KERN_FAILURE);
    assert(pm_port_type(SELF, 0x4203) == -KERN_INVALID_NAME);
    assert(pm_port_deallocate(SELF, 0x4207) == 0);
}

static void test_names_that_cannot_be_chosen(void) {
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 0x4200) == -KERN_INVALID_VALUE);
    assert(pm_port_allocate(SELF, DEAD_RIGHT, MACH_PORT_DEAD) == -KERN_INVALID_VALUE);
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 3) == -KERN_FAILURE);
    assert(pm_port_allocate(SELF, DEAD_RIGHT, 0xff000003) == -KERN_NO_SPACE);
}

static void test_indexes_below_a_chosen_one_are_used(void) {
    struct pm_task *fresh = new_task(kernel, "fresh", sid_named(kernel, "te/a"));
    assert(pm_port_allocate(fresh, fresh, DEAD_RIGHT, 0x20003) == 0x20003);
    for (uint32_t i = 1; i < 0x200; i++) assert(new_name(fresh, DEAD_RIGHT) >> 8 < 0x200);
    assert(new_name(fresh, DEAD_RIGHT) >> 8 > 0x200);
    pm_task_release(fresh);
}

static void test_a_quota_of_names_is_kept(void) {
    const struct pm_quota quota = {.names = 2}, none = {0};
    struct pm_task *poor;
    assert(pm_task_create(kernel, task, "poor", 0, NULL, &quota, &poor) == 0);
    assert(pm_port_allocate(poor, poor, DEAD_RIGHT, 0) > 0 && pm_port_allocate(poor, poor, DEAD_RIGHT, 0) > 0);
    assert(pm_port_allocate(poor, poor, DEAD_RIGHT, 0) == -KERN_NO_SPACE);
    assert(pm_task_set_quota(poor, &none) == 0 && pm_port_allocate(poor, poor, DEAD_RIGHT, 0) > 0);
    pm_task_release(poor);
}

/* ---- user references ---- */

static int change(uint32_t name, uint32_t right, int32_t delta) { return pm_port_mod_refs(SELF, name, right, delta); }

static void expect_bounds(uint32_t name, uint32_t right) {
    assert(change(name, right, MACH_PORT_UREFS_MAX - 1) == 0);
    assert(pm_port_get_refs(SELF, name, right) == MACH_PORT_UREFS_MAX);
    assert(change(name, right, 1) == KERN_UREFS_OVERFLOW);
    assert(change(name, right, INT32_MAX) == KERN_UREFS_OVERFLOW);
    assert(change(name, right, INT32_MIN) == KERN_INVALID_VALUE);
    assert(change(name, right, -MACH_PORT_UREFS_MAX - 1) == KERN_INVALID_VALUE);
    assert(pm_port_get_refs(SELF, name, right) == MACH_PORT_UREFS_MAX);
    assert(change(name, right, -MACH_PORT_UREFS_MAX) == 0);
    assert(pm_port_type(SELF, name) == -KERN_INVALID_NAME);
}

static void test_references_end_at_65535(void) {
    uint32_t port = new_port(task);
    expect_bounds(new_name(task, DEAD_RIGHT), DEAD_RIGHT);
    assert(pm_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND) == 0);
    struct pm_task *other;
    assert(pm_task_create(kernel, task, "other", 0, NULL, NULL, &other) == 0);
    given(task, port, MACH_MSG_TYPE_MOVE_RECEIVE, other);
    expect_bounds(port, MACH_PORT_RIGHT_SEND);
    pm_task_release(other);
}

static void test_a_full_count_is_not_lost_by_receiving_one_more(void) {
    uint32_t port = new_port(task);
    assert(pm_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND) == 0);
    assert(change(port, MACH_PORT_RIGHT_SEND, MACH_PORT_UREFS_MAX - 1) == 0);
    assert(pm_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND) == KERN_UREFS_OVERFLOW);
    const struct pm_right rights[] = {{port, MACH_MSG_TYPE_MAKE_SEND}};
    const struct pm_send_spec spec = {.dest = port, .rights = rights, .rights_count = 1};
    struct pm_received received;
    assert(pm_send_message(task, &spec, NULL) == 0 && pm_receive_message(task, port, 0, &received, NULL) == 0);
    assert(received.rights[0].name == port && pm_port_get_refs(SELF, port, MACH_PORT_RIGHT_SEND) == MACH_PORT_UREFS_MAX);
    assert(stats_of(kernel).urefs_dropped == 1);
    pm_message_free(received.message);
}

static void test_other_rights_have_one_reference(void) {
    uint32_t port = new_port(task), set = new_set(task);
    assert(change(port, MACH_PORT_RIGHT_RECEIVE, 1) == KERN_INVALID_VALUE && change(set, MACH_PORT_RIGHT_PORT_SET, 1) == KERN_INVALID_VALUE);
    assert(change(port, MACH_PORT_RIGHT_PORT_SET, -1) == KERN_INVALID_RIGHT);
    assert(change(port, 9, 0) == KERN_INVALID_VALUE);
    assert(change(port, MACH_PORT_RIGHT_RECEIVE, -1) == 0 && change(set, MACH_PORT_RIGHT_PORT_SET, -1) == 0);
}

int main(void) {
    begin();
    test_a_name_comes_back_after_all_generations();
    test_names_are_many_and_distinct();
    test_a_chosen_name_is_had_once();
    test_names_that_cannot_be_chosen();
    test_indexes_below_a_chosen_one_are_used();
    test_a_quota_of_names_is_kept();
    test_references_end_at_65535();
    test_a_full_count_is_not_lost_by_receiving_one_more();
    test_other_rights_have_one_reference();
    end();
    return 0;
}
