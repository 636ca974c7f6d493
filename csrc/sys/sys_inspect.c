/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at everything while it goes on. A walk goes through the tasks, oldest first, and the names of each, then through the
 * pool of ports: so it finds ports that no space names, whose rights are in messages only. It takes the lock for a slice, and
 * steps back where others wait for it. Each row is what its object was at one moment.
 *
 * Between slices a walk keeps a reference on the task it has come to, so that this one stays in the list, and no other pointer:
 * names and pieces of the pool are found again by index.
 */
#include <string.h>
#include <time.h>

#include "sys/msg.h"

#define SLICE 128                       /* objects looked at under one hold of the lock */
#define COUNT_MAX 1024                  /* of what hangs on one object: as many messages as a queue's limit allows */

#define SAME(name) ((int)PM_PORT_##name == (int)PORT_##name)
_Static_assert(SAME(ACTIVE) && SAME(IN_TRANSIT) && SAME(HANDLER) && SAME(GUARDED) && SAME(STRICT) && SAME(IMMOVABLE) &&
                   SAME(REPLY), "rows show the flags of ports as they are");
#undef SAME

enum walked { WALK_ON, WALK_FULL, WALK_DONE };

/* ---- marks ---- */

static void mark_now(const struct pm_kernel *kernel, struct pm_mark *mark) {
    const struct ipc *ipc = &kernel->ipc;
    *mark = (struct pm_mark){
        .sequence = kernel->calls + ipc->sent + ipc->received + kernel->next_task_id + kernel->mac.epoch,
        .time = pm_kernel_time((struct pm_kernel *)kernel), .objects_made = ipc->next_port_id,
        .objects_gone = ipc->next_port_id - ipc->live_ports - ipc->live_sets, .tasks_made = kernel->next_task_id,
        .tasks_ended = kernel->next_task_id - kernel->tasks_alive, .sent = ipc->sent, .received = ipc->received,
        .transfers = ipc->transfers, .epoch = kernel->mac.epoch, .names = ipc->names, .ports = ipc->live_ports};
}

int pm_inspect_mark(struct pm_kernel *kernel, struct pm_mark *mark) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    mark_now(kernel, mark);
    kernel_unlock(kernel);
    return 0;
}

/* ---- rows ---- */

static uint64_t id_of(const struct port *port) { return port_valid(port) ? port->rest->id : 0; }

static enum walked row_task(struct pm_rows *rows, const struct pm_task *task) {
    const struct space *space = &task->space;
    if (rows->tasks_used == rows->tasks_room || rows->text_room - rows->text_used < task->name_length) return WALK_FULL;
    struct pm_task_row *row = &rows->tasks[rows->tasks_used++];
    *row = (struct pm_task_row){
        .queued_bytes = space->usage.queued_bytes, .memory = space->usage.memory,
        .bootstrap = id_of(task->special[TASK_BOOTSTRAP_PORT]), .name_at = rows->text_used, .name_length = task->name_length,
        .id = space->id, .sid = space->sid, .alive = space->alive, .parent = task->parent, .names = space->names,
        .ports = space->usage.ports, .sids = space->usage.sids, .notifications = space->usage.notifications,
        .in_flight = space->in_flight};
    memcpy(row->audit_token, space->identity.audit_token, sizeof row->audit_token);
    memcpy(rows->text + rows->text_used, task->name, task->name_length);
    rows->text_used += task->name_length;
    return WALK_ON;
}

/* A name whose port died is a dead name, though nobody may have looked at it since. */
static uint32_t types_now(const struct entry *entry) {
    uint32_t types = entry_type(entry);
    if (!(types & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE))) return types;
    return port_active(entry->object) ? types : MACH_PORT_TYPE_DEAD_NAME;
}

static uint64_t object_of(const struct entry *entry) {
    uint32_t types = entry_type(entry);
    if (types & MACH_PORT_TYPE_PORT_SET) return ((const struct pset *)entry->object)->id;
    return types & MACH_PORT_TYPE_DEAD_NAME ? 0 : id_of(entry->object);
}

static uint32_t urefs_now(const struct entry *entry) {
    return types_now(entry) == MACH_PORT_TYPE_DEAD_NAME && !entry->urefs ? 1 : entry->urefs;
}

static enum walked row_right(struct pm_rows *rows, const struct space *space, const struct entry *entry) {
    const struct request *request = entry->request;
    if (rows->rights_used == rows->rights_room) return WALK_FULL;
    rows->rights[rows->rights_used++] = (struct pm_right_row){
        .object = object_of(entry), .provenance = entry->provenance, .request_port = request ? id_of(request->notify) : 0,
        .task = space->id, .name = entry_name(space, entry), .types = types_now(entry), .urefs = urefs_now(entry),
        .request = !request ? 0 : request->send_possible ? MACH_NOTIFY_SEND_POSSIBLE : MACH_NOTIFY_DEAD_NAME};
    return WALK_ON;
}

static uint32_t waiting(const struct list *queue) {
    uint32_t count = 0;
    list_each(queue, node) count++;
    return count;
}

static uint32_t sum_queue(const struct port *port, uint64_t *bytes) {
    uint32_t count = 0;
    *bytes = 0;
    for (const struct kmsg *kmsg = port->first; kmsg && count < COUNT_MAX; kmsg = kmsg->next, count++)
        *bytes += kmsg->size;
    return count;
}

static void row_extra(struct pm_port_row *row, const struct port_extra *extra) {
    if (!extra) return;
    row->no_senders = id_of(extra->no_senders);
    row->port_destroyed = id_of(extra->port_destroyed);
    row->senders_waiting = waiting(&extra->senders);
    row->receivers_waiting = waiting(&extra->receivers);
}

static void row_place(struct pm_port_row *row, const struct port *port) {
    if (port_received(port)) {
        row->receiver = port->rest->receiver->id;
        row->receiver_name = port->rest->receiver_name;
    } else if (port->flags & PORT_IN_TRANSIT) {
        row->destination = id_of(port->rest->destination);
    }
}

static void row_sets(struct pm_port_row *row, const struct port *port) {
    if (port_sets(port)) row->set = port_sets(port)->set->id;
    for (const struct set_link *link = port_sets(port); link && row->sets < COUNT_MAX; link = link->next) row->sets++;
}

/* Returns how much was looked at beside the port. */
static uint32_t row_port(struct pm_rows *rows, const struct port *port) {
    struct pm_port_row *row = &rows->ports[rows->ports_used++];
    *row = (struct pm_port_row){
        .id = port->rest->id, .sid = port->sid, .flags = port->flags, .queued = port->msgcount, .qlimit = port->qlimit,
        .seqno = port->seqno, .mscount = port->rest->mscount, .send_rights = port->srights, .send_once_rights = port->sorights,
        .kind = port->rest->trace_kind, .owner = port->rest->trace_owner, .number = port->rest->trace_number, .interface = port->rest->interface,
        .maker = port->rest->payer->id};
    row_place(row, port);
    row_extra(row, port->extra);
    row_sets(row, port);
    row->queued_summed = sum_queue(port, &row->queued_bytes);
    return row->queued_summed + row->sets;
}

/* ---- the walk ---- */

static void hold_task(struct pm_inspect *walk, struct list *node) {
    const struct pm_kernel *kernel = walk->kernel;
    struct space *space = node == &kernel->tasks ? NULL : container_of(node, struct space, tasks);
    if (space && space->id > walk->last_task) space = NULL;
    walk->task = space ? task_of(space) : NULL;
    walk->name = 0;
    walk->names = space ? space->used : 0;
    if (space) space_ref(space);
}

static void next_task(struct pm_inspect *walk) {
    struct space *space = &walk->task->space;
    hold_task(walk, space->tasks.next);
    space_unref(&walk->kernel->ipc, space);
}

/* One name, or, in the place of name 0 which there is none of, the task itself. */
static enum walked step_task(struct pm_inspect *walk, struct pm_rows *rows) {
    const struct space *space = &walk->task->space;
    enum walked step = WALK_ON;
    if (walk->name == walk->names) {
        next_task(walk);
        return WALK_ON;
    }
    if (walk->name == 0) step = row_task(rows, walk->task);
    else if (entry_type(&space->table[walk->name])) step = row_right(rows, space, &space->table[walk->name]);
    if (step == WALK_ON) walk->name++;
    return step;
}

static enum walked step_port(struct pm_inspect *walk, struct pm_rows *rows, int64_t *budget) {
    const struct pool *pool = &walk->kernel->ipc.ports;
    if (walk->port >= walk->ports) return WALK_DONE;
    const struct port *port =
        (const struct port *)((char *)pool->chunks[walk->port / pool->per_chunk] + walk->port % pool->per_chunk * pool->size);
    if (port_is_live(port) && port->rest->id <= walk->last_port) {
        if (rows->ports_used == rows->ports_room) return WALK_FULL;
        *budget -= row_port(rows, port);
    }
    walk->port++;
    return WALK_ON;
}

static enum walked walk_on(struct pm_inspect *walk, struct pm_rows *rows, int64_t budget) {
    enum walked step = WALK_ON;
    for (; step == WALK_ON && budget > 0; budget--)
        step = walk->task ? step_task(walk, rows) : step_port(walk, rows, &budget);
    return step;
}

static void walk_begin(struct pm_inspect *walk, struct pm_kernel *kernel) {
    const struct pool *ports = &kernel->ipc.ports;
    *walk = (struct pm_inspect){.kernel = kernel, .last_task = kernel->next_task_id, .last_port = kernel->ipc.next_port_id,
                                .ports = ports->chunk_count * ports->per_chunk};
    hold_task(walk, kernel->tasks.next);
}

static void walk_drop(const struct pm_inspect *walk) {
    if (walk->task) space_unref(&walk->kernel->ipc, &walk->task->space);
}

int pm_inspect_begin(struct pm_kernel *kernel, struct pm_inspect *walk, struct pm_mark *mark) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->refs++;
    mark_now(kernel, mark);
    walk_begin(walk, kernel);
    kernel_unlock(kernel);
    return 0;
}

/* A page that is not there yet is found by a fault, which must not happen while everybody waits. */
static void touch(struct pm_rows *rows) {
    memset(rows->tasks + rows->tasks_used, 0, (rows->tasks_room - rows->tasks_used) * sizeof *rows->tasks);
    memset(rows->ports + rows->ports_used, 0, (rows->ports_room - rows->ports_used) * sizeof *rows->ports);
    memset(rows->rights + rows->rights_used, 0, (rows->rights_room - rows->rights_used) * sizeof *rows->rights);
    memset(rows->text + rows->text_used, 0, rows->text_room - rows->text_used);
}

int pm_inspect_read(struct pm_inspect *walk, struct pm_rows *rows) {
    struct pm_kernel *kernel = walk->kernel;
    enum walked step = WALK_ON;
    if (kernel_forked(kernel)) return PM_FORKED;
    touch(rows);
    while (step == WALK_ON) {
        kernel_lock(kernel);
        step = walk_on(walk, rows, SLICE);
        bool wanted = lock_is_wanted(&kernel->lock);
        kernel_unlock(kernel);
        if (wanted) lock_step_back();
    }
    return step == WALK_DONE ? 0 : KERN_NO_SPACE;
}

int pm_inspect_end(struct pm_inspect *walk, struct pm_mark *mark) {
    struct pm_kernel *kernel = walk->kernel;
    if (!kernel) return 0;
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    mark_now(kernel, mark);
    walk_drop(walk);
    *walk = (struct pm_inspect){0};
    kernel_unref_unlock(kernel);
    return 0;
}

int pm_inspect_stopped(struct pm_inspect *walk, struct pm_rows *rows, struct pm_mark *mark, uint64_t *stopped_ns) {
    struct pm_kernel *kernel = walk->kernel;
    if (kernel_forked(kernel)) return PM_FORKED;
    touch(rows);
    kernel_lock(kernel);
    int64_t stopped = monotonic_ns();
    mark_now(kernel, mark);
    walk_drop(walk);
    walk_begin(walk, kernel);
    enum walked step = walk_on(walk, rows, INT64_MAX);
    *stopped_ns = (uint64_t)(monotonic_ns() - stopped);
    kernel_unlock(kernel);
    return step == WALK_DONE ? 0 : KERN_NO_SPACE;
}
