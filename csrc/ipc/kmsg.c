/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/kmsg.h"

#include <string.h>

#include "ipc/notify.h"
#include "ipc/right.h"

_Static_assert(sizeof(struct kmsg) == KMSG_SIZE, "a small message is one piece of the pool");

static char *body_alloc(struct ipc *ipc, uint64_t size) {
    struct pool *pool = body_pool(ipc, size);
    return pool ? pool_take(pool) : heap_alloc(ipc->messages_heap, size);
}

struct kmsg *kmsg_create(struct ipc *ipc, uint64_t size) {
    struct kmsg *kmsg = pool_take(&ipc->kmsgs);
    if (!kmsg) return NULL;
    memset(kmsg, 0, offsetof(struct kmsg, inside));
    kmsg->ipc = ipc;
    kmsg->size = (uint32_t)size;
    kmsg->body = kmsg->inside;
    if (size <= KMSG_INLINE) return kmsg;
    kmsg->body = body_alloc(ipc, size);
    if (kmsg->body) return kmsg;
    pool_give(&ipc->kmsgs, kmsg);
    return NULL;
}

static size_t cargo_size(uint32_t descriptors, uint32_t rights) {
    return sizeof(struct cargo) + descriptors * (sizeof(struct descriptor) + sizeof(struct pm_memory)) +
           rights * (sizeof(struct right_in_flight) + sizeof(struct pm_received_right));
}

/* One piece: descriptors, then memories, rights in flight and received rights, which need less alignment in that order. */
struct cargo *cargo_create(struct ipc *ipc, uint32_t descriptors, uint32_t rights) {
    size_t size = cargo_size(descriptors, rights);
    struct cargo *cargo = heap_alloc(ipc->messages_heap, size);
    if (!cargo) return NULL;
    memset(cargo, 0, size);
    cargo->allocated = size;
    cargo->descriptors_used = descriptors;
    cargo->rights_used = rights;
    cargo->memories = (struct pm_memory *)&cargo->descriptors[descriptors];
    cargo->rights = (struct right_in_flight *)&cargo->memories[descriptors];
    cargo->received = (struct pm_received_right *)&cargo->rights[rights];
    return cargo;
}

void cargo_free(struct ipc *ipc, struct cargo *cargo) {
    if (cargo) heap_free(ipc->messages_heap, cargo, cargo->allocated);
}

void kmsg_set_sender(struct kmsg *kmsg, struct space *sender, uint32_t real_sid, uint32_t sid) {
    kmsg->sender = sender;
    kmsg->real_sid = real_sid;
    kmsg->sid = sid;
    sender->in_flight++;
    sender->usage.queued_bytes += kmsg->charge;
    space_ref(sender);
    if (sid == real_sid) return;
    kmsg->flags |= KMSG_EFFECTIVE;
    sids_retain(kmsg->ipc->sids, sid);
}

static void sid_relieve(struct ipc *ipc, uint32_t sid) {
    struct space *payer = sids_release(ipc->sids, sid, ipc->mac->audit.sequence);
    if (!payer) return;
    payer->usage.sids--;
    space_unref(ipc, payer);
}

/* Labels a task bore when it sent messages that were still under way are kept until none of them is. */
static void past_labels_drop(struct ipc *ipc, struct space *space) {
    while (space->past_used) sid_relieve(ipc, space->past_sids[--space->past_used]);
}

void kmsg_uncharge(struct kmsg *kmsg) {
    struct space *sender = kmsg->sender;
    if (sender) sender->usage.queued_bytes -= kmsg->charge;
    kmsg->charge = 0;
}

static void sender_drop(struct ipc *ipc, struct kmsg *kmsg) {
    struct space *sender = kmsg->sender;
    if (!sender) return;
    kmsg_uncharge(kmsg);
    if (kmsg->flags & KMSG_EFFECTIVE) sid_relieve(ipc, kmsg->sid);
    kmsg->sender = NULL;
    if (--sender->in_flight == 0 && sender->past_used) past_labels_drop(ipc, sender);
    space_unref(ipc, sender);
}

static bool has_release(const struct kmsg *kmsg) {
    const struct cargo *cargo = kmsg->cargo;
    if (!cargo) return false;
    if (cargo->release) return true;
    for (uint32_t i = 0; i < cargo->descriptors_used; i++)
        if (cargo->descriptors[i].memory.release) return true;
    return false;
}

void kmsg_release(struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    if (cargo->release) {
        cargo->release(cargo->release_context);
        cargo->release = NULL;
        kmsg->body = kmsg->inside;
    }
    for (uint32_t i = 0; i < cargo->descriptors_used; i++) {
        struct pm_memory *memory = &cargo->descriptors[i].memory;
        if (!memory->release) continue;
        memory->release(memory->context);
        *memory = (struct pm_memory){0};
    }
}

static void body_free(struct ipc *ipc, struct kmsg *kmsg) {
    struct pool *pool = body_pool(ipc, kmsg->size);
    if (kmsg->body == kmsg->inside) return;
    if (pool) pool_give(pool, kmsg->body);
    else heap_free(ipc->messages_heap, kmsg->body, kmsg->size);
}

static void contents_free(struct ipc *ipc, struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    body_free(ipc, kmsg);
    for (uint32_t i = 0; cargo && i < cargo->descriptors_used; i++)
        heap_free(ipc->heap, (void *)(uintptr_t)cargo->descriptors[i].memory.address, cargo->descriptors[i].memory.size);
    cargo_free(ipc, cargo);
}

void kmsg_free(struct ipc *ipc, struct kmsg *kmsg, struct after *after) {
    lock_assert_held(ipc->lock);
    sender_drop(ipc, kmsg);
    if (has_release(kmsg)) {
        kmsg->next = after->finished;
        after->finished = kmsg;
        return;
    }
    contents_free(ipc, kmsg);
    pool_give(&ipc->kmsgs, kmsg);
}

void kmsg_destroy(struct ipc *ipc, struct kmsg *kmsg, struct after *after) {
    lock_assert_held(ipc->lock);
    struct cargo *cargo = kmsg->cargo;
    ipc->destroyed++;
    if (port_valid(kmsg->reply)) right_destroy(ipc, kmsg->reply, kmsg->reply_type, after);
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++)
        if (port_valid(cargo->rights[i].port))
            right_destroy(ipc, cargo->rights[i].port, cargo->rights[i].type, after);
    if (cargo) cargo->rights_used = 0;
    /* Last: until here a receive right of the cargo is in transit to this port. */
    if (kmsg->dest) right_used(ipc, kmsg->dest, kmsg->dest_type, after);
    kmsg->dest = kmsg->reply = NULL;
    kmsg_free(ipc, kmsg, after);
}

static void settle_message(struct ipc *ipc, struct after *after) {
    struct kmsg *kmsg = after->doomed;
    after->doomed = kmsg->next;
    if (!after->doomed) after->doomed_end = &after->doomed;
    kmsg_destroy(ipc, kmsg, after);
}

static void settle_port(struct ipc *ipc, struct after *after) {
    struct port *port = after->dead;
    after->dead = port->rest->destination;
    if (!after->dead) after->dead_end = &after->dead;
    port->rest->destination = NULL;
    requests_port_died(ipc, port, after);
    port_unref(ipc, port);
}

void after_settle(struct ipc *ipc, struct after *after) {
    lock_assert_held(ipc->lock);
    while (after->doomed || after->dead) {
        if (after->doomed) settle_message(ipc, after);
        else settle_port(ipc, after);
    }
}
