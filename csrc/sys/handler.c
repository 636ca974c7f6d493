/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handler ports: a message to one is not queued; it is received by the port's owner and given to the handler in the call
 * of whoever sent it, once the lock is dropped. Everything asked of a receiver is asked of the owner, but for what the kernel
 * tells, which is asked of nobody.
 */
#include "sys/msg.h"

/* How many handlers this thread is inside of, whatever the kernel: what is bounded is the stack. */
static _Thread_local unsigned depth;

bool handler_too_deep(void) { return depth >= PM_HANDLER_DEPTH; }

struct handling {
    struct pm_task *owner;              /* NULL: nobody will handle the message */
    uint32_t name;
    const struct kmsg *kmsg;            /* others may wait beside it: each sender has its own handled */
    pm_handler handler;
    void *context;
};

/* Takes the message that could not be received off the queue again. */
static void discard(struct pm_kernel *kernel, const struct handling *handling) {
    struct after after;
    after_init(&after);
    kernel_lock(kernel);
    struct entry *entry = space_lookup(&kernel->ipc, &handling->owner->space, handling->name);
    struct port *port = entry && entry_type(entry) & MACH_PORT_TYPE_RECEIVE ? entry->object : NULL;
    if (port && mqueue_advance(port, handling->kmsg)) after_doom(&after, mqueue_take(&kernel->ipc, port, &after));
    kernel_leave(kernel, &after);
}

static void run_handler(struct pm_kernel *kernel, const struct handling *handling) {
    struct pm_task *owner = handling->owner;
    struct receive receive = {.name = handling->name, .need = need_nothing, .handled = handling->kmsg};
    struct pm_received received;
    int code = call_init(&receive.call, owner, owner, PM_OP_RECEIVE, handling->name);
    if (!code) code = receive_run(&receive, NULL);
    if (!receive.kmsg) {
        if (code != MACH_RCV_INVALID_DATA && code != MACH_RCV_TIMED_OUT) discard(kernel, handling);
        return;
    }
    received_fill(&received, &receive);
    depth++;
    if (handling->handler(handling->context, &received)) {
        pm_message_refuse(owner, &received);
        __atomic_add_fetch(&kernel->ipc.handler_failures, 1, __ATOMIC_RELAXED);
    }
    depth--;
    pm_message_free(received.message);
}

/* Queues the message for the port's owner, unless the port died, lost its handler, or the stack is deep enough. */
static struct handling dispatch(struct pm_kernel *kernel, struct kmsg *kmsg, struct after *after) {
    struct port *port = kmsg->dest;
    struct handling handling = {0};
    bool deep = handler_too_deep(), handled = port_active(port) && port->flags & PORT_HANDLER;
    kernel->ipc.handler_too_deep += deep;
    if (deep || !handled) {
        after_doom(after, kmsg);
        return handling;
    }
    handling = (struct handling){task_of(port->rest->receiver), port->rest->receiver_name, kmsg, port->extra->handler,
                                 port->extra->handler_context};
    space_ref(port->rest->receiver);
    mqueue_append(&kernel->ipc, kmsg);
    return handling;
}

static struct kmsg *next_message(struct after *after) {
    struct kmsg *kmsg = after->handled;
    after->handled = kmsg->next;
    if (!after->handled) {
        after->handled_end = &after->handled;
        list_remove(&after->pending);
    }
    return kmsg;
}

static void handle_one(struct pm_kernel *kernel, struct after *after) {
    struct after follows;
    after_init(&follows);
    kernel_lock(kernel);
    struct handling handling = dispatch(kernel, next_message(after), &follows);
    kernel_leave(kernel, &follows);
    if (!handling.owner) return;
    run_handler(kernel, &handling);
    kernel_lock(kernel);
    space_unref(&kernel->ipc, &handling.owner->space);
    kernel_unlock(kernel);
}

void handlers_run(struct pm_kernel *kernel, struct after *after) {
    while (after->handled) handle_one(kernel, after);
}
