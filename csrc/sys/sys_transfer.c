/* SPDX-License-Identifier: BSD-2-Clause */
/* Rights from one space to another, by a kernel call: insert, extract, and between two tasks. */
#include "sys/msg.h"

#define INSERT PM_MACH_TASK__insert_right
#define EXTRACT PM_MACH_TASK__extract_right

/* A right on its way between two spaces by a kernel call; everything is decided before anything moves. */
struct transfer_call {
    struct call call;
    struct pm_task *from, *to;          /* whose right, and who will hold it */
    uint32_t from_name, to_name, disposition;       /* to_name 0: the kernel chooses */
    uint32_t result;
};

/* Asked of the one who takes the right, and recorded as its act, as in a receive: so the trail knows into whose space it went. */
static int ask_take(struct transfer_call *args, const struct port *port, uint8_t type) {
    struct call *call = &args->call;
    struct mac_op *op = &call->mac;
    struct mac_site whole = call->site;
    uint32_t real_sid = op->real_sid, sid = op->sid, task = op->task;
    call->site = (struct mac_site){.operation = PM_OP_TAKE, .peer_sid = args->from->space.sid, .flags = PM_AUDIT_RECEIVE};
    op->real_sid = op->sid = args->to->space.sid;
    op->task = args->to->space.id;
    int code = call_check_port(call, port, taking_of(type)->take, KERN_NO_ACCESS);
    op->real_sid = real_sid;
    op->sid = sid;
    op->task = task;
    call->site = whole;
    return code;
}

static int ask_transfer(struct transfer_call *args, struct entry *entry, const struct disposition *how) {
    struct call *call = &args->call;
    if (entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME) return 0;
    const struct port *port = entry->object;
    call->site.provenance = entry->provenance;
    int code = call_check_port(call, port, how->give, KERN_NO_ACCESS);
    if (code && code != CALL_MISS) return code;
    int take = ask_take(args, port, how->result);
    return take ? take : code;
}

/* May a right to port stand under this name of the taker's space? */
static int place_fault(struct transfer_call *args, const struct entry *given, const struct disposition *how,
                       struct entry **place) {
    struct space *space = &args->to->space;
    struct port *port = given->object;
    bool once = how->result == MACH_MSG_TYPE_PORT_SEND_ONCE;
    struct entry *known = once || !port ? NULL : space_find(space, port), *named = NULL;
    *place = known;
    if (!args->to_name) return 0;
    if (!name_valid(args->to_name) || (args->to_name & GENERATION_FIRST) != GENERATION_FIRST) return KERN_INVALID_VALUE;
    named = space_lookup(&args->call.kernel->ipc, space, args->to_name);
    if (known && known != named) return KERN_RIGHT_EXISTS;
    if (named && named != known) return KERN_NAME_EXISTS;
    return 0;
}

/* A reference that moves within one space makes its own room. */
static int urefs_fault(const struct transfer_call *args, const struct entry *place, const struct disposition *how) {
    bool own = how->takes && args->from == args->to;
    bool full = place && how->result == MACH_MSG_TYPE_PORT_SEND && entry_type(place) & MACH_PORT_TYPE_SEND &&
                place->urefs == MACH_PORT_UREFS_MAX && !own;
    return full ? KERN_UREFS_OVERFLOW : 0;
}

/* The entry the right will stand under: taken now, because the point of no return is next. */
static int place_reserve(struct transfer_call *args, struct entry **place) {
    struct space *space = &args->to->space;
    struct ipc *ipc = call_ipc(&args->call);
    if (*place) return 0;
    if (args->to_name) return space_take_named(space, ipc, args->to_name, place);
    return space_reserve(space, ipc, 1);
}

static void trace_transfer(struct transfer_call *args, struct port *port, const struct disposition *how) {
    struct pm_kernel *kernel = args->call.kernel;
    if (!kernel->trace.on) return;
    trace_event(kernel, &args->from->space, NULL, port, how->event);
    trace_event(kernel, &args->to->space, NULL, port, taking_of(how->result)->event);
}

static int move_right(struct transfer_call *args, const struct disposition *how, struct entry *place, bool known) {
    struct call *call = &args->call;
    struct ipc *ipc = call_ipc(call);
    struct space *from = &args->from->space, *to = &args->to->space;
    bool dropped = false;
    call->transfer = ++ipc->transfers;
    struct entry *entry = space_lookup(ipc, from, args->from_name);
    if (!(entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME)) trace_transfer(args, entry->object, how);
    struct port *port = right_give(ipc, from, entry, how, &call->after);
    uint64_t id = port->rest->id;
    /* Moving the last of a name onto itself freed the name it is to stand under: that name is there to be taken again. */
    if (place && from == to && !entry_type(place) && known) {
        if (!args->to_name || space_take_named(to, ipc, args->to_name, &place)) place = NULL;
    }
    if (place) {
        right_place(ipc, to, place, port, how->result, call->transfer);
        args->result = entry_name(to, place);
    } else {
        args->result = right_take(ipc, to, port, how->result, call->transfer, &call->after, &dropped);
    }
    if (pm_unlikely(call->mac.records_used)) mac_took(&call->mac, id, taking_of(how->result)->take, call->transfer, args->result);
    return 0;
}

static int give_dead(struct transfer_call *args, struct entry *entry, const struct disposition *how) {
    if (args->to_name) return KERN_INVALID_CAPABILITY;
    right_give(call_ipc(&args->call), &args->from->space, entry, how, &args->call.after);
    args->result = MACH_PORT_DEAD;
    return 0;
}

static int attempt_transfer(struct call *call) {
    struct transfer_call *args = (struct transfer_call *)call;
    const struct disposition *how = disposition_of(args->disposition);
    struct ipc *ipc = call_ipc(call);
    struct entry *place;
    if (!args->from->space.alive || !args->to->space.alive) return KERN_INVALID_TASK;
    struct entry *entry = space_lookup(ipc, &args->from->space, args->from_name);
    if (!entry) return KERN_INVALID_NAME;
    if (!right_can_give(entry, how)) return KERN_INVALID_RIGHT;
    int code = ask_transfer(args, entry, how);
    if (code && code != CALL_MISS) return code;
    if (entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME) {
        if (!code) code = call_ready(call);
        return code ? code : give_dead(args, entry, how);
    }
    int placed = place_fault(args, entry, how, &place);
    if (!placed) placed = urefs_fault(args, place, how);
    if (placed) return code ? code : placed;
    code = call_ready(call);
    if (!code && how->give == PM_MACH_PORT__make_send_once && !pool_reserve(&ipc->kmsgs, 1)) code = KERN_RESOURCE_SHORTAGE;
    if (code) return code;
    bool known = place != NULL;
    code = place_reserve(args, &place);
    if (!code) return move_right(args, how, place, known);
    if (how->give == PM_MACH_PORT__make_send_once) pool_unreserve(&ipc->kmsgs, 1);
    return code;
}

static int attempt_cross(struct call *call) {
    int code = call_enter(call, call->site.operation == PM_OP_INSERT_RIGHT ? INSERT : EXTRACT);
    if (code && code != CALL_MISS) return code;
    int rest = attempt_transfer(call);
    return code ? code : rest;
}

int pm_port_insert_right(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t poly,
                         uint32_t disposition) {
    struct transfer_call args = {.from = caller, .to = task, .from_name = poly, .to_name = name,
                                 .disposition = disposition};
    if (!name_valid(name) || !disposition_of(disposition))
        return call_fail(caller, task, PM_OP_INSERT_RIGHT, name, KERN_INVALID_VALUE);
    if (!name_valid(poly)) return call_fail(caller, task, PM_OP_INSERT_RIGHT, name, KERN_INVALID_CAPABILITY);
    int code = call_init(&args.call, caller, task, PM_OP_INSERT_RIGHT, name);
    return code ? code : call_run(&args.call, attempt_cross);
}

int64_t pm_port_extract_right(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t disposition,
                              uint32_t *type) {
    struct transfer_call args = {.from = task, .to = caller, .from_name = name, .disposition = disposition};
    const struct disposition *how = disposition_of(disposition);
    if (!how) return -(int64_t)call_fail(caller, task, PM_OP_EXTRACT_RIGHT, name, KERN_INVALID_VALUE);
    if (!name_valid(name)) return -(int64_t)call_fail(caller, task, PM_OP_EXTRACT_RIGHT, name, KERN_INVALID_RIGHT);
    int code = call_init(&args.call, caller, task, PM_OP_EXTRACT_RIGHT, name);
    if (!code) code = call_run(&args.call, attempt_cross);
    if (code) return -(int64_t)code;
    if (type) *type = how->result;
    return args.result;
}

int64_t pm_port_transfer(struct pm_task *from, uint32_t name, uint32_t disposition, struct pm_task *to) {
    struct transfer_call args = {.from = from, .to = to, .from_name = name, .disposition = disposition};
    if (!disposition_of(disposition)) return -(int64_t)call_fail(from, to, PM_OP_GIVE, name, KERN_INVALID_VALUE);
    if (!name_valid(name)) return -(int64_t)call_fail(from, to, PM_OP_GIVE, name, KERN_INVALID_NAME);
    int code = call_init(&args.call, from, to, PM_OP_GIVE, name);
    if (!code) code = call_run(&args.call, attempt_transfer);
    return code ? -(int64_t)code : (int64_t)args.result;
}

#undef INSERT
#undef EXTRACT
