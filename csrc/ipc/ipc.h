/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the mechanism shares: its pools and counters, and the list of consequences.
 *
 * Objects do not act on each other's behalf. Whoever takes a right, a message or a port away appends what follows from it to a
 * struct after; after_settle() works that off in a loop, so a chain of a hundred thousand ports, each inside the next, costs no
 * stack. What must not happen under the lock (release functions, handlers) is left for after_finish().
 */
#ifndef PM_IPC_H
#define PM_IPC_H

#include "base/list.h"
#include "base/lock.h"
#include "base/pool.h"
#include "sec/iface.h"
#include "sec/mac.h"
#include "sec/sid.h"
#include "sec/trace.h"

struct port;
struct pset;
struct space;
struct kmsg;
struct request;

#define BODY_LEAST 256u
#define BODY_POOLS 7                    /* each of pieces twice as large as those before */

struct ipc {
    struct lock *lock;                  /* the kernel's; held by whoever calls into this layer */
    struct heap *heap, *names_heap, *messages_heap;     /* the last two: parts */
    struct mac *mac;
    struct sids *sids;
    struct trace *trace;
    struct interfaces *interfaces;
    struct pool ports, rests, extras, sets, links, requests, kmsgs, bodies[BODY_POOLS];
    uint64_t next_port_id, transfers;
    uint64_t outdated;                  /* transfers up to this one were judged in an epoch that is over */
    uint64_t sent, received, destroyed, notifications, urefs_dropped, circular, guard_violations, quota_refusals,
        handler_failures, handler_too_deep;
    uint64_t live_ports, live_sets, names, messages, bytes;     /* messages and bytes: queued */
    struct list pending;                /* struct after, whose messages are on their way to handlers */
};

struct after {
    struct kmsg *doomed, **doomed_end;          /* to destroy, with the rights they carry */
    struct kmsg *handled, **handled_end;        /* for the handlers of their ports, once the lock is dropped */
    struct port *dead, **dead_end;              /* whose requests fire once their messages are destroyed */
    struct kmsg *finished;                      /* destroyed, but with release functions to call without the lock */
    struct list pending;                        /* in ipc.pending while messages are handled */
};

static inline void after_init(struct after *after) {
    after->doomed = after->handled = after->finished = NULL;
    after->doomed_end = &after->doomed;
    after->handled_end = &after->handled;
    after->dead = NULL;
    after->dead_end = &after->dead;
}
static inline bool after_is_empty(const struct after *after) {
    return !after->doomed && !after->dead && !after->handled && !after->finished;
}

#endif
