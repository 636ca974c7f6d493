/* SPDX-License-Identifier: BSD-2-Clause */
/* What most programs here begin with and end with: labels, tasks, ports and rights that there must be, and a kernel that adds up. */
#ifndef SCENE_H
#define SCENE_H
#include "pympi.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static inline uint32_t sid_named(struct pm_kernel *kernel, const char *label) {
    int64_t sid = pm_sid_intern(kernel, NULL, label, strlen(label));
    assert(sid > 0);
    return (uint32_t)sid;
}

static inline struct pm_task *new_task(struct pm_kernel *kernel, const char *name, uint32_t sid) {
    struct pm_task *task = NULL;
    assert(pm_task_create(kernel, NULL, name, sid, NULL, NULL, &task) == 0);
    return task;
}

/* A name in the task's own space, of what mach_port_allocate makes. */
static inline uint32_t new_name(struct pm_task *task, uint32_t right) {
    int64_t name = pm_port_allocate(task, task, right, 0);
    assert(name > 0);
    return (uint32_t)name;
}

static inline uint32_t new_port(struct pm_task *task) { return new_name(task, MACH_PORT_RIGHT_RECEIVE); }
static inline uint32_t new_set(struct pm_task *task) { return new_name(task, MACH_PORT_RIGHT_PORT_SET); }

static inline uint32_t given(struct pm_task *from, uint32_t name, uint32_t disposition, struct pm_task *to) {
    int64_t result = pm_port_transfer(from, name, disposition, to);
    assert(result > 0);
    return (uint32_t)result;
}

static inline struct pm_stats stats_of(struct pm_kernel *kernel) {
    struct pm_stats stats;
    assert(pm_kernel_stats(kernel, &stats) == 0);
    return stats;
}

/* What the verifier finds is printed before the program ends. */
static inline void expect_sound(struct pm_kernel *kernel) {
    char report[2000];
    int faults = pm_kernel_verify(kernel, report, sizeof report);
    if (faults) fprintf(stderr, "%s", report);
    assert(faults == 0);
}
#endif
