/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many messages by one name, the lock held throughout: what cannot change meanwhile is looked at once, and counted once. A run
 * takes what fast.h would take and records nothing; where it ends, or does not begin, fast.h goes on one message at a time.
 */
#ifndef PM_RUN_H
#define PM_RUN_H

#include "sys/fast.h"

struct sending {
    struct pm_kernel *kernel;
    struct ipc *ipc;
    struct space *space;
    struct port *port;
    uint32_t access, room, count;       /* room: of the queue; count: messages that are queued, and not yet counted elsewhere */
    uint64_t bytes;
};

/* With the lock. False: nothing was touched. */
static pm_inline bool sending_begin(struct sending *run, struct pm_task *task, uint32_t dest) {
    struct pm_kernel *kernel = task->kernel;
    struct entry *entry = kernel->no_fast_path || kernel->trace.on ? NULL : fast_sendable(&task->space, dest);
    uint32_t access;
    if (!entry || fast_may_send(&kernel->mac, &task->space, entry, &access) != HINT_QUIET) return false;
    struct port *port = entry->object;
    *run = (struct sending){.kernel = kernel, .ipc = &kernel->ipc, .space = &task->space, .port = port, .access = access,
                            .room = port->qlimit - port->msgcount};
    return true;
}

/* False: it was not sent, and the run is over. */
static pm_inline bool sending_add(struct sending *run, const void *body, uint32_t size, int32_t msgh_id) {
    const bool method = run->port->flags & PORT_INTERFACE;
    if (run->count == run->room || size > KMSG_INLINE) return false;
    if (pm_unlikely(method) && !fast_may_call(run->kernel, run->space, run->port, msgh_id, &run->access)) return false;
    struct kmsg *kmsg = pool_take(&run->ipc->kmsgs);
    if (pm_unlikely(!kmsg)) return false;
    fast_fill(kmsg, run->ipc, run->space, run->port, size, msgh_id, run->access, run->ipc->transfers + ++run->count);
    if (pm_unlikely(method)) kmsg->flags = KMSG_METHOD;
    fast_copy(kmsg->inside, body, size);
    fast_link(run->port, kmsg);
    run->bytes += size;
    return true;
}

static pm_inline void sending_end(const struct sending *run) {
    fast_queued(run->ipc, run->space, run->port, run->count, run->bytes);
}

struct receiving {
    struct ipc *ipc;
    struct mac *mac;                    /* NULL: nothing is decided */
    struct port *port;
    struct space *sender;               /* of the last ones */
    uint32_t ssid, sid, count, from_sender;     /* sid: that of senders last asked about; from_sender: of the count, since it is this one */
    uint64_t bytes, charge;             /* charge: of from_sender */
};

/* With the lock. False: nothing was touched. */
static pm_inline bool receiving_begin(struct receiving *run, struct pm_task *task, uint32_t name) {
    struct pm_kernel *kernel = task->kernel;
    struct space *space = &task->space;
    struct entry *entry = fast_entry(space, name, MACH_PORT_TYPE_RECEIVE, MACH_PORT_TYPE_RECEIVE);
    if (!entry || kernel->no_fast_path || kernel->trace.on) return false;
    struct port *port = entry->object;
    struct mac *mac = kernel->mac.active ? &kernel->mac : NULL;
    if (port->flags & (PORT_SLOW & ~PORT_INTERFACE)) return false;
    if (mac && hint_ask(mac, &entry->hint, space->id, space->sid, port->sid, PM_MACH_PORT__use_recv) != HINT_QUIET) return false;
    *run = (struct receiving){.ipc = &kernel->ipc, .mac = mac, .port = port, .ssid = space->sid};
    return true;
}

static pm_inline void receiving_relieve(struct receiving *run) {
    if (run->sender) fast_relieve(run->sender, run->from_sender, run->charge);
    run->from_sender = 0;
    run->charge = 0;
}

/* Whether this message is from who may be received from, and is not the last that refers to its sender. */
static pm_inline bool receiving_from(struct receiving *run, const struct kmsg *kmsg) {
    if (pm_unlikely(kmsg->sender != run->sender)) {
        receiving_relieve(run);
        run->sender = kmsg->sender;
    }
    if (pm_unlikely(run->sender->refs <= run->from_sender + 1)) return false;
    if (!run->mac || (kmsg->sid == run->sid && run->sid)) return true;
    run->sid = kmsg->sid;
    struct hint *recent = mac_recent(run->mac, run->ssid, run->sid);
    return hint_ask(run->mac, recent, 0, run->ssid, run->sid, PM_MACH_PORT__recv) == HINT_QUIET;
}

/* The first message, which is no longer queued; NULL: nothing was touched, and the run is over. */
static pm_inline struct kmsg *receiving_next(struct receiving *run, uint64_t capacity) {
    struct port *port = run->port;
    struct kmsg *kmsg = port->first;
    if (!kmsg || !fast_message(kmsg, port, run->count) || kmsg->size > capacity || method_outdated(run->ipc, port, kmsg)) return NULL;
    if (!receiving_from(run, kmsg)) return NULL;
    fast_unlink(port, kmsg);
    run->count++;
    run->from_sender++;
    run->bytes += kmsg->size;
    run->charge += kmsg->charge;
    return kmsg;
}

static pm_inline void receiving_end(struct receiving *run) {
    fast_dequeued(run->ipc, run->port, run->count, run->bytes);
    receiving_relieve(run);
}

#endif
