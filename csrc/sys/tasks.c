/* SPDX-License-Identifier: BSD-2-Clause */
#include "sys/tasks.h"

#include <string.h>

void tasks_init(struct task_table *table, struct heap *heap) { *table = (struct task_table){.heap = heap}; }

void tasks_destroy(struct task_table *table) {
    for (uint32_t i = 0; i < table->room; i++)
        if (table->pages[i]) heap_free(table->heap, table->pages[i], sizeof **table->pages);
    if (table->pages) heap_free(table->heap, table->pages, table->room * sizeof *table->pages);
}

static bool grow(struct task_table *table, uint32_t wanted) {
    uint32_t room = round_up_power(wanted + 1);
    size_t old_size = table->room * sizeof *table->pages, size = room * sizeof *table->pages;
    struct task_page **pages = heap_grow(table->heap, table->pages, old_size, size);
    if (!pages) return false;
    memset(pages + table->room, 0, size - old_size);
    table->pages = pages;
    table->room = room;
    return true;
}

bool tasks_reserve(struct task_table *table, uint32_t id) {
    uint32_t at = id / TASK_PAGE;
    if (at >= table->room && !grow(table, at)) return false;
    if (table->pages[at]) return true;
    table->pages[at] = heap_alloc(table->heap, sizeof *table->pages[at]);
    if (!table->pages[at]) return false;
    memset(table->pages[at], 0, sizeof *table->pages[at]);
    return true;
}

void tasks_put(struct task_table *table, uint32_t id, struct pm_task *task) {
    struct task_page *page = table->pages[id / TASK_PAGE];
    page->tasks[id % TASK_PAGE] = task;
    page->used++;
}

void tasks_remove(struct task_table *table, uint32_t id) {
    struct task_page **page = &table->pages[id / TASK_PAGE];
    (*page)->tasks[id % TASK_PAGE] = NULL;
    if (--(*page)->used) return;
    heap_free(table->heap, *page, sizeof **page);
    *page = NULL;
}
