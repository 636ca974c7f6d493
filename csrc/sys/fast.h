/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shortest path: few bytes, a copied send right, no one waiting, the decision remembered. Every precondition that fails
 * leaves everything untouched for send.c and receive.c, which define what a send and a receive are. Both paths run against the model.
 * What goes by it, one message at a time or many: sys_fast.c and sys_batch.c.
 */
#ifndef PM_FAST_H
#define PM_FAST_H

#include <string.h>

#include "sys/msg.h"

#define SEND_NEEDS (PM_MACH_PORT__send | PM_MACH_PORT__copy_send)
#define RECEIVE_NEEDS (PM_MACH_PORT__use_recv | PM_MACH_PORT__recv)

/* The entry of exactly this type, through one comparison; NULL otherwise. */
static inline struct entry *fast_entry(const struct space *space, uint32_t name, uint32_t type, uint32_t mask) {
    uint32_t index = name >> 8;
    if (pm_unlikely(index >= space->used)) return NULL;
    struct entry *entry = &space->table[index];
    return pm_likely((entry->bits & (mask | ENTRY_GENERATION)) == (type | (name & ENTRY_GENERATION))) ? entry : NULL;
}

static inline void fast_trace(struct pm_kernel *kernel, struct space *space, struct entry *entry, const struct port *port,
                              uint32_t event) {
    if (pm_unlikely(entry->trace_stamp != kernel->trace.stamp)) trace_event(kernel, space, entry, port, event);
    else trace_count(&kernel->trace, entry->trace_path, event);
}

/* Apart, so that who traces nothing has it out of the way. */
static pm_noinline void fast_trace_send(struct pm_task *task, struct entry *entry) {
    fast_trace(task->kernel, &task->space, entry, entry->object, PM_EVENT_SEND);
    fast_trace(task->kernel, &task->space, entry, entry->object, PM_EVENT_COPY_SEND);
}

/* A small copy without a call, which would cost more than the copy. */
static inline void fast_copy(char *to, const char *from, size_t size) {
    if (pm_unlikely(size > KMSG_INLINE)) {
        memcpy(to, from, size);
        return;
    }
    if (pm_unlikely(size < 16)) {
        for (size_t i = 0; i < size; i++) to[i] = from[i];
        return;
    }
    for (size_t i = 0; i < size - 16; i += 16) memcpy(to + i, from + i, 16);
    memcpy(to + size - 16, from + size - 16, 16);
}

/* Writes in place what mac.c would: one record of a send; one of a receive, for its two questions. Every field is named:
 * clearing the slot first would cost as much as filling it. */
static inline void fast_describe(struct pm_audit_record *record, struct pm_kernel *kernel, const struct space *space,
                                 const struct entry *entry, const struct kmsg *kmsg, bool receives, uint64_t sequence) {
    *record = (struct pm_audit_record){
        .sequence = sequence, .time = pm_kernel_time(kernel), .transfer = kmsg->transfer,
        .provenance = entry->provenance, .port = kmsg->dest->rest->id, .real_sid = space->sid, .effective_sid = space->sid,
        .object_sid = kmsg->dest->sid, .peer_sid = receives ? kmsg->sid : 0, .task = space->id,
        .name = entry_name(space, entry), .tclass = PM_CLASS_MACH_PORT,
        .operation = receives ? PM_OP_RECEIVE : PM_OP_SEND, .asked = receives ? RECEIVE_NEEDS : SEND_NEEDS,
        .msgh_id = kmsg->msgh_id, .size = kmsg->size, .epoch = kernel->mac.epoch,
        .flags = receives ? PM_AUDIT_RECEIVE : 0, .denied = 0, .report = 0, .result = 0};
}

static inline void fast_record(struct pm_kernel *kernel, const struct space *space, const struct entry *entry,
                               const struct kmsg *kmsg, bool receives) {
    struct audit *audit = &kernel->mac.audit;
    fast_describe(audit_next(audit), kernel, space, entry, kmsg, receives, audit->sequence++);
}

/* The same, if it is kept. Apart: who samples nothing pays nothing. */
static pm_noinline void fast_sample(struct pm_kernel *kernel, const struct space *space, const struct entry *entry,
                                    const struct kmsg *kmsg, bool receives) {
    struct audit *audit = &kernel->mac.audit;
    struct sample_event event = {.ssid = space->sid, .tsid = kmsg->dest->sid, .peer_sid = receives ? kmsg->sid : 0, .tclass = PM_CLASS_MACH_PORT,
                                 .asked = receives ? RECEIVE_NEEDS : SEND_NEEDS,
                                 .operation = receives ? PM_OP_RECEIVE : PM_OP_SEND, .size = kmsg->size,
                                 .msgh_id = kmsg->msgh_id, .certain = false};
    uint32_t weight;
    if (!sample_admits(&audit->sample, &event, &weight)) return;
    struct pm_audit_record *record = audit_next(audit);
    fast_describe(record, kernel, space, entry, kmsg, receives, audit->sequence++);
    record->flags |= weight;
}

static inline void fast_link(struct port *port, struct kmsg *kmsg) {
    if (port->last) port->last->next = kmsg;
    else port->first = kmsg;
    port->last = kmsg;
}

/* What is counted of messages that `space` has queued. */
static inline void fast_queued(struct ipc *ipc, struct space *space, struct port *port, uint32_t count, uint64_t bytes) {
    port->msgcount += count;
    port->srights += count;
    port->refs += count;
    ipc->messages += count;
    ipc->bytes += bytes;
    ipc->sent += count;
    ipc->transfers += count;
    space->in_flight += count;
    space->usage.queued_bytes += bytes;
    space->refs += count;
}

/* A message with room for a body of at most BODY_POOLED; NULL: memory is short, and nothing was touched. */
static pm_noinline struct kmsg *fast_alloc_large(struct ipc *ipc, uint64_t size) {
    struct kmsg *kmsg = pool_take(&ipc->kmsgs);
    if (!kmsg) return NULL;
    kmsg->body = pool_take(body_pool(ipc, size));
    if (kmsg->body) return kmsg;
    pool_give(&ipc->kmsgs, kmsg);
    return NULL;
}

static inline struct kmsg *fast_alloc(struct ipc *ipc, uint64_t size) {
    if (pm_unlikely(size > KMSG_INLINE)) return fast_alloc_large(ipc, size);
    struct kmsg *kmsg = pool_take(&ipc->kmsgs);
    if (pm_likely(kmsg)) kmsg->body = kmsg->inside;
    return kmsg;
}

static inline void fast_fill(struct kmsg *kmsg, struct ipc *ipc, struct space *space, struct port *port, uint32_t size,
                             int32_t msgh_id, uint32_t access, uint64_t transfer) {
    kmsg->next = NULL;
    kmsg->reply = NULL;
    kmsg->cargo = NULL;
    kmsg->voucher = 0;
    kmsg->dest_type = MACH_MSG_TYPE_PORT_SEND;
    kmsg->reply_type = 0;
    kmsg->flags = 0;
    kmsg->dest = port;
    kmsg->sender = space;
    kmsg->transfer = transfer;
    kmsg->size = size;
    kmsg->sid = kmsg->real_sid = space->sid;
    kmsg->access = access;
    kmsg->msgh_id = msgh_id;
    kmsg->charge = size;
    kmsg->ipc = ipc;
}

/* The decision is made. False: memory is short, and nothing was touched. */
static pm_inline bool fast_post(struct pm_task *task, struct entry *entry, const void *body, uint64_t size, int32_t msgh_id,
                                uint32_t access, bool recorded) {
    struct pm_kernel *kernel = task->kernel;
    struct port *port = entry->object;
    struct kmsg *kmsg = fast_alloc(&kernel->ipc, size);
    if (pm_unlikely(!kmsg)) return false;
    fast_fill(kmsg, &kernel->ipc, &task->space, port, (uint32_t)size, msgh_id, access, kernel->ipc.transfers + 1);
    fast_copy(kmsg->body, body, size);
    fast_link(port, kmsg);
    fast_queued(&kernel->ipc, &task->space, port, 1, size);
    if (pm_unlikely(kernel->trace.on)) fast_trace_send(task, entry);
    if (recorded) fast_record(kernel, &task->space, entry, kmsg, false);
    return true;
}

/* Apart, so that who records nothing pays nothing. */
static pm_noinline bool fast_post_recorded(struct pm_task *task, struct entry *entry, const void *body, uint64_t size,
                                           int32_t msgh_id) {
    struct pm_kernel *kernel = task->kernel;
    bool ready = audit_ready(&kernel->mac.audit);
    if (pm_unlikely(!ready && !audit_sample_ready(&kernel->mac.audit))) return false;
    if (!fast_post(task, entry, body, size, msgh_id, entry->hint.allowed, ready)) return false;
    if (!ready) fast_sample(kernel, &task->space, entry, ((struct port *)entry->object)->last, false);
    return true;
}

/* The entry of a send right to a port that takes a message now, by this path; or NULL. */
static pm_inline struct entry *fast_sendable(struct space *space, uint32_t dest) {
    struct entry *entry = fast_entry(space, dest, MACH_PORT_TYPE_SEND, ENTRY_TYPES & ~MACH_PORT_TYPE_RECEIVE);
    if (!entry) return NULL;
    const struct port *port = entry->object;
    if ((port->flags & ((PORT_SLOW & ~PORT_INTERFACE) | PORT_ACTIVE)) != PORT_ACTIVE || port->msgcount >= port->qlimit) return NULL;
    return pm_likely(!space->quota.queued_bytes) ? entry : NULL;
}

/* access: what the sender may do, as far as it is allowed and told. */
static pm_inline enum hint_answer fast_may_send(struct mac *mac, const struct space *space, struct entry *entry, uint32_t *access) {
    const struct port *port = entry->object;
    *access = UINT32_MAX;
    if (!mac->active) return HINT_QUIET;
    enum hint_answer answer = hint_ask(mac, &entry->hint, space->id, space->sid, port->sid, SEND_NEEDS);
    *access = entry->hint.allowed;
    return answer;
}

/* Of a port with an interface: may its routine be called, with nothing to be told of it. access: as the class of the routine has it. */
static pm_noinline bool fast_may_call(struct pm_kernel *kernel, const struct space *space, const struct port *port, int32_t msgh_id,
                                      uint32_t *access) {
    const struct interface *interface = interface_find(&kernel->interfaces, port->rest->interface);
    struct method method;
    *access = UINT32_MAX;
    if (!interface || !interface_method(interface, msgh_id, &method)) return false;
    if (!kernel->mac.active) return true;
    const struct method_hint *hint = mac_method(&kernel->mac, space->sid, port->sid, method.tclass);
    *access = hint->allowed;
    return hint->quiet & method.permission;
}

/* Apart, so that a port without an interface pays nothing. */
static pm_noinline bool fast_post_method(struct pm_task *task, struct entry *entry, const void *body, uint64_t size, int32_t msgh_id) {
    struct port *port = entry->object;
    uint32_t access;
    if (!fast_may_call(task->kernel, &task->space, port, msgh_id, &access)) return false;
    if (!fast_post(task, entry, body, size, msgh_id, access, false)) return false;
    port->last->flags = KMSG_METHOD;
    return true;
}

/* With the lock. False: nothing was touched. */
static pm_inline bool fast_send(struct pm_task *task, uint32_t dest, const void *body, uint64_t size, int32_t msgh_id) {
    uint32_t access;
    struct entry *entry = fast_sendable(&task->space, dest);
    if (!entry) return false;
    enum hint_answer answer = fast_may_send(&task->kernel->mac, &task->space, entry, &access);
    if (pm_unlikely(((const struct port *)entry->object)->flags & PORT_INTERFACE))
        return answer == HINT_QUIET && fast_post_method(task, entry, body, size, msgh_id);
    if (pm_likely(answer == HINT_QUIET)) return fast_post(task, entry, body, size, msgh_id, access, false);
    return answer == HINT_LOUD && fast_post_recorded(task, entry, body, size, msgh_id);
}

/* Both questions of a receive, where they have one answer. */
static inline enum hint_answer fast_may_receive(struct mac *mac, struct entry *entry, const struct space *space, uint32_t tsid,
                                                uint32_t sender) {
    uint32_t ssid = space->sid;
    enum hint_answer use = hint_ask(mac, &entry->hint, space->id, ssid, tsid, PM_MACH_PORT__use_recv);
    enum hint_answer from = hint_ask(mac, mac_recent(mac, ssid, sender), 0, ssid, sender, PM_MACH_PORT__recv);
    return use == from ? use : HINT_UNKNOWN;
}

/* What takes more than memory to take apart, or tells somebody something, is not for this path. gone: messages that are taken and
 * still counted at the port. */
static inline bool fast_message(const struct kmsg *kmsg, const struct port *port, uint32_t gone) {
    const struct space *sender = kmsg->sender;
    return !kmsg->cargo && !kmsg->reply && kmsg->size <= BODY_POOLED && kmsg->dest_type == MACH_MSG_TYPE_PORT_SEND &&
           !(kmsg->flags & KMSG_EFFECTIVE) && sender && sender->refs > 1 && !sender->past_used &&
           (port->srights > gone + 1 || !port->extra);
}

static pm_noinline bool fast_receive_recorded(struct pm_kernel *kernel, const struct space *space, const struct entry *entry,
                                              const struct kmsg *kmsg) {
    if (pm_likely(audit_ready(&kernel->mac.audit))) fast_record(kernel, space, entry, kmsg, true);
    else if (audit_sample_ready(&kernel->mac.audit)) fast_sample(kernel, space, entry, kmsg, true);
    else return false;
    return true;
}

/* With the lock: the entry whose port has a message for this path, recorded as taken; or NULL with nothing touched. */
static pm_inline struct entry *fast_find(struct pm_task *task, uint32_t name, uint64_t capacity) {
    struct pm_kernel *kernel = task->kernel;
    struct space *space = &task->space;
    struct entry *entry = fast_entry(space, name, MACH_PORT_TYPE_RECEIVE, MACH_PORT_TYPE_RECEIVE);
    if (!entry) return NULL;
    const struct port *port = entry->object;
    const struct kmsg *kmsg = port->first;
    if (port->flags & (PORT_SLOW & ~PORT_INTERFACE) || !kmsg) return NULL;
    if (!fast_message(kmsg, port, 0) || kmsg->size > capacity || method_outdated(&kernel->ipc, port, kmsg)) return NULL;
    if (!kernel->mac.active) return entry;
    enum hint_answer answer = fast_may_receive(&kernel->mac, entry, space, port->sid, kmsg->sid);
    if (pm_likely(answer == HINT_QUIET)) return entry;
    return answer == HINT_LOUD && fast_receive_recorded(kernel, space, entry, kmsg) ? entry : NULL;
}

static inline void fast_unlink(struct port *port, const struct kmsg *kmsg) {
    port->first = kmsg->next;
    if (!port->first) port->last = NULL;
}

static inline void fast_dequeued(struct ipc *ipc, struct port *port, uint32_t count, uint64_t bytes) {
    port->msgcount -= count;
    port->seqno += count;
    port->srights -= count;
    port->refs -= count;
    ipc->messages -= count;
    ipc->bytes -= bytes;
    ipc->received += count;
}

/* What messages were of a sender's that are taken, and no longer refer to it. */
static inline void fast_relieve(struct space *sender, uint32_t count, uint64_t charge) {
    sender->usage.queued_bytes -= charge;
    sender->in_flight -= count;
    sender->refs -= count;
}

static inline struct kmsg *fast_take(struct pm_kernel *kernel, struct space *space, struct entry *entry) {
    struct port *port = entry->object;
    struct kmsg *kmsg = port->first;
    if (pm_unlikely(kernel->trace.on)) fast_trace(kernel, space, entry, port, PM_EVENT_RECV);
    fast_unlink(port, kmsg);
    fast_dequeued(&kernel->ipc, port, 1, kmsg->size);
    kmsg->sender->usage.queued_bytes -= kmsg->charge;
    return kmsg;
}

static inline void fast_give(struct ipc *ipc, struct kmsg *kmsg) {
    if (pm_unlikely(kmsg->size > KMSG_INLINE)) pool_give(body_pool(ipc, kmsg->size), kmsg->body);
    pool_give(&ipc->kmsgs, kmsg);
}

/* Of a message that was taken. */
static inline void fast_free(struct ipc *ipc, struct kmsg *kmsg) {
    kmsg->sender->in_flight--;
    kmsg->sender->refs--;
    fast_give(ipc, kmsg);
}

/* With the lock. The size, or -1 with nothing touched. */
static inline int64_t fast_receive(struct pm_task *task, uint32_t name, void *body, uint64_t capacity) {
    struct entry *entry = fast_find(task, name, capacity);
    if (!entry) return -1;
    struct kmsg *kmsg = fast_take(task->kernel, &task->space, entry);
    uint32_t size = kmsg->size;
    fast_copy(body, kmsg->body, size);
    fast_free(&task->kernel->ipc, kmsg);
    return size;
}

#endif
