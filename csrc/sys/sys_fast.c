/* SPDX-License-Identifier: BSD-2-Clause */
/* One message by the shortest path, or by the defining one. */
#include "sys/fast.h"

/* Apart, so that the fast path has no large frame. */
static pm_noinline int send_slowly(struct pm_task *task, uint32_t dest, const void *body, uint64_t size, int32_t msgh_id,
                                   const struct pm_wait *wait) {
    struct pm_send_spec spec = {.dest = dest, .body = body, .size = size, .msgh_id = msgh_id};
    return pm_send_message(task, &spec, wait);
}

int pm_send(struct pm_task *task, uint32_t dest, const void *body, uint64_t size, int32_t msgh_id,
            const struct pm_wait *wait) {
    if (pm_unlikely(!task)) return KERN_INVALID_TASK;
    struct pm_kernel *kernel = task->kernel;
    if (pm_likely(size <= BODY_POOLED && (body || !size)) && !kernel_forked(kernel) && pm_likely(!kernel->no_fast_path)) {
        kernel_lock(kernel);
        bool sent = fast_send(task, dest, body, size, msgh_id);
        kernel_unlock(kernel);
        if (pm_likely(sent)) return 0;
    }
    return send_slowly(task, dest, body, size, msgh_id, wait);
}

int64_t pm_receive(struct pm_task *task, uint32_t name, void *body, uint64_t capacity, const struct pm_wait *wait) {
    if (pm_unlikely(!task)) return -(int64_t)KERN_INVALID_TASK;
    struct pm_kernel *kernel = task->kernel;
    if (!kernel_forked(kernel) && pm_likely(!kernel->no_fast_path) && (body || !capacity)) {
        kernel_lock(kernel);
        int64_t size = fast_receive(task, name, body, capacity);
        kernel_unlock(kernel);
        if (pm_likely(size >= 0)) return size;
    }
    if (!body && capacity) return -(int64_t)KERN_INVALID_ARGUMENT;
    return receive_bytes(task, name, body, capacity, wait);
}

/* With the lock. A message in *receive, as the defining path would leave it there, or false with nothing touched. */
static inline bool fast_receive_message(struct pm_task *task, uint32_t name, struct receive *receive) {
    struct entry *entry = fast_find(task, name, UINT64_MAX);
    if (!entry) return false;
    const struct port *port = entry->object;
    receive->kmsg = fast_take(task->kernel, &task->space, entry);
    receive->kmsg->dest = NULL;
    receive->kmsg->charge = 0;
    receive->local = name;
    receive->reply_disposition = receive->kmsg->reply_type;     /* also where the name is null */
    receive->seqno = port->seqno - 1;
    receive->context = port->flags & PORT_STRICT ? 0 : port->rest->context;
    receive_describe(task->kernel, receive, port);
    task->kernel->refs++;
    return true;
}

int pm_receive_message(struct pm_task *task, uint32_t name, uint32_t effective_sid, struct pm_received *received,
                       const struct pm_wait *wait) {
    if (pm_unlikely(!task)) return KERN_INVALID_TASK;
    struct pm_kernel *kernel = task->kernel;
    if (!kernel_forked(kernel) && pm_likely(!kernel->no_fast_path) && !effective_sid) {
        struct receive receive;
        receive_init(&receive, name);
        kernel_lock(kernel);
        bool found = fast_receive_message(task, name, &receive);
        kernel_unlock(kernel);
        if (pm_likely(found)) {
            received_fill(received, &receive);
            return 0;
        }
    }
    return receive_message(task, name, effective_sid, received, wait);
}
