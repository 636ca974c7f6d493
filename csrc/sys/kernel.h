/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel owns every table, and the one lock that guards all of it: tables, objects, queues, counters. One is enough because
 * nothing that may take long or come back in runs under it, so every operation is atomic and a policy change is complete when
 * it returns. Parallelism comes from several kernels.
 */
#ifndef PM_KERNEL_H
#define PM_KERNEL_H

#include "base/lock.h"
#include "ipc/mqueue.h"
#include "ipc/notify.h"
#include "ipc/port.h"
#include "ipc/pset.h"
#include "ipc/right.h"
#include "ipc/space.h"
#include "sys/tasks.h"

enum part { PART_TASKS, PART_NAMES, PART_PORTS, PART_MESSAGES, PART_LABELS, PART_MAC, PART_TRACE, PARTS };

struct pm_kernel {
    struct lock lock;
    struct lock draining;               /* of the audit trail; taken before the other, and by who drains alone */
    uint32_t fork_generation;           /* of the process that made it */
    uint32_t refs;                      /* the embedder's, and one for each task and message handle */
    bool alive, no_fast_path;
    enum pm_clock clock;
    uint64_t now;                       /* simulated clock */
    struct heap heap;
    struct heap parts[PARTS];           /* of the heap */
    struct mac mac;
    struct sids sids;
    struct trace trace;
    struct interfaces interfaces;
    struct ipc ipc;
    struct list tasks;                  /* struct space, by tasks: all that exist, terminated ones too */
    struct task_table by_id;            /* the same, by their numbers */
    uint32_t next_task_id, tasks_alive;
    uint64_t calls;                     /* that ended, those of the shortest path not counted */
};

struct pm_task {
    struct pm_kernel *kernel;
    struct space space;
    struct port *special[PM_SPECIAL_PORTS];             /* send rights */
    struct port *registered[TASK_PORT_REGISTER_MAX];
    uint32_t parent;                    /* number of the task that made it; 0 none */
    uint32_t handles;                   /* of the embedder; each holds a reference on the space and on the kernel */
    uint32_t name_length;
    char name[];
};
_Static_assert(offsetof(struct pm_task, space.past_sids) == 128, "what the path of a message touches is two cache lines");
#define task_of(pointer) container_of(pointer, struct pm_task, space)

/* Counts how often this process forked off from the one that loaded the library. */
extern uint32_t kernel_fork_generation;

static inline bool kernel_forked(const struct pm_kernel *kernel) {
    return pm_unlikely(kernel->fork_generation != kernel_fork_generation);
}
static inline void kernel_lock(struct pm_kernel *kernel) { lock_take(&kernel->lock); }
static inline void kernel_unlock(struct pm_kernel *kernel) { lock_drop(&kernel->lock); }

/* With the lock; the memory goes with the last reference, and the lock with it. Returns whether the kernel still exists. */
bool kernel_unref_unlock(struct pm_kernel *kernel);
/* Drops the lock after working off consequences; then those which need it dropped. */
void kernel_leave(struct pm_kernel *kernel, struct after *after);
void kernel_move_epoch(struct pm_kernel *kernel);
void kernel_move_stamp(struct pm_kernel *kernel);
/* Labels that nobody uses, and that no record needs which was not put into words yet, are gone. */
void kernel_collect_sids(struct pm_kernel *kernel);
void kernel_release_sid(struct pm_kernel *kernel, uint32_t sid);

/* Everything a task has goes; its memory stays until nobody refers to it. With the lock. */
void task_end(struct pm_kernel *kernel, struct pm_task *task, struct after *after);

/* Memory regions of a task (sys_task.c), sorted, never overlapping. */
bool region_contains(const struct space *space, uint64_t address, uint64_t size);
bool regions_reserve(struct pm_kernel *kernel, struct space *space, uint32_t count);
void region_add(struct space *space, uint64_t address, uint64_t size);
bool region_remove(struct space *space, uint64_t address, uint64_t size);
void regions_free(struct pm_kernel *kernel, struct space *space);

/* Records in the trace that the task of `space` did event to port, through the entry that remembers the path (or NULL). */
void trace_event(struct pm_kernel *kernel, struct space *space, struct entry *entry, const struct port *port,
                 uint32_t event);

/* sys/handler.c: runs the handlers of messages in after->handled. Without the lock. */
void handlers_run(struct pm_kernel *kernel, struct after *after);
bool handler_too_deep(void);

#endif
