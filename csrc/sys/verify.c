/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Recounts the whole state from what is there and compares it with the counters that the operations keep. Uses plain malloc, so
 * that it can be called while allocations are made to fail.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/msg.h"

struct tally { const struct port *port; uint32_t refs, srights, sorights, receives; };
struct payer { uint64_t ports, bytes, in_flight; };

struct audit_walk {
    struct pm_kernel *kernel;
    char *report;
    size_t room, used;
    int faults;
    struct tally *tallies;
    uint32_t mask;
    uint64_t reserved, tasks, names, messages, bytes, ports;
};

static void fault(struct audit_walk *walk, const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    walk->faults++;
    if (length <= 0 || walk->used + (size_t)length + 2 > walk->room) return;
    memcpy(walk->report + walk->used, line, (size_t)length);
    walk->used += (size_t)length;
    walk->report[walk->used++] = '\n';
    walk->report[walk->used] = 0;
}

/* ---- counting ---- */

static struct tally *tally_of(struct audit_walk *walk, const struct port *port) {
    for (uint32_t at = (uint32_t)mix64((uintptr_t)port);; at++) {
        struct tally *tally = &walk->tallies[at & walk->mask];
        if (tally->port && tally->port != port) continue;
        tally->port = port;
        return tally;
    }
}

static void count_right(struct audit_walk *walk, const struct port *port, uint32_t type) {
    if (!port_valid(port)) return;
    struct tally *tally = tally_of(walk, port);
    tally->refs++;
    tally->srights += type == MACH_MSG_TYPE_PORT_SEND;
    tally->sorights += type == MACH_MSG_TYPE_PORT_SEND_ONCE;
    tally->receives += type == MACH_MSG_TYPE_PORT_RECEIVE;
    walk->reserved += type == MACH_MSG_TYPE_PORT_SEND_ONCE;
}

static void count_message(struct audit_walk *walk, const struct kmsg *kmsg) {
    const struct cargo *cargo = kmsg->cargo;
    count_right(walk, kmsg->dest, kmsg->dest_type);
    if (kmsg->dest_type == MACH_MSG_TYPE_PORT_SEND_ONCE) walk->reserved--;      /* it is being used */
    count_right(walk, kmsg->reply, kmsg->reply_type);
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++)
        count_right(walk, cargo->rights[i].port, cargo->rights[i].type);
}

static void count_entry(struct audit_walk *walk, struct space *space, const struct entry *entry) {
    uint32_t type = entry_type(entry), name = entry_name(space, entry);
    const struct port *port = entry->object;
    if (entry->pending) fault(walk, "task %u name %#x: notes of a send are left", space->id, name);
    if (entry->request) count_right(walk, entry->request->notify, MACH_MSG_TYPE_PORT_SEND_ONCE);
    if (entry->request && (entry->request->name != name || entry->request->space != space))
        fault(walk, "task %u name %#x: its request is for another name", space->id, name);
    bool counted = type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_DEAD_NAME);
    if (counted != (entry->urefs != 0)) fault(walk, "task %u name %#x: %u user references", space->id, name, entry->urefs);
    if (!(type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_RECEIVE | MACH_PORT_TYPE_SEND_ONCE))) return;
    struct tally *tally = tally_of(walk, port);
    tally->refs++;
    tally->srights += (type & MACH_PORT_TYPE_SEND) != 0;
    tally->receives += (type & MACH_PORT_TYPE_RECEIVE) != 0;
    tally->sorights += (type & MACH_PORT_TYPE_SEND_ONCE) != 0;
    walk->reserved += (type & MACH_PORT_TYPE_SEND_ONCE) != 0;
    if (type & MACH_PORT_TYPE_RECEIVE && (port->rest->receiver != space || port->rest->receiver_name != name || !port_received(port)))
        fault(walk, "task %u name %#x: holds a receive right that port %llu does not know of", space->id, name,
              (unsigned long long)port->rest->id);
    if (port_active(port) && type & MACH_PORT_TYPE_SEND && space_find(space, port) != entry)
        fault(walk, "task %u name %#x: its port is not found under this name", space->id, name);
}

static void count_set(struct audit_walk *walk, const struct space *space, const struct entry *entry) {
    if (!(entry_type(entry) & MACH_PORT_TYPE_PORT_SET)) return;
    const struct pset *set = entry->object;
    uint32_t members = 0;
    list_each(&set->members, node) {
        const struct set_link *link = container_of(node, struct set_link, in_set);
        bool ready = !list_empty(&link->in_ready);
        members++;
        if (pset_find(set, link->port) != link || link->port->rest->receiver != space)
            fault(walk, "set %#x of task %u: a member does not know of it", set->name, space->id);
        if (ready != (link->port->first != NULL))
            fault(walk, "set %#x of task %u: a member with %u messages is %sready", set->name, space->id,
                  link->port->msgcount, ready ? "" : "not ");
    }
    if (members != set->members_used) fault(walk, "set %#x of task %u: %u members, counted %u", set->name, space->id,
                                            set->members_used, members);
}

/* Who sleeps holds a reference on what it waits for until it has run again, even if that died. */
static void count_sleepers(struct audit_walk *walk, const struct space *space) {
    list_each(&space->waiters, node) {
        const struct turn *turn = container_of(container_of(node, struct waiter, in_space), struct turn, waiter);
        if (turn->port) tally_of(walk, turn->port)->refs++;
    }
}

static void count_space(struct audit_walk *walk, struct pm_task *task) {
    struct space *space = &task->space;
    uint32_t names = 0, indexed = 0;
    for (uint32_t i = 1; i < space->used; i++) {
        const struct entry *entry = &space->table[i];
        if (!entry_type(entry)) continue;
        names++;
        indexed += (entry_type(entry) & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_RECEIVE)) == MACH_PORT_TYPE_SEND;
        count_entry(walk, space, entry);
        count_set(walk, space, entry);
    }
    walk->names += names;
    walk->tasks += space->alive;
    count_sleepers(walk, space);
    if (names != space->names) fault(walk, "task %u: %u names, counted %u", space->id, space->names, names);
    if (indexed != space->bucket_used)
        fault(walk, "task %u: %u send rights in the index, counted %u", space->id, space->bucket_used, indexed);
    if (!space->alive && names) fault(walk, "task %u is dead and holds %u names", space->id, names);
    for (size_t i = 0; i < array_count(task->special); i++)
        count_right(walk, task->special[i], MACH_MSG_TYPE_PORT_SEND);
    for (size_t i = 0; i < array_count(task->registered); i++)
        count_right(walk, task->registered[i], MACH_MSG_TYPE_PORT_SEND);
    if (!sids_alive(&walk->kernel->sids, space->sid)) fault(walk, "task %u: its label %#x is gone", space->id, space->sid);
}

static void count_queue(struct audit_walk *walk, const struct port *port) {
    uint32_t messages = 0;
    const struct kmsg *last = NULL;
    for (const struct kmsg *kmsg = port->first; kmsg; kmsg = kmsg->next, messages++) {
        count_message(walk, kmsg);
        walk->bytes += kmsg->size;
        last = kmsg;
        if (kmsg->dest != port) fault(walk, "port %llu: a message for another port", (unsigned long long)port->rest->id);
    }
    walk->messages += messages;
    if (messages != port->msgcount || last != port->last)
        fault(walk, "port %llu: %u messages, counted %u", (unsigned long long)port->rest->id, port->msgcount, messages);
}

static void count_port(struct audit_walk *walk, const struct port *port) {
    const struct port_extra *extra = port->extra;
    walk->ports++;
    count_queue(walk, port);
    if (!sids_alive(&walk->kernel->sids, port->sid))
        fault(walk, "port %llu: its label %#x is gone", (unsigned long long)port->rest->id, port->sid);
    if (!extra) return;
    count_right(walk, extra->no_senders, MACH_MSG_TYPE_PORT_SEND_ONCE);
    count_right(walk, extra->port_destroyed, MACH_MSG_TYPE_PORT_SEND_ONCE);
    count_right(walk, extra->message, MACH_MSG_TYPE_PORT_SEND_ONCE);
}

/* ---- comparing ---- */

static void compare_port(struct audit_walk *walk, const struct port *port) {
    const struct tally *tally = tally_of(walk, port);
    unsigned long long id = port->rest->id;
    if (tally->srights != port->srights) fault(walk, "port %llu: %u send rights, counted %u", id, port->srights, tally->srights);
    if (tally->sorights != port->sorights)
        fault(walk, "port %llu: %u send-once rights, counted %u", id, port->sorights, tally->sorights);
    if (tally->receives != port_active(port))
        fault(walk, "port %llu is %s and has %u receive rights", id, port_active(port) ? "active" : "dead", tally->receives);
    if (tally->refs != port->refs) fault(walk, "port %llu: %u references, counted %u", id, port->refs, tally->refs);
    if (!port_active(port) && port->first) fault(walk, "port %llu is dead and has messages", id);
}

static void each_port(struct audit_walk *walk, void (*visit)(struct audit_walk *walk, const struct port *port)) {
    const struct pool *pool = &walk->kernel->ipc.ports;
    for (size_t c = 0; c < pool->chunk_count; c++)
        for (size_t i = 0; i < pool->per_chunk; i++) {
            const struct port *port = (const struct port *)((char *)pool->chunks[c] + i * pool->size);
            if (port_is_live(port)) visit(walk, port);
        }
}

static void compare(struct audit_walk *walk, const char *what, uint64_t kept, uint64_t counted) {
    if (kept != counted)
        fault(walk, "%s: %llu, counted %llu", what, (unsigned long long)kept, (unsigned long long)counted);
}

static void compare_totals(struct audit_walk *walk) {
    const struct ipc *ipc = &walk->kernel->ipc;
    compare(walk, "tasks", walk->kernel->tasks_alive, walk->tasks);
    compare(walk, "ports", ipc->live_ports, walk->ports);
    compare(walk, "ports out of the pool", pool_live(&ipc->ports), walk->ports);
    compare(walk, "rests of ports out of the pool", pool_live(&ipc->rests), walk->ports);
    compare(walk, "names", ipc->names, walk->names);
    compare(walk, "messages queued", ipc->messages, walk->messages);
    compare(walk, "bytes queued", ipc->bytes, walk->bytes);
    compare(walk, "messages in reserve for send-once rights", ipc->kmsgs.reserved, walk->reserved);
    if (ipc->kmsgs.free_count < ipc->kmsgs.reserved) fault(walk, "more messages in reserve than there are");
    compare(walk, "port sets out of the pool", pool_live(&ipc->sets), ipc->live_sets);
}

/* ---- what each task is charged with ---- */

struct charges { struct payer *payers; uint32_t count; };

static struct payer *payer_of(struct charges *charges, const struct space *space) {
    return space && space->id <= charges->count ? &charges->payers[space->id] : NULL;
}

static void charge_messages(struct charges *charges, const struct kmsg *kmsg) {
    for (; kmsg; kmsg = kmsg->next) {
        struct payer *payer = payer_of(charges, kmsg->sender);
        if (!payer) continue;
        payer->bytes += kmsg->charge;
        payer->in_flight++;
    }
}

static void charge_ports(struct audit_walk *walk, struct charges *charges) {
    const struct pool *pool = &walk->kernel->ipc.ports;
    for (size_t c = 0; c < pool->chunk_count; c++)
        for (size_t i = 0; i < pool->per_chunk; i++) {
            const struct port *port = (const struct port *)((char *)pool->chunks[c] + i * pool->size);
            if (!port_is_live(port)) continue;
            struct payer *payer = payer_of(charges, port->rest->payer);
            if (payer && port_active(port)) payer->ports++;
            charge_messages(charges, port->first);
        }
}

static void compare_charges(struct audit_walk *walk) {
    struct charges charges = {.count = walk->kernel->next_task_id};
    charges.payers = calloc((size_t)charges.count + 1, sizeof *charges.payers);
    if (!charges.payers) return;
    charge_ports(walk, &charges);
    list_each(&walk->kernel->ipc.pending, node)
        charge_messages(&charges, container_of(node, struct after, pending)->handled);
    list_each(&walk->kernel->tasks, node) {
        const struct space *space = container_of(node, struct space, tasks);
        const struct payer *payer = &charges.payers[space->id];
        if (tasks_find(&walk->kernel->by_id, space->id) != task_of(space))
            fault(walk, "task %u is not found by its number", space->id);
        if (payer->ports != space->usage.ports)
            fault(walk, "task %u pays for %u ports, counted %llu", space->id, space->usage.ports,
                  (unsigned long long)payer->ports);
        if (payer->bytes != space->usage.queued_bytes)
            fault(walk, "task %u pays for %llu queued bytes, counted %llu", space->id,
                  (unsigned long long)space->usage.queued_bytes, (unsigned long long)payer->bytes);
        if (payer->in_flight > space->in_flight)
            fault(walk, "task %u has %u messages under way, counted %llu", space->id, space->in_flight,
                  (unsigned long long)payer->in_flight);
    }
    free(charges.payers);
}

/* ---- what labels have as values ---- */

static void compare_values(struct audit_walk *walk) {
    const struct sids *sids = &walk->kernel->sids;
    uint64_t valued = 0, bytes = 0;
    for (uint32_t i = 1; i < sids->used; i++) {
        const struct sid_slot *slot = &sids->slots[i];
        if (slot->values && !slot->text) fault(walk, "label %u is gone and has values", i);
        valued += slot->values != NULL;
        bytes += slot->values_size;
    }
    compare(walk, "labels with values", valued, sids->valued);
    compare(walk, "bytes of values", bytes, sids->values_bytes);
}

static void walk_all(struct audit_walk *walk) {
    struct pm_kernel *kernel = walk->kernel;
    list_each(&kernel->tasks, node) count_space(walk, task_of(container_of(node, struct space, tasks)));
    list_each(&kernel->ipc.pending, node)
        for (const struct kmsg *kmsg = container_of(node, struct after, pending)->handled; kmsg; kmsg = kmsg->next)
            count_message(walk, kmsg);
    each_port(walk, count_port);
    each_port(walk, compare_port);
    compare_totals(walk);
    compare_charges(walk);
    compare_values(walk);
}

int pm_kernel_verify(struct pm_kernel *kernel, char *report, size_t size) {
    struct audit_walk walk = {.kernel = kernel, .report = report, .room = size};
    if (size) report[0] = 0;
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    walk.mask = round_up_power(2 * (uint32_t)pool_live(&kernel->ipc.ports) + 64) - 1;
    walk.tallies = calloc((size_t)walk.mask + 1, sizeof *walk.tallies);
    if (walk.tallies) walk_all(&walk);
    else fault(&walk, "no memory to count in");
    kernel_unlock(kernel);
    free(walk.tallies);
    return walk.faults;
}
