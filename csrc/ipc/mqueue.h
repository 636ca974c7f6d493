/* SPDX-License-Identifier: BSD-2-Clause */
/* The queue of a port, and who waits for it: reserve and post, peek and take. */
#ifndef PM_MQUEUE_H
#define PM_MQUEUE_H

#include "base/lock.h"
#include "ipc/kmsg.h"

/* A thread that waits, on its own stack. It stays in the lists until it leaves them itself, so it keeps its turn. */
struct waiter {
    struct list in_queue, in_space;
    struct sleeper sleeper;
    bool woken;
    int code;                           /* why it was woken for good: MACH_RCV_PORT_DIED and so on; 0: look again */
};

/* Is there room for one more message that comes by this type of right? 0, MACH_SEND_TIMED_OUT (full), MACH_SEND_NO_BUFFER. */
int mqueue_room(const struct port *port, uint8_t dest_type);
/* Queues a message, whose right to dest is counted already; wakes who waits. */
void mqueue_post(struct ipc *ipc, struct kmsg *kmsg, struct after *after);
/* Queues without telling anyone: a message to a handler, whose turn has come. */
void mqueue_append(struct ipc *ipc, struct kmsg *kmsg);
/* Puts a message at the head of the queue; false where it is not in there any more. */
bool mqueue_advance(struct port *port, const struct kmsg *kmsg);
/* Takes the first message: the queue has room again. The right to the port stays with the message. */
struct kmsg *mqueue_take(struct ipc *ipc, struct port *port, struct after *after);
/* The queue has room: wakes blocked senders, fires send-possible requests. */
void mqueue_has_room(struct ipc *ipc, struct port *port, struct after *after);

void waiter_enter(struct waiter *waiter, struct list *queue, struct space *space);
/* Was woken, found nothing, and will sleep again in the same place. */
void waiter_again(struct waiter *waiter);
void waiter_leave(struct waiter *waiter);
void waiters_wake_first(struct list *queue);
void waiters_wake_all(struct list *queue, int code);

#endif
