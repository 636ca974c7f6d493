/* SPDX-License-Identifier: BSD-2-Clause */
/* Interfaces: which class and permission a message id stands for. 31 routines to a class; bit 31 is kept for `ioctl`. */
#ifndef PM_IFACE_H
#define PM_IFACE_H

#include "base/pool.h"
#include "pympi.h"

struct interface {
    int32_t base;
    uint32_t count, flags, tclass;
    uint8_t *holes;                     /* bit i: routine i is none; NULL where there is no hole */
};
struct interfaces {
    struct heap *heap;
    struct interface *list;             /* from 1; slots move when the list grows, so ports keep numbers */
    uint32_t used, room, next_class;
};
void interfaces_init(struct interfaces *interfaces, struct heap *heap);
void interfaces_destroy(struct interfaces *interfaces);
/* holes is copied; NULL: none. 0 where memory or classes are short. */
uint32_t interface_create(struct interfaces *interfaces, int32_t base, uint32_t count, uint32_t flags, const uint8_t *holes);
static inline const struct interface *interface_find(const struct interfaces *interfaces, uint32_t number) {
    return number && number < interfaces->used ? &interfaces->list[number] : NULL;
}

struct method { uint32_t tclass, permission; };
/* False for an id that the interface does not know. */
static inline bool interface_method(const struct interface *interface, int32_t msgh_id, struct method *method) {
    uint32_t routine = (uint32_t)msgh_id - (uint32_t)interface->base;
    if (routine >= interface->count) return false;
    if (interface->holes && interface->holes[routine / 8] >> routine % 8 & 1) return false;
    *method = (struct method){interface->tclass + routine / PM_ROUTINES_PER_CLASS, 1u << routine % PM_ROUTINES_PER_CLASS};
    return true;
}

#endif
