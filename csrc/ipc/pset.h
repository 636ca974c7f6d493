/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Port sets. A port may be in many sets. Each membership that has messages stands in its set's ready list; a receive takes the
 * first and puts it last, so full ports take turns.
 */
#ifndef PM_PSET_H
#define PM_PSET_H

#include "ipc/port.h"

struct pset {
    struct space *space;
    uint64_t id;                        /* 0: a free piece of the pool */
    uint32_t name, members_used;
    struct list members, ready;         /* struct set_link */
    struct list receivers;              /* struct waiter */
    struct event event;
};
struct set_link {
    struct list in_set, in_ready;
    struct set_link *next;              /* of the port */
    struct pset *set;
    struct port *port;
};

struct pset *pset_create(struct ipc *ipc, struct space *space, uint32_t name) pm_must_check;
void pset_destroy(struct ipc *ipc, struct pset *set);
struct set_link *pset_find(const struct pset *set, const struct port *port);
/* The link comes from the caller, who reserved it. */
void pset_add(struct pset *set, struct port *port, struct set_link *link);
void pset_remove(struct ipc *ipc, struct set_link *link);
void psets_leave(struct ipc *ipc, struct port *port);
/* The port has messages; the port has none any more. */
void psets_ready(struct port *port);
void psets_drained(struct port *port);

#endif
