/* SPDX-License-Identifier: BSD-2-Clause */
/* mach_port_request_notification: who wants to be told what of a name, and what is told at once. */
#include "sys/msg.h"

#define INSERT PM_MACH_TASK__insert_right

struct request_call {
    struct call call;
    uint32_t name, id, sync, notify, disposition;
    uint32_t previous;
    /* made by the attempt */
    struct entry *notify_entry;
    const struct disposition *how;
    uint64_t extra_names;
};

static int resolve_notify(struct request_call *args) {
    struct call *call = &args->call;
    args->notify_entry = NULL;
    args->how = NULL;
    if (args->notify == MACH_PORT_NULL) return 0;
    if (args->notify == MACH_PORT_DEAD) return KERN_INVALID_CAPABILITY;
    args->how = disposition_of(args->disposition);
    if (!args->how || args->how->result != MACH_MSG_TYPE_PORT_SEND_ONCE) return KERN_INVALID_VALUE;
    args->notify_entry = space_lookup(call_ipc(call), &call->caller->space, args->notify);
    if (!args->notify_entry) return KERN_INVALID_CAPABILITY;
    if (entry_type(args->notify_entry) & MACH_PORT_TYPE_DEAD_NAME) return KERN_INVALID_CAPABILITY;
    if (!right_can_give(args->notify_entry, args->how)) return KERN_INVALID_CAPABILITY;
    return call_check_port(call, args->notify_entry->object, args->how->give, KERN_NO_ACCESS);
}

/* The notify right, taken from the caller; NULL where the request is to cancel. */
static struct port *take_notify(struct request_call *args) {
    struct call *call = &args->call;
    if (!args->notify_entry) return NULL;
    struct entry *entry = space_lookup(call_ipc(call), &call->caller->space, args->notify);
    return right_give(call_ipc(call), &call->caller->space, entry, args->how, &call->after);
}

/* Everything that may fail: a message for a right that is made, and a name for the right that comes back. */
static int reserve_notify(struct request_call *args, bool previous) {
    struct call *call = &args->call;
    struct ipc *ipc = call_ipc(call);
    int code = call_ready(call);
    if (!code && previous) code = space_reserve(&call->caller->space, ipc, 1);
    bool made = args->how && args->how->give == PM_MACH_PORT__make_send_once;
    if (!code && made && !pool_reserve(&ipc->kmsgs, 1)) code = KERN_RESOURCE_SHORTAGE;
    return code;
}

static void return_previous(struct request_call *args, struct port *previous) {
    struct call *call = &args->call;
    bool dropped;
    if (!previous) return;
    args->previous = right_take(call_ipc(call), &call->caller->space, previous, MACH_MSG_TYPE_PORT_SEND_ONCE,
                                call->transfer, &call->after, &dropped);
}

static int request_no_senders(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    struct port *port = entry->object;
    if (!(entry_type(entry) & MACH_PORT_TYPE_RECEIVE)) return KERN_INVALID_RIGHT;
    if (!port_extra_reserve(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    int code = reserve_notify(args, port->extra->no_senders != NULL);
    if (code) return code;
    struct port *previous = port->extra->no_senders, *notify = take_notify(args);
    port->extra->no_senders = NULL;
    if (notify && !port->srights && args->sync <= port->rest->mscount)
        notify_no_senders(call_ipc(call), notify, port->rest->mscount, &call->after);
    else
        port->extra->no_senders = notify;
    return_previous(args, previous);
    return 0;
}

static int request_port_destroyed(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    struct port *port = entry->object;
    if (args->sync) return KERN_INVALID_VALUE;
    if (!(entry_type(entry) & MACH_PORT_TYPE_RECEIVE)) return KERN_INVALID_RIGHT;
    if (port->extra && port->extra->port_destroyed && args->notify_entry) return KERN_FAILURE;
    if (!port_extra_reserve(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    struct cargo *cargo = args->notify_entry ? cargo_create(call_ipc(call), 1, 1) : NULL;
    if (args->notify_entry && !cargo) return KERN_RESOURCE_SHORTAGE;
    int code = reserve_notify(args, port->extra->port_destroyed != NULL);
    if (code) {
        cargo_free(call_ipc(call), cargo);
        return code;
    }
    struct port *previous = port->extra->port_destroyed;
    cargo_free(call_ipc(call), port->extra->destroyed_cargo);
    port->extra->port_destroyed = take_notify(args);
    port->extra->destroyed_cargo = cargo;
    return_previous(args, previous);
    return 0;
}

/* A handler leaves no message waiting. */
static int request_message(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    struct port *port = entry->object;
    if (!(entry_type(entry) & MACH_PORT_TYPE_RECEIVE) || port->flags & PORT_HANDLER) return KERN_INVALID_RIGHT;
    if (!port_extra_reserve(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    int code = reserve_notify(args, port->extra->message != NULL);
    if (code) return code;
    struct port *previous = port->extra->message, *notify = take_notify(args);
    bool now = notify && args->sync && port->first;
    if (now) notify_name(call_ipc(call), notify, PM_NOTIFY_MESSAGE, args->name, &call->after);
    port->extra->message = now ? NULL : notify;
    port->flags = port->extra->message ? port->flags | PORT_TELLS : port->flags & ~(uint32_t)PORT_TELLS;
    return_previous(args, previous);
    return 0;
}

/* The name is dead already: told at once, with a reference more, or refused. */
static int request_dead(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    if (!args->sync || !args->notify_entry) return KERN_INVALID_ARGUMENT;
    if (entry->urefs == MACH_PORT_UREFS_MAX) return KERN_UREFS_OVERFLOW;
    int code = reserve_notify(args, false);
    if (code) return code;
    entry->urefs++;
    notify_name(call_ipc(call), take_notify(args), MACH_NOTIFY_DEAD_NAME, args->name, &call->after);
    return 0;
}

/* What was registered for the name comes back to the caller, who has a name reserved for it. */
static void take_down(struct request_call *args) {
    struct call *call = &args->call;
    struct entry *entry = space_entry(&call->task->space, args->name);
    struct request *request = entry->request;
    if (!request) return;
    entry->request = NULL;
    request_remove(request);
    return_previous(args, request->notify);
    request_free(call_ipc(call), request);
}

static int cancel_request(struct request_call *args, struct entry *entry) {
    int code = reserve_notify(args, entry->request != NULL);
    if (!code) take_down(args);
    return code;
}

/* The right that is given away loses its name, and who asked about that name is told: here, in the queue in question? */
static bool told_here(const struct request_call *args, const struct port *port) {
    const struct entry *given = args->notify_entry;
    return args->how->takes && given->request && given->request->notify == port;
}

/* Room already, and the caller wants to know: there is nothing to wait for. */
static bool possible_now(const struct request_call *args, const struct entry *entry) {
    const struct port *port = entry->object;
    bool full = port->msgcount + told_here(args, port) >= port->qlimit && !(port->flags & PORT_HANDLER);
    return args->id == MACH_NOTIFY_SEND_POSSIBLE && args->sync &&
           (!full || entry_type(entry) & MACH_PORT_TYPE_SEND_ONCE);
}

static bool notifications_left(struct call *call) {
    const struct space *space = &call->task->space;
    if (!space->quota.notifications || space->usage.notifications < space->quota.notifications) return true;
    call_ipc(call)->quota_refusals++;
    return false;
}

static int put_up_request(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    struct ipc *ipc = call_ipc(call);
    struct request *old = entry->request;
    uint32_t index = (uint32_t)(entry - call->task->space.table);
    if (!old && !notifications_left(call)) return KERN_RESOURCE_SHORTAGE;
    if (!port_extra_reserve(ipc, entry->object)) return KERN_RESOURCE_SHORTAGE;
    struct request *request = old ? old : pool_take(&ipc->requests);
    if (!request) return KERN_RESOURCE_SHORTAGE;
    int code = reserve_notify(args, old != NULL);
    if (code) {
        if (!old) pool_give(&ipc->requests, request);
        return code;
    }
    struct port *previous = old ? old->notify : NULL;
    if (old) request_remove(old);
    else call->task->space.usage.notifications++;
    entry = &call->task->space.table[index];
    *request = (struct request){.space = &call->task->space, .name = args->name,
                                .send_possible = args->id == MACH_NOTIFY_SEND_POSSIBLE, .armed = args->sync != 0};
    entry->request = request;
    request_add(ipc, request, entry->object);
    request->notify = take_notify(args);
    return_previous(args, previous);
    return 0;
}

static int request_name(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    if (entry_type(entry) & MACH_PORT_TYPE_PORT_SET) return KERN_INVALID_RIGHT;
    if (entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME) {
        if (!args->notify_entry) return args->sync ? call_ready(call) : KERN_INVALID_ARGUMENT;
        return request_dead(args, entry);
    }
    if (!args->notify_entry) return cancel_request(args, entry);
    if (!possible_now(args, entry)) return put_up_request(args, entry);
    int code = reserve_notify(args, entry->request != NULL);
    if (code) return code;
    struct port *notify = take_notify(args);
    take_down(args);
    notify_name(call_ipc(call), notify, MACH_NOTIFY_SEND_POSSIBLE, args->name, &call->after);
    return 0;
}

static const struct request_kind {
    uint32_t id;
    int (*make)(struct request_call *args, struct entry *entry);
} request_kinds[] = {
    {MACH_NOTIFY_NO_SENDERS, request_no_senders},
    {MACH_NOTIFY_PORT_DESTROYED, request_port_destroyed},
    {PM_NOTIFY_MESSAGE, request_message},
    {MACH_NOTIFY_DEAD_NAME, request_name},
    {MACH_NOTIFY_SEND_POSSIBLE, request_name},
};

static const struct request_kind *kind_of(uint32_t id) {
    for (size_t i = 0; i < array_count(request_kinds); i++)
        if (request_kinds[i].id == id) return &request_kinds[i];
    return NULL;
}

static bool is_port(const struct entry *entry) {
    return entry_type(entry) & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_RECEIVE | MACH_PORT_TYPE_SEND_ONCE);
}

static int check_request(struct request_call *args, struct entry *entry) {
    struct call *call = &args->call;
    int notify = resolve_notify(args);
    if (notify && notify != CALL_MISS) return notify;
    /* The right given away is the one asked about: its name would be gone. */
    if (args->notify_entry == entry && args->how->takes) return notify ? notify : KERN_INVALID_NAME;
    if (!is_port(entry)) return notify;
    if (entry_type(entry) & MACH_PORT_TYPE_RECEIVE && ((struct port *)entry->object)->flags & PORT_REPLY)
        return notify ? notify : KERN_INVALID_RIGHT;    /* nobody holds a send right to it, and it goes nowhere */
    /* Who asks for PORT_DESTROYED gives the receive right away, be it later. */
    bool gives = args->id == MACH_NOTIFY_PORT_DESTROYED && args->notify_entry;
    uint32_t asked = PM_MACH_PORT__request_notification | (gives ? PM_MACH_PORT__move_recv : 0);
    int code = call_check_port(call, entry->object, asked, KERN_NO_ACCESS);
    return code ? code : notify;
}

static int attempt_request(struct call *call) {
    struct request_call *args = (struct request_call *)call;
    const struct request_kind *kind = kind_of(args->id);
    int entered = call_enter(call, INSERT);
    if (entered && entered != CALL_MISS) return entered;
    if (!kind) return entered ? entered : KERN_INVALID_VALUE;
    if (args->name == MACH_PORT_NULL || args->name == MACH_PORT_DEAD) return entered ? entered : KERN_INVALID_ARGUMENT;
    struct entry *entry = space_lookup(call_ipc(call), &call->task->space, args->name);
    if (!entry) return entered ? entered : KERN_INVALID_NAME;
    int code = check_request(args, entry);
    if (entered || code) return entered ? entered : code;
    args->previous = 0;
    return kind->make(args, entry);
}

int64_t pm_port_request_notification(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t id,
                                     uint32_t sync, uint32_t notify, uint32_t disposition) {
    struct request_call args = {.name = name, .id = id, .sync = sync, .notify = notify, .disposition = disposition};
    int code = call_init(&args.call, caller, task, PM_OP_NOTIFICATION, name);
    if (!code) code = call_run(&args.call, attempt_request);
    return code ? -(int64_t)code : (int64_t)args.previous;
}

#undef INSERT
