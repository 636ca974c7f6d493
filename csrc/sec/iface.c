/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/iface.h"

#include "sec/audit.h"

void interfaces_init(struct interfaces *interfaces, struct heap *heap) {
    *interfaces = (struct interfaces){.heap = heap, .used = 1, .next_class = PM_CLASS_INTERFACE};
}

void interfaces_destroy(struct interfaces *interfaces) {
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

uint32_t interface_create(struct interfaces *interfaces, int32_t base, uint32_t count, uint32_t flags) {
    uint32_t classes = (count + PM_ROUTINES_PER_CLASS - 1) / PM_ROUTINES_PER_CLASS;
    if (classes > PM_CLASSES_MAX - interfaces->next_class) return 0;
    if (interfaces->used >= interfaces->room && !list_grow(interfaces)) return 0;
    interfaces->list[interfaces->used] = (struct interface){base, count, flags, interfaces->next_class};
    interfaces->next_class += classes;
    return interfaces->used++;
}
