/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/mqueue.h"

#include "ipc/notify.h"
#include "ipc/pset.h"

int mqueue_room(const struct port *port, uint8_t dest_type) {
    if (dest_type == MACH_MSG_TYPE_PORT_SEND_ONCE) return port->msgcount < PM_QUEUE_MAX ? 0 : MACH_SEND_NO_BUFFER;
    return port->msgcount < port->qlimit ? 0 : MACH_SEND_TIMED_OUT;
}

static void announce(struct port *port) {
    if (port->flags & PORT_RECEIVERS_WAIT) waiters_wake_first(&port->extra->receivers);
    if (port->flags & PORT_EVENT) event_signal(&port->extra->event);
    if (port->flags & PORT_IN_SETS) psets_ready(port);
}

/* Once: who was told asks again. */
static void tell(struct ipc *ipc, struct port *port, struct after *after) {
    struct port *notify = port->extra->message;
    port->extra->message = NULL;
    port->flags &= ~(uint32_t)PORT_TELLS;
    notify_name(ipc, notify, PM_NOTIFY_MESSAGE, port->rest->receiver_name, after);
}

static void hand_over(struct kmsg *kmsg, struct after *after) {
    *after->handled_end = kmsg;
    after->handled_end = &kmsg->next;
}

void mqueue_append(struct ipc *ipc, struct kmsg *kmsg) {
    struct port *port = kmsg->dest;
    kmsg->next = NULL;
    if (port->last) port->last->next = kmsg;
    else port->first = kmsg;
    port->last = kmsg;
    port->msgcount++;
    ipc->messages++;
    ipc->bytes += kmsg->size;
}

void mqueue_post(struct ipc *ipc, struct kmsg *kmsg, struct after *after) {
    lock_assert_held(ipc->lock);
    struct port *port = kmsg->dest;
    if (port->flags & PORT_HANDLER) {
        kmsg->next = NULL;
        hand_over(kmsg, after);
        return;
    }
    mqueue_append(ipc, kmsg);
    if (port->flags & (PORT_RECEIVERS_WAIT | PORT_EVENT | PORT_IN_SETS)) announce(port);
    if (port->flags & PORT_TELLS) tell(ipc, port, after);
}

bool mqueue_advance(struct port *port, const struct kmsg *kmsg) {
    struct kmsg *before = NULL, *found = port->first;
    while (found && found != kmsg) before = found, found = found->next;
    if (!found || !before) return found != NULL;
    before->next = found->next;
    if (!before->next) port->last = before;
    found->next = port->first;
    port->first = found;
    return true;
}

struct kmsg *mqueue_take(struct ipc *ipc, struct port *port, struct after *after) {
    lock_assert_held(ipc->lock);
    struct kmsg *kmsg = port->first;
    port->first = kmsg->next;
    if (!port->first) port->last = NULL;
    port->msgcount--;
    ipc->messages--;
    ipc->bytes -= kmsg->size;
    kmsg_uncharge(kmsg);
    if (!port->first && (port->flags & PORT_EVENT)) event_clear(&port->extra->event);
    if (!port->first && (port->flags & PORT_IN_SETS)) psets_drained(port);
    if (port->flags & (PORT_SENDERS_WAIT | PORT_SEND_POSSIBLE)) mqueue_has_room(ipc, port, after);
    return kmsg;
}

static void wake_one(struct waiter *waiter) {
    waiter->woken = true;
    sleeper_wake(&waiter->sleeper);
}

/* One sender for each free place; who was woken and has not run yet counts. */
static void wake_senders(struct port *port) {
    uint32_t places = port->qlimit > port->msgcount ? port->qlimit - port->msgcount : 0;
    list_each(&port->extra->senders, node) {
        if (!places--) return;
        struct waiter *waiter = container_of(node, struct waiter, in_queue);
        if (waiter->woken) continue;
        wake_one(waiter);
    }
}

void mqueue_has_room(struct ipc *ipc, struct port *port, struct after *after) {
    if (port->flags & PORT_SENDERS_WAIT) wake_senders(port);
    if ((port->flags & PORT_SEND_POSSIBLE) && port->msgcount < port->qlimit) requests_send_possible(ipc, port, after);
}

void waiter_enter(struct waiter *waiter, struct list *queue, struct space *space) {
    waiter->woken = false;
    waiter->code = 0;
    sleeper_init(&waiter->sleeper);
    list_append(queue, &waiter->in_queue);
    list_append(&space->waiters, &waiter->in_space);
}

void waiter_again(struct waiter *waiter) {
    sleeper_destroy(&waiter->sleeper);
    sleeper_init(&waiter->sleeper);
    waiter->woken = false;
}

void waiter_leave(struct waiter *waiter) {
    list_remove(&waiter->in_queue);
    list_remove(&waiter->in_space);
    sleeper_destroy(&waiter->sleeper);
}

void waiters_wake_first(struct list *queue) {
    list_each(queue, node) {
        struct waiter *waiter = container_of(node, struct waiter, in_queue);
        if (waiter->woken) continue;
        wake_one(waiter);
        return;
    }
}

void waiters_wake_all(struct list *queue, int code) {
    list_each_safe(queue, node, after) {
        struct waiter *waiter = container_of(node, struct waiter, in_queue);
        list_remove(node);
        waiter->code = code;
        wake_one(waiter);
    }
}
