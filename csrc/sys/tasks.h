/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks by their numbers, which are given out in order and never twice: pages of pointers, which go when all in them have gone.
 */
#ifndef PM_TASKS_H
#define PM_TASKS_H

#include "base/pool.h"

struct pm_task;

#define TASK_PAGE 512

struct task_page { struct pm_task *tasks[TASK_PAGE]; uint32_t used; };
struct task_table { struct heap *heap; struct task_page **pages; uint32_t room; };

void tasks_init(struct task_table *table, struct heap *heap);
void tasks_destroy(struct task_table *table);
/* Makes room for a number; false where memory is short. What is made stays, and is used by the next that asks. */
bool tasks_reserve(struct task_table *table, uint32_t id) pm_must_check;
void tasks_put(struct task_table *table, uint32_t id, struct pm_task *task);
void tasks_remove(struct task_table *table, uint32_t id);

/* NULL: there is none, or no more. */
static inline struct pm_task *tasks_find(const struct task_table *table, uint32_t id) {
    if (pm_unlikely(id / TASK_PAGE >= table->room)) return NULL;
    const struct task_page *page = table->pages[id / TASK_PAGE];
    return pm_likely(page != NULL) ? page->tasks[id % TASK_PAGE] : NULL;
}

#endif
