/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks are found by their numbers as long as they are there; pages come with the first of a page and go with the last. */
#include "base/pool.c"
#include "sys/tasks.c"

#include <assert.h>

static struct pm_task *fake(uint32_t id) { return (struct pm_task *)((uintptr_t)id * 64); }

int main(void) {
    struct heap heap = {0};
    struct task_table table;
    tasks_init(&table, &heap);
    assert(!tasks_find(&table, 0) && !tasks_find(&table, 1) && !tasks_find(&table, UINT32_MAX));
    for (uint32_t id = 1; id <= 5 * TASK_PAGE; id++) {
        assert(tasks_reserve(&table, id));
        tasks_put(&table, id, fake(id));
    }
    for (uint32_t id = 1; id <= 5 * TASK_PAGE; id++) assert(tasks_find(&table, id) == fake(id));
    assert(!tasks_find(&table, 0) && !tasks_find(&table, 5 * TASK_PAGE + 1));

    uint64_t before = heap.bytes;
    for (uint32_t id = TASK_PAGE; id < 2 * TASK_PAGE; id++) tasks_remove(&table, id);
    assert(heap.bytes == before - sizeof(struct task_page));
    assert(!tasks_find(&table, TASK_PAGE) && tasks_find(&table, 2 * TASK_PAGE) == fake(2 * TASK_PAGE));

    heap_fault(&heap, 1, true);
    assert(!tasks_reserve(&table, TASK_PAGE) && !tasks_reserve(&table, 100 * TASK_PAGE));
    assert(tasks_reserve(&table, 1) && tasks_find(&table, 1) == fake(1));
    heap_fault(&heap, 0, false);

    assert(tasks_reserve(&table, UINT32_MAX));          /* the last number that there may be */
    tasks_put(&table, UINT32_MAX, fake(7));
    assert(tasks_find(&table, UINT32_MAX) == fake(7));
    tasks_destroy(&table);
    assert(heap.bytes == 0);
    return 0;
}
