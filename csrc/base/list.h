/* SPDX-License-Identifier: BSD-2-Clause */
/* Circular doubly linked list, intrusive. A node that is in no list points to itself. */
#ifndef PM_LIST_H
#define PM_LIST_H

#include "base/base.h"

struct list { struct list *next, *prev; };

static inline void list_init(struct list *node) { node->next = node->prev = node; }
static inline bool list_empty(const struct list *node) { return node->next == node; }

static inline void list_append(struct list *list, struct list *node) {
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

/* Leaves node in no list; harmless where it is in none. */
static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define list_first(head, type, member) container_of((head)->next, type, member)
#define list_each(head, node) for (struct list *node = (head)->next; node != (head); node = node->next)
/* As list_each, and node may be removed on the way. */
#define list_each_safe(head, node, following) \
    for (struct list *node = (head)->next, *following = node->next; node != (head); node = following, following = node->next)

#endif
