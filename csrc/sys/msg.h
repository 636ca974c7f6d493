/* SPDX-License-Identifier: BSD-2-Clause */
/* The path of a message, for those who speak it: the short calls (sys_msg.c) and the wire (sys_wire.c). */
#ifndef PM_MSG_H
#define PM_MSG_H

#include <string.h>

#include "sys/call.h"

/* Does this disposition make a right that one can send by? */
bool disposition_sends(uint32_t disposition);

/* A message to be sent. The kmsg carries body and cargo; rights in the cargo are names and dispositions still. */
struct send {
    struct call call;
    uint32_t dest, dest_disposition, reply, reply_disposition, option, effective_sid;
    bool carries_memory, waited;
    bool hand_back;                     /* pseudo-receive: what Mach does with a message that found no room */
    struct kmsg *kmsg;
    /* made by the attempt, valid while the lock is held */
    struct entry *dest_entry, *reply_entry;
    struct port *dest_port;
    const struct disposition *dest_how, *reply_how;
    uint32_t made_send_once;
    bool circular;                      /* needs no room in a queue that it will never see */
    /* a message handed back: names again, and the dispositions of rights received */
    bool handed_back;
    uint32_t dest_name, reply_name;
};

/* A message to be received. */
struct receive {
    struct call call;
    uint32_t name, effective_sid;
    uint64_t room;                      /* a larger message is left alone, MACH_RCV_TOO_LARGE */
    uint64_t (*need)(const struct receive *receive, const struct kmsg *kmsg);   /* of that room */
    bool discard_too_large;             /* or destroyed, but for its header */
    const struct kmsg *handled;         /* this one, for a handler; NULL: whichever is first */
    struct kmsg *kmsg;                  /* received: the caller's, to be freed */
    uint32_t local, seqno, reply, reply_disposition, denied, needed;
    struct method method;               /* what the message asked for */
    bool permitted;                     /* by policy, or there is none */
    uint64_t context;
    int32_t too_large_id;
};

/* ---- methods ---- */

#define PM_METHOD_UNKNOWN 0x80000000u   /* of an interface's class: the permission for ids that it does not know */
/* The class and permission that a message is about; mach_port and none where its port serves no interface that knows it. */
struct method method_of(const struct pm_kernel *kernel, const struct port *port, const struct kmsg *kmsg);
/*
 * Purpose: may call's subject call the method? Notes in kmsg what else it may do, and whether a policy grants the method itself:
 * that of a permissive one lets it pass without. A server that trusts these fails closed.
 */
enum mac_verdict method_judge(struct call *call, const struct port *port, struct kmsg *kmsg, const struct mac_site *site);
/* For the receiver of a queued message: the same of its sender, if what was found at the send need not hold any more. */
enum mac_verdict method_judge_again(struct call *call, const struct port *port, struct kmsg *kmsg);
static inline bool method_outdated(const struct ipc *ipc, const struct port *port, const struct kmsg *kmsg) {
    return kmsg->transfer <= ipc->outdated || (port->extra && kmsg->transfer <= port->extra->outdated);
}

/* All but the call, which is large and which call_init() sets, begins at zero. */
static inline void receive_init(struct receive *receive, uint32_t name) {
    memset((char *)receive + sizeof receive->call, 0, sizeof *receive - sizeof receive->call);
    receive->call.done = false;
    receive->name = name;
}

/* May this call wait at all; and until when, by monotonic_ns, -1 for ever. */
bool may_wait(const struct pm_kernel *kernel, const struct pm_wait *wait);
int64_t deadline_of(const struct pm_wait *wait);
/* What is left of a wait, in *rest; NULL stays NULL. */
const struct pm_wait *rest_of(const struct pm_wait *wait, int64_t deadline, struct pm_wait *rest);
/* Without the lock: sleeps until woken, until the deadline, or until the waiter has had enough. */
enum sleep_outcome { SLEPT, SLEPT_TOO_LONG, SLEPT_INTERRUPTED };
enum sleep_outcome sleep_on(struct sleeper *sleeper, const struct pm_wait *wait, int64_t deadline);
/* A place in a queue of waiters, kept until the call ends: who is woken and finds nothing has not lost its turn. */
struct turn {
    const struct pm_wait *wait;
    int64_t deadline;                   /* 0: never waited */
    struct list *queue;                 /* NULL: in none, or the set it belongs to is gone */
    struct port *port;                  /* whose queue it is, with a reference; NULL where it is a set's */
    struct waiter waiter;
};
static inline void turn_init(struct turn *turn, const struct pm_wait *wait) {
    turn->wait = wait;
    turn->deadline = 0;
    turn->queue = NULL;
}
/* Gets in line, or stays where it is. */
void turn_take(struct ipc *ipc, struct turn *turn, struct list *queue, struct port *port, struct space *space);
void turn_leave(struct ipc *ipc, struct turn *turn);
/*
 * Purpose: sleep until there is reason to look again.
 * Conditions: locked on entry and exit, not between. A set may be gone after, a port is kept.
 * Returns: 0, or the code that ends the wait.
 */
int turn_sleep(struct pm_kernel *kernel, struct turn *turn, int timed_out, int interrupted);

/* Takes send->kmsg on success; on any code it is still there and holds nothing but memory. */
int send_run(struct send *send, const struct pm_wait *wait);
int receive_run(struct receive *receive, const struct pm_wait *wait);
/* With the lock: what is said of the message beside its rights, as it leaves the queue of port. */
void receive_describe(const struct pm_kernel *kernel, struct receive *receive, const struct port *port);
/* pm_send_message(), which also tells the number of the transfer. */
int send_message(struct pm_task *task, const struct pm_send_spec *spec, const struct pm_wait *wait, uint64_t *transfer);
/* Frees a message that was not sent. */
void message_drop(struct pm_kernel *kernel, struct kmsg *kmsg);
/* Frees a message that was received; it held a reference on the kernel. */
void message_received(struct pm_kernel *kernel, struct kmsg *kmsg);
/* pm_receive_message() and pm_receive() by the defining path. */
int receive_message(struct pm_task *task, uint32_t name, uint32_t effective_sid, struct pm_received *received,
                    const struct pm_wait *wait);
int64_t receive_bytes(struct pm_task *task, uint32_t name, void *body, uint64_t capacity, const struct pm_wait *wait);
/* For a receive that takes any size. */
uint64_t need_nothing(const struct receive *receive, const struct kmsg *kmsg);
void received_fill(struct pm_received *received, const struct receive *receive);

#endif
