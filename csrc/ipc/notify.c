/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/notify.h"

#include <string.h>

#include "ipc/mqueue.h"
#include "ipc/port.h"
#include "ipc/right.h"

/* NDR: the sender's data representation, little-endian integers, ASCII, IEEE floats. */
static const uint8_t ndr_record[8] = {0, 0, 0, 0, 1, 0, 0, 0};

/* The message kept for this right, or NULL after dropping a right that leads nowhere. */
static struct kmsg *message_for(struct ipc *ipc, struct port *notify, int32_t id, uint32_t size) {
    if (!port_active(notify)) {
        right_send_once_used(ipc);
        notify->sorights--;
        port_unref(ipc, notify);
        return NULL;
    }
    struct kmsg *kmsg = pool_take_reserved(&ipc->kmsgs);
    memset(kmsg, 0, offsetof(struct kmsg, inside));
    kmsg->ipc = ipc;
    kmsg->dest = notify;
    kmsg->dest_type = MACH_MSG_TYPE_PORT_SEND_ONCE;
    kmsg->msgh_id = id;
    kmsg->size = size;
    kmsg->body = kmsg->inside;
    kmsg->flags = KMSG_KERNEL;
    return kmsg;
}

static void post(struct ipc *ipc, struct kmsg *kmsg, struct after *after) {
    ipc->notifications++;
    mqueue_post(ipc, kmsg, after);
}

void notify_send_once(struct ipc *ipc, struct port *notify, struct after *after) {
    struct kmsg *kmsg = message_for(ipc, notify, MACH_NOTIFY_SEND_ONCE, 0);
    if (kmsg) post(ipc, kmsg, after);
}

static void notify_word(struct ipc *ipc, struct port *notify, int32_t id, uint32_t word, struct after *after) {
    struct kmsg *kmsg = message_for(ipc, notify, id, sizeof ndr_record + sizeof word);
    if (!kmsg) return;
    memcpy(kmsg->body, ndr_record, sizeof ndr_record);
    memcpy(kmsg->body + sizeof ndr_record, &word, sizeof word);
    post(ipc, kmsg, after);
}

void notify_name(struct ipc *ipc, struct port *notify, int32_t id, uint32_t name, struct after *after) {
    notify_word(ipc, notify, id, name, after);
}

void notify_no_senders(struct ipc *ipc, struct port *notify, uint32_t mscount, struct after *after) {
    notify_word(ipc, notify, MACH_NOTIFY_NO_SENDERS, mscount, after);
}

void notify_port_destroyed(struct ipc *ipc, struct port *notify, struct port *port, struct cargo *cargo,
                           struct after *after) {
    if (!port_active(notify) || port_circular(port, notify)) {
        notify_send_once(ipc, notify, after);
        cargo_free(ipc, cargo);
        port_die(ipc, port, after);
        return;
    }
    struct kmsg *kmsg = message_for(ipc, notify, MACH_NOTIFY_PORT_DESTROYED, 0);
    cargo->rights[0] = (struct right_in_flight){.port = port, .disposition = MACH_MSG_TYPE_PORT_RECEIVE,
                                                .type = MACH_MSG_TYPE_PORT_RECEIVE};
    cargo->descriptors[0] = (struct descriptor){.type = MACH_MSG_PORT_DESCRIPTOR, .count = 1,
                                                .disposition = MACH_MSG_TYPE_PORT_RECEIVE};
    kmsg->cargo = cargo;
    port->rest->destination = notify;
    post(ipc, kmsg, after);
}

/* ---- requests ---- */

void request_add(struct ipc *ipc, struct request *request, struct port *port) {
    (void)ipc;
    request->next = port->extra->requests;
    request->link = &port->extra->requests;
    if (request->next) request->next->link = &request->next;
    port->extra->requests = request;
    if (request->send_possible) port->flags |= PORT_SEND_POSSIBLE;
}

void request_remove(struct request *request) {
    *request->link = request->next;
    if (request->next) request->next->link = request->link;
}

void request_free(struct ipc *ipc, struct request *request) {
    request->space->usage.notifications--;
    pool_give(&ipc->requests, request);
}

void request_name_deleted(struct ipc *ipc, struct entry *entry, uint32_t name, struct after *after) {
    struct request *request = entry->request;
    if (!request) return;
    entry->request = NULL;
    request_remove(request);
    /* A port that died in this very call is told of as dead. */
    int32_t id = entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME ? MACH_NOTIFY_DEAD_NAME : MACH_NOTIFY_PORT_DELETED;
    notify_name(ipc, request->notify, id, name, after);
    request_free(ipc, request);
}

static void add_reference(struct ipc *ipc, struct entry *entry) {
    if (entry->urefs < MACH_PORT_UREFS_MAX) entry->urefs++;
    else ipc->urefs_dropped++;
}

/* The notification carries a reference to the dead name. */
static void fire_dead_name(struct ipc *ipc, struct request *request, struct after *after) {
    struct entry *entry = space_entry(request->space, request->name);
    entry->request = NULL;
    right_bury(ipc, request->space, entry);
    add_reference(ipc, entry);
    notify_name(ipc, request->notify, MACH_NOTIFY_DEAD_NAME, request->name, after);
    request_free(ipc, request);
}

void requests_port_died(struct ipc *ipc, struct port *port, struct after *after) {
    while (port_requests(port)) {
        struct request *request = port_requests(port);
        request_remove(request);
        fire_dead_name(ipc, request, after);
    }
}

void requests_send_possible(struct ipc *ipc, struct port *port, struct after *after) {
    bool left = false;
    for (struct request *request = port_requests(port), *next; request; request = next) {
        next = request->next;
        left |= request->send_possible && !request->armed;
        if (!request->send_possible || !request->armed) continue;
        space_entry(request->space, request->name)->request = NULL;
        request_remove(request);
        notify_name(ipc, request->notify, MACH_NOTIFY_SEND_POSSIBLE, request->name, after);
        request_free(ipc, request);
    }
    if (!left) port->flags &= ~(uint32_t)PORT_SEND_POSSIBLE;
}
