/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A port is in one of three states:
 *   received    PORT_ACTIVE                    receiver and receiver_name say who holds the receive right
 *   in transit  PORT_ACTIVE | PORT_IN_TRANSIT  destination is the port to which the message with the right was sent
 *   dead        neither                        only names and rights that nobody cleaned up yet refer to it
 *
 * refs counts pointers from anywhere. srights counts send rights: one for each name that has some, one for each in a message or
 * kept by the kernel. sorights counts send-once rights. Only right.c writes these two.
 */
#ifndef PM_PORT_H
#define PM_PORT_H

#include "ipc/ipc.h"

enum port_flag {
    PORT_ACTIVE = 1, PORT_IN_TRANSIT = 2,
    PORT_RECEIVERS_WAIT = 4, PORT_SENDERS_WAIT = 8, PORT_IN_SETS = 16, PORT_EVENT = 32, PORT_HANDLER = 64,
    PORT_INTERFACE = 128, PORT_SEND_POSSIBLE = 256,
    PORT_TELLS = 512,                   /* somebody asked to be told of the next message */
    PORT_GUARDED = 1024, PORT_STRICT = 2048, PORT_IMMOVABLE = 4096, PORT_TEMPOWNER = 8192, PORT_IMPORTANCE = 16384,
    PORT_DENAP = 32768,
    PORT_REPLY = 65536,                 /* gives send-once rights and nothing else */
    PORT_ENFORCES_REPLY = 131072,       /* takes no reply right but one made from such a port */
    /* Anything in the way of the shortest path. */
    PORT_SLOW = PORT_RECEIVERS_WAIT | PORT_SENDERS_WAIT | PORT_IN_SETS | PORT_EVENT | PORT_HANDLER | PORT_INTERFACE |
                PORT_SEND_POSSIBLE | PORT_TELLS
};

struct event { int read_fd, write_fd; };        /* read_fd -1: none */

/* What most ports never have. */
struct port_extra {
    struct list senders, receivers;             /* struct waiter */
    struct request *requests;
    struct set_link *sets;
    struct port *no_senders, *port_destroyed, *message;     /* send-once rights */
    struct cargo *destroyed_cargo;              /* for the receive right in that notification */
    pm_handler handler;
    void *handler_context;
    struct event event;
    uint64_t outdated;                          /* transfers up to this one were judged by another label or interface */
};

/* What every port has, and the path of a message does not touch. */
struct port_rest {
    uint64_t id;
    union { struct space *receiver; struct port *destination; };
    struct space *payer;
    uint64_t context;
    uint32_t receiver_name, mscount, interface;
    uint32_t trace_owner, trace_kind;
    int32_t trace_number;
};

/* A cache line. */
struct port {
    uint32_t refs, flags, sid, qlimit, srights, sorights, seqno, msgcount;
    struct kmsg *first, *last;
    struct port_extra *extra;                   /* NULL: none */
    struct port_rest *rest;                     /* NULL: a free piece of the pool */
};

/* The right that a message carries in place of one to a port that is dead: MACH_PORT_DEAD. */
#define PORT_DEAD ((struct port *)~(uintptr_t)0)
static inline bool port_valid(const struct port *port) { return port && port != PORT_DEAD; }
/* For whoever walks the pool: a piece that is a port. Free pieces may be poisoned, so only `rest` is looked at. */
bool port_is_live(const struct port *port);
static inline bool port_active(const struct port *port) { return port->flags & PORT_ACTIVE; }
static inline bool port_received(const struct port *port) {
    return (port->flags & (PORT_ACTIVE | PORT_IN_TRANSIT)) == PORT_ACTIVE;
}
static inline void port_ref(struct port *port) { port->refs++; }

/*
 * Purpose: a new port with no rights to it, charged to payer.
 * Conditions: takes a reference on sid and payer.
 * Returns: a port with one reference, the caller's; NULL where memory is short.
 */
struct port *port_create(struct ipc *ipc, struct space *payer, uint32_t sid) pm_must_check;
void port_unref(struct ipc *ipc, struct port *port);
bool port_extra_reserve(struct ipc *ipc, struct port *port) pm_must_check;
static inline struct set_link *port_sets(const struct port *port) { return port->extra ? port->extra->sets : NULL; }
static inline struct request *port_requests(const struct port *port) { return port->extra ? port->extra->requests : NULL; }
/* Label or interface are about to change: what is queued, or on its way to a handler, has to be judged again. False: no memory. */
bool port_outdate(struct ipc *ipc, struct port *port) pm_must_check;
void port_relabel(struct ipc *ipc, struct port *port, uint32_t sid);    /* takes a reference on sid */
void port_set_receiver(struct port *port, struct space *space, uint32_t name);
/* Would a receive right of `port`, inside a message to `dest`, never be reached again? */
bool port_circular(const struct port *port, const struct port *dest);

/*
 * Purpose: the receive right is no more: wake who waits, leave sets, doom the queue; requests fire when it is destroyed.
 * Conditions: port active; consumes the reference of the receive right.
 */
void port_die(struct ipc *ipc, struct port *port, struct after *after);
/* The receive right leaves a space, to be put into a message: counts and guard begin anew. */
void port_leave(struct ipc *ipc, struct port *port, struct after *after);

bool event_open(struct event *event) pm_must_check;
void event_close(struct event *event);
void event_signal(const struct event *event);
void event_clear(const struct event *event);

#endif
