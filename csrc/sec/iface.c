/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/iface.h"

#include <string.h>

#include "sec/audit.h"

void interfaces_init(struct interfaces *interfaces, struct heap *heap) {
    *interfaces = (struct interfaces){.heap = heap, .used = 1, .next_class = PM_CLASS_INTERFACE};
}

static size_t holes_size(uint32_t count) { return (count + 7) / 8; }

void interfaces_destroy(struct interfaces *interfaces) {
    for (uint32_t i = 1; i < interfaces->used; i++)
        heap_free(interfaces->heap, interfaces->list[i].holes, holes_size(interfaces->list[i].count));
    heap_free(interfaces->heap, interfaces->list, interfaces->room * sizeof *interfaces->list);
}

static bool list_grow(struct interfaces *interfaces) {
    uint32_t room = interfaces->room ? 2 * interfaces->room : 8;
    struct interface *list = heap_grow(interfaces->heap, interfaces->list, interfaces->room * sizeof *list,
                                       room * sizeof *list);
    if (!list) return false;
    interfaces->list = list;
    interfaces->room = room;
    return true;
}

static bool copy_holes(struct heap *heap, const uint8_t *holes, uint32_t count, uint8_t **copy) {
    *copy = holes ? heap_alloc(heap, holes_size(count)) : NULL;
    if (*copy) memcpy(*copy, holes, holes_size(count));
    return *copy || !holes;
}

uint32_t interface_create(struct interfaces *interfaces, int32_t base, uint32_t count, uint32_t flags, const uint8_t *holes) {
    uint32_t classes = (count + PM_ROUTINES_PER_CLASS - 1) / PM_ROUTINES_PER_CLASS;
    if (classes > PM_CLASSES_MAX - interfaces->next_class) return 0;
    if (interfaces->used >= interfaces->room && !list_grow(interfaces)) return 0;
    uint8_t *copy;
    if (!copy_holes(interfaces->heap, holes, count, &copy)) return 0;
    interfaces->list[interfaces->used] = (struct interface){base, count, flags, interfaces->next_class, copy};
    interfaces->next_class += classes;
    return interfaces->used++;
}
